//! Fragments to plain MP4: one `moov` that says where every sample lies, in front of one `mdat` (ISO/IEC 14496-12 sections 8.6 and 8.7).
//!
//! Programs that know no fragments, and editors that want to know all of a file at once, read it. No payload is touched: what lies in the
//! fragments' `mdat`s lies behind each other in the new one.

use super::SYNC;
use super::filter::put_box;
use super::join::{FileHead, Shift, samples};
use super::scan::{child, children, decode};
use mp4_atom as mp4;

/// The movie's own timescale: as fine as that of pictures.
const TIMESCALE: u32 = 90_000;

/// Where a fragment's payload lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// From the fragment's beginning.
    pub offset: u64,
    /// How long it is.
    pub len_bytes: u64,
}

/// The samples of one track, as tables.
#[derive(Debug, Default)]
struct Table {
    id: u32,
    timescale: u32,
    /// Decoding time of the first one.
    first: Option<u64>,
    /// Where the last one begins, by the tables, and as long as it says it is.
    last: Option<(u64, u32)>,
    sizes: Vec<u32>,
    /// Runs of equal lengths.
    durations: Vec<(u32, u32)>,
    /// Runs of equal distances from decoding to showing.
    compositions: Vec<(u32, i32)>,
    /// Numbers of those that can be decoded alone, from one.
    syncs: Vec<u32>,
    /// Where runs of samples begin in the payload, and how many they are.
    chunks: Vec<(u64, u32)>,
}

/// Adds to the last run, or begins another.
fn run<T: PartialEq>(runs: &mut Vec<(u32, T)>, value: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == value => *count += 1,
        _ => runs.push((1, value)),
    }
}

impl Table {
    /// All samples but the last have their length by where the next one begins.
    fn begin(&mut self, at: u64) {
        match self.last {
            None => self.first = Some(at),
            Some((before, _)) => {
                run(&mut self.durations, u32::try_from(at.saturating_sub(before)).unwrap_or(u32::MAX));
            }
        }
    }

    fn end(&mut self) {
        if let Some((_, length)) = self.last {
            run(&mut self.durations, length);
        }
    }

    fn ticks(&self) -> u64 {
        self.durations.iter().map(|(count, length)| u64::from(*count) * u64::from(*length)).sum()
    }
}

/// Collects what fragments say of their samples.
#[derive(Debug)]
pub struct PlainMovie {
    tables: Vec<Table>,
    payload_bytes: u64,
}

impl PlainMovie {
    /// Of files that begin like this.
    pub fn new(head: &FileHead) -> Self {
        let table = |t: &super::ScannedTrack| Table { id: t.id, timescale: t.timescale, ..Table::default() };
        Self { tables: head.tracks.iter().map(table).collect(), payload_bytes: 0 }
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.tables.iter().map(|table| table.sizes.len()).sum()
    }

    /// How long their payload is.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Adds a fragment, of which everything up to the beginning of its payload is given; says where the payload lies. `None` if it is
    /// damaged.
    pub fn add(&mut self, header: &[u8], shifts: &[Shift]) -> Option<Payload> {
        let (_, body, moof_body) = children(header).find(|(kind, ..)| kind == b"moof")?;
        let (moof, moof_at) = (decode::<mp4::Moof>(body)?, u64::try_from(moof_body - 8).ok()?);
        let mdat_at = moof_body + body.len();
        let mdat = header.get(mdat_at..mdat_at + 8).filter(|head| head[4..] == *b"mdat")?;
        let size = u64::from(u32::from_be_bytes([mdat[0], mdat[1], mdat[2], mdat[3]]));
        let payload = Payload { offset: u64::try_from(mdat_at + 8).ok()?, len_bytes: size.checked_sub(8)? };
        for traf in &moof.traf {
            let id = traf.tfhd.track_id;
            let (Some(table), Some(shift)) =
                (self.tables.iter_mut().find(|t| t.id == id), shifts.iter().find(|s| s.track == id))
            else {
                continue;
            };
            let mut at = traf.tfdt.as_ref()?.base_media_decode_time.checked_add_signed(shift.ticks)?;
            let Some(trun) = traf.trun.first() else { continue };
            let from = moof_at.checked_add_signed(trun.data_offset.unwrap_or(0).into())?;
            let mut end = from;
            let mut count = 0;
            for sample in samples(traf) {
                // What lies in front of what is there already cannot be said: it follows on.
                let start = table.last.map_or(at, |(before, _)| at.max(before));
                table.begin(start);
                table.last = Some((start, sample.duration));
                table.sizes.push(sample.size);
                run(&mut table.compositions, i32::try_from(sample.composition).ok()?);
                if sample.flags == SYNC {
                    table.syncs.push(u32::try_from(table.sizes.len()).ok()?);
                }
                end = end.checked_add(sample.size.into())?;
                at = at.checked_add(sample.duration.into())?;
                count += 1;
            }
            if from < payload.offset || end > payload.offset + payload.len_bytes {
                return None;
            }
            if count > 0 {
                table.chunks.push((self.payload_bytes + from - payload.offset, count));
            }
        }
        self.payload_bytes += payload.len_bytes;
        Some(payload)
    }

    /// Everything in front of the payload: `ftyp`, `moov`, the head of `mdat`, made from how the fragments' file begins. `None` if there is
    /// nothing in it.
    pub fn finish(mut self, head: &FileHead, start_mp4_secs: u64) -> Option<Vec<u8>> {
        self.tables.iter_mut().for_each(Table::end);
        if self.samples() == 0 {
            return None;
        }
        let movie = |ticks: u64, table: &Table| {
            let scaled = u128::from(ticks) * u128::from(TIMESCALE) / u128::from(table.timescale.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let longest = self.tables.iter().map(|t| movie(t.first.unwrap_or(0) + t.ticks(), t)).max()?;
        let boxes = |offset: u64| {
            let mut moov = Vec::new();
            let mut tables = self.tables.iter();
            for (kind, body, _) in children(head.moov()) {
                match &kind {
                    b"mvhd" => put_box(&mut moov, kind, &mvhd(body, start_mp4_secs, longest)?),
                    b"trak" => {
                        let table = tables.next()?;
                        if !table.sizes.is_empty() {
                            put_box(&mut moov, kind, &trak(body, table, offset, movie)?);
                        }
                    }
                    // What is said of fragments, and of where it was recorded.
                    b"mvex" => {}
                    _ => put_box(&mut moov, kind, body),
                }
            }
            Some(moov)
        };
        let mut out = Vec::new();
        put_box(&mut out, *b"ftyp", b"isom\0\0\x02\0isomiso2avc1mp41");
        // Offsets have eight bytes whatever they are, so that the size is known before.
        let size = boxes(0)?.len() + 8;
        let offset = (out.len() + size + 16) as u64;
        put_box(&mut out, *b"moov", &boxes(offset)?);
        out.extend_from_slice(b"\0\0\0\x01mdat");
        out.extend_from_slice(&(self.payload_bytes + 16).to_be_bytes());
        Some(out)
    }
}

/// A header box with other times: version 1 has eight bytes for each, version 0 four.
fn put_time(body: &mut [u8], at: (usize, usize), value: u64) -> Option<()> {
    if body.first() == Some(&1) {
        body.get_mut(at.1..at.1 + 8)?.copy_from_slice(&value.to_be_bytes());
    } else {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        body.get_mut(at.0..at.0 + 4)?.copy_from_slice(&value.to_be_bytes());
    }
    Some(())
}

fn mvhd(body: &[u8], created: u64, duration: u64) -> Option<Vec<u8>> {
    let mut out = body.to_vec();
    put_time(&mut out, (4, 4), created)?;
    put_time(&mut out, (8, 12), created)?;
    let scale = if out.first() == Some(&1) { 20 } else { 12 };
    out.get_mut(scale..scale + 4)?.copy_from_slice(&TIMESCALE.to_be_bytes());
    put_time(&mut out, (16, 24), duration)?;
    Some(out)
}

/// Where presentation begins in a track: what its edit list says, if it has one.
fn edit_of(trak: &[u8]) -> u64 {
    let elst = child(trak, b"edts").and_then(|edts| child(edts, b"elst")).unwrap_or_default();
    let field = |at: usize, length: usize| {
        let bytes = elst.get(at..at + length)?;
        Some(bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    // Behind version and count stand duration and time, with four bytes each or eight.
    let time = if elst.first() == Some(&1) { field(16, 8) } else { field(12, 4) };
    time.unwrap_or(0)
}

fn trak(body: &[u8], table: &Table, offset: u64, movie: impl Fn(u64, &Table) -> u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (first, ticks, edit) = (table.first?, table.ticks(), edit_of(body));
    // The first sample of a track is at zero here: what comes before it is an empty edit, what is not shown of it is left out.
    let (delay, skipped) = (first.saturating_sub(edit), edit.saturating_sub(first));
    let shown = movie(ticks.saturating_sub(skipped), table);
    let delay = movie(delay, table);
    for (kind, inner, _) in children(body) {
        match &kind {
            b"tkhd" => {
                let mut tkhd = inner.to_vec();
                put_time(&mut tkhd, (20, 28), delay + shown)?;
                put_box(&mut out, kind, &tkhd);
                let mut entries = Vec::new();
                if delay > 0 {
                    entries.push((delay, -1i64));
                }
                entries.push((shown, i64::try_from(skipped).ok()?));
                let mut elst = vec![1, 0, 0, 0];
                elst.extend_from_slice(&u32::try_from(entries.len()).ok()?.to_be_bytes());
                for (duration, at) in entries {
                    elst.extend_from_slice(&duration.to_be_bytes());
                    elst.extend_from_slice(&at.to_be_bytes());
                    elst.extend_from_slice(&[0, 1, 0, 0]);
                }
                let mut edts = Vec::new();
                put_box(&mut edts, *b"elst", &elst);
                put_box(&mut out, *b"edts", &edts);
            }
            b"edts" => {}
            b"mdia" => {
                let mut mdia = Vec::new();
                for (kind, inner, _) in children(inner) {
                    match &kind {
                        b"mdhd" => {
                            let mut mdhd = inner.to_vec();
                            put_time(&mut mdhd, (16, 24), ticks)?;
                            put_box(&mut mdia, kind, &mdhd);
                        }
                        b"minf" => put_box(&mut mdia, kind, &minf(inner, table, offset)?),
                        _ => put_box(&mut mdia, kind, inner),
                    }
                }
                put_box(&mut out, kind, &mdia);
            }
            _ => put_box(&mut out, kind, inner),
        }
    }
    Some(out)
}

fn minf(body: &[u8], table: &Table, offset: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (kind, inner, _) in children(body) {
        if kind == *b"stbl" {
            put_box(&mut out, kind, &stbl(child(inner, b"stsd")?, table, offset)?);
        } else {
            put_box(&mut out, kind, inner);
        }
    }
    Some(out)
}

fn stbl(stsd: &[u8], table: &Table, offset: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    put_box(&mut out, *b"stsd", stsd);
    let count = |n: usize| u32::try_from(n).ok().map(u32::to_be_bytes);
    let mut put = |kind: &[u8; 4], version: u8, entries: usize, fields: &mut dyn Iterator<Item = u32>| {
        let mut body = vec![version, 0, 0, 0];
        body.extend_from_slice(&count(entries)?);
        fields.for_each(|field| body.extend_from_slice(&field.to_be_bytes()));
        put_box(&mut out, *kind, &body);
        Some(())
    };
    put(
        b"stts",
        0,
        table.durations.len(),
        &mut table.durations.iter().flat_map(|(n, length)| [*n, *length]),
    )?;
    if table.compositions.iter().any(|(_, offset)| *offset != 0) {
        // Version 1 has signed distances.
        let fields = &mut table.compositions.iter().flat_map(|(n, offset)| [*n, offset.cast_unsigned()]);
        put(b"ctts", 1, table.compositions.len(), fields)?;
    }
    if table.syncs.len() < table.sizes.len() && !table.syncs.is_empty() {
        put(b"stss", 0, table.syncs.len(), &mut table.syncs.iter().copied())?;
    }
    let mut runs: Vec<[u32; 3]> = Vec::new();
    for (number, (_, samples)) in (1..).zip(&table.chunks) {
        if runs.last().is_none_or(|[_, last, _]| last != samples) {
            runs.push([number, *samples, 1]);
        }
    }
    put(b"stsc", 0, runs.len(), &mut runs.iter().flatten().copied())?;
    // Of no common size, then how many.
    let mut stsz = vec![0; 8];
    stsz.extend_from_slice(&count(table.sizes.len())?);
    table.sizes.iter().for_each(|size| stsz.extend_from_slice(&size.to_be_bytes()));
    put_box(&mut out, *b"stsz", &stsz);
    let mut co64 = vec![0; 4];
    co64.extend_from_slice(&count(table.chunks.len())?);
    table.chunks.iter().for_each(|(at, _)| co64.extend_from_slice(&(offset + at).to_be_bytes()));
    put_box(&mut out, *b"co64", &co64);
    Some(out)
}
