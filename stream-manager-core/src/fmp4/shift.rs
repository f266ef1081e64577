//! The same fragment at another time: only its few hundred bytes of boxes are written anew.

use super::scan::children;
use bytes::Bytes;

/// A fragment's boxes, written anew, and its payload, which is shared with the fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// Everything in front of the payload.
    pub header: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// Moves a fragment of one track so many ticks of its timescale to the front, and gives it a sequence number. `None` if it
/// is no fragment as [`Fragmenter`](super::Fragmenter) makes them.
pub fn shift_fragment(fragment: &Bytes, ticks: u64, sequence: u32) -> Option<Shifted> {
    let (mut moof, mut prft, mut header_bytes) = (None, None, None);
    for (kind, body, at) in children(fragment) {
        match &kind {
            b"moof" => moof = Some((body, at)),
            b"prft" => prft = Some(at),
            b"mdat" => header_bytes = Some(at),
            _ => {}
        }
    }
    let (moof, moof_at) = moof?;
    let header_bytes = header_bytes?;
    let mut header = fragment.get(..header_bytes)?.to_vec();
    let move_back = |header: &mut Vec<u8>, at: usize, version: u8| {
        if version == 1 {
            let field = header.get_mut(at..at + 8)?;
            let time = u64::from_be_bytes(field.try_into().ok()?).saturating_sub(ticks);
            field.copy_from_slice(&time.to_be_bytes());
        } else {
            let field = header.get_mut(at..at + 4)?;
            let time = u32::from_be_bytes(field.try_into().ok()?);
            let time = time.saturating_sub(u32::try_from(ticks).unwrap_or(u32::MAX));
            field.copy_from_slice(&time.to_be_bytes());
        }
        Some(())
    };
    for (kind, body, at) in children(moof) {
        match &kind {
            // Version and flags, then the number (ISO/IEC 14496-12 section 8.8.5).
            b"mfhd" => {
                header.get_mut(moof_at + at + 4..moof_at + at + 8)?.copy_from_slice(&sequence.to_be_bytes())
            }
            b"traf" => {
                for (kind, tfdt, tfdt_at) in children(body) {
                    if kind == *b"tfdt" {
                        move_back(&mut header, moof_at + at + tfdt_at + 4, *tfdt.first()?)?;
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(at) = prft {
        // Version and flags, track, NTP time, then the media time (section 8.16.5).
        let version = *fragment.get(at)?;
        move_back(&mut header, at + 16, version)?;
    }
    Some(Shifted { header: header.into(), payload: fragment.slice(header_bytes..) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmp4::{CmafTrack, Fragmenter, init_segment, scan};
    use crate::frame::{
        CodecParameters, Frame, MediaTime, Track, TrackId, VideoCodec, VideoParameters, WallTime,
    };
    use std::io::Cursor;
    use std::sync::Arc;

    #[test]
    fn a_fragment_begins_elsewhere() {
        let parameters = Arc::new(CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 64, 64)));
        let track = Track { id: TrackId(0), parameters: parameters.clone() };
        let mut fragmenter = Fragmenter::cmaf(&track, 7).unwrap();
        let start = 1_700_000_000_000_000_000;
        for n in 0..3 {
            let time = MediaTime::from_nanos(start + n * 40_000_000);
            let frame = Frame {
                track: TrackId(0),
                parameters: parameters.clone(),
                pts: time,
                dts: time,
                wall_clock: WallTime::from_unix_nanos(start),
                ntp: None,
                keyframe: n == 0,
                data: vec![n as u8; 10].into(),
            };
            assert!(fragmenter.push(frame).unwrap().is_none());
        }
        let part = fragmenter.finish(None).unwrap().unwrap();
        assert!(part.init.is_none());
        let fragment: Bytes = part.chunks().flat_map(|c| c.to_vec()).collect::<Vec<u8>>().into();
        let ticks = u64::try_from(MediaTime::from_nanos(start - 1_000_000_000).to_ticks(90_000)).unwrap();
        let moved = shift_fragment(&fragment, ticks, 9).unwrap();
        let init = init_segment(&[CmafTrack { id: 7, parameters }]).unwrap();
        let file = [&init[..], &moved.header, &moved.payload].concat();
        let scanned = scan(&mut Cursor::new(file)).unwrap();
        assert!(scanned.is_whole());
        assert_eq!((scanned.parts[0].start.as_secs_f64(), scanned.parts[0].frames), (1.0, 3));
        assert_eq!(shift_fragment(&init, 0, 0), None);
        assert_eq!(shift_fragment(&Bytes::from_static(b"nothing"), 0, 0), None);
    }
}
