//! What goes out comes back: every codec, at every packet size, in datagrams and interleaved.

use super::*;
use crate::frame::{
    AVCC, AudioCodec, AudioParameters, DataParameters, Track, TrackId, VideoParameters, WallTime,
};
use crate::rtp::depacketize::{AccessUnit, Depacketizer};
use crate::rtp::format::{describe, parse};
use crate::rtp::packet::{INTERLEAVED_BYTES, RtpPacket};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

/// VPS, SPS and PPS that x265 wrote for 128x128.
const VPS: &[u8] = &[
    0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x03,
    0x00, 0x00, 0x1e, 0x95, 0x98, 0x09,
];
const SPS: &[u8] = &[
    0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00, 0x1e,
    0x90, 0x02, 0x04, 0x04, 0x0b, 0x2c, 0xac, 0xd2, 0x49, 0x95, 0xe0, 0x2d, 0xc0, 0x80, 0x80, 0x01, 0x00,
    0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x19, 0x08,
];
const PPS: &[u8] = &[0x44, 0x01, 0xc1, 0x72, 0x86, 0x0c, 0x42, 0x24];

fn h264() -> CodecParameters {
    CodecParameters::Video(VideoParameters::h264(Bytes::from_static(AVCC)).unwrap())
}

fn h265() -> CodecParameters {
    let mut hvcc =
        vec![1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 30, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3];
    for (kind, set) in [(32u8, VPS), (33, SPS), (34, PPS)] {
        hvcc.extend_from_slice(&[kind | 0x80, 0, 1]);
        hvcc.extend_from_slice(&(set.len() as u16).to_be_bytes());
        hvcc.extend_from_slice(set);
    }
    CodecParameters::Video(VideoParameters::h265(hvcc.into()).unwrap())
}

fn audio(codec: AudioCodec, rate: u32, channels: u16) -> CodecParameters {
    CodecParameters::Audio(AudioParameters::new(codec, rate, channels))
}

fn aac() -> CodecParameters {
    CodecParameters::Audio(AudioParameters::aac(Bytes::from_static(&[0x11, 0x90])).unwrap())
}

fn frame(parameters: &Arc<CodecParameters>, number: i64, keyframe: bool, data: Vec<u8>) -> Frame {
    let pts = MediaTime::from_nanos(number * 40_000_000);
    Frame {
        track: TrackId(0),
        parameters: parameters.clone(),
        pts,
        dts: pts,
        wall_clock: WallTime::from_unix_nanos(0),
        ntp: None,
        keyframe,
        data: data.into(),
    }
}

/// The packets as datagrams, after a look at whether the interleaved form says the same.
fn datagrams(packets: &Packets) -> Vec<Bytes> {
    let all: Vec<u8> = packets.slices(0).iter().flat_map(|s| s.to_vec()).collect();
    assert_eq!(all.len(), packets.bytes());
    // From any byte on, what is left is the same.
    let skip = all.len() / 3;
    let rest: Vec<u8> = packets.slices(skip).iter().flat_map(|s| s.to_vec()).collect();
    assert_eq!(rest, all[skip..]);
    let mut at = 0;
    let mut out = Vec::new();
    for index in 0..packets.len() {
        let mut slices = Vec::new();
        let size = packets.datagram(index, &mut slices);
        let data: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!((data.len(), packets.datagram_bytes(index)), (size, size));
        assert_eq!(all[at..at + 4], [b'$', (packets.track * 2) as u8, (size >> 8) as u8, size as u8]);
        at += INTERLEAVED_BYTES;
        assert_eq!(all[at..at + size], data);
        at += size;
        out.push(data.into());
    }
    assert_eq!(at, all.len());
    out
}

/// Sends frames through a packetizer, a session description and a depacketizer.
fn round_trip(
    parameters: CodecParameters,
    packet_bytes: usize,
    frames: Vec<(bool, Vec<u8>)>,
) -> Vec<AccessUnit> {
    let track = Track { id: TrackId(0), parameters: Arc::new(parameters) };
    let sdp = describe(std::slice::from_ref(&track), "127.0.0.1".parse().unwrap(), "test");
    let description = parse(sdp.as_bytes()).unwrap().remove(0);
    let mut depacketizer = Depacketizer::new(&description).unwrap();
    let options = PacketizerOptions { packet_bytes, sequence: Some(65_530), ..Default::default() };
    let mut packetizer = Packetizer::new(0, &track.parameters, options);
    let mut units = Vec::new();
    let mut sequence = 65_530u16;
    let mut first = None;
    for (number, (keyframe, data)) in frames.into_iter().enumerate() {
        let frame = frame(&track.parameters, number as i64, keyframe, data);
        let packets = packetizer.packetize(&frame, keyframe).unwrap();
        for data in datagrams(&packets) {
            assert!(data.len() <= packet_bytes, "{} bytes in a packet of {packet_bytes}", data.len());
            let packet = RtpPacket::parse(&data).unwrap();
            assert_eq!(packet.sequence, sequence);
            sequence = sequence.wrapping_add(1);
            assert_eq!(packet.payload_type, description.payload_type);
            let start = *first.get_or_insert(packet.timestamp);
            let ticks = i64::from(packet.timestamp.wrapping_sub(start)) + 1000;
            depacketizer.push(&packet, ticks, 0).unwrap();
            while let Some(unit) = depacketizer.pull() {
                units.push(unit);
            }
        }
    }
    let (_, octets) = packetizer.sent();
    assert!(octets > 0);
    units
}

fn check(units: &[AccessUnit], sent: &[(bool, Vec<u8>)], rate: u32) {
    assert_eq!(units.len(), sent.len());
    for (number, (unit, (keyframe, data))) in units.iter().zip(sent).enumerate() {
        assert_eq!(unit.data, data, "unit {number}");
        assert_eq!(unit.keyframe, *keyframe, "unit {number}");
        assert_eq!(unit.ticks, 1000 + number as i64 * i64::from(rate) / 25, "unit {number}");
    }
}

/// A NAL unit without anything that looks like a start code.
fn nal(header: Vec<u8>, length: usize, seed: u8) -> Vec<u8> {
    let mut data = header;
    data.extend((0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed) | 1));
    data
}

fn unit(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|n| [&(n.len() as u32).to_be_bytes()[..], n].concat()).collect()
}

const SIZES: std::ops::RangeInclusive<usize> = 200..=1500;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn h264_is_the_same(size in SIZES, frames in prop::collection::vec(prop::collection::vec(1usize..6000, 1..5), 1..6)) {
        let sent: Vec<(bool, Vec<u8>)> = frames.iter().enumerate().map(|(n, nals)| {
            let header = if n == 0 { 0x65 } else { 0x41 };
            let mut all = vec![nal(vec![0x06], 20, 3)];
            all.extend(nals.iter().map(|l| nal(vec![header, 0x80], *l, *l as u8)));
            (n == 0, unit(&all))
        }).collect();
        check(&round_trip(h264(), size, sent.clone()), &sent, 90_000);
    }

    #[test]
    fn h265_is_the_same(size in SIZES, frames in prop::collection::vec(prop::collection::vec(1usize..6000, 1..5), 1..6)) {
        let sent: Vec<(bool, Vec<u8>)> = frames.iter().enumerate().map(|(n, nals)| {
            let header = if n == 0 { vec![19 << 1, 1] } else { vec![1 << 1, 1] };
            // The first byte of a slice says whether it is the picture's first one.
            let all: Vec<Vec<u8>> = nals.iter().enumerate().map(|(i, l)| {
                let mut h = header.clone();
                h.push(if i == 0 { 0x80 } else { 0x01 });
                nal(h, *l, *l as u8)
            }).collect();
            (n == 0, unit(&all))
        }).collect();
        check(&round_trip(h265(), size, sent.clone()), &sent, 90_000);
    }

    #[test]
    fn vp8_and_vp9_are_the_same(size in SIZES, lengths in prop::collection::vec(1usize..8000, 1..6)) {
        for (codec, key, delta) in [
            (VideoCodec::Vp8, vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01], vec![0x11, 0, 0]),
            (VideoCodec::Vp9, vec![0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70, 0x00], vec![0x86, 0, 0]),
        ] {
            let sent: Vec<(bool, Vec<u8>)> = lengths.iter().enumerate()
                .map(|(n, l)| (n == 0, nal(if n == 0 { key.clone() } else { delta.clone() }, *l, *l as u8)))
                .collect();
            let parameters = CodecParameters::Video(VideoParameters::new(codec, 640, 360));
            let units = round_trip(parameters, size, sent.clone());
            check(&units, &sent, 90_000);
            let found = units[0].parameters.as_ref().unwrap().video().unwrap();
            prop_assert_eq!((found.width, found.height), (640, 360), "{:?}", codec);
        }
    }

    #[test]
    fn av1_is_the_same(size in SIZES, frames in prop::collection::vec(prop::collection::vec(1usize..5000, 1..4), 1..6)) {
        // Sequence header of Main profile, level 2.0, as libaom writes it.
        let sequence = [0x0a, 0x0a, 0x00, 0x00, 0x00, 0x02, 0xaf, 0xff, 0x9b, 0x5f, 0x20, 0x08];
        let sent: Vec<(bool, Vec<u8>)> = frames.iter().enumerate().map(|(n, lengths)| {
            let mut data = if n == 0 { sequence.to_vec() } else { Vec::new() };
            for (i, length) in lengths.iter().enumerate() {
                // A frame of a keyframe or an inter frame, then tile groups, some with an extension.
                let head = match i { 0 => vec![6 << 3 | 2], 1 => vec![4 << 3 | 2], _ => vec![4 << 3 | 6, 8] };
                let mut payload = nal(vec![if n == 0 { 0x10 } else { 0x30 }], *length, *length as u8);
                let size = payload.len();
                data.extend_from_slice(&head);
                data.push((size & 0x7f) as u8 | if size > 127 { 0x80 } else { 0 });
                if size > 127 { data.push((size >> 7) as u8); }
                data.append(&mut payload);
            }
            (n == 0, data)
        }).collect();
        let parameters = CodecParameters::Video(VideoParameters::av1(&sequence, 320, 240, 8).unwrap());
        let units = round_trip(parameters.clone(), size, sent.clone());
        check(&units, &sent, 90_000);
        prop_assert!(units[0].parameters.is_some());
    }

    #[test]
    fn sound_and_messages_are_the_same(size in SIZES, lengths in prop::collection::vec(1usize..3000, 1..8)) {
        let sent: Vec<(bool, Vec<u8>)> = lengths.iter().map(|l| (true, nal(vec![7], *l, *l as u8))).collect();
        check(&round_trip(aac(), size, sent.clone()), &sent, 48_000);
        let short: Vec<(bool, Vec<u8>)> = sent.iter().map(|(k, d)| (*k, d[..d.len().min(size - 12)].to_vec())).collect();
        check(&round_trip(audio(AudioCodec::Opus, 48_000, 2), size, short.clone()), &short, 48_000);
        let klv = CodecParameters::Data(DataParameters { codec: DataCodec::Klv });
        check(&round_trip(klv, size, sent.clone()), &sent, 90_000);
        check(&round_trip(audio(AudioCodec::Ac3, 48_000, 6), size, sent.clone()), &sent, 48_000);
    }

    #[test]
    fn samples_are_the_same(size in SIZES, samples in prop::collection::vec(1usize..2000, 1..8)) {
        for (codec, rate, channels, bytes) in [
            (AudioCodec::Pcmu, 8000, 1, 1), (AudioCodec::Pcma, 16_000, 2, 1), (AudioCodec::L16, 44_100, 2, 2), (AudioCodec::L16, 48_000, 1, 2),
        ] {
            let block = bytes * usize::from(channels);
            let sent: Vec<(bool, Vec<u8>)> = samples.iter().map(|s| (true, nal(Vec::new(), s * block, *s as u8))).collect();
            let units = round_trip(audio(codec, rate, channels), size, sent.clone());
            let all: Vec<u8> = units.iter().flat_map(|u| u.data.to_vec()).collect();
            prop_assert_eq!(all, sent.iter().flat_map(|(_, d)| d.clone()).collect::<Vec<u8>>());
            // Within the first frame, times count samples.
            let mut expected = 1000;
            for unit in units.iter().take_while(|u| u.ticks < 1000 + (samples[0] as i64).min(i64::from(rate) / 25)) {
                prop_assert_eq!(unit.ticks, expected);
                expected += (unit.data.len() / block) as i64;
            }
        }
    }

    #[test]
    fn mp3_is_the_same(size in SIZES, count in 1usize..6) {
        // 128 kbit/s, 44.1 kHz, stereo: 417 bytes.
        let sent: Vec<(bool, Vec<u8>)> = (0..count)
            .map(|n| (true, nal(vec![0xff, 0xfb, 0x90, 0x00], 413, n as u8)))
            .collect();
        let units = round_trip(audio(AudioCodec::Mp3, 44_100, 2), size, sent.clone());
        check(&units, &sent, 90_000);
        prop_assert_eq!(units[0].parameters.clone(), Some(audio(AudioCodec::Mp3, 44_100, 2)));
    }

    #[test]
    fn mjpeg_is_the_same_picture(size in SIZES, length in 1usize..20_000, restart in any::<bool>(), kind in prop::sample::select(vec![0x21u8, 0x22])) {
        let picture = jpeg_picture(kind, restart, length);
        let parameters = CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 640, 360));
        let units = round_trip(parameters.clone(), size, vec![(true, picture.clone())]);
        prop_assert_eq!(units.len(), 1);
        let back = units[0].data.to_vec();
        let scan = &picture[picture.len() - length - 2..];
        prop_assert!(back.ends_with(scan), "the scan differs");
        // What was made anew goes through unchanged from then on.
        let again = round_trip(parameters, size, vec![(true, back.clone())]);
        prop_assert_eq!(&again[0].data, &back);
    }

    #[test]
    fn no_frame_panics(data in prop::collection::vec(any::<u8>(), 0..400), size in SIZES) {
        let klv = CodecParameters::Data(DataParameters { codec: DataCodec::Klv });
        let av1 = CodecParameters::Video(VideoParameters::new(VideoCodec::Av1, 2, 2));
        let jpeg = CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 2, 2));
        let vp9 = CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 2, 2));
        for parameters in [h264(), h265(), av1, jpeg, vp9, klv, audio(AudioCodec::Ac3, 48_000, 2)] {
            let parameters = Arc::new(parameters);
            let options = PacketizerOptions { packet_bytes: size, ..Default::default() };
            let mut packetizer = Packetizer::new(0, &parameters, options);
            for front in [&[][..], &[0, 0, 0, 5], &[0xff, 0xd8, 0xff]] {
                let data = [front, &data].concat();
                if let Ok(packets) = packetizer.packetize(&frame(&parameters, 0, true, data), true) {
                    datagrams(&packets);
                }
            }
        }
    }

    #[test]
    fn no_packet_panics(payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<bool>(), 0u16..3, 0i64..3), 1..30)) {
        let kinds = ["H264/90000", "H265/90000", "AV1/90000", "VP8/90000", "VP9/90000", "JPEG/90000"];
        let sounds = ["mpeg4-generic/48000/2", "opus/48000/2", "MPA/90000", "ac3/48000", "L16/8000"];
        let config = "streamtype=5;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190";
        for (media, name) in kinds.iter().map(|k| ("video", k)).chain(sounds.iter().map(|k| ("audio", k))) {
            let sdp = format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm={media} 0 RTP/AVP 96\r\na=rtpmap:96 {name}\r\na=fmtp:96 {config}\r\n");
            let mut depacketizer = Depacketizer::new(&parse(sdp.as_bytes()).unwrap()[0]).unwrap();
            let mut sequence = 0u16;
            for (payload, marker, lost, step) in &payloads {
                sequence = sequence.wrapping_add(1 + lost);
                let payload = Bytes::copy_from_slice(payload);
                let packet = RtpPacket { sequence, timestamp: *step as u32, ssrc: 1, marker: *marker, payload_type: 96, payload };
                let _ = depacketizer.push(&packet, *step, *lost);
                while depacketizer.pull().is_some() {}
            }
        }
    }
}

/// Baseline JPEG of 640x360 with `length` bytes of scan.
fn jpeg_picture(sampling: u8, restart: bool, length: usize) -> Vec<u8> {
    let mut data = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2];
    for id in 0..2u8 {
        data.extend_from_slice(&[0xff, 0xdb, 0, 67, id]);
        data.extend((0..64).map(|n| n + id + 1));
    }
    data.extend_from_slice(&[
        0xff, 0xc0, 0, 17, 8, 1, 104, 2, 128, 3, 1, sampling, 0, 2, 0x11, 1, 3, 0x11, 1,
    ]);
    if restart {
        data.extend_from_slice(&[0xff, 0xdd, 0, 4, 0, 10]);
    }
    data.extend_from_slice(&[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]);
    data.extend((0..length).map(|n| (n % 251) as u8));
    data.extend_from_slice(&[0xff, 0xd9]);
    data
}

/// A scan whose last byte looks like half of an end marker still gets one.
#[test]
fn a_picture_ends_with_its_marker() {
    let parameters = CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 640, 360));
    for marker in [true, false] {
        // The last byte of this scan is 0xd9.
        let mut picture = jpeg_picture(0x21, false, 218);
        if !marker {
            picture.truncate(picture.len() - 2);
        }
        let units = round_trip(parameters.clone(), 200, vec![(true, picture)]);
        assert!(units[0].data.ends_with(&[0xd8, 0xd9, 0xff, 0xd9]), "with a marker: {marker}");
    }
}

#[test]
fn what_rtp_cannot_carry_is_said() {
    let parameters = Arc::new(CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 8, 8)));
    let mut packetizer = Packetizer::new(0, &parameters, PacketizerOptions::default());
    let mut picture = jpeg_picture(0x22, false, 10);
    let at = picture.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    picture[at + 7] = 0x10;
    let sequence = packetizer.sequence();
    let error = packetizer.packetize(&frame(&parameters, 0, true, picture), true).unwrap_err().to_string();
    assert!(error.contains("larger than 2040x2040"), "{error}");
    assert_eq!(packetizer.sequence(), sequence, "no number is used up");

    let parameters = Arc::new(aac());
    let mut packetizer = Packetizer::new(0, &parameters, PacketizerOptions::default());
    assert!(packetizer.packetize(&frame(&parameters, 0, true, vec![0; 8192]), true).is_err());
}

#[test]
fn a_keyframe_brings_its_parameter_sets() {
    let parameters = Arc::new(h264());
    let mut packetizer = Packetizer::new(0, &parameters, PacketizerOptions::default());
    let data = unit(&[nal(vec![0x65], 3000, 1)]);
    let packets = packetizer.packetize(&frame(&parameters, 0, true, data.clone()), true).unwrap();
    let all = datagrams(&packets);
    // STAP-A with SPS and PPS.
    assert_eq!((all[0][12] & 0x1f, all[0][15] & 0x1f), (24, 7));
    assert!(all[..all.len() - 1].iter().all(|d| d[1] & 0x80 == 0) && all[all.len() - 1][1] & 0x80 != 0);
    let packets = packetizer.packetize(&frame(&parameters, 1, false, data), true).unwrap();
    assert_eq!(datagrams(&packets)[0][12] & 0x1f, 28, "a frame that is none does not");
    let moved = packets.with_channel(8);
    assert_eq!((moved.slices(0)[0][1], packets.slices(0)[0][1]), (8, 0));
}

#[test]
fn loss_costs_only_what_is_lost() {
    let klv = CodecParameters::Data(DataParameters { codec: DataCodec::Klv });
    for (parameters, keyed) in
        [(klv, false), (CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 2, 2)), true)]
    {
        let track = Track { id: TrackId(0), parameters: Arc::new(parameters) };
        let sdp = describe(std::slice::from_ref(&track), "::1".parse().unwrap(), "test");
        let mut depacketizer = Depacketizer::new(&parse(sdp.as_bytes()).unwrap()[0]).unwrap();
        let mut packetizer = Packetizer::new(
            0,
            &track.parameters,
            PacketizerOptions { packet_bytes: 300, ..Default::default() },
        );
        let mut got = Vec::new();
        for number in 0..6 {
            let packets = packetizer
                .packetize(&frame(&track.parameters, number, true, nal(vec![0x11], 1000, number as u8)), true)
                .unwrap();
            let mut lost = 0;
            for (index, data) in datagrams(&packets).iter().enumerate() {
                if number == 2 && index == 1 {
                    lost = 1;
                    continue;
                }
                let packet = RtpPacket::parse(data).unwrap();
                let _ = depacketizer.push(&packet, number * 3600, std::mem::take(&mut lost));
                while let Some(unit) = depacketizer.pull() {
                    got.push(unit.ticks / 3600);
                }
            }
        }
        assert_eq!(got, [0, 1, 3, 4, 5], "keyed: {keyed}");
    }
}

/// A sender that never ends a unit does not fill the memory, and its next good frame comes through.
#[test]
fn a_unit_without_an_end_is_given_up() {
    for (parameters, payload) in [
        (h264(), [vec![0x7c, 0x05], vec![1; 60_000]].concat()),
        (h265(), [vec![49 << 1, 1, 19], vec![1; 60_000]].concat()),
        (CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 2, 2)), vec![0; 60_000]),
        (CodecParameters::Data(DataParameters { codec: DataCodec::Klv }), vec![1; 60_000]),
    ] {
        let codec = parameters.codec();
        let track = Track { id: TrackId(0), parameters: Arc::new(parameters) };
        let sdp = describe(std::slice::from_ref(&track), "::1".parse().unwrap(), "test");
        let mut depacketizer = Depacketizer::new(&parse(sdp.as_bytes()).unwrap()[0]).unwrap();
        let mut packet = RtpPacket {
            sequence: 0,
            timestamp: 0,
            ssrc: 1,
            marker: false,
            payload_type: 96,
            payload: Bytes::from(payload.clone()),
        };
        let mut begin = payload.clone();
        match codec {
            Codec::Video(VideoCodec::H264) => begin[1] |= 0x80,
            Codec::Video(VideoCodec::H265) => begin[2] |= 0x80,
            _ => begin[0] = 0x10,
        }
        packet.payload = begin.into();
        let mut errors = 0;
        for _ in 0..300 {
            errors += usize::from(depacketizer.push(&packet, 0, 0).is_err());
            while depacketizer.pull().is_some() {}
            packet.payload = Bytes::from(payload.clone());
        }
        assert!(errors > 0, "{codec}");
    }
}
