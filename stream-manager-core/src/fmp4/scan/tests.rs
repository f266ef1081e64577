use super::*;
use crate::fmp4::{Fragmenter, FragmenterOptions};
use crate::frame::{
    AudioCodec, AudioParameters, CodecParameters, Frame, MediaTime, Track, TrackId, VideoCodec,
    VideoParameters,
};
use proptest::prelude::*;
use std::io::Cursor;
use std::sync::Arc;

const WALL: i64 = 1_700_000_000_000_000_000;

/// A file of `parts` parts of ten frames at 10 fps and some sound, and where its parts end.
fn file(parts: usize) -> (Vec<u8>, Vec<u64>, SegmentIdentity) {
    let video = CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 64, 48));
    let audio = CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcmu, 8000, 1));
    let tracks: Vec<Track> = [video, audio]
        .into_iter()
        .zip(0..)
        .map(|(p, id)| Track { id: TrackId(id), parameters: Arc::new(p) })
        .collect();
    let identity = SegmentIdentity {
        stream: "cam".into(),
        media_start_nanos: 7,
        continues: false,
        tracks: serde_json::json!([{"codec": "vp8"}, {"codec": "pcmu"}]),
    };
    let mut fragmenter = Fragmenter::new(&tracks, FragmenterOptions::default()).unwrap();
    fragmenter.set_identity(&identity).unwrap();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for n in 0..parts as i64 * 10 + 1 {
        for track in &tracks {
            let dts = MediaTime::from_nanos(7 + n * 100_000_000);
            let frame = Frame {
                track: track.id,
                parameters: track.parameters.clone(),
                pts: dts,
                dts,
                wall_clock: WallTime::from_unix_nanos(WALL + n * 100_000_000),
                ntp: None,
                keyframe: track.id.0 == 1 || n % 20 == 0,
                data: vec![n as u8 + 1; 50 + n as usize % 7].into(),
            };
            if let Some(part) = fragmenter.push(frame).unwrap() {
                part.chunks().for_each(|c| bytes.extend_from_slice(c));
                ends.push(bytes.len() as u64);
            }
        }
    }
    (bytes, ends, identity)
}

#[test]
fn finds_every_part() {
    let (bytes, ends, identity) = file(5);
    let scan = scan(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(scan.identity, Some(identity));
    assert_eq!(scan.parts.iter().map(|p| p.offset + p.len_bytes).collect::<Vec<_>>(), ends);
    assert_eq!((scan.is_whole(), scan.parts.len(), scan.duration()), (true, 5, Duration::from_secs(5)));
    assert_eq!(scan.start(), Some(WallTime::from_unix_nanos(WALL)));
    assert_eq!(scan.parts[3].wall_clock, Some(WallTime::from_unix_nanos(WALL + 3_000_000_000)));
    assert_eq!(scan.parts.iter().map(|p| p.keyframe).collect::<Vec<_>>(), [true, false, true, false, true]);
    assert_eq!(scan.parts[0].frames, 20 - 1, "the sound's last frame waits for its length");
    let patch = scan.duration_patch.unwrap();
    let mut patched = bytes.clone();
    let at = patch.offset() as usize;
    assert_eq!(&patched[at..at + 4], b"free");
    patched[at..at + 16].copy_from_slice(&patch.bytes(scan.duration()));
    let again = super::scan(&mut Cursor::new(&patched)).unwrap();
    assert_eq!((again.duration_patch, again.parts), (None, scan.parts));
}

#[test]
fn a_truncated_file_ends_with_its_last_whole_part() {
    let (bytes, ends, _) = file(3);
    for length in 0..bytes.len() {
        match scan(&mut Cursor::new(&bytes[..length])) {
            Ok(scan) => {
                let whole: Vec<u64> = ends.iter().copied().filter(|end| *end <= length as u64).collect();
                assert_eq!(scan.parts.len(), whole.len(), "cut at {length}");
                if let Some(last) = whole.last() {
                    assert_eq!(scan.whole_bytes, *last, "cut at {length}");
                }
            }
            Err(ScanError::Empty) => assert_eq!(length, 0),
            Err(ScanError::NotMp4 | ScanError::NoMoov) => {
                assert!((length as u64) < ends[0], "cut at {length}")
            }
            Err(error) => panic!("cut at {length}: {error}"),
        }
    }
}

#[test]
fn a_hole_at_the_end_is_cut_off() {
    let (mut bytes, ends, _) = file(2);
    bytes.extend_from_slice(&[0; 10_000]);
    let scan = scan(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!((scan.whole_bytes, scan.is_whole()), (ends[1], false));
}

#[test]
fn foreign_files_are_told_apart() {
    let mut text = Cursor::new(b"This is no video at all, only words.".to_vec());
    assert!(matches!(scan(&mut text), Err(ScanError::NotMp4)));
    let mut plain = Vec::from(*b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08moov");
    assert!(matches!(scan(&mut Cursor::new(&plain)), Err(ScanError::NotFragmented)));
    plain.truncate(20);
    assert!(matches!(scan(&mut Cursor::new(&plain)), Err(ScanError::NoMoov)));
}

proptest! {
    #[test]
    fn whatever_is_in_the_file_it_returns(
        changes in prop::collection::vec((0usize..20_000, any::<u8>()), 1..20),
        cut in 0usize..20_000,
    ) {
        let (mut bytes, _, _) = file(3);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut % bytes.len());
        if let Ok(scan) = scan(&mut Cursor::new(&bytes)) {
            prop_assert!(scan.whole_bytes <= scan.file_bytes);
            let mut end = 0;
            for part in &scan.parts {
                prop_assert!(part.offset >= end && part.len_bytes > 0);
                end = part.offset + part.len_bytes;
                payload_is_plausible(&mut Cursor::new(&bytes), &scan, part).unwrap();
            }
            prop_assert!(scan.parts.is_empty() || scan.whole_bytes == end);
        }
    }
}
