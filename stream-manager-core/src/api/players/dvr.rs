//! `?start=`: recordings and what follows on them, in one playlist.

use super::super::ApiState;
use super::super::access::Refused;
use super::super::problem::Problem;
use super::super::query;
use super::access::{Part as Kind, enter};
use super::answer::{PLAYLIST, cache_control, media, text};
use super::hls::{UP, bad_query};
use super::{Wanted, no_such_file};
use crate::auth::Action;
use crate::fmp4::{Scan, filter_fragments, filter_init, scan_more};
use crate::frame::{Codec, WallTime};
use crate::hls::{DvrEntry, DvrFile, DvrGone, Text, Treatment, divide, dvr_playlist, stream_inf, treatments};
use crate::storage::index::{SegmentId, SegmentRow, TimeRange};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// Files in one playlist at most.
const MAX_FILES: usize = 4096;
/// Files of which is remembered how they are divided.
const MAX_KNOWN: usize = 8192;
/// Windows that are remembered.
const MAX_WINDOWS: usize = 1024;
/// A segment that is longer than this is none of ours.
const MAX_SEGMENT_BYTES: u64 = 256 << 20;

/// A recorded track, as the index tells of it.
#[derive(Deserialize)]
struct Recorded {
    kind: String,
    codec: String,
    rfc6381: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    frame_rate: Option<f64>,
}

/// The tracks of a file that players take, with their `track_ID`s, and how many it has.
fn playable(tracks: &str) -> (Vec<(u32, Recorded)>, usize) {
    let all: Vec<Recorded> = serde_json::from_str(tracks).unwrap_or_default();
    let stored: Vec<(u32, Recorded)> = (1..).zip(all.into_iter().filter(|t| t.kind != "data")).collect();
    let count = stored.len();
    let known: Vec<(Codec, (u32, Recorded))> =
        stored.into_iter().filter_map(|track| Some((track.1.codec.parse().ok()?, track))).collect();
    let treatments = treatments(known.iter().map(|(codec, _)| *codec));
    let copied = known.into_iter().zip(treatments).filter(|(_, treatment)| *treatment == Treatment::Copy);
    (copied.map(|((_, track), _)| track).collect(), count)
}

/// A file of which is known how it is divided.
struct Known {
    path: PathBuf,
    /// Where each part begins, and the end of the last.
    offsets: Vec<u64>,
    entries: Arc<Vec<DvrEntry>>,
    /// The tracks that players take, and whether these are all.
    keep: Vec<u32>,
    keep_all: bool,
    stream: String,
    complete: bool,
}

/// A window: the first files that it had.
#[derive(Default)]
struct Window {
    files: Vec<(u64, usize)>,
    gone: DvrGone,
}

/// Values by their keys, and the keys in the order in which they came.
type Kept<K, V> = (HashMap<K, V>, VecDeque<K>);

/// What is remembered of recordings for players.
#[derive(Default)]
pub(super) struct Recordings {
    known: Mutex<Kept<u64, Arc<Known>>>,
    /// Files that are being written, as far as they have been read.
    growing: Mutex<HashMap<u64, Arc<Mutex<Scan>>>>,
    windows: Mutex<Kept<(String, i64), Window>>,
}

impl Recordings {
    fn remember(&self, id: u64, known: Arc<Known>) {
        let mut all = self.known.lock();
        if all.0.insert(id, known).is_none() {
            all.1.push_back(id);
        }
        while all.1.len() > MAX_KNOWN {
            if let Some(oldest) = all.1.pop_front() {
                all.0.remove(&oldest);
            }
        }
    }

    /// What has been listed and is gone by now: retention has deleted it.
    fn gone(&self, stream: &str, start: WallTime, files: &[DvrFile]) -> DvrGone {
        let key = (stream.to_owned(), start.as_unix_nanos());
        let mut windows = self.windows.lock();
        if !windows.0.contains_key(&key) {
            windows.1.push_back(key.clone());
        }
        let window = windows.0.entry(key).or_default();
        let first = files.first().map(|f| f.id);
        while let Some((id, count)) = window.files.first().copied()
            && first.is_some_and(|first| first != id)
            && !files.iter().any(|f| f.id == id)
        {
            window.files.remove(0);
            window.gone.segments += count as u64;
            window.gone.files += 1;
        }
        let gone = window.gone;
        window.files = files.iter().map(|f| (f.id, f.listed())).collect();
        while windows.1.len() > MAX_WINDOWS {
            if let Some(oldest) = windows.1.pop_front() {
                windows.0.remove(&oldest);
            }
        }
        gone
    }
}

/// The beginning that a player asks for, if it does.
pub(super) fn start(request: &Parts) -> Result<Option<WallTime>, Refused> {
    time(request, "start")
}

/// A time in a player's query, if it is there.
fn time(request: &Parts, wanted: &str) -> Result<Option<WallTime>, Refused> {
    let query = request.uri.query().unwrap_or_default();
    let found = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted);
    let text = found.map(|(_, value)| value.into_owned());
    Ok(super::super::playback::time(wanted, text.as_ref())?)
}

pub(super) fn is_recorded(name: &str) -> bool {
    name.strip_prefix('r').is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

fn nothing() -> Refused {
    let detail = "nothing has been recorded since then that players take; expected fMP4 recordings";
    Problem::new(StatusCode::NOT_FOUND, "no_recordings", detail).into()
}

/// How a file is divided, read anew if it is being written.
async fn look(state: &ApiState, row: &SegmentRow) -> Result<Option<Arc<Known>>, Refused> {
    let id = row.id.0;
    let recordings = &state.viewers.recordings;
    let known = recordings.known.lock().0.get(&id).cloned();
    if let Some(known) = known.filter(|known| known.complete) {
        return Ok(Some(known));
    }
    let (tracks, stored) = playable(&row.tracks);
    if row.format != "fmp4" || tracks.is_empty() {
        return Ok(None);
    }
    let failed = |error: crate::manager::ManagerError| Refused::from(Problem::from(error));
    let (offsets, entries) = if row.complete {
        recordings.growing.lock().remove(&id);
        let found = state.manager.segment_with_parts(row.id).await.map_err(failed)?;
        let parts = found.map(|(_, parts)| parts).unwrap_or_default();
        let end = parts.last().map(|p| p.offset + p.len_bytes);
        let offsets: Vec<u64> = parts.iter().map(|p| p.offset).chain(end).collect();
        (offsets, divide(parts.iter().map(|p| (p.duration, p.keyframe)), true))
    } else {
        let scan = recordings.growing.lock().entry(id).or_default().clone();
        let path = row.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path).ok()?;
            let mut scan = scan.lock();
            scan_more(&mut file, &mut scan).ok()?;
            let end = scan.parts.last().map(|p| p.offset + p.len_bytes);
            let offsets: Vec<u64> = scan.parts.iter().map(|p| p.offset).chain(end).collect();
            Some((offsets, divide(scan.parts.iter().map(|p| (p.duration, p.keyframe)), false)))
        });
        match read.await {
            Ok(Some(read)) => read,
            _ => return Ok(None),
        }
    };
    let known = Arc::new(Known {
        path: row.path.clone(),
        offsets,
        entries: Arc::new(entries),
        keep: tracks.iter().map(|(id, _)| *id).collect(),
        keep_all: tracks.len() == stored,
        stream: row.stream.clone(),
        complete: row.complete,
    });
    recordings.remember(id, known.clone());
    Ok(Some(known))
}

/// The files since a time, the first one from the segment in which that lies, up to the one in which the end does.
async fn files(
    state: &ApiState,
    stream: &str,
    start: WallTime,
    end: Option<WallTime>,
) -> Result<(Vec<DvrFile>, Vec<SegmentRow>), Refused> {
    let failed = |error: crate::manager::ManagerError| Refused::from(Problem::from(error));
    let range = TimeRange::new(start, end.unwrap_or(TimeRange::ALL.end));
    let range = range.map_err(|error| query::contradiction(error.to_string()))?;
    let rows = state.manager.segments(stream, range, None, MAX_FILES + 1).await.map_err(failed)?;
    if rows.len() > MAX_FILES {
        return Err(bad_query(format!(
            "start is too long ago: there are more than {MAX_FILES} files since; expected a later one"
        )));
    }
    let mut files = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(known) = look(state, row).await? else { continue };
        let into = start.saturating_since(row.start);
        let skip = known.entries.iter().take_while(|entry| entry.start + entry.duration <= into).count();
        let until = end.map_or(known.entries.len(), |end| {
            let into = end.saturating_since(row.start);
            known.entries.iter().take_while(|entry| entry.start < into).count()
        });
        if skip < until {
            files.push(DvrFile {
                id: row.id.0,
                start: row.start,
                entries: known.entries.clone(),
                skip,
                until,
            });
        }
    }
    if files.is_empty() { Err(nothing()) } else { Ok((files, rows)) }
}

pub(super) async fn master(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    start: WallTime,
) -> Result<Response, Refused> {
    let viewer = enter(state, request, wanted, "hls", Kind::Playlist, Action::Playback).await?;
    let (_, rows) = files(state, wanted.stream, start, None).await?;
    let tracks =
        rows.iter().map(|row| playable(&row.tracks).0).find(|tracks| !tracks.is_empty()).unwrap_or_default();
    let rate = |bytes: u64, row: &SegmentRow| {
        let nanos = row.end.as_unix_nanos().saturating_sub(row.start.as_unix_nanos());
        bytes.saturating_mul(8_000_000) / u64::try_from(nanos / 1000).unwrap_or(1).max(1)
    };
    // A file's mean says little about its peaks; twice of it is not exceeded by what cameras send.
    let mean = rows.iter().filter(|r| r.bytes > 0).map(|r| rate(r.bytes, r)).max().unwrap_or(1_000_000);
    let codecs: Vec<String> = tracks.iter().filter_map(|(_, track)| track.rfc6381.clone()).collect();
    let video = tracks.iter().map(|(_, track)| track).find(|track| track.kind == "video");
    let size = video.and_then(|video| video.width.zip(video.height));
    let frame_rate = video.and_then(|video| video.frame_rate);
    let line = stream_inf((mean.saturating_mul(2), mean), &codecs, size, frame_rate);
    let named = state.manager.config().hls.sessions && wanted.session.is_none();
    let prefix = viewer.filter(|_| named).map_or_else(String::new, |viewer| format!("s/{}/", viewer.token));
    // Seconds since 1970 need no escaping.
    let nanos = start.as_unix_nanos();
    let address = format!(
        "{prefix}dvr.m3u8?start={}.{:09}",
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000)
    );
    let playlist = Text::new(format!("#EXTM3U\n#EXT-X-VERSION:7\n{line}\n{address}\n"));
    Ok(text(&request.headers, &playlist, PLAYLIST, HeaderValue::from_static("no-store")))
}

pub(super) async fn playlist(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
) -> Result<Response, Refused> {
    let query = crate::hls::ReloadQuery::parse(request.uri.query().unwrap_or_default()).map_err(bad_query)?;
    let start =
        start(request)?.ok_or_else(|| bad_query("start is missing; expected the time to begin with"))?;
    let prefix = if wanted.session.is_some() { UP } else { "" };
    listed(state, request, wanted, (start, None), prefix, query.skip).await
}

/// `playback.m3u8`: the same with an end, beside the rest of the API.
pub(super) async fn vod(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
) -> Result<Response, Refused> {
    let (start, end) = (start(request)?, time(request, "end")?);
    let start = start.ok_or_else(|| bad_query("start is missing; expected the time to begin with"))?;
    // From /api/streams/<id>/ to /hls/<id>/, wherever the API is mounted.
    let up = "../".repeat(3 + wanted.stream.matches('/').count());
    let prefix = format!("{up}hls/{}/", wanted.stream);
    listed(state, request, wanted, (start, end), &prefix, false).await
}

async fn listed(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    (start, end): (WallTime, Option<WallTime>),
    prefix: &str,
    skip: bool,
) -> Result<Response, Refused> {
    let viewer = enter(state, request, wanted, "hls", Kind::Playlist, Action::Playback).await?;
    let (files, rows) = files(state, wanted.stream, start, end).await?;
    let reached = |end| {
        let last =
            files.last().and_then(|file| Some((file.start, file.entries.get(file.until.checked_sub(1)?)?)));
        rows.iter().all(|row| row.complete)
            || last.is_some_and(|(start, entry)| start + entry.start + entry.duration >= end)
    };
    let ended = end.is_some_and(|end| end <= WallTime::now() && reached(end));
    // What has an end is always listed from the same beginning; what is deleted of it is missed by whoever asks for it.
    let gone = match end {
        None => state.viewers.recordings.gone(wanted.stream, start, &files),
        Some(_) => DvrGone::default(),
    };
    let playlist = Text::new(dvr_playlist(&files, gone, prefix, skip, ended));
    if let Some(viewer) = viewer {
        viewer.sent(playlist.plain().len() as u64);
    }
    Ok(text(&request.headers, &playlist, PLAYLIST, cache_control(&request.headers, "max-age=1")))
}

/// The file that a name means, if it is one of this stream's.
async fn file(state: &ApiState, wanted: Wanted<'_>, name: &str) -> Result<Arc<Known>, Refused> {
    let missing = || Refused::from(no_such_file(wanted.file));
    let id: u64 = name.strip_prefix('r').and_then(|id| id.parse().ok()).ok_or_else(missing)?;
    let known = state.viewers.recordings.known.lock().0.get(&id).cloned();
    let known = match known {
        Some(known) => known,
        None => {
            let found = state.manager.segment_with_parts(SegmentId(id)).await;
            let (row, _) = found.map_err(|e| Refused::from(Problem::from(e)))?.ok_or_else(missing)?;
            look(state, &row).await?.ok_or_else(missing)?
        }
    };
    // Whoever may watch one stream must not get another one's recordings by their number.
    if known.stream == wanted.stream { Ok(known) } else { Err(missing()) }
}

/// Reads a piece of a file, with the tracks that players take. Blocks.
fn read(known: &Known, from: u64, to: u64, is_init: bool) -> Option<Bytes> {
    let length = to.checked_sub(from).filter(|length| *length <= MAX_SEGMENT_BYTES)?;
    let mut file = File::open(&known.path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut data = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut data).ok()?;
    if is_init {
        // Also without what the recorder has written about the stream.
        filter_init(&data, &known.keep).map(Bytes::from)
    } else if known.keep_all {
        Some(data.into())
    } else {
        filter_fragments(&data, &known.keep).map(Bytes::from)
    }
}

/// What goes before a file's segments, or one of them: its first part and how many.
pub(super) async fn piece(
    state: &Arc<ApiState>,
    request: &Parts,
    wanted: Wanted<'_>,
    name: &str,
    range: Option<(u64, usize)>,
) -> Result<Response, Refused> {
    // Whether it may be asked for comes before whether it is there.
    let viewer = enter(state, request, wanted, "hls", Kind::Media, Action::Playback).await?;
    let known = file(state, wanted, name).await?;
    let missing = || Refused::from(no_such_file(wanted.file));
    let offset = |part: usize| known.offsets.get(part).copied();
    let (from, to) = match range {
        None => (0, offset(0)),
        Some((first, count)) => {
            let first = usize::try_from(first).map_err(|_| missing())?;
            let end = first.checked_add(count.max(1)).and_then(offset);
            (offset(first).ok_or_else(missing)?, end)
        }
    };
    let to = to.ok_or_else(missing)?;
    let reading = tokio::task::spawn_blocking(move || read(&known, from, to, range.is_none()));
    let data = reading.await.ok().flatten().ok_or_else(missing)?;
    if let Some(viewer) = viewer {
        viewer.sent(data.len() as u64);
    }
    Ok(media(&request.headers, vec![data], "video/mp4", wanted.file))
}
