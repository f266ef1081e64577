//! What is taken of a client that publishes: for each kind one media section, and of that one payload type.

use super::negotiate::{NegotiationError, Offered, formats, parameter, parse};
use super::{LeftOut, reasons};
use crate::frame::{AudioCodec, Codec, VideoCodec};
use crate::rtp::format::Description;
use sdp_types::{Media, Session};
use str0m::format as rtc;

/// Codecs in the order in which they are taken: first those that all protocols and recordings here can carry.
const VIDEO: [(&str, VideoCodec, rtc::Codec); 5] = [
    ("h264", VideoCodec::H264, rtc::Codec::H264),
    ("h265", VideoCodec::H265, rtc::Codec::H265),
    ("av1", VideoCodec::Av1, rtc::Codec::Av1),
    ("vp9", VideoCodec::Vp9, rtc::Codec::Vp9),
    ("vp8", VideoCodec::Vp8, rtc::Codec::Vp8),
];
const AUDIO: [(&str, AudioCodec, rtc::Codec); 3] = [
    ("opus", AudioCodec::Opus, rtc::Codec::Opus),
    ("pcma", AudioCodec::Pcma, rtc::Codec::PCMA),
    ("pcmu", AudioCodec::Pcmu, rtc::Codec::PCMU),
];

/// A track that comes.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) description: Description,
    pub(super) params: rtc::PayloadParams,
}

/// What comes.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) video: Option<Incoming>,
    pub(super) audio: Option<Incoming>,
    /// Media sections that are not taken.
    pub(super) left_out: Vec<LeftOut>,
}

/// Whether a media section wants to send.
fn sends(media: &Media) -> bool {
    let has = |name: &str| media.attributes.iter().any(|a| a.attribute == name);
    media.port != 0 && !has("recvonly") && !has("inactive")
}

fn incoming(
    media: &Media,
    known: impl Iterator<Item = (&'static str, Codec, rtc::Codec)>,
) -> Result<Incoming, String> {
    let offered = formats(media);
    let named = |name: &str| {
        let of_name = || offered.iter().filter(move |f| f.name == name);
        // In the client's own order. Pictures of H.264 are split, if they may be, rather than sent by ever larger slices.
        let splits = |f: &&Offered<'_>| parameter(f.fmtp, "packetization-mode") == Some("1");
        of_name().find(splits).or_else(|| of_name().next())
    };
    let mut all = known.filter_map(|(name, codec, rtc)| {
        let format = named(name)?;
        let mut params = format.params(rtc)?;
        // By these the client learns how much its line carries.
        params.set_fb_transport_cc(matches!(codec, Codec::Video(_)));
        let channels = match codec {
            Codec::Audio(_) => format.channels.map_or(1, u16::from),
            _ => 0,
        };
        let description = Description {
            media: media.media.clone(),
            encoding: format.name.clone(),
            codec,
            payload_type: format.payload_type,
            clock_rate: format.clock_rate,
            channels,
            fmtp: (!format.fmtp.is_empty()).then(|| format.fmtp.to_owned()),
            control: String::new(),
        };
        Some(Incoming { description, params })
    });
    all.next().ok_or_else(|| {
        let names: Vec<&str> = offered.iter().map(|f| f.name.as_str()).collect();
        format!(
            "its codecs are {}; expected one of h264, h265, av1, vp9, vp8, opus, pcma, pcmu",
            names.join(", ")
        )
    })
}

/// Chooses.
pub(super) fn intake(offer: &str) -> Result<Intake, NegotiationError> {
    let session: Session = parse(offer)?;
    let mut intake = Intake::default();
    let mut sections = 0;
    for media in session.medias.iter().filter(|m| sends(m)) {
        let video = VIDEO.iter().map(|(name, codec, rtc)| (*name, Codec::Video(*codec), *rtc));
        let audio = AUDIO.iter().map(|(name, codec, rtc)| (*name, Codec::Audio(*codec), *rtc));
        let (place, found) = match media.media.as_str() {
            "video" => (&mut intake.video, incoming(media, video)),
            "audio" => (&mut intake.audio, incoming(media, audio)),
            _ => continue,
        };
        sections += 1;
        let left_out = match (place.is_some(), found) {
            (true, _) => format!("only the first {} track is taken", media.media),
            (false, Err(reason)) => reason,
            (false, Ok(incoming)) => {
                *place = Some(incoming);
                continue;
            }
        };
        intake.left_out.push(LeftOut { codec: media.media.clone(), reason: left_out });
    }
    if sections == 0 {
        return Err(NegotiationError::NothingOffered);
    }
    if intake.video.is_none() && intake.audio.is_none() {
        return Err(NegotiationError::NoCommonCodec(reasons(&intake.left_out)));
    }
    Ok(intake)
}

/// The offer as it is answered: nothing is sent back, and of several sizes of a picture (simulcast, RFC 8853) one comes.
pub(super) fn one_way(offer: &str) -> String {
    let kept = offer.lines().filter(|line| !line.starts_with("a=simulcast:") && !line.starts_with("a=rid:"));
    kept.fold(String::with_capacity(offer.len()), |text, line| {
        let line = line.trim_end_matches('\r');
        text + if line == "a=sendrecv" { "a=sendonly" } else { line } + "\r\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sections: &str) -> String {
        format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{sections}")
    }

    const VIDEO_SECTION: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=99\r\n\
        a=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=0;profile-level-id=42e01f\r\n\
        a=rtpmap:99 H264/90000\r\na=fmtp:99 packetization-mode=1;profile-level-id=42e01f\r\n";

    #[test]
    fn one_of_each_kind_is_taken() {
        let text = offer(&format!(
            "{VIDEO_SECTION}m=audio 9 UDP/TLS/RTP/SAVPF 0 111\r\na=rtpmap:111 opus/48000/2\r\n\
             {VIDEO_SECTION}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
        ));
        let taken = intake(&text).unwrap();
        let video = taken.video.unwrap();
        assert_eq!((video.description.payload_type, video.params.resend().map(|pt| *pt)), (99, Some(97)));
        let audio = taken.audio.unwrap().description;
        assert_eq!((audio.payload_type, audio.clock_rate, audio.channels), (111, 48_000, 2));
        assert_eq!(taken.left_out.len(), 1);
        assert_eq!(taken.left_out[0].reason, "only the first video track is taken");
    }

    #[test]
    fn what_cannot_be_taken_is_said() {
        let error = |sections: &str| intake(&offer(sections)).unwrap_err();
        assert_eq!(error(""), NegotiationError::NothingOffered);
        assert_eq!(error(&VIDEO_SECTION.replace("sendonly", "recvonly")), NegotiationError::NothingOffered);
        let unknown = error("m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 G722/8000\r\n").to_string();
        assert!(unknown.contains("g722") && unknown.contains("opus"), "{unknown}");
    }

    #[test]
    fn simulcast_and_the_way_back_are_taken_out() {
        let text = one_way("a=sendrecv\r\na=rid:h send\r\na=simulcast:send h;l\r\na=mid:0\r\n");
        assert_eq!(text, "a=sendonly\r\na=mid:0\r\n");
    }
}
