//! What WebRTC clients send: an offer, changed in one place or made up, and datagrams to a session that was answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use stream_manager_core::frame::{
    AudioCodec, AudioParameters, CodecParameters, Track, TrackId, VideoCodec, VideoParameters,
};
use stream_manager_core::webrtc::fuzzing::{offer, publish};

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=fingerprint:sha-256 9B:CE:95:04:F5:99:1B:09:6B:06:15:46:8F:66:01:F3:D6:13:CA:07:90:4E:2A:C8:88:4F:8F:41:67:5D:70:6A\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef0123456789\r\na=setup:actpass\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
    a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:102 nack pli\r\n\
    a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n\
    a=rtpmap:111 opus/48000/2\r\n";

fn tracks() -> Vec<Track> {
    let video = CodecParameters::Video(VideoParameters::new(VideoCodec::H264, 640, 360));
    let audio = CodecParameters::Audio(AudioParameters::new(AudioCodec::Opus, 48_000, 2));
    [video, audio].into_iter().zip(0..).map(|(p, n)| Track { id: TrackId(n), parameters: Arc::new(p) }).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    // Watching or publishing.
    let publishes = kind / 3 % 2 == 1;
    let right = if publishes { OFFER.replace("recvonly", "sendonly") } else { OFFER.to_owned() };
    let answer = |text: &str| if publishes { publish(text) } else { offer(text, &tracks()) };
    let peer = match kind % 3 {
        0 => std::str::from_utf8(rest).ok().and_then(answer),
        1 => {
            // A piece of a right one is replaced.
            let Some((place, new)) = rest.split_first_chunk::<3>() else { return };
            let start = (usize::from(place[0]) << 8 | usize::from(place[1])) % right.len();
            let end = (start + usize::from(place[2])).min(right.len());
            let text = [&right.as_bytes()[..start], new, &right.as_bytes()[end..]].concat();
            std::str::from_utf8(&text).ok().and_then(answer)
        }
        _ => answer(&right),
    };
    let Some(mut peer) = peer else {
        assert!(kind % 3 != 2, "a right offer is refused");
        return;
    };
    if kind % 3 == 2 {
        // Datagrams behind their lengths.
        let mut rest = rest;
        while let Some((length, more)) = rest.split_first() {
            let (datagram, more) = more.split_at(usize::from(*length).min(more.len()));
            peer.receive(datagram);
            rest = more;
        }
    }
});
