//! Tracks and the codec parameters their frames are encoded with.
//!
//! Parameters are built from what the standards call decoder configuration (`avcC`, `hvcC`, `av1C`,
//! `AudioSpecificConfig`), which every source can give, and carry what sinks ask for: dimensions,
//! rates, the RFC 6381 codec string and how far the encoder reorders frames.

use super::bits::{BitReader, unescape};
use super::codec::{AudioCodec, Codec, DataCodec, VideoCodec};
use bytes::Bytes;
use h264_reader::nal::sps::{PicOrderCntType, ProfileIdc, SeqParameterSet};
use h264_reader::rbsp::BitReader as H264BitReader;
use std::fmt::Write as _;
use std::sync::Arc;

/// Number of a track within its stream, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u32);

/// What a track carries, in the order in which sources announce their tracks: sinks take the first as the main one.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Timed metadata.
    Data,
}

/// One elementary stream within a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Its number.
    pub id: TrackId,
    /// Its codec parameters at the moment; frames carry their own.
    pub parameters: Arc<CodecParameters>,
}

/// How the frames of a track are encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecParameters {
    /// Video.
    Video(VideoParameters),
    /// Audio.
    Audio(AudioParameters),
    /// Timed metadata.
    Data(DataParameters),
}

/// Parameters of a video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoParameters {
    /// The codec.
    pub codec: VideoCodec,
    /// Width of the cropped picture in pixels.
    pub width: u32,
    /// Height of the cropped picture in pixels.
    pub height: u32,
    /// Frames per second as a fraction, if the stream states it.
    pub frame_rate: Option<(u32, u32)>,
    /// Body of the `avcC`, `hvcC`, `av1C` or `vpcC` box; empty for codecs that have none.
    pub extra_data: Bytes,
    /// How many frames may precede a frame in decoding order and follow it in output order
    /// (`max_num_reorder_frames`), if the stream states it.
    pub max_reorder_frames: Option<u32>,
}

/// Parameters of an audio track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioParameters {
    /// The codec.
    pub codec: AudioCodec,
    /// Samples per second.
    pub sample_rate: u32,
    /// Number of channels.
    pub channels: u16,
    /// `AudioSpecificConfig` for AAC; `OpusHead` for Opus if known; else empty.
    pub extra_data: Bytes,
}

/// Parameters of a metadata track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataParameters {
    /// The codec.
    pub codec: DataCodec,
}

/// Decoder configuration that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// The configuration ended early or lacks what it must have.
    #[error("{codec} decoder configuration of {bytes} bytes: {problem}")]
    Malformed {
        /// The codec.
        codec: Codec,
        /// How long the configuration is.
        bytes: usize,
        /// What is wrong.
        problem: String,
    },
}

fn malformed(codec: Codec, data: &[u8], problem: impl Into<String>) -> ParametersError {
    ParametersError::Malformed { codec, bytes: data.len(), problem: problem.into() }
}

impl CodecParameters {
    /// The codec.
    pub fn codec(&self) -> Codec {
        match self {
            Self::Video(p) => Codec::Video(p.codec),
            Self::Audio(p) => Codec::Audio(p.codec),
            Self::Data(p) => Codec::Data(p.codec),
        }
    }

    /// Video, audio or data.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Video(_) => MediaKind::Video,
            Self::Audio(_) => MediaKind::Audio,
            Self::Data(_) => MediaKind::Data,
        }
    }

    /// The video parameters, if it is video.
    pub fn video(&self) -> Option<&VideoParameters> {
        if let Self::Video(p) = self { Some(p) } else { None }
    }

    /// The audio parameters, if it is audio.
    pub fn audio(&self) -> Option<&AudioParameters> {
        if let Self::Audio(p) = self { Some(p) } else { None }
    }

    /// Ticks per second of the clock that timestamps of this codec are exact in: 90 kHz for video
    /// (RFC 6184 and its kin), the sample rate for audio.
    pub fn clock_rate(&self) -> u32 {
        match self {
            Self::Audio(p) => p.sample_rate.max(1),
            _ => 90_000,
        }
    }

    /// How long a frame of so many bytes usually is, in ticks of [`clock_rate`](Self::clock_rate), while nothing better is known.
    pub(crate) fn usual_ticks(&self, bytes: usize) -> u32 {
        let rate = self.clock_rate();
        match self {
            Self::Video(v) => {
                let (num, den) = v.frame_rate.unwrap_or((25, 1));
                u32::try_from(u64::from(rate) * u64::from(den) / u64::from(num.max(1))).unwrap_or(3600)
            }
            Self::Audio(a) => a.samples_per_frame(bytes).unwrap_or(rate / 50),
            Self::Data(_) => 0,
        }
    }

    /// The `codecs` value of RFC 6381 (and the codecs' ISO base media bindings), for example
    /// `avc1.4D401E`. `None` where none is registered.
    pub fn rfc6381(&self) -> Option<String> {
        match self {
            Self::Video(p) => p.rfc6381(),
            Self::Audio(p) => match p.codec {
                AudioCodec::Aac => Some(format!("mp4a.40.{}", aac_object_type(&p.extra_data)?)),
                AudioCodec::Opus => Some("opus".into()),
                AudioCodec::Mp3 => Some("mp4a.6B".into()),
                AudioCodec::Ac3 => Some("ac-3".into()),
                AudioCodec::Pcma => Some("alaw".into()),
                AudioCodec::Pcmu => Some("ulaw".into()),
                AudioCodec::L16 => Some("twos".into()),
            },
            Self::Data(_) => None,
        }
    }
}

impl VideoParameters {
    /// Parameters of a codec that needs no decoder configuration (VP8, VP9, MJPEG).
    pub fn new(codec: VideoCodec, width: u32, height: u32) -> Self {
        Self { codec, width, height, frame_rate: None, extra_data: Bytes::new(), max_reorder_frames: Some(0) }
    }

    /// From the body of an `avcC` box (ISO/IEC 14496-15 section 5.3.3.1).
    ///
    /// # Errors
    /// If it is no valid `avcC` or holds no usable SPS.
    pub fn h264(avcc: Bytes) -> Result<Self, ParametersError> {
        let codec = Codec::Video(VideoCodec::H264);
        let fail = |problem: &str| malformed(codec, &avcc, problem);
        let sps = first_avcc_sps(&avcc).ok_or_else(|| fail("no SPS in it"))?;
        let rbsp =
            h264_reader::rbsp::decode_nal(sps).map_err(|e| malformed(codec, &avcc, format!("SPS: {e}")))?;
        let sps = SeqParameterSet::from_bits(H264BitReader::new(&*rbsp))
            .map_err(|e| malformed(codec, &avcc, format!("SPS: {e:?}")))?;
        let (width, height) =
            sps.pixel_dimensions().map_err(|e| malformed(codec, &avcc, format!("SPS dimensions: {e:?}")))?;
        let vui = sps.vui_parameters.as_ref();
        let frame_rate = vui
            .and_then(|v| v.timing_info.as_ref())
            // A frame takes two ticks, ITU-T H.264 section E.2.1.
            .and_then(|t| Some((t.time_scale, t.num_units_in_tick.checked_mul(2)?)))
            .filter(|(num, den)| *num > 0 && *den > 0);
        let max_reorder_frames = vui
            .and_then(|v| v.bitstream_restrictions.as_ref())
            .map(|r| r.max_num_reorder_frames)
            .or_else(|| cannot_reorder(&sps).then_some(0));
        Ok(Self { codec: VideoCodec::H264, width, height, frame_rate, extra_data: avcc, max_reorder_frames })
    }

    /// From the body of an `hvcC` box (ISO/IEC 14496-15 section 8.3.3.1).
    ///
    /// # Errors
    /// If it is no valid `hvcC` or holds no usable SPS.
    pub fn h265(hvcc: Bytes) -> Result<Self, ParametersError> {
        let codec = Codec::Video(VideoCodec::H265);
        let sps = first_hvcc_sps(&hvcc).ok_or_else(|| malformed(codec, &hvcc, "no SPS in it"))?;
        let sps = parse_h265_sps(sps).ok_or_else(|| malformed(codec, &hvcc, "SPS ends early"))?;
        if sps.width == 0 || sps.height == 0 {
            return Err(malformed(codec, &hvcc, "SPS says a picture without size"));
        }
        Ok(Self {
            codec: VideoCodec::H265,
            width: sps.width,
            height: sps.height,
            frame_rate: None,
            extra_data: hvcc,
            max_reorder_frames: Some(sps.max_num_reorder_pics),
        })
    }

    /// From a temporal unit that begins a coded video sequence, as AV1 sources without stated decoder
    /// configuration have it (AV1 specification section 5.5, AV1 in ISOBMFF section 2.3). `bit_depth` is 8, 10 or
    /// 12; chroma is taken to be 4:2:0, as everywhere but in studios.
    ///
    /// # Errors
    /// If there is no sequence header in it.
    pub fn av1(
        temporal_unit: &[u8],
        width: u32,
        height: u32,
        bit_depth: u32,
    ) -> Result<Self, ParametersError> {
        let codec = Codec::Video(VideoCodec::Av1);
        let (obu, payload) = av1_sequence_header(temporal_unit)
            .ok_or_else(|| malformed(codec, temporal_unit, "no sequence header in it"))?;
        let (profile, level, tier) = av1_level(payload)
            .ok_or_else(|| malformed(codec, temporal_unit, "sequence header ends early"))?;
        let depth = u8::from(bit_depth > 8) << 6 | u8::from(bit_depth > 10) << 5;
        let mut extra = vec![0x81, profile << 5 | level, tier << 7 | depth | 0b1100, 0];
        extra.extend_from_slice(obu);
        Ok(Self { extra_data: extra.into(), ..Self::new(VideoCodec::Av1, width, height) })
    }

    /// The same with another frame rate, as a fraction in frames per second.
    #[must_use]
    pub fn with_frame_rate(mut self, frame_rate: Option<(u32, u32)>) -> Self {
        self.frame_rate = frame_rate.filter(|(num, den)| *num > 0 && *den > 0).or(self.frame_rate);
        self
    }

    fn rfc6381(&self) -> Option<String> {
        let x = &self.extra_data;
        match self.codec {
            VideoCodec::H264 => Some(format!("avc1.{:02X}{:02X}{:02X}", x.get(1)?, x.get(2)?, x.get(3)?)),
            VideoCodec::H265 => h265_codec_string(x),
            VideoCodec::Av1 => {
                let (profile_level, flags) = (*x.get(1)?, *x.get(2)?);
                let tier = if flags & 0x80 != 0 { 'H' } else { 'M' };
                let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
                    (true, true) => 12,
                    (true, false) => 10,
                    _ => 8,
                };
                Some(format!("av01.{}.{:02}{tier}.{depth:02}", profile_level >> 5, profile_level & 31))
            }
            VideoCodec::Vp8 => Some("vp8".into()),
            VideoCodec::Vp9 => Some("vp09.00.10.08".into()),
            VideoCodec::Mjpeg => Some("mp4v.6C".into()),
        }
    }
}

impl AudioParameters {
    /// From an `AudioSpecificConfig` (ISO/IEC 14496-3 section 1.6.2.1).
    ///
    /// # Errors
    /// If it ends early or states no usable rate.
    pub fn aac(config: Bytes) -> Result<Self, ParametersError> {
        let codec = Codec::Audio(AudioCodec::Aac);
        let (sample_rate, channels) = parse_audio_specific_config(&config)
            .ok_or_else(|| malformed(codec, &config, "no sampling frequency or channels in it"))?;
        Ok(Self { codec: AudioCodec::Aac, sample_rate, channels, extra_data: config })
    }

    /// Parameters of a codec that needs no configuration.
    pub fn new(codec: AudioCodec, sample_rate: u32, channels: u16) -> Self {
        Self { codec, sample_rate, channels, extra_data: Bytes::new() }
    }

    /// How many samples a frame of `bytes` bytes holds, where that follows from the codec.
    pub fn samples_per_frame(&self, bytes: usize) -> Option<u32> {
        let channels = usize::from(self.channels.max(1));
        match self.codec {
            AudioCodec::Aac => Some(1024),
            AudioCodec::Mp3 => Some(if self.sample_rate < 32_000 { 576 } else { 1152 }),
            AudioCodec::Ac3 => Some(1536),
            AudioCodec::Pcma | AudioCodec::Pcmu => u32::try_from(bytes / channels).ok(),
            AudioCodec::L16 => u32::try_from(bytes / channels / 2).ok(),
            AudioCodec::Opus => None,
        }
    }
}

/// Whether an SPS without stated limits rules B frames out all the same: Baseline has no B slices (ITU-T H.264
/// section A.2.1), picture order count type 2 forbids reordering (section 8.2.1.3), and one reference
/// frame is not enough.
fn cannot_reorder(sps: &SeqParameterSet) -> bool {
    sps.profile_idc == ProfileIdc::from(66)
        || matches!(sps.pic_order_cnt, PicOrderCntType::TypeTwo)
        || sps.max_num_ref_frames <= 1
}

fn first_avcc_sps(avcc: &[u8]) -> Option<&[u8]> {
    if *avcc.first()? != 1 || avcc.get(5)? & 0x1f == 0 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*avcc.get(6)?, *avcc.get(7)?]));
    avcc.get(8..8 + length).filter(|sps| sps.len() >= 4)
}

fn first_hvcc_sps(hvcc: &[u8]) -> Option<&[u8]> {
    const SPS: u8 = 33;
    let mut position = 23;
    for _ in 0..*hvcc.get(22)? {
        let nal_type = hvcc.get(position)? & 0x3f;
        let count = u16::from_be_bytes([*hvcc.get(position + 1)?, *hvcc.get(position + 2)?]);
        position += 3;
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes([*hvcc.get(position)?, *hvcc.get(position + 1)?]));
            let nal = hvcc.get(position + 2..position + 2 + length)?;
            if nal_type == SPS {
                return Some(nal);
            }
            position += 2 + length;
        }
    }
    None
}

/// The sequence header OBU of a temporal unit, whole and its payload alone (AV1 specification section 5.3).
fn av1_sequence_header(mut data: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE_HEADER: u8 = 1;
    loop {
        let header = *data.first()?;
        let mut at = if header & 4 != 0 { 2 } else { 1 };
        let mut size = 0usize;
        // Without a size the OBU reaches to the end.
        if header & 2 == 0 {
            size = data.len().checked_sub(at)?;
        } else {
            for shift in (0..56).step_by(7) {
                let byte = *data.get(at)?;
                at += 1;
                size |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let end = at.checked_add(size)?;
        let payload = data.get(at..end)?;
        if header >> 3 & 15 == SEQUENCE_HEADER {
            return Some((&data[..end], payload));
        }
        data = &data[end..];
    }
}

/// Profile, level and tier from a sequence header (AV1 specification section 5.5.1). Where timing information
/// comes first, the highest level is stated.
fn av1_level(payload: &[u8]) -> Option<(u8, u8, u8)> {
    let mut r = BitReader::new(payload);
    let profile = r.bits(3)? as u8;
    r.skip(1)?; // still_picture
    if r.bit()? {
        return Some((profile, r.bits(5)? as u8, 0));
    }
    if r.bit()? {
        return Some((profile, 31, 0));
    }
    r.skip(1 + 5 + 12)?; // display delay flag, number of operating points, first one's mask
    let level = r.bits(5)? as u8;
    let tier = if level > 7 { u8::from(r.bit()?) } else { 0 };
    Some((profile, level, tier))
}

struct H265Sps {
    width: u32,
    height: u32,
    max_num_reorder_pics: u32,
}

/// The head of an H.265 SPS up to the reordering limits, ITU-T H.265 section 7.3.2.2.1.
fn parse_h265_sps(nal: &[u8]) -> Option<H265Sps> {
    let rbsp = unescape(nal.get(2..)?);
    let mut r = BitReader::new(&rbsp);
    r.skip(4)?; // sps_video_parameter_set_id
    let max_sub_layers = r.bits(3)? as usize + 1;
    r.skip(1)?; // sps_temporal_id_nesting_flag
    r.skip(96)?; // general profile, tier and level, section 7.3.3
    let mut present = Vec::new();
    for _ in 1..max_sub_layers {
        present.push((r.bit()?, r.bit()?));
    }
    if max_sub_layers > 1 {
        r.skip(2 * (9 - max_sub_layers))?; // reserved_zero_2bits up to eight sub-layers
    }
    for (profile, level) in present {
        r.skip(usize::from(profile) * 88 + usize::from(level) * 8)?;
    }
    r.ue()?; // sps_seq_parameter_set_id
    let chroma_format_idc = r.ue()?;
    if chroma_format_idc == 3 {
        r.skip(1)?;
    }
    let (mut width, mut height) = (r.ue()?, r.ue()?);
    if r.bit()? {
        let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
        let (sub_width, sub_height) = match chroma_format_idc {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        width = width.saturating_sub(left.saturating_add(right).saturating_mul(sub_width));
        height = height.saturating_sub(top.saturating_add(bottom).saturating_mul(sub_height));
    }
    r.ue()?; // bit_depth_luma_minus8
    r.ue()?; // bit_depth_chroma_minus8
    r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
    let all_layers = r.bit()?;
    let mut max_num_reorder_pics = 0;
    for _ in 0..if all_layers { max_sub_layers } else { 1 } {
        r.ue()?;
        max_num_reorder_pics = r.ue()?;
        r.ue()?;
    }
    Some(H265Sps { width, height, max_num_reorder_pics: max_num_reorder_pics.min(16) })
}

/// ISO/IEC 14496-15 annex E.3.
fn h265_codec_string(hvcc: &[u8]) -> Option<String> {
    let head = hvcc.get(..13)?;
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let tier = if head[1] & 0x20 != 0 { 'H' } else { 'L' };
    let compatibility = u32::from_be_bytes([head[2], head[3], head[4], head[5]]).reverse_bits();
    let mut text = format!("hvc1.{space}{}.{compatibility:X}.{tier}{}", head[1] & 31, head[12]);
    let constraints = &head[6..12];
    let used = constraints.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        write!(text, ".{byte:X}").ok()?;
    }
    Some(text)
}

fn aac_object_type(config: &[u8]) -> Option<u32> {
    object_type(&mut BitReader::new(config))
}

fn object_type(r: &mut BitReader<'_>) -> Option<u32> {
    match r.bits(5)? {
        31 => Some(32 + r.bits(6)?),
        value => Some(value),
    }
}

fn parse_audio_specific_config(config: &[u8]) -> Option<(u32, u16)> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let mut r = BitReader::new(config);
    object_type(&mut r)?;
    let rate = match r.bits(4)? {
        15 => r.bits(24)?,
        index => *RATES.get(index as usize)?,
    };
    let channels = match r.bits(4)? {
        7 => 8,
        count => count as u16,
    };
    (rate > 0).then_some((rate, channels.max(1)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `avcC` that x264 wrote for 640x360 at 25 fps, High profile, two B frames.
    pub(crate) const AVCC: &[u8] = &[
        0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f,
        0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2d, 0x96,
        0x01, 0x00, 0x06, 0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
    ];

    #[test]
    fn h264_from_avcc() {
        let p = VideoParameters::h264(Bytes::from_static(AVCC)).unwrap();
        assert_eq!((p.width, p.height), (640, 360));
        assert_eq!(p.frame_rate.map(|(n, d)| n / d), Some(25));
        assert_eq!(p.max_reorder_frames, Some(2));
        assert_eq!(CodecParameters::Video(p).rfc6381().as_deref(), Some("avc1.64001E"));
    }

    #[test]
    fn bad_avcc_says_what_is_wrong() {
        let error = VideoParameters::h264(Bytes::from_static(&AVCC[..7])).unwrap_err().to_string();
        assert_eq!(error, "h264 decoder configuration of 7 bytes: no SPS in it");
    }

    #[test]
    fn av1_from_a_temporal_unit() {
        // Temporal delimiter, then a sequence header of Main profile, level 2.0, as libaom writes it.
        let unit =
            [0x12, 0x00, 0x0a, 0x0a, 0x00, 0x00, 0x00, 0x02, 0xaf, 0xff, 0x9b, 0x5f, 0x20, 0x08, 0x32, 0x00];
        let p = VideoParameters::av1(&unit, 320, 240, 8).unwrap();
        assert_eq!(p.extra_data[..4], [0x81, 0x00, 0x0c, 0x00]);
        assert_eq!(p.extra_data[4..], unit[2..14]);
        assert_eq!(CodecParameters::Video(p).rfc6381().as_deref(), Some("av01.0.00M.08"));
        assert!(VideoParameters::av1(&unit[..2], 320, 240, 8).is_err());
    }

    #[test]
    fn aac_from_config() {
        let p = AudioParameters::aac(Bytes::from_static(&[0x11, 0x90])).unwrap();
        assert_eq!((p.sample_rate, p.channels), (48_000, 2));
        assert_eq!(CodecParameters::Audio(p).rfc6381().as_deref(), Some("mp4a.40.2"));
    }

    #[test]
    fn h265_string_follows_annex_e() {
        // Main profile, level 3.1, progressive: the standard's own example.
        let mut hvcc = vec![1, 0x01, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93];
        hvcc.resize(23, 0);
        assert_eq!(h265_codec_string(&hvcc).as_deref(), Some("hvc1.1.6.L93.B0"));
    }

    proptest! {
        #[test]
        fn no_configuration_panics(data in prop::collection::vec(any::<u8>(), 0..120)) {
            let data = Bytes::from(data);
            let _ = VideoParameters::h264(data.clone()).map(|p| CodecParameters::Video(p).rfc6381());
            let _ = VideoParameters::h265(data.clone()).map(|p| CodecParameters::Video(p).rfc6381());
            let _ = VideoParameters::av1(&data, 2, 2, 8).map(|p| CodecParameters::Video(p).rfc6381());
            let _ = AudioParameters::aac(data.clone()).map(|p| CodecParameters::Audio(p).rfc6381());
            let mut av1 = VideoParameters::new(VideoCodec::Av1, 2, 2);
            av1.extra_data = data;
            let _ = CodecParameters::Video(av1).rfc6381();
        }
    }
}
