//! `[[streams.transcode]]`: a stream in another size, codec or bit rate, as a stream of its own.

use crate::frame::VideoCodec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

    /// What is wrong with it, and what would be right.
    pub(super) fn check(&self) -> Result<(), String> {
        let range = |key: &str, value: Option<u32>, least: u32, most: u32| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(format!("{key} is {value}; expected {least} to {most}"))
            }
            _ => Ok(()),
        };
        range("height", self.height, 64, 4320)?;
        range("fps", self.fps, 1, 240)?;
        range("bitrate_kbps", self.bitrate_kbps, 50, 100_000)
    }
}
