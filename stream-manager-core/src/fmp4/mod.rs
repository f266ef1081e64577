//! Frames to fragmented MP4 (ISO/IEC 14496-12) and CMAF: one piece for every part of the library that
//! needs it, and back: what parts a file holds.
//!
//! [`Fragmenter`] takes the frames of one segment and gives [`Part`]s, each a whole `moof` + `mdat`. A
//! part's payload is the frames' own memory: only the few hundred bytes of boxes in front are new. The
//! first part carries the initialization segment (`ftyp` + `moov`), so nothing has to be written before
//! there is something to show. [`scan`] reads the structure of a file again, whatever has happened to it.
//!
//! ```
//! # use stream_manager_core::fmp4::{Fragmenter, FragmenterOptions};
//! # use stream_manager_core::hub::{Hub, HubItem, RawFrame, ReaderOptions};
//! # use stream_manager_core::frame::{CodecParameters, MediaTime, VideoCodec, VideoParameters};
//! let hub = Hub::default();
//! let mut reader = hub.subscribe("example", ReaderOptions::default());
//! let writer = hub.writer();
//! writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 640, 360))]);
//! for n in 0..60 {
//!     let raw = RawFrame::new(0, MediaTime::from_nanos(n * 40_000_000), vec![0u8; 100]);
//!     writer.push(raw.keyframe(n % 25 == 0)).unwrap();
//! }
//! let mut fragmenter = Fragmenter::new(&hub.tracks(), FragmenterOptions::default()).unwrap();
//! let mut file = Vec::new();
//! while let Some(item) = reader.try_next() {
//!     let HubItem::Frame(frame) = item else { continue };
//!     if let Some(part) = fragmenter.push(frame).unwrap() {
//!         part.chunks().for_each(|chunk| file.extend_from_slice(chunk));
//!     }
//! }
//! let last = fragmenter.finish(None).unwrap().unwrap();
//! last.chunks().for_each(|chunk| file.extend_from_slice(chunk));
//! assert_eq!(&file[4..8], b"ftyp");
//! ```

mod entry;
mod filter;
mod fragmenter;
mod identity;
mod init;
mod join;
mod plain;
mod samples;
mod scan;
mod shift;

pub use filter::{filter_fragments, filter_init};
pub use fragmenter::{Fragmenter, FragmenterOptions, Part};
pub use identity::SegmentIdentity;
pub use init::{CmafTrack, DurationPatch, can_hold, init_segment};
pub use join::{
    FileHead, FragmentTrack, Shift, joined_init, move_fragments, read_fragment, segment_index, trim_fragment,
};
pub use plain::{Payload, PlainMovie};
pub use samples::{FragmentSample, read_samples};
pub use scan::{Scan, ScanError, ScannedPart, ScannedTrack, payload_is_plausible, scan, scan_more};
pub use shift::{Shifted, shift_fragment};

use crate::frame::Codec;

/// `sample_flags` of a sample that others depend on and that depends on none (ISO/IEC 14496-12 section
/// 8.8.3.1: `sample_depends_on` = 2).
const SYNC: u32 = 0x0200_0000;

/// What the fragmenter refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fmp4Error {
    /// None of the tracks can be stored.
    #[error("none of the stream's {tracks} tracks can be stored in MP4")]
    NoTracks {
        /// How many tracks there are.
        tracks: usize,
    },
    /// A track's decoder configuration cannot be written.
    #[error("{codec} decoder configuration: {source}")]
    Configuration {
        /// The codec.
        codec: Codec,
        /// Why.
        source: mp4_atom::Error,
    },
    /// A box could not be encoded; the values in it are out of range.
    #[error("MP4 box: {0}")]
    Encode(#[from] mp4_atom::Error),
    /// One frame, or one part, is larger than MP4 can say (4 GiB).
    #[error("a part of {bytes} bytes is more than the 4 GiB that MP4 allows")]
    TooLarge {
        /// How large.
        bytes: u64,
    },
}
