//! What goes in comes out: every byte, every time, in order, whatever the frames look like.

use super::*;
use crate::frame::{AudioCodec, AudioParameters, VideoCodec, VideoParameters};
use mp4_atom::{Atom, Decode, DecodeMaybe, Header, Moof, Moov};
use proptest::prelude::*;
use std::sync::Arc;

fn tracks() -> Vec<Track> {
    let video = CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 64, 48));
    let audio = CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcmu, 8000, 1));
    [video, audio]
        .into_iter()
        .zip(0..)
        .map(|(p, id)| Track { id: TrackId(id), parameters: Arc::new(p) })
        .collect()
}

fn frame(track: &Track, dts_nanos: i64, pts_nanos: i64, keyframe: bool, data: Vec<u8>) -> Frame {
    Frame {
        track: track.id,
        parameters: track.parameters.clone(),
        pts: MediaTime::from_nanos(pts_nanos),
        dts: MediaTime::from_nanos(dts_nanos),
        wall_clock: WallTime::from_unix_nanos(1_700_000_000_000_000_000 + dts_nanos),
        ntp: None,
        keyframe,
        data: data.into(),
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    dts: u64,
    cts: i64,
    duration: u32,
    sync: bool,
    data: Vec<u8>,
}

/// A reader of its own: walks the boxes and resolves every sample by its offset in the file.
fn read(file: &[u8]) -> (Moov, Vec<Vec<Read>>) {
    let mut moov = None;
    let mut tracks: Vec<Vec<Read>> = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let mut rest = &file[at..];
        let header = Header::decode(&mut rest).unwrap();
        let size = header.size.unwrap() + 8;
        if header.kind == Moov::KIND {
            let found = Moov::decode(&mut &file[at..at + size]).unwrap();
            tracks.resize_with(found.trak.len(), Vec::new);
            moov = Some(found);
        } else if header.kind == Moof::KIND {
            for traf in Moof::decode_maybe(&mut &file[at..at + size]).unwrap().unwrap().traf {
                let out = &mut tracks[traf.tfhd.track_id as usize - 1];
                let mut dts = traf.tfdt.unwrap().base_media_decode_time;
                for trun in traf.trun {
                    let mut offset = at + trun.data_offset.unwrap() as usize;
                    for entry in trun.samples.iter() {
                        let size = entry.size.unwrap() as usize;
                        let duration = entry.duration.or(traf.tfhd.default_sample_duration).unwrap();
                        let flags = entry.flags.or(traf.tfhd.default_sample_flags).unwrap();
                        out.push(Read {
                            dts,
                            cts: entry.cts.unwrap_or(0),
                            duration,
                            sync: flags & 0x1_0000 == 0,
                            data: file[offset..offset + size].to_vec(),
                        });
                        dts += u64::from(duration);
                        offset += size;
                    }
                }
            }
        }
        at += size;
    }
    (moov.unwrap(), tracks)
}

fn write(frames: &[Frame], tracks: &[Track], part: Duration) -> Vec<u8> {
    let mut fragmenter =
        Fragmenter::new(tracks, FragmenterOptions { part_duration: part, ..FragmenterOptions::default() })
            .unwrap();
    let mut file = Vec::new();
    let mut append = |part: Part| part.chunks().for_each(|c| file.extend_from_slice(c));
    for frame in frames {
        fragmenter.push(frame.clone()).unwrap().into_iter().for_each(&mut append);
    }
    fragmenter.finish(None).unwrap().into_iter().for_each(&mut append);
    file
}

#[test]
fn b_frames_and_sound_start_together() {
    let tracks = tracks();
    let ms = 1_000_000;
    // Two frames of reordering at 25 fps, sound from the same moment on.
    let mut frames: Vec<Frame> = [(0, 80), (40, 240), (80, 160), (120, 120), (160, 200)]
        .iter()
        .map(|(dts, pts)| frame(&tracks[0], dts * ms, pts * ms, *dts == 0, vec![1; 10]))
        .collect();
    frames.insert(1, frame(&tracks[1], 80 * ms, 80 * ms, true, vec![2; 160]));
    let (moov, samples) = read(&write(&frames, &tracks, Duration::from_secs(1)));
    let edit =
        |i: usize| moov.trak[i].edts.as_ref().unwrap().elst.as_ref().unwrap().entries[0].media_time.unwrap();
    assert_eq!((edit(0), edit(1)), (80 * 90, 80 * 8));
    assert_eq!(samples[0].iter().map(|s| s.cts / 90).collect::<Vec<_>>(), [80, 200, 80, 0, 40]);
    assert_eq!(samples[1][0].dts, 80 * 8);
    assert_eq!(samples[1][0].duration, 160);
    assert_eq!(moov.mvhd.creation_time, 1_700_000_000 + 2_082_844_800);
}

/// Keyframes are found at the beginning of parts; where each frame is one, parts have their length.
#[test]
fn parts_begin_with_keyframes() {
    let tracks = tracks();
    let starts = |is_key: &dyn Fn(i64) -> bool| -> Vec<(i64, bool)> {
        let options = FragmenterOptions { part_duration: Duration::from_millis(500), cut_at_keyframes: true };
        let mut fragmenter = Fragmenter::new(&tracks, options).unwrap();
        let frames = (0..100).map(|n| frame(&tracks[0], n * 40_000_000, n * 40_000_000, is_key(n), vec![1]));
        let parts = frames.filter_map(|frame| fragmenter.push(frame).unwrap());
        parts.map(|part| (part.start.as_nanos() / 40_000_000, part.keyframe)).collect()
    };
    let parts = starts(&|n| n % 50 == 0);
    assert_eq!(
        parts,
        [(0, true), (13, false), (26, false), (39, false), (50, true), (63, false), (76, false)]
    );
    assert_eq!(starts(&|_| true).len(), 7);
}

#[test]
fn the_patch_makes_a_mehd() {
    let tracks = tracks();
    let mut fragmenter = Fragmenter::new(&tracks, FragmenterOptions::default()).unwrap();
    fragmenter.push(frame(&tracks[0], 0, 0, true, vec![1])).unwrap();
    let part = fragmenter.finish(Some(MediaTime::from_nanos(2_000_000_000))).unwrap().unwrap();
    assert_eq!(part.duration, Duration::from_secs(2));
    let mut file: Vec<u8> = part.chunks().flat_map(|c| c.to_vec()).collect();
    assert!(read(&file).0.mvex.unwrap().mehd.is_none());
    let patch = part.duration_patch.unwrap();
    let at = patch.offset() as usize;
    file[at..at + 16].copy_from_slice(&patch.bytes(part.duration));
    assert_eq!(read(&file).0.mvex.unwrap().mehd.unwrap().fragment_duration, 2000);
}

#[test]
fn g711_is_named_right_and_metadata_left_out() {
    let mut tracks = tracks();
    tracks[0].parameters = Arc::new(CodecParameters::Data(crate::frame::DataParameters {
        codec: crate::frame::DataCodec::Onvif,
    }));
    let file = write(&[frame(&tracks[1], 0, 0, true, vec![0; 160])], &tracks, Duration::from_secs(1));
    assert!(file.windows(4).any(|w| w == b"ulaw"));
    assert!(!file.windows(4).any(|w| w == b"twos"));
    tracks.pop();
    assert!(matches!(
        Fragmenter::new(&tracks, FragmenterOptions::default()),
        Err(Fmp4Error::NoTracks { tracks: 1 })
    ));
}

#[test]
fn a_bad_decoder_configuration_is_an_error_not_a_file() {
    let bad =
        VideoParameters { extra_data: vec![1, 2, 3].into(), ..VideoParameters::new(VideoCodec::H264, 2, 2) };
    let track = Track { id: TrackId(0), parameters: Arc::new(CodecParameters::Video(bad)) };
    let error = Fragmenter::new(&[track], FragmenterOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("h264 decoder configuration"), "{error}");
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        steps in prop::collection::vec((0usize..2, 12_000i64..4_000_000_000, 0i64..400_000_000, any::<bool>(), 0usize..50), 1..150),
        part_ms in 1u64..3000,
        origin in -5_000_000_000i64..90_000_000_000_000,
    ) {
        let tracks = tracks();
        let mut clocks = [origin, origin];
        let mut frames = Vec::new();
        for (n, (track, step, ahead, key, size)) in steps.into_iter().enumerate() {
            let key = key || track == 1 || !frames.iter().any(|f: &Frame| f.is_video());
            let ahead = if track == 1 { 0 } else { ahead };
            let dts = clocks[track];
            let mut data = vec![n as u8; size];
            data.extend_from_slice(&(n as u32).to_be_bytes());
            frames.push(frame(&tracks[track], dts, dts + ahead, key, data));
            clocks[track] += step;
        }
        let (_, samples) = read(&write(&frames, &tracks, Duration::from_millis(part_ms)));
        let base = frames.iter().map(|f| f.dts).min().unwrap();
        for (index, track) in tracks.iter().enumerate() {
            let sent: Vec<&Frame> = frames.iter().filter(|f| f.track == track.id).collect();
            let rate = track.parameters.clock_rate();
            prop_assert_eq!(sent.len(), samples[index].len());
            for (sent, got) in sent.iter().zip(&samples[index]) {
                prop_assert_eq!(&sent.data[..], &got.data[..]);
                prop_assert_eq!(sent.keyframe, got.sync);
                let relative = |t: MediaTime| MediaTime::from_nanos(t.as_nanos() - base.as_nanos()).to_ticks(rate);
                prop_assert_eq!(relative(sent.dts), got.dts as i64);
                prop_assert_eq!(relative(sent.pts), got.dts as i64 + got.cts);
            }
        }
    }
}
