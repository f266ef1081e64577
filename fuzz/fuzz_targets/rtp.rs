//! Any bytes as a session description, and as RTP and RTCP packets of every codec.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use stream_manager_core::hub::Hub;
use stream_manager_core::rtp::format::parse;
use stream_manager_core::rtp::{Receiver, rtcp};

const CODECS: &[&str] = &[
    "video H264/90000", "video H265/90000", "video AV1/90000", "video VP8/90000", "video VP9/90000", "video JPEG/90000",
    "audio mpeg4-generic/48000/2", "audio MP4A-LATM/44100/2", "audio opus/48000/2", "audio MPA/90000", "audio ac3/48000",
    "audio L16/44100/2", "audio PCMU/8000", "application SMPTE336M/90000", "application vnd.onvif.metadata/90000",
];

fuzz_target!(|data: &[u8]| {
    let _ = parse(data);
    let _ = rtcp::parse(data);
    let Some((first, data)) = data.split_first() else { return };
    let (media, map) = CODECS[usize::from(*first) % CODECS.len()].split_once(' ').unwrap();
    let config = if map.starts_with("MP4A") {
        "cpresent=0;config=40002420adca00"
    } else {
        "streamtype=5;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190"
    };
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm={media} 0 RTP/AVP 96\r\na=rtpmap:96 {map}\r\na=fmtp:96 {config}\r\n"
    );
    let mut receiver = Receiver::new(&parse(sdp.as_bytes()).unwrap(), usize::from(first >> 4)).unwrap();
    let writer = Hub::default().writer();
    // Packets: a length, flags (marker, how far the number and the time go on), the payload.
    let (mut rest, mut sequence, mut timestamp) = (data, 0u16, 0u32);
    while let [length, flags, after @ ..] = rest {
        let length = usize::from(*length).min(after.len());
        let (payload, after) = after.split_at(length);
        rest = after;
        sequence = sequence.wrapping_add(u16::from(flags & 7));
        timestamp = timestamp.wrapping_add(u32::from(flags >> 3 & 15) * 900);
        let mut packet = vec![0x80, 96 | (flags & 0x80)];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 1]);
        packet.extend_from_slice(payload);
        let _ = receiver.rtp(0, &Bytes::from(packet), &writer);
        receiver.rtcp(0, payload);
    }
    receiver.report(0);
});
