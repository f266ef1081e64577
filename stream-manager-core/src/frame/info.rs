//! A track as people and programs are shown it.

use super::{CodecParameters, MediaKind};

/// One track as the API shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct TrackInfo {
    /// Video, audio or data.
    pub kind: MediaKind,
    /// The codec's short name.
    pub codec: &'static str,
    /// RFC 6381 codec string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rfc6381: Option<String>,
    /// Width in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames per second that the stream states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
    /// Samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u16>,
}

impl TrackInfo {
    /// Describes codec parameters.
    pub fn of(parameters: &CodecParameters) -> Self {
        let (video, audio) = (parameters.video(), parameters.audio());
        Self {
            kind: parameters.kind(),
            codec: parameters.codec().name(),
            rfc6381: parameters.rfc6381(),
            width: video.map(|v| v.width),
            height: video.map(|v| v.height),
            frame_rate: video.and_then(|v| v.frame_rate).map(|(n, d)| f64::from(n) / f64::from(d)),
            sample_rate: audio.map(|a| a.sample_rate),
            channels: audio.map(|a| a.channels),
        }
    }
}
