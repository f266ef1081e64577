//! A file's boxes with some of its tracks only, for players that cannot take the others.

use super::scan::children;

pub(super) fn put_box(out: &mut Vec<u8>, kind: [u8; 4], body: &[u8]) {
    let size = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&kind);
    out.extend_from_slice(body);
}

fn be_u32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// The initialization segment (`ftyp`, `moov`) with only these tracks. Whatever else stands there is left out. `None` if there
/// is none.
pub fn filter_init(data: &[u8], keep: &[u32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let mut found = false;
    for (kind, body, _) in children(data) {
        match &kind {
            b"ftyp" => put_box(&mut out, kind, body),
            b"moov" => {
                put_box(&mut out, kind, &filter_moov(body, keep)?);
                found = true;
            }
            _ => {}
        }
    }
    found.then_some(out)
}

fn filter_moov(moov: &[u8], keep: &[u32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(moov.len());
    for (kind, body, _) in children(moov) {
        match &kind {
            b"trak" => {
                let (_, tkhd, _) = children(body).find(|(kind, ..)| kind == b"tkhd")?;
                let id = be_u32(tkhd, if tkhd.first() == Some(&1) { 20 } else { 12 })?;
                if keep.contains(&id) {
                    put_box(&mut out, kind, body);
                }
            }
            b"mvex" => {
                let mut mvex = Vec::with_capacity(body.len());
                for (kind, body, _) in children(body) {
                    if kind != *b"trex" || keep.contains(&be_u32(body, 4)?) {
                        put_box(&mut mvex, kind, body);
                    }
                }
                put_box(&mut out, kind, &mvex);
            }
            _ => put_box(&mut out, kind, body),
        }
    }
    Some(out)
}

/// Fragments with only these tracks. The others' payload stays where it is, and nothing points to it. `None` if they are damaged.
pub fn filter_fragments(data: &[u8], keep: &[u32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let mut end = 0;
    for (kind, body, at) in children(data) {
        end = at + body.len();
        if kind == *b"moof" {
            put_box(&mut out, kind, &filter_moof(body, keep)?);
        } else {
            put_box(&mut out, kind, body);
        }
    }
    (end == data.len()).then_some(out)
}

fn filter_moof(moof: &[u8], keep: &[u32]) -> Option<Vec<u8>> {
    let track_of = |traf: &[u8]| {
        let (_, tfhd, _) = children(traf).find(|(kind, ..)| kind == b"tfhd")?;
        be_u32(tfhd, 4)
    };
    let mut removed = 0;
    for (kind, body, _) in children(moof) {
        if kind == *b"traf" && !keep.contains(&track_of(body)?) {
            removed += body.len() + 8;
        }
    }
    let mut out = Vec::with_capacity(moof.len());
    for (kind, body, _) in children(moof) {
        if kind != *b"traf" {
            put_box(&mut out, kind, body);
            continue;
        }
        if !keep.contains(&track_of(body)?) {
            continue;
        }
        let mut traf = body.to_vec();
        for (kind, trun, at) in children(body) {
            // Offsets count from the start of moof, which is shorter now (ISO/IEC 14496-12 section 8.8.8).
            const DATA_OFFSET: u32 = 1;
            if kind == *b"trun" && be_u32(trun, 0)? & DATA_OFFSET != 0 {
                let offset = be_u32(trun, 8)?.checked_sub(u32::try_from(removed).ok()?)?;
                traf.get_mut(at + 8..at + 12)?.copy_from_slice(&offset.to_be_bytes());
            }
        }
        put_box(&mut out, kind, &traf);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmp4::{Fragmenter, FragmenterOptions, scan};
    use crate::frame::{
        AudioCodec, AudioParameters, CodecParameters, Frame, MediaTime, Track, TrackId, VideoCodec,
        VideoParameters, WallTime,
    };
    use proptest::prelude::*;
    use std::io::Cursor;
    use std::sync::Arc;

    fn file() -> Vec<u8> {
        let tracks: Vec<Track> = [
            CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 64, 64)),
            CodecParameters::Audio(AudioParameters::new(AudioCodec::Pcma, 8000, 1)),
        ]
        .into_iter()
        .zip(0..)
        .map(|(parameters, id)| Track { id: TrackId(id), parameters: Arc::new(parameters) })
        .collect();
        let mut fragmenter = Fragmenter::new(&tracks, FragmenterOptions::default()).unwrap();
        let mut file = Vec::new();
        for n in 0..60i64 {
            for track in &tracks {
                let time = MediaTime::from_nanos(n * 40_000_000);
                let frame = Frame {
                    track: track.id,
                    parameters: track.parameters.clone(),
                    pts: time,
                    dts: time,
                    wall_clock: WallTime::from_unix_nanos(n * 40_000_000),
                    ntp: None,
                    keyframe: n % 25 == 0,
                    data: vec![if track.id.0 == 0 { 1 } else { 2 }; 320].into(),
                };
                if let Some(part) = fragmenter.push(frame).unwrap() {
                    part.chunks().for_each(|chunk| file.extend_from_slice(chunk));
                }
            }
        }
        file
    }

    #[test]
    fn one_track_of_two_stays() {
        let file = file();
        let whole = scan(&mut Cursor::new(&file)).unwrap();
        let start = whole.parts[0].offset as usize;
        let keep = [whole.tracks[0].id];
        let mut made = filter_init(&file[..start], &keep).unwrap();
        let init = made.len();
        made.extend(filter_fragments(&file[start..], &keep).unwrap());
        let scanned = scan(&mut Cursor::new(&made)).unwrap();
        assert_eq!(scanned.tracks.len(), 1);
        assert!(scanned.is_whole());
        assert_eq!(scanned.frames(), whole.parts.iter().map(|p| p.frames).sum::<u64>().div_ceil(2));
        // The first sample is the picture's still.
        let (_, moof, _) = children(&made[init..]).find(|(kind, ..)| kind == b"moof").unwrap();
        let (_, traf, _) = children(moof).find(|(kind, ..)| kind == b"traf").unwrap();
        let (_, trun, _) = children(traf).find(|(kind, ..)| kind == b"trun").unwrap();
        let moof_at = made[init..].windows(4).position(|w| w == b"moof").unwrap() + init - 4;
        assert_eq!(made[moof_at + be_u32(trun, 8).unwrap() as usize], 1);
    }

    proptest! {
        #[test]
        fn damaged_boxes_do_no_harm(at in 0usize..2000, value in any::<u8>()) {
            let mut file = file();
            let at = at % file.len();
            file[at] = value;
            let _ = filter_init(&file, &[1]);
            let _ = filter_fragments(&file, &[1]);
        }
    }
}
