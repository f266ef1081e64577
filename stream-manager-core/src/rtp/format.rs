//! How codecs are named in session descriptions (SDP, RFC 8866), both ways.
//!
//! [`describe`] writes the description that a reader gets, [`parse`] reads the one that a publisher sends.

use crate::frame::{
    AudioCodec, AudioParameters, Codec, CodecParameters, DataCodec, DataParameters, Track, VideoCodec,
    VideoParameters,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use retina::codec::{ParametersRef, VideoParametersCodec};
use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};
use std::fmt::Write as _;

/// More tracks than anybody sends.
pub const MAX_TRACKS: usize = 16;

/// One track as a sender describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `video`, `audio` or `application`.
    pub media: String,
    /// The encoding's name in lower case, such as `h264`.
    pub encoding: String,
    /// The codec of that name.
    pub codec: Codec,
    /// The RTP payload type.
    pub payload_type: u8,
    /// Ticks per second of the timestamps.
    pub clock_rate: u32,
    /// Channels; 0 for anything but sound.
    pub channels: u16,
    /// The format's own parameters.
    pub fmtp: Option<String>,
    /// Where the track is set up: absolute, or behind the stream's own address.
    pub control: String,
}

impl Description {
    /// Samples per second, for sound.
    pub(super) fn sample_rate(&self) -> u32 {
        self.clock_rate
    }
}

/// A session description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// It is none.
    #[error("this is no session description (RFC 8866): {0}")]
    Malformed(String),
    /// There is nothing in it.
    #[error("the session description has no tracks; expected at least one m= line")]
    NoTracks,
    /// There is too much in it.
    #[error("the session description has {0} tracks; expected at most 16")]
    TooManyTracks(usize),
    /// A codec that is not known.
    #[error(
        "{media} codec \"{encoding}\" is not supported; expected one of h264, h265, av1, vp8, vp9, jpeg, mpeg4-generic, opus, pcma, pcmu, l16, mpa, ac3, smpte336m, vnd.onvif.metadata"
    )]
    UnknownCodec {
        /// `video`, `audio` or something else.
        media: String,
        /// The name of the encoding, or the payload type.
        encoding: String,
    },
    /// A value in it is out of range.
    #[error("{attribute} is \"{value}\"; expected {expected}")]
    Value {
        /// Where.
        attribute: &'static str,
        /// What it is.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// The payload type of a track with this number.
pub fn payload_type(track: usize, parameters: &CodecParameters) -> u8 {
    let audio = parameters.audio().map(|a| (a.codec, a.sample_rate, a.channels));
    match (parameters.codec(), audio) {
        (Codec::Video(VideoCodec::Mjpeg), _) => 26,
        (_, Some((AudioCodec::Pcmu, 8000, 1))) => 0,
        (_, Some((AudioCodec::Pcma, 8000, 1))) => 8,
        (_, Some((AudioCodec::L16, 44_100, 2))) => 10,
        (_, Some((AudioCodec::L16, 44_100, 1))) => 11,
        (_, Some((AudioCodec::Mp3, ..))) => 14,
        // Dynamic ones, RFC 3551 section 6.
        _ => 96 + (track % 32) as u8,
    }
}

/// Ticks per second of a track's RTP timestamps.
pub fn clock_rate(parameters: &CodecParameters) -> u32 {
    match parameters {
        CodecParameters::Audio(a) => match a.codec {
            // RFC 7587 section 4.1, RFC 3551 section 4.5.13.
            AudioCodec::Opus => 48_000,
            AudioCodec::Mp3 => 90_000,
            _ => a.sample_rate.max(1),
        },
        _ => 90_000,
    }
}

/// Name of the encoding and, for sound, what follows the clock rate.
fn encoding(parameters: &CodecParameters) -> (&'static str, Option<u16>) {
    match parameters {
        CodecParameters::Video(v) => (
            match v.codec {
                VideoCodec::H264 => "H264",
                VideoCodec::H265 => "H265",
                VideoCodec::Av1 => "AV1",
                VideoCodec::Vp8 => "VP8",
                VideoCodec::Vp9 => "VP9",
                VideoCodec::Mjpeg => "JPEG",
            },
            None,
        ),
        CodecParameters::Audio(a) => match a.codec {
            AudioCodec::Aac => ("mpeg4-generic", Some(a.channels)),
            // Always 2, RFC 7587 section 7.
            AudioCodec::Opus => ("opus", Some(2)),
            AudioCodec::Pcma => ("PCMA", Some(a.channels).filter(|c| *c != 1)),
            AudioCodec::Pcmu => ("PCMU", Some(a.channels).filter(|c| *c != 1)),
            AudioCodec::L16 => ("L16", Some(a.channels)),
            AudioCodec::Mp3 => ("MPA", None),
            AudioCodec::Ac3 => ("ac3", Some(a.channels)),
        },
        CodecParameters::Data(d) => match d.codec {
            DataCodec::Klv => ("SMPTE336M", None),
            DataCodec::Onvif => ("vnd.onvif.metadata", None),
        },
    }
}

/// The format's own parameters.
fn fmtp(parameters: &CodecParameters) -> Option<String> {
    let base64 = |sets: &[&[u8]]| sets.iter().map(|s| BASE64.encode(s)).collect::<Vec<_>>().join(",");
    match parameters {
        CodecParameters::Video(v) => match v.codec {
            VideoCodec::H264 => {
                let x = &v.extra_data;
                let sets = avcc_parameter_sets(x);
                let mut text = String::from("packetization-mode=1");
                if let Some([profile, flags, level]) = x.get(1..4) {
                    let _ = write!(text, ";profile-level-id={profile:02X}{flags:02X}{level:02X}");
                }
                if !sets.is_empty() {
                    let _ = write!(text, ";sprop-parameter-sets={}", base64(&sets));
                }
                Some(text)
            }
            VideoCodec::H265 => {
                let sets = hvcc_parameter_sets(&v.extra_data);
                let of = |kind: u8| -> Vec<&[u8]> {
                    sets.iter()
                        .copied()
                        .filter(|s| s.first().is_some_and(|h| h >> 1 & 0x3f == kind))
                        .collect()
                };
                let named = [("sprop-vps", 32), ("sprop-sps", 33), ("sprop-pps", 34)];
                let parts: Vec<String> = named
                    .iter()
                    .map(|(name, kind)| (name, of(*kind)))
                    .filter(|(_, sets)| !sets.is_empty())
                    .map(|(name, sets)| format!("{name}={}", base64(&sets)))
                    .collect();
                Some(parts.join(";")).filter(|t| !t.is_empty())
            }
            VideoCodec::Av1 => {
                let (profile, level) = (*v.extra_data.get(1)? >> 5, *v.extra_data.get(1)? & 31);
                let tier = *v.extra_data.get(2)? >> 7;
                Some(format!("profile={profile};level-idx={level};tier={tier}"))
            }
            VideoCodec::Vp9 => Some("profile-id=0".into()),
            VideoCodec::Vp8 | VideoCodec::Mjpeg => None,
        },
        CodecParameters::Audio(a) => match a.codec {
            AudioCodec::Aac => {
                let config = a.extra_data.iter().fold(String::new(), |mut text, byte| {
                    let _ = write!(text, "{byte:02X}");
                    text
                });
                Some(format!(
                    "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={config}"
                ))
            }
            AudioCodec::Opus => Some(format!("sprop-stereo={}", u8::from(a.channels == 2))),
            _ => None,
        },
        CodecParameters::Data(_) => None,
    }
}

/// The session description of a stream, RFC 8866. Tracks are set up at `trackID=0`, `trackID=1`, ….
///
/// `host` is the address it is served at, `name` the stream's.
pub fn describe(tracks: &[Track], host: std::net::IpAddr, name: &str) -> String {
    describe_at(tracks, host, name, |number| format!("trackID={number}"))
}

/// The same, with tracks that are set up elsewhere: at `control` of their number.
pub(crate) fn describe_at(
    tracks: &[Track],
    host: std::net::IpAddr,
    name: &str,
    control: impl Fn(usize) -> String,
) -> String {
    let kind = if host.is_ipv4() { "IP4" } else { "IP6" };
    let attribute = |attribute: &str, value: Option<String>| Attribute { attribute: attribute.into(), value };
    let medias = tracks
        .iter()
        .enumerate()
        .map(|(number, track)| {
            let parameters = &*track.parameters;
            let payload = payload_type(number, parameters);
            let (name, channels) = encoding(parameters);
            let mut map = format!("{payload} {name}/{}", clock_rate(parameters));
            if let Some(channels) = channels {
                let _ = write!(map, "/{channels}");
            }
            let mut attributes = vec![attribute("rtpmap", Some(map))];
            attributes
                .extend(fmtp(parameters).map(|text| attribute("fmtp", Some(format!("{payload} {text}")))));
            if let Some((num, den)) = parameters.video().and_then(|v| v.frame_rate) {
                let rate = f64::from(num) / f64::from(den.max(1));
                let text = format!("{rate:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
                attributes.push(attribute("framerate", Some(text)));
            }
            attributes.push(attribute("control", Some(control(number))));
            Media {
                media: match parameters.kind() {
                    crate::frame::MediaKind::Video => "video",
                    crate::frame::MediaKind::Audio => "audio",
                    crate::frame::MediaKind::Data => "application",
                }
                .into(),
                port: 0,
                num_ports: None,
                proto: "RTP/AVP".into(),
                fmt: payload.to_string(),
                media_title: None,
                connections: Vec::new(),
                bandwidths: Vec::new(),
                key: None,
                attributes,
            }
        })
        .collect();
    let any = if host.is_ipv4() { "0.0.0.0" } else { "::" };
    let session = Session {
        origin: Origin {
            username: None,
            sess_id: "0".into(),
            sess_version: 0,
            nettype: "IN".into(),
            addrtype: kind.into(),
            unicast_address: host.to_string(),
        },
        session_name: name.into(),
        session_description: None,
        uri: None,
        emails: Vec::new(),
        phones: Vec::new(),
        connection: Some(Connection {
            nettype: "IN".into(),
            addrtype: kind.into(),
            connection_address: any.into(),
        }),
        bandwidths: Vec::new(),
        times: vec![Time { start_time: 0, stop_time: 0, repeats: Vec::new() }],
        time_zones: Vec::new(),
        key: None,
        attributes: vec![attribute("control", Some("*".into()))],
        medias,
    };
    let mut text = Vec::new();
    // Writing into memory does not fail.
    let _ = session.write(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a publisher's session description.
///
/// # Errors
/// If it is none, has no tracks, or has one of a codec that is not known.
pub fn parse(sdp: &[u8]) -> Result<Vec<Description>, SdpError> {
    let session = super::read_sdp(sdp).map_err(SdpError::Malformed)?;
    if session.medias.is_empty() {
        return Err(SdpError::NoTracks);
    }
    if session.medias.len() > MAX_TRACKS {
        return Err(SdpError::TooManyTracks(session.medias.len()));
    }
    session.medias.iter().map(parse_media).collect()
}

/// What static payload types mean, RFC 3551 section 6.
fn static_type(payload_type: u8) -> Option<(&'static str, u32, u16)> {
    Some(match payload_type {
        0 => ("pcmu", 8000, 1),
        8 => ("pcma", 8000, 1),
        10 => ("l16", 44_100, 2),
        11 => ("l16", 44_100, 1),
        14 => ("mpa", 90_000, 2),
        26 => ("jpeg", 90_000, 0),
        _ => return None,
    })
}

fn parse_media(media: &Media) -> Result<Description, SdpError> {
    let format = media.fmt.split_whitespace().next().unwrap_or_default();
    let value =
        |attribute, value: &str, expected| SdpError::Value { attribute, value: shorten(value), expected };
    let payload_type: u8 = format
        .parse()
        .ok()
        .filter(|t| *t < 128)
        .ok_or_else(|| value("m= format", format, "a payload type from 0 to 127"))?;
    let of_type = |name: &str| {
        media
            .attributes
            .iter()
            .filter(|a| a.attribute == name)
            .filter_map(|a| a.value.as_deref()?.trim().split_once(char::is_whitespace))
            .find(|(number, _)| number.parse() == Ok(payload_type))
            .map(|(_, rest)| rest.trim())
    };
    let (encoding, clock_rate, channels) = match of_type("rtpmap") {
        Some(map) => {
            let mut parts = map.split('/');
            let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
            let rate = parts.next().unwrap_or_default().trim();
            let rate: u32 = rate
                .parse()
                .ok()
                .filter(|r| (1..=1_000_000).contains(r))
                .ok_or_else(|| value("a=rtpmap", map, "NAME/RATE with a rate from 1 to 1000000"))?;
            let channels = match parts.next().map(str::trim) {
                None | Some("") => 1,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|c| (1..=32).contains(c))
                    .ok_or_else(|| value("a=rtpmap", map, "NAME/RATE/CHANNELS with 1 to 32 channels"))?,
            };
            (name, rate, channels)
        }
        None => {
            let (name, rate, channels) = static_type(payload_type).ok_or_else(|| SdpError::UnknownCodec {
                media: shorten(&media.media),
                encoding: format!("payload type {payload_type} without a=rtpmap"),
            })?;
            (name.to_owned(), rate, channels)
        }
    };
    let codec = match (media.media.as_str(), encoding.as_str()) {
        ("video", "h264") => Codec::Video(VideoCodec::H264),
        ("video", "h265") => Codec::Video(VideoCodec::H265),
        ("video", "av1") => Codec::Video(VideoCodec::Av1),
        ("video", "vp8") => Codec::Video(VideoCodec::Vp8),
        ("video", "vp9") => Codec::Video(VideoCodec::Vp9),
        ("video" | "image", "jpeg") => Codec::Video(VideoCodec::Mjpeg),
        ("audio", "mpeg4-generic" | "mp4a-latm") => Codec::Audio(AudioCodec::Aac),
        ("audio", "opus") => Codec::Audio(AudioCodec::Opus),
        ("audio", "pcma") => Codec::Audio(AudioCodec::Pcma),
        ("audio", "pcmu") => Codec::Audio(AudioCodec::Pcmu),
        ("audio", "l16") => Codec::Audio(AudioCodec::L16),
        ("audio", "mpa") => Codec::Audio(AudioCodec::Mp3),
        ("audio", "ac3") => Codec::Audio(AudioCodec::Ac3),
        ("application" | "video", "smpte336m") => Codec::Data(DataCodec::Klv),
        ("application", "vnd.onvif.metadata") => Codec::Data(DataCodec::Onvif),
        _ => {
            return Err(SdpError::UnknownCodec {
                media: shorten(&media.media),
                encoding: shorten(&encoding),
            });
        }
    };
    let fmtp = of_type("fmtp").map(str::to_owned);
    let channels = match codec {
        // The rtpmap always says 2; what is really sent is in the parameters (RFC 7587 section 7).
        Codec::Audio(AudioCodec::Opus) => match fmtp.as_deref() {
            Some(text) if text.contains("sprop-stereo=0") => 1,
            _ => 2,
        },
        Codec::Audio(_) => channels,
        _ => 0,
    };
    let control = media
        .attributes
        .iter()
        .find(|a| a.attribute == "control")
        .and_then(|a| a.value.clone())
        .unwrap_or_default();
    Ok(Description {
        media: media.media.clone(),
        encoding,
        codec,
        payload_type,
        clock_rate,
        channels,
        fmtp,
        control,
    })
}

/// For error messages: what a stranger sent is not repeated at any length.
fn shorten(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The parameter sets of an `avcC` (ISO/IEC 14496-15 section 5.3.3.1), in its order.
pub(super) fn avcc_parameter_sets(avcc: &[u8]) -> Vec<&[u8]> {
    let mut sets = Vec::new();
    let mut at = 5;
    for mask in [0x1f, 0xff] {
        let Some(count) = avcc.get(at).map(|c| c & mask) else { break };
        at += 1;
        for _ in 0..count {
            let Some(set) = set_at(avcc, at) else { return sets };
            at += 2 + set.len();
            sets.push(set);
        }
    }
    sets
}

/// The parameter sets of an `hvcC` (ISO/IEC 14496-15 section 8.3.3.1), in its order.
pub(super) fn hvcc_parameter_sets(hvcc: &[u8]) -> Vec<&[u8]> {
    let mut sets = Vec::new();
    let mut at = 23;
    for _ in 0..hvcc.get(22).copied().unwrap_or(0) {
        let Some(count) = hvcc.get(at + 1..at + 3).map(|c| u16::from_be_bytes([c[0], c[1]])) else { break };
        at += 3;
        for _ in 0..count {
            let Some(set) = set_at(hvcc, at) else { return sets };
            at += 2 + set.len();
            // Anything else in there, SEI for example, is none.
            if set.first().is_some_and(|h| matches!(h >> 1 & 0x3f, 32..=34)) {
                sets.push(set);
            }
        }
    }
    sets
}

fn set_at(data: &[u8], at: usize) -> Option<&[u8]> {
    let length = data.get(at..at + 2)?;
    data.get(at + 2..at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// What retina knows of a track, in this library's words. `encoding` is the name in the description, `frame` the
/// frame that it was learnt from.
pub(crate) fn translate_retina(
    parameters: ParametersRef<'_>,
    encoding: &str,
    frame_rate: Option<(u32, u32)>,
    frame: Option<&[u8]>,
) -> Option<CodecParameters> {
    match parameters {
        ParametersRef::Video(video) => {
            let extra = Bytes::copy_from_slice(video.extra_data());
            let found = match video.codec_params() {
                VideoParametersCodec::H264 { .. } => VideoParameters::h264(extra),
                VideoParametersCodec::H265 { .. } => VideoParameters::h265(extra),
                VideoParametersCodec::Jpeg => {
                    // Known only once there has been a picture.
                    frame?;
                    let (width, height) = video.pixel_dimensions();
                    Ok(VideoParameters::new(VideoCodec::Mjpeg, width, height))
                }
                _ => return None,
            };
            match found {
                Ok(found) => Some(CodecParameters::Video(found.with_frame_rate(frame_rate))),
                Err(error) => {
                    tracing::warn!(%error, "a sender's parameter sets cannot be read");
                    None
                }
            }
        }
        ParametersRef::Audio(audio) => {
            let (rate, channels) = (audio.clock_rate(), audio.channels().get());
            let plain = |codec| Some(CodecParameters::Audio(AudioParameters::new(codec, rate, channels)));
            match encoding {
                "mpeg4-generic" => {
                    let config = Bytes::copy_from_slice(audio.extra_data());
                    AudioParameters::aac(config).ok().map(CodecParameters::Audio)
                }
                "pcma" => plain(AudioCodec::Pcma),
                "pcmu" => plain(AudioCodec::Pcmu),
                "l16" => plain(AudioCodec::L16),
                _ => None,
            }
        }
        ParametersRef::Message(_) => Some(CodecParameters::Data(DataParameters { codec: DataCodec::Onvif })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{AVCC, TrackId};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn tracks(all: Vec<CodecParameters>) -> Vec<Track> {
        (0..).zip(all).map(|(n, p)| Track { id: TrackId(n), parameters: Arc::new(p) }).collect()
    }

    #[test]
    fn a_camera_with_sound_is_described_as_players_expect() {
        let video = CodecParameters::Video(VideoParameters::h264(Bytes::from_static(AVCC)).unwrap());
        let aac = CodecParameters::Audio(AudioParameters::aac(Bytes::from_static(&[0x11, 0x90])).unwrap());
        let pcmu = CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcmu, 8000, 1));
        let sdp = describe(&tracks(vec![video, aac, pcmu]), "192.0.2.1".parse().unwrap(), "yard/door");
        let expected = "v=0\r\n\
            o=- 0 0 IN IP4 192.0.2.1\r\n\
            s=yard/door\r\n\
            c=IN IP4 0.0.0.0\r\n\
            t=0 0\r\n\
            a=control:*\r\n\
            m=video 0 RTP/AVP 96\r\n\
            a=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1;profile-level-id=64001E;\
            sprop-parameter-sets=Z2QAHqzZQKAv+XARAAADAAEAAAMAMg8WLZY=,aOvjyyLA\r\n\
            a=framerate:25\r\n\
            a=control:trackID=0\r\n\
            m=audio 0 RTP/AVP 97\r\n\
            a=rtpmap:97 mpeg4-generic/48000/2\r\n\
            a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;\
            indexdeltalength=3;config=1190\r\n\
            a=control:trackID=1\r\n\
            m=audio 0 RTP/AVP 0\r\n\
            a=rtpmap:0 PCMU/8000\r\n\
            a=control:trackID=2\r\n";
        assert_eq!(sdp, expected);
        let back = parse(sdp.as_bytes()).unwrap();
        let codecs: Vec<String> = back.iter().map(|d| format!("{} {}", d.codec, d.control)).collect();
        assert_eq!(codecs, ["h264 trackID=0", "aac trackID=1", "pcmu trackID=2"]);
    }

    #[test]
    fn static_payload_types_need_no_map() {
        let sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\nm=audio 0 RTP/AVP 8\r\nm=audio 0 RTP/AVP 10\r\n";
        let found = parse(sdp.as_bytes()).unwrap();
        let shown: Vec<(String, u32, u16)> =
            found.iter().map(|d| (d.codec.to_string(), d.clock_rate, d.channels)).collect();
        let expected = [("mjpeg", 90_000, 0), ("pcma", 8000, 1), ("l16", 44_100, 2)];
        assert_eq!(shown, expected.map(|(c, r, n)| (c.to_owned(), r, n)));
    }

    proptest! {
        #[test]
        fn no_description_panics(text in "\\PC{0,60}", map in "\\PC{0,30}", fmtp in "\\PC{0,40}") {
            let _ = parse(text.as_bytes());
            let head = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n";
            for map in [map.as_str(), "H264/90000", "H265/90000"] {
                let sdp = format!("{head}a=rtpmap:96 {map}\r\na=fmtp:96 {fmtp}\r\n");
                if let Ok(found) = parse(sdp.as_bytes()) {
                    let _ = crate::rtp::Depacketizer::new(&found[0]);
                }
            }
        }

        #[test]
        fn no_configuration_panics(data in prop::collection::vec(any::<u8>(), 0..80)) {
            avcc_parameter_sets(&data);
            hvcc_parameter_sets(&data);
        }
    }
}
