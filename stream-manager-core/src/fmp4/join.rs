//! Several files made one: what stands in front, and fragments at another time.
//!
//! A joined file begins with the boxes of one of its files, edited ([`joined_init`]), and goes on with the fragments of all of them, of
//! which only the times and the numbers change, in place ([`move_fragments`]): the size of a joined file is the sum of what it is made
//! of. The last fragment may be cut short ([`trim_fragment`]).

use super::entry::sample_entries;
use super::filter::put_box;
use super::init::MOVIE_TIMESCALE;
use super::scan::{ScannedTrack, children, decode, read_moov};
use bytes::Bytes;
use mp4_atom::{self as mp4, Encode};
use std::time::Duration;

/// What stands in front of a file's fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHead {
    ftyp: Vec<u8>,
    moov: Vec<u8>,
    /// Its tracks.
    pub tracks: Vec<ScannedTrack>,
    /// What its tracks are encoded as: files of which this is equal can be joined.
    pub encoding: Vec<u8>,
}

/// A track's samples in one fragment. Times count in the track's timescale from the file's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentTrack {
    /// `track_ID`.
    pub id: u32,
    /// Decoding time of its first sample.
    pub start: u64,
    /// Where its last sample ends, by decoding time.
    pub end: u64,
    /// The earliest presentation time.
    pub earliest: i64,
}

/// How a track of a joined file differs from the same track of a file that goes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// `track_ID`.
    pub track: u32,
    /// What is added to its times, in its timescale.
    pub ticks: i64,
}

impl FileHead {
    /// From the beginning of a file. `None` if there is no whole `moov` of a fragmented file in it.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (mut ftyp, mut moov) = (None, None);
        for (kind, body, _) in children(data) {
            match &kind {
                b"ftyp" => ftyp = Some(body.to_vec()),
                b"moov" => moov = Some(body.to_vec()),
                _ => {}
            }
        }
        let (ftyp, moov) = (ftyp?, moov?);
        let (tracks, _) = read_moov(&moov, 0).ok()?;
        let entries = sample_entries(&moov);
        if entries.len() != tracks.len() {
            return None;
        }
        let encoding = entries.concat();
        Some(Self { ftyp, moov, tracks, encoding })
    }

    /// The `stsd` boxes of its tracks, each with the track's id and timescale.
    pub(super) fn sample_entries(&self) -> Vec<(u32, u32, &[u8])> {
        let entries = sample_entries(&self.moov);
        self.tracks.iter().zip(entries).map(|(track, entry)| (track.id, track.timescale, entry)).collect()
    }

    /// The body of its `moov`.
    pub(super) fn moov(&self) -> &[u8] {
        &self.moov
    }
}

/// The initialization segment of a joined file: that of one of its files, with when it begins (seconds since 1904), where presentation
/// begins in each track (in its timescale), and how long it is, if that is known.
pub fn joined_init(
    head: &FileHead,
    start_mp4_secs: u64,
    edits: &[(u32, u64)],
    duration: Option<Duration>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.moov.len() + 128);
    put_box(&mut out, *b"ftyp", &head.ftyp);
    let mut moov = Vec::with_capacity(head.moov.len() + 64);
    for (kind, body, _) in children(&head.moov) {
        match &kind {
            b"mvhd" => {
                let mut mvhd = body.to_vec();
                // Version 1: two times of eight bytes (ISO/IEC 14496-12 section 8.2.2); what is recorded here has these.
                if mvhd.first() == Some(&1) && mvhd.len() >= 20 {
                    mvhd[4..12].copy_from_slice(&start_mp4_secs.to_be_bytes());
                    mvhd[12..20].copy_from_slice(&start_mp4_secs.to_be_bytes());
                }
                put_box(&mut moov, kind, &mvhd);
            }
            b"trak" => put_box(&mut moov, kind, &edited_trak(body, edits)),
            b"mvex" => put_box(&mut moov, kind, &edited_mvex(body, duration)),
            _ => put_box(&mut moov, kind, body),
        }
    }
    put_box(&mut out, *b"moov", &moov);
    out
}

fn edited_trak(trak: &[u8], edits: &[(u32, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(trak.len() + 48);
    for (kind, body, _) in children(trak) {
        if kind == *b"edts" {
            continue;
        }
        put_box(&mut out, kind, body);
        if kind != *b"tkhd" {
            continue;
        }
        let at = if body.first() == Some(&1) { 20 } else { 12 };
        let id = body.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let edit = edits.iter().find(|(track, media_time)| Some(*track) == id && *media_time > 0);
        if let Some((_, media_time)) = edit {
            // An edit list of one entry, version 1 (section 8.6.6): all of the media from there on.
            let mut elst = vec![1, 0, 0, 0, 0, 0, 0, 1];
            elst.extend_from_slice(&0u64.to_be_bytes());
            elst.extend_from_slice(&media_time.to_be_bytes());
            elst.extend_from_slice(&[0, 1, 0, 0]);
            let mut edts = Vec::new();
            put_box(&mut edts, *b"elst", &elst);
            put_box(&mut out, *b"edts", &edts);
        }
    }
    out
}

fn edited_mvex(mvex: &[u8], duration: Option<Duration>) -> Vec<u8> {
    let mut out = Vec::with_capacity(mvex.len() + 20);
    if let Some(duration) = duration {
        let ticks = duration.as_nanos() * u128::from(MOVIE_TIMESCALE) / 1_000_000_000;
        let mut mehd = vec![1, 0, 0, 0];
        mehd.extend_from_slice(&u64::try_from(ticks).unwrap_or(u64::MAX).to_be_bytes());
        put_box(&mut out, *b"mehd", &mehd);
    }
    for (kind, body, _) in children(mvex) {
        if kind == *b"trex" {
            put_box(&mut out, kind, body);
        }
    }
    out
}

/// A segment index (`sidx`, section 8.16.3) of subsegments that begin with keyframes, each with its size in bytes and its length in
/// ticks. Its own size depends only on how many there are.
pub fn segment_index(track: &ScannedTrack, entries: &[(u64, u64)]) -> Vec<u8> {
    let mut sidx = vec![1, 0, 0, 0];
    sidx.extend_from_slice(&track.id.to_be_bytes());
    sidx.extend_from_slice(&track.timescale.to_be_bytes());
    sidx.extend_from_slice(&0u64.to_be_bytes());
    sidx.extend_from_slice(&0u64.to_be_bytes());
    sidx.extend_from_slice(&[0, 0]);
    sidx.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(u16::MAX).to_be_bytes());
    for (bytes, ticks) in entries.iter().take(usize::from(u16::MAX)) {
        let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX) & 0x7fff_ffff;
        sidx.extend_from_slice(&bytes.to_be_bytes());
        sidx.extend_from_slice(&u32::try_from(*ticks).unwrap_or(u32::MAX).to_be_bytes());
        // Begins with an access point of type 1.
        sidx.extend_from_slice(&[0x90, 0, 0, 0]);
    }
    let mut out = Vec::with_capacity(sidx.len() + 8);
    put_box(&mut out, *b"sidx", &sidx);
    out
}

/// What a fragment holds. `None` if its `moof` is not whole.
pub fn read_fragment(data: &[u8]) -> Option<Vec<FragmentTrack>> {
    let (_, body, _) = children(data).find(|(kind, ..)| kind == b"moof")?;
    let moof = decode::<mp4::Moof>(body)?;
    moof.traf.iter().map(track_of).collect()
}

fn track_of(traf: &mp4::Traf) -> Option<FragmentTrack> {
    let start = traf.tfdt.as_ref()?.base_media_decode_time;
    let mut at = start;
    let mut earliest = i64::MAX;
    for sample in samples(traf) {
        earliest = earliest.min(i64::try_from(at).ok()?.saturating_add(sample.composition));
        at = at.checked_add(sample.duration.into())?;
    }
    (earliest < i64::MAX).then_some(FragmentTrack { id: traf.tfhd.track_id, start, end: at, earliest })
}

/// A sample with what it inherits.
pub(super) struct Sample {
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) composition: i64,
}

pub(super) fn samples(traf: &mp4::Traf) -> impl Iterator<Item = Sample> {
    let tfhd = &traf.tfhd;
    traf.trun.iter().flat_map(|trun| trun.samples.iter()).map(|sample| Sample {
        duration: sample.duration.or(tfhd.default_sample_duration).unwrap_or(0),
        size: sample.size.or(tfhd.default_sample_size).unwrap_or(0),
        flags: sample.flags.or(tfhd.default_sample_flags).unwrap_or(0),
        composition: sample.cts.unwrap_or(0),
    })
}

/// Moves whole fragments in place and numbers them from `sequence` on. `None` if they are none, or a time would lie before the
/// beginning.
pub fn move_fragments(data: &mut [u8], shifts: &[Shift], sequence: &mut u32) -> Option<()> {
    let mut edits: Vec<(usize, [u8; 8], usize)> = Vec::new();
    let shifted = |track: u32, field: &[u8]| -> Option<[u8; 8]> {
        let time = u64::from_be_bytes(field.try_into().ok()?);
        let ticks = shifts.iter().find(|s| s.track == track)?.ticks;
        Some(time.checked_add_signed(ticks)?.to_be_bytes())
    };
    let mut end = 0;
    for (kind, body, at) in children(data) {
        end = at + body.len();
        match &kind {
            b"prft" => {
                // Track, NTP time, media time, in eight bytes or four (section 8.16.5).
                let track = u32::from_be_bytes(body.get(4..8)?.try_into().ok()?);
                if body.first() == Some(&1) {
                    edits.push((at + 16, shifted(track, body.get(16..24)?)?, 8));
                } else {
                    let mut wide = [0; 8];
                    wide[4..].copy_from_slice(body.get(16..20)?);
                    let time = shifted(track, &wide)?;
                    if time[..4] == [0; 4] {
                        let [.., a, b, c, d] = time;
                        edits.push((at + 16, [a, b, c, d, 0, 0, 0, 0], 4));
                    } else {
                        // It does not fit any more. Nobody needs it who reads a file.
                        edits.push((at - 4, *b"free\0\0\0\0", 4));
                    }
                }
            }
            b"moof" => {
                for (kind, inner, inner_at) in children(body) {
                    match &kind {
                        b"mfhd" => {
                            let mut number = [0; 8];
                            number[..4].copy_from_slice(&sequence.to_be_bytes());
                            edits.push((at + inner_at + 4, number, 4));
                            *sequence = sequence.wrapping_add(1);
                        }
                        b"traf" => {
                            let (_, tfhd, _) = children(inner).find(|(kind, ..)| kind == b"tfhd")?;
                            let track = u32::from_be_bytes(tfhd.get(4..8)?.try_into().ok()?);
                            let (_, tfdt, tfdt_at) = children(inner).find(|(kind, ..)| kind == b"tfdt")?;
                            if tfdt.first() != Some(&1) {
                                return None;
                            }
                            edits.push((at + inner_at + tfdt_at + 4, shifted(track, tfdt.get(4..12)?)?, 8));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if end != data.len() {
        return None;
    }
    for (at, bytes, length) in edits {
        data.get_mut(at..at + length)?.copy_from_slice(&bytes[..length]);
    }
    Some(())
}

/// A fragment with only the samples that are decoded before a time of their track (`track_ID`, ticks). Samples of tracks that are not
/// named all stay. `None` if nothing stays, or it is no fragment.
pub fn trim_fragment(data: &[u8], ends: &[(u32, u64)]) -> Option<Bytes> {
    let (mut prft, mut moof, mut mdat) = (&[][..], None, None);
    for (kind, body, at) in children(data) {
        match &kind {
            b"prft" => prft = data.get(at - 8..at + body.len())?,
            b"moof" => moof = Some((decode::<mp4::Moof>(body)?, at - 8)),
            b"mdat" => mdat = Some(body),
            _ => {}
        }
    }
    let (mut moof, moof_at) = moof?;
    mdat?;
    let mut payload: Vec<u8> = Vec::new();
    let mut kept = Vec::new();
    for mut traf in std::mem::take(&mut moof.traf) {
        let end = ends.iter().find(|(id, _)| *id == traf.tfhd.track_id).map_or(u64::MAX, |(_, end)| *end);
        let mut at = traf.tfdt.as_ref()?.base_media_decode_time;
        let offset = traf.trun.first()?.data_offset.unwrap_or(0);
        let mut from = moof_at.checked_add(usize::try_from(offset).ok()?)?;
        let mut entries = Vec::new();
        let begin = payload.len();
        for sample in samples(&traf) {
            if at >= end {
                break;
            }
            let to = from.checked_add(usize::try_from(sample.size).ok()?)?;
            payload.extend_from_slice(data.get(from..to)?);
            entries.push(mp4::TrunEntry {
                duration: Some(sample.duration),
                size: Some(sample.size),
                flags: Some(sample.flags),
                cts: Some(sample.composition),
            });
            from = to;
            at = at.checked_add(sample.duration.into())?;
        }
        if entries.is_empty() {
            continue;
        }
        traf.trun = vec![mp4::Trun { data_offset: Some(0), samples: entries.into() }];
        kept.push((traf, begin));
    }
    if kept.is_empty() {
        return None;
    }
    let begins: Vec<usize> = kept.iter().map(|(_, begin)| *begin).collect();
    moof.traf = kept.into_iter().map(|(traf, _)| traf).collect();
    // Offsets count from moof's start and do not change its size.
    let mut sized = Vec::new();
    moof.encode(&mut sized).ok()?;
    for (traf, begin) in moof.traf.iter_mut().zip(begins) {
        traf.trun.first_mut()?.data_offset = Some(i32::try_from(sized.len() + 8 + begin).ok()?);
    }
    let mut out = Vec::with_capacity(prft.len() + sized.len() + 8 + payload.len());
    out.extend_from_slice(prft);
    moof.encode(&mut out).ok()?;
    put_box(&mut out, *b"mdat", &payload);
    Some(out.into())
}
