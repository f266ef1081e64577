//! What is in fragments, sample by sample.

use super::SYNC;
use super::join::samples;
use super::scan::{children, decode};
use bytes::Bytes;
use mp4_atom as mp4;

/// One sample of a fragment; times are in its track's timescale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentSample {
    /// `track_ID`.
    pub track: u32,
    /// Decoding time.
    pub start: u64,
    /// How much later it is shown.
    pub composition: i64,
    /// Its length.
    pub duration: u32,
    /// Whether nothing else is needed to decode it.
    pub sync: bool,
    /// Its bytes, those of the fragment.
    pub data: Bytes,
}

/// The samples of whole fragments that lie behind each other, for each fragment in the order in which they lie in it: track by track. `None`
/// if they are damaged.
pub fn read_samples(data: &Bytes) -> Option<Vec<Vec<FragmentSample>>> {
    let mut all = Vec::new();
    let mut moof = None;
    for (kind, body, at) in children(data) {
        match &kind {
            b"moof" => moof = Some((decode::<mp4::Moof>(body)?, at - 8)),
            b"mdat" => {
                let (moof, from) = moof.take()?;
                all.push(of_fragment(data, &moof, from)?);
            }
            _ => {}
        }
    }
    Some(all)
}

fn of_fragment(data: &Bytes, moof: &mp4::Moof, moof_at: usize) -> Option<Vec<FragmentSample>> {
    let mut found = Vec::new();
    for traf in &moof.traf {
        let mut start = traf.tfdt.as_ref()?.base_media_decode_time;
        let Some(offset) = traf.trun.first().map(|trun| trun.data_offset.unwrap_or(0)) else { continue };
        let mut from = moof_at.checked_add(usize::try_from(offset).ok()?)?;
        for sample in samples(traf) {
            let to = from.checked_add(usize::try_from(sample.size).ok()?)?;
            if to > data.len() {
                return None;
            }
            found.push(FragmentSample {
                track: traf.tfhd.track_id,
                start,
                composition: sample.composition,
                duration: sample.duration,
                sync: sample.flags == SYNC,
                data: data.slice(from..to),
            });
            from = to;
            start = start.checked_add(sample.duration.into())?;
        }
    }
    Some(found)
}
