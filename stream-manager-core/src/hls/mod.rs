//! HLS, Low-Latency HLS, MPEG-DASH and endless fMP4: one packager per stream, for any number of viewers and all of
//! these protocols.
//!
//! Feature `hls`. Nothing in here knows HTTP; the `api` serves what this makes.
//!
//! ```text
//! hub ──► Packager (only while somebody watches) ──► Presentation
//!            each track into CMAF parts, once          Rendition v0: segments of parts ─► media playlist ─► HLS
//!            sound that MP4 players cannot take        Rendition a1: …                 ─► MPD            ─► DASH
//!            is encoded anew, once                     all parts in their order        ─► LiveReader     ─► live.mp4
//! ```
//!
//! A part is copied together once, when it is made; every viewer gets the same memory. Segments are no more than
//! lists of parts. What has been listed in a playlist stays for as long again, within the
//! [bounds](crate::config::HlsSettings) of time and size.
//!
//! # Time
//!
//! All tracks of all streams are on one timeline, which is UTC in nanoseconds: a stream's first frame lies where the
//! clock stood when it arrived, the next ones as far behind it as the camera says. The camera's clock is followed by
//! at most 100 µs a second, so that days later this still is the time. So qualities of one camera fit together,
//! numbers go on when the server is started again, and an MPD's availability times need
//! no correction.
//!
//! # What is packaged
//!
//! | codec | |
//! |---|---|
//! | H.264, H.265, AV1, VP9; AAC, Opus, MP3, AC-3 | as it is |
//! | G.711, L16 | encoded as AAC, once per stream |
//! | VP8, MJPEG, metadata | left out; the stream's status says so |
//!
//! ```
//! # use stream_manager_core::hub::Hub;
//! use stream_manager_core::config::HlsSettings;
//! use stream_manager_core::hls::Packager;
//!
//! let (packager, sink) = Packager::new(HlsSettings::default(), "camera-1".into());
//! # drop(sink);
//! assert_eq!(packager.status().state, stream_manager_core::hls::PackagerState::Idle);
//! ```

mod clock;
mod dvr;
mod live;
mod master;
mod mpd;
mod packager;
mod playlist;
mod presentation;
mod query;
mod rendition;
mod rules;
mod text;
mod track;
mod work;

pub use dvr::{DvrEntry, DvrFile, DvrGone, divide, dvr_playlist};
pub use live::{LiveItem, LiveReader, LiveTracks};
pub use master::{Variant, master_playlist, stream_inf};
pub use mpd::{MpdOptions, manifest};
pub use packager::{
    NotReady, Packager, PackagerSink, PackagerState, PackagerStatus, PackagerUse, RenditionStatus,
};
pub use playlist::{PlaylistOptions, media_playlist};
pub use presentation::Presentation;
pub use query::{QueryError, ReloadQuery};
pub use rendition::{Have, Init, Part, Rendition, Segment};
pub use rules::{LeftOut, Treatment, treatments};
pub use text::Text;
