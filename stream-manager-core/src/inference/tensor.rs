//! Numbers in rows, and what a model says of them.

use std::collections::BTreeMap;
use std::fmt;

/// What a tensor is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point; backends turn it from and into [`Self::F32`].
    F16,
    /// Bytes.
    U8,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// Something that no layout knows.
    Other,
}

impl ElementType {
    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Other => "other",
        }
    }
}

/// An input or output as the model describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub element: ElementType,
    /// Its size in each direction; `None` where the model leaves it open.
    pub shape: Vec<Option<usize>>,
}

impl TensorInfo {
    /// A tensor of 32-bit floating point; 0 for what is left open.
    pub fn f32(name: impl Into<String>, shape: &[usize]) -> Self {
        let shape = shape.iter().map(|&size| (size > 0).then_some(size)).collect();
        Self { name: name.into(), element: ElementType::F32, shape }
    }
}

impl fmt::Display for TensorInfo {
    /// As in `f32[?,3,416,416]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> =
            self.shape.iter().map(|size| size.map_or_else(|| "?".into(), |size| size.to_string())).collect();
        write!(f, "{}[{}]", self.element.name(), sizes.join(","))
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelIo {
    /// Its inputs.
    pub inputs: Vec<TensorInfo>,
    /// Its outputs.
    pub outputs: Vec<TensorInfo>,
    /// What its file says about it beside that.
    pub metadata: BTreeMap<String, String>,
}

/// The numbers of a tensor, the last direction first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TensorData {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// Bytes.
    U8(Vec<u8>),
    /// 64-bit integers.
    I64(Vec<i64>),
}

/// Numbers in rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its size in each direction.
    pub shape: Vec<usize>,
    /// Its numbers, as many as the sizes' product.
    pub data: TensorData,
}

impl Tensor {
    /// A tensor of 32-bit floating point.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self { shape: shape.into(), data: TensorData::F32(data) }
    }

    /// Its numbers as 32-bit floating point; empty if it is made of something else.
    pub fn as_f32(&self) -> &[f32] {
        match &self.data {
            TensorData::F32(data) => data,
            _ => &[],
        }
    }

    /// Its `index`-th number, whatever it is made of; 0 if there is none.
    pub fn number(&self, index: usize) -> f32 {
        match &self.data {
            TensorData::F32(data) => data.get(index).copied().unwrap_or(0.0),
            TensorData::U8(data) => data.get(index).copied().map_or(0.0, f32::from),
            TensorData::I64(data) => data.get(index).map_or(0.0, |v| *v as f32),
        }
    }

    /// Whether a number in it is none.
    pub fn has_nan(&self) -> bool {
        // Without a way out in between it goes many numbers at a time.
        self.as_f32().chunks(1024).any(|chunk| chunk.iter().fold(false, |nan, v| nan | v.is_nan()))
    }
}
