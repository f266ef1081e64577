//! `[[streams.transcode]]`: a stream in another size, codec or bit rate, as a stream of its own.

use super::StreamConfig;
use crate::frame::VideoCodec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Renditions of one stream.
const MAX_RENDITIONS: usize = 8;

/// `[[streams.transcode]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranscodeConfig {
    /// What it is called: it is the stream `<id>/<name>`.
    #[schemars(length(min = 1, max = 50), regex(pattern = r"^[A-Za-z0-9._~-]+$"))]
    pub name: String,
    /// The codec.
    #[serde(default)]
    pub codec: TranscodeCodec,
    /// Height of its picture in pixels; as it is if not set. It is never made larger than it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Pictures a second, at most; as many as there are if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<u32>,
    /// Kilobits a second of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate_kbps: Option<u32>,
}

/// A codec that pictures can be encoded in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TranscodeCodec {
    /// H.264.
    #[default]
    H264,
    /// H.265.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
}

impl From<TranscodeCodec> for VideoCodec {
    fn from(codec: TranscodeCodec) -> Self {
        match codec {
            TranscodeCodec::H264 => Self::H264,
            TranscodeCodec::H265 => Self::H265,
            TranscodeCodec::Vp8 => Self::Vp8,
            TranscodeCodec::Vp9 => Self::Vp9,
        }
    }
}

impl TranscodeConfig {
    /// The id of the stream that it makes of the stream with this id.
    pub fn id(&self, of: &str) -> String {
        format!("{of}/{}", self.name)
    }
}

impl StreamConfig {
    /// The ids of the streams that are made of this one.
    pub fn derived_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.transcode.iter().map(|rendition| rendition.id(&self.id))
    }
}

/// What is wrong with a stream's renditions, and what would be right.
///
/// # Errors
/// Names the one.
pub fn check_renditions(id: &str, renditions: &[TranscodeConfig]) -> Result<(), String> {
    if renditions.len() > MAX_RENDITIONS {
        return Err(format!("there are {}; expected {MAX_RENDITIONS} at most", renditions.len()));
    }
    for (index, rendition) in renditions.iter().enumerate() {
        let name = &rendition.name;
        let wrong = |problem: String| Err(format!("number {}: {problem}", index + 1));
        if name.contains('/') || name.contains('*') {
            return wrong(format!("name is \"{name}\"; expected one part of an id, such as 720p"));
        }
        if let Err(error) = rendition.id(id).parse::<crate::manager::StreamId>() {
            return wrong(format!("name is \"{name}\": {error}"));
        }
        if renditions[..index].iter().any(|other| other.name == *name) {
            return wrong(format!("the name \"{name}\" is taken by an earlier one"));
        }
        let range = |key: &str, value: Option<u32>, least: u32, most: u32| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(format!("number {}: {key} is {value}; expected {least} to {most}", index + 1))
            }
            _ => Ok(()),
        };
        range("height", rendition.height, 64, 4320)?;
        range("fps", rendition.fps, 1, 240)?;
        range("bitrate_kbps", rendition.bitrate_kbps, 50, 100_000)?;
    }
    Ok(())
}
