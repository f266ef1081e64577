//! What of a stream goes with what a client has offered (RFC 3264, RFC 9429).
//!
//! For each kind one track and one payload type are chosen; the answer takes those and nothing else.

use super::{LeftOut, reasons};
use crate::frame::{AudioCodec, Codec, CodecParameters, Track, TrackId, VideoCodec, VideoParameters};
use crate::rtp::read_sdp;
use sdp_types::{Media, Session};
use std::borrow::Cow;
use str0m::format as rtc;
use str0m::media::{Frequency, Pt};

/// Longer offers are none: those of browsers have some ten thousand bytes.
pub(crate) const MAX_OFFER_BYTES: usize = 64 << 10;
/// Media sections and payload types that are looked at.
const MAX_MEDIA: usize = 16;
const MAX_FORMATS: usize = 128;

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// It is no offer.
    #[error("this is no offer (RFC 8866, RFC 9429): {0}")]
    BadOffer(String),
    /// It wants nothing that the stream has.
    #[error("the offer asks for no media; expected a media section with a=recvonly")]
    NothingWanted,
    /// It sends nothing.
    #[error("the offer sends no media; expected a media section with a=sendonly")]
    NothingOffered,
    /// There is nothing that both sides know.
    #[error("{0}")]
    NoCommonCodec(String),
}

/// A track and how it is sent.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) track: TrackId,
    pub(super) params: rtc::PayloadParams,
    /// Whether it has to be turned into Opus.
    pub(super) to_opus: bool,
}

/// How a client tells how much its line carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Feedback {
    /// By receiver reports alone.
    #[default]
    Reports,
    /// It estimates that itself (draft-alvestrand-rmcat-remb), which costs us nothing but three bytes a packet.
    Estimate,
    /// It tells when each packet has come (draft-holmer-rmcat-transport-wide-cc-extensions).
    TransportWide,
}

const SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_WIDE: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) video: Option<Chosen>,
    pub(super) audio: Option<Chosen>,
    /// How the client tells of its line.
    pub(super) feedback: Feedback,
    pub(super) left_out: Vec<LeftOut>,
}

/// A payload type of an offer.
pub(super) struct Offered<'a> {
    pub(super) payload_type: u8,
    pub(super) name: String,
    pub(super) clock_rate: u32,
    pub(super) channels: Option<u8>,
    pub(super) fmtp: &'a str,
    resend: Option<u8>,
    feedback: Feedback,
}

/// An offer in which no section that is to go along with another one has port 0, as those that are rejected have (RFC 9143
/// section 6).
pub(super) fn with_ports(offer: &str) -> Cow<'_, str> {
    const GOES_ALONG: &str = "a=bundle-only";
    if !offer.contains(GOES_ALONG) {
        return offer.into();
    }
    // Each but the first begins with a section's kind.
    let mut sections = offer.split("\nm=");
    let mut text = sections.next().unwrap_or_default().to_owned();
    for section in sections {
        text += "\nm=";
        let goes_along = section.lines().any(|line| line.trim_end() == GOES_ALONG);
        match section.split_once(" 0 ").filter(|(kind, _)| goes_along && !kind.contains([' ', '\n'])) {
            Some((kind, rest)) => text.extend([kind, " 9 ", rest]),
            None => text += section,
        }
    }
    text.into()
}

fn bad(problem: impl Into<String>) -> NegotiationError {
    NegotiationError::BadOffer(problem.into())
}

fn values<'a>(media: &'a Media, name: &'a str) -> impl Iterator<Item = &'a str> {
    media.attributes.iter().filter(move |a| a.attribute == name).filter_map(|a| a.value.as_deref())
}

/// The value of `name=` in format parameters.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|p| p.1)
}

pub(super) fn formats(media: &Media) -> Vec<Offered<'_>> {
    let fmtp = |wanted: u8| {
        let mut all = values(media, "fmtp").filter_map(|v| v.split_once(' '));
        all.find(|(pt, _)| pt.parse() == Ok(wanted)).map_or("", |(_, rest)| rest)
    };
    let extends = |uri: &str| values(media, "extmap").any(|v| v.split(' ').any(|word| word == uri));
    let says = |wanted: u8, what: &str| {
        values(media, "rtcp-fb")
            .filter_map(|v| v.split_once(' '))
            .any(|(pt, rest)| (pt == "*" || pt.parse() == Ok(wanted)) && rest.trim() == what)
    };
    let (send_time, transport_wide) = (extends(SEND_TIME), extends(TRANSPORT_WIDE));
    let feedback = |payload_type: u8| match () {
        () if send_time && says(payload_type, "goog-remb") => Feedback::Estimate,
        () if transport_wide && says(payload_type, "transport-cc") => Feedback::TransportWide,
        () => Feedback::Reports,
    };
    let mut all: Vec<Offered<'_>> = values(media, "rtpmap")
        .take(MAX_FORMATS)
        .filter_map(|value| {
            let (payload_type, rest) = value.split_once(' ')?;
            let payload_type = payload_type.parse().ok().filter(|pt| *pt < 128)?;
            let mut parts = rest.trim().split('/');
            Some(Offered {
                payload_type,
                name: parts.next()?.to_ascii_lowercase(),
                clock_rate: parts.next()?.parse().ok()?,
                channels: parts.next().and_then(|c| c.parse().ok()),
                fmtp: fmtp(payload_type),
                resend: None,
                feedback: feedback(payload_type),
            })
        })
        .collect();
    // These need no name (RFC 3551 section 6).
    for (payload_type, name) in [(0, "pcmu"), (8, "pcma")] {
        let listed = media.fmt.split_ascii_whitespace().any(|pt| pt.parse() == Ok(payload_type));
        if listed && !all.iter().any(|f| f.payload_type == payload_type) {
            all.push(Offered {
                payload_type,
                name: name.into(),
                clock_rate: 8000,
                channels: None,
                fmtp: "",
                resend: None,
                feedback: Feedback::Reports,
            });
        }
    }
    let resends: Vec<(u8, u8)> = all
        .iter()
        .filter(|f| f.name == "rtx")
        .filter_map(|f| Some((parameter(f.fmtp, "apt")?.parse().ok()?, f.payload_type)))
        .collect();
    for format in &mut all {
        format.resend = resends.iter().find(|(apt, _)| *apt == format.payload_type).map(|(_, rtx)| *rtx);
    }
    all
}

impl Offered<'_> {
    pub(super) fn params(&self, codec: rtc::Codec) -> Option<rtc::PayloadParams> {
        let spec = rtc::CodecSpec {
            codec,
            clock_rate: Frequency::new(self.clock_rate)?,
            channels: self.channels,
            format: rtc::FormatParams::parse_line(self.fmtp),
        };
        let mut params =
            rtc::PayloadParams::new(Pt::from(self.payload_type), self.resend.map(Pt::from), spec);
        // Of those one is chosen, where it is of use.
        params.set_fb_transport_cc(false);
        params.set_fb_remb(false);
        Some(params)
    }
}

/// The profile of H.264 as `profile-level-id` begins: `profile_idc` and the constraint flags.
fn h264_profile(video: &VideoParameters) -> Option<(u8, u8)> {
    // avcC, ISO/IEC 14496-15 section 5.3.3.1.
    let data = &video.extra_data;
    Some((*data.get(1)?, *data.get(2)?))
}

/// How well a payload type of H.264 goes with a stream; none if the stream cannot be sent by it.
fn h264_fits(format: &Offered<'_>, stream: Option<(u8, u8)>) -> Option<u32> {
    // Without it, nothing may be split (RFC 6184 section 6.3).
    if parameter(format.fmtp, "packetization-mode") != Some("1") {
        return None;
    }
    let text = parameter(format.fmtp, "profile-level-id").unwrap_or("42000a");
    let id = u32::from_str_radix(text, 16).ok()?;
    let (profile, flags) = ((id >> 16) as u8, (id >> 8) as u8);
    let Some((own, own_flags)) = stream else { return Some(1) };
    // Decoders go by what the stream itself says: a higher profile than the stream's is right, and most take a higher
    // one than they have said.
    Some(match (profile == own, flags & 0xc0 == own_flags & 0xc0) {
        (true, true) => 100,
        (true, false) => 90,
        _ if profile > own => 50,
        _ => u32::from(profile) / 8,
    })
}

fn encoding(codec: VideoCodec) -> Option<(&'static str, rtc::Codec)> {
    Some(match codec {
        VideoCodec::H264 => ("h264", rtc::Codec::H264),
        VideoCodec::H265 => ("h265", rtc::Codec::H265),
        VideoCodec::Vp8 => ("vp8", rtc::Codec::Vp8),
        VideoCodec::Vp9 => ("vp9", rtc::Codec::Vp9),
        VideoCodec::Av1 => ("av1", rtc::Codec::Av1),
        VideoCodec::Mjpeg => return None,
    })
}

fn fits(format: &Offered<'_>, video: &VideoParameters) -> Option<u32> {
    let profile = |name: &str, default: &str, own: &str| {
        (parameter(format.fmtp, name).unwrap_or(default) == own).then_some(100)
    };
    match video.codec {
        VideoCodec::H264 => h264_fits(format, h264_profile(video)),
        // general_profile_idc of hvcC, ISO/IEC 14496-15 section 8.3.2.1; Main without any.
        VideoCodec::H265 => {
            profile("profile-id", "1", &(video.extra_data.get(1).map_or(1, |b| b & 31)).to_string())
        }
        // The second byte of vpcC, behind version and flags.
        VideoCodec::Vp9 => {
            profile("profile-id", "0", &video.extra_data.get(4).copied().unwrap_or(0).to_string())
        }
        // seq_profile of av1C.
        VideoCodec::Av1 => {
            profile("profile", "0", &video.extra_data.get(1).map_or(0, |b| b >> 5).to_string())
        }
        _ => Some(100),
    }
}

fn video(
    formats: &[Offered<'_>],
    track: &Track,
    video: &VideoParameters,
) -> Result<(Chosen, Feedback), String> {
    let Some((name, codec)) = encoding(video.codec) else {
        return Err(format!("there is no way to send {} by WebRTC", Codec::Video(video.codec)));
    };
    let best = formats
        .iter()
        .filter(|f| f.name == name && f.clock_rate == 90_000)
        .filter_map(|f| Some((fits(f, video)?, f)))
        .max_by_key(|(score, f)| (*score, std::cmp::Reverse(f.payload_type)));
    let params = best.and_then(|(_, format)| {
        let mut params = format.params(codec)?;
        params.set_fb_remb(format.feedback == Feedback::Estimate);
        params.set_fb_transport_cc(format.feedback == Feedback::TransportWide);
        Some((params, format.feedback))
    });
    let (params, feedback) = params.ok_or_else(|| {
        let named: Vec<&str> = formats.iter().map(|f| f.name.as_str()).filter(|n| *n == name).collect();
        let what = if named.is_empty() { "offers no" } else { "offers no fitting" };
        format!("the client {what} {}", Codec::Video(video.codec))
    })?;
    Ok((Chosen { track: track.id, params, to_opus: false }, feedback))
}

fn audio(formats: &[Offered<'_>], track: &Track) -> Result<Chosen, String> {
    let CodecParameters::Audio(sound) = &*track.parameters else { return Err("it is no sound".into()) };
    let find =
        |name: &str, clock_rate: u32| formats.iter().find(|f| f.name == name && f.clock_rate == clock_rate);
    let chosen = |format: &Offered<'_>, codec, to_opus| {
        let params = format.params(codec)?;
        Some(Chosen { track: track.id, params, to_opus })
    };
    let telephone = sound.sample_rate == 8000 && sound.channels == 1;
    let copied = match sound.codec {
        AudioCodec::Opus => find("opus", 48_000).and_then(|f| chosen(f, rtc::Codec::Opus, false)),
        AudioCodec::Pcmu if telephone => find("pcmu", 8000).and_then(|f| chosen(f, rtc::Codec::PCMU, false)),
        AudioCodec::Pcma if telephone => find("pcma", 8000).and_then(|f| chosen(f, rtc::Codec::PCMA, false)),
        _ => None,
    };
    let turned = || find("opus", 48_000).and_then(|f| chosen(f, rtc::Codec::Opus, true));
    copied.or_else(turned).ok_or_else(|| "the client offers neither it nor Opus".into())
}

/// Whether a media section wants to receive.
fn receives(media: &Media) -> bool {
    let has = |name: &str| media.attributes.iter().any(|a| a.attribute == name);
    media.port != 0 && !has("sendonly") && !has("inactive")
}

/// Whether an offer wants a picture.
pub(super) fn wants_video(offer: &str) -> bool {
    parse(offer).is_ok_and(|session| session.medias.iter().any(|m| m.media == "video" && receives(m)))
}

/// Reads an offer.
pub(super) fn parse(offer: &str) -> Result<Session, NegotiationError> {
    if offer.len() > MAX_OFFER_BYTES {
        return Err(bad(format!("it has {} bytes; expected {MAX_OFFER_BYTES} at most", offer.len())));
    }
    let session = read_sdp(offer.as_bytes()).map_err(bad)?;
    if session.medias.len() > MAX_MEDIA {
        return Err(bad(format!(
            "it has {} media sections; expected {MAX_MEDIA} at most",
            session.medias.len()
        )));
    }
    Ok(session)
}

/// Chooses. `reorders` says that the pictures are not sent in the order in which they are shown.
pub(super) fn plan(offer: &str, tracks: &[Track], reorders: bool) -> Result<Plan, NegotiationError> {
    let session = parse(offer)?;
    let wanted = |kind: &str| session.medias.iter().find(|m| m.media == kind && receives(m));
    let mut plan = Plan::default();
    let (wants_video, wants_audio) = (wanted("video"), wanted("audio"));
    if wants_video.is_none() && wants_audio.is_none() {
        return Err(NegotiationError::NothingWanted);
    }
    for track in tracks {
        let codec = track.parameters.codec();
        let mut leave_out = |reason: String| plan.left_out.push(LeftOut { codec: codec.to_string(), reason });
        match &*track.parameters {
            CodecParameters::Video(_) if plan.video.is_some() => {
                leave_out("only the first video track is sent".into());
            }
            CodecParameters::Video(_) if reorders => leave_out(
                "its pictures are sent in another order than they are shown (B frames), which browsers do not play; \
                 turn B frames off in the camera, for example by its profile Baseline"
                    .into(),
            ),
            CodecParameters::Video(parameters) => match wants_video.map(|m| video(&formats(m), track, parameters)) {
                Some(Ok((chosen, feedback))) => (plan.video, plan.feedback) = (Some(chosen), feedback),
                Some(Err(reason)) => leave_out(reason),
                None => {}
            },
            CodecParameters::Audio(_) if plan.audio.is_some() => {
                leave_out("only the first audio track is sent".into());
            }
            CodecParameters::Audio(_) => match wants_audio.map(|m| audio(&formats(m), track)) {
                Some(Ok(chosen)) => plan.audio = Some(chosen),
                Some(Err(reason)) => leave_out(reason),
                None => {}
            },
            CodecParameters::Data(_) => leave_out("metadata is not sent".into()),
        }
    }
    let has_video = tracks.iter().any(|t| t.parameters.video().is_some());
    // Who wants to see is not helped by sound alone.
    let misses_video = plan.video.is_none() && wants_video.is_some() && has_video;
    if misses_video || (plan.video.is_none() && plan.audio.is_none()) {
        let reasons = if plan.left_out.is_empty() {
            "the stream has nothing of what is offered".into()
        } else {
            reasons(&plan.left_out)
        };
        return Err(NegotiationError::NoCommonCodec(reasons));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{AudioParameters, DataCodec, DataParameters};
    use std::sync::Arc;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 105\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
        a=rtpmap:104 H264/90000\r\na=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=64001f\r\n\
        a=rtpmap:105 H264/90000\r\na=fmtp:105 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\n\
        a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";

    fn track(id: u32, parameters: CodecParameters) -> Track {
        Track { id: TrackId(id), parameters: Arc::new(parameters) }
    }

    fn camera(codec: VideoCodec, profile: Option<[u8; 2]>) -> Track {
        let mut video = VideoParameters::new(codec, 1920, 1080);
        if let Some([profile, flags]) = profile {
            video.extra_data = vec![1, profile, flags, 31].into();
        }
        track(0, CodecParameters::Video(video))
    }

    fn sound(codec: AudioCodec, rate: u32) -> Track {
        track(1, CodecParameters::Audio(AudioParameters::new(codec, rate, 1)))
    }

    fn video_of(tracks: &[Track]) -> (u8, Option<u8>) {
        let params = plan(OFFER, tracks, false).unwrap().video.unwrap().params;
        (*params.pt(), params.resend().map(|pt| *pt))
    }

    #[test]
    fn sections_that_go_along_with_others_are_not_taken_for_rejected_ones() {
        let offer = "v=0\r\nm=audio 0 X 0\r\na=mid:0\r\nm=video 0 X 96\r\na=bundle-only\r\nm=video 5 X 0 1\r\na=bundle-only\r\n";
        assert_eq!(with_ports(offer), offer.replace("video 0", "video 9"));
        assert_eq!(with_ports("m=audio 0 X 0\r\n"), "m=audio 0 X 0\r\n");
    }

    #[test]
    fn the_payload_type_that_goes_best_with_the_stream_is_chosen() {
        assert_eq!(video_of(&[camera(VideoCodec::Vp8, None)]), (96, Some(97)));
        // Exactly, higher, higher, lower; never one that forbids to split frames.
        assert_eq!(video_of(&[camera(VideoCodec::H264, Some([0x42, 0x00]))]), (102, Some(103)));
        assert_eq!(video_of(&[camera(VideoCodec::H264, Some([0x4d, 0x00]))]), (105, None));
        assert_eq!(video_of(&[camera(VideoCodec::H264, Some([0x64, 0x00]))]), (105, None));
        assert_eq!(video_of(&[camera(VideoCodec::H264, Some([0x6e, 0x00]))]), (105, None));
    }

    #[test]
    fn sound_is_copied_or_turned_into_opus() {
        let audio = |codec, rate| {
            let chosen = plan(OFFER, &[sound(codec, rate)], false).unwrap().audio.unwrap();
            (*chosen.params.pt(), chosen.to_opus)
        };
        assert_eq!(audio(AudioCodec::Opus, 48_000), (111, false));
        assert_eq!(audio(AudioCodec::Pcmu, 8000), (0, false));
        assert_eq!(audio(AudioCodec::Pcma, 8000), (8, false));
        assert_eq!(audio(AudioCodec::Pcma, 16_000), (111, true));
        assert_eq!(audio(AudioCodec::Aac, 44_100), (111, true));
    }

    #[test]
    fn what_does_not_go_is_said() {
        let error = |tracks: &[Track], reorders| plan(OFFER, tracks, reorders).unwrap_err().to_string();
        assert_eq!(error(&[camera(VideoCodec::Av1, None)], false), "av1: the client offers no av1");
        assert!(error(&[camera(VideoCodec::Mjpeg, None)], false).contains("there is no way to send"));
        assert!(
            error(&[camera(VideoCodec::H264, None), sound(AudioCodec::Opus, 48_000)], true)
                .contains("B frames")
        );
        let data = track(2, CodecParameters::Data(DataParameters { codec: DataCodec::Klv }));
        assert!(error(std::slice::from_ref(&data), false).contains("metadata is not sent"));
        let plan = plan(OFFER, &[camera(VideoCodec::Vp8, None), data], false).unwrap();
        assert_eq!((plan.left_out.len(), plan.audio.is_some()), (1, false));
    }

    #[test]
    fn rubbish_is_refused() {
        let tracks = [camera(VideoCodec::Vp8, None)];
        let empty = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
        assert_eq!(plan(empty, &tracks, false).unwrap_err(), NegotiationError::NothingWanted);
        for offer in ["", "v=1", "{}", &format!("{empty}m=\r\n")] {
            assert!(matches!(plan(offer, &tracks, false), Err(NegotiationError::BadOffer(_))), "{offer:?}");
        }
        let nothing = OFFER.replace("recvonly", "sendonly");
        assert_eq!(plan(&nothing, &tracks, false).unwrap_err(), NegotiationError::NothingWanted);
        let long = format!("{OFFER}{}", "a=x\r\n".repeat(20_000));
        assert!(matches!(plan(&long, &tracks, false), Err(NegotiationError::BadOffer(_))));
    }
}
