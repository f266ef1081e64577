//! What has been recorded, by the manager: asked for, protected, deleted; and how the disks are.

use super::{ManagerError, StreamId, StreamManager};
use crate::event::RecordingState;
use crate::frame::WallTime;
use crate::recording::Recorder;
use crate::storage::index::{Catalog, Index, Mark, RecordingItem, SegmentId, SegmentRow, TimeRange};
use crate::storage::retention;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Less recorded time than this says nothing about a stream's rate.
const MIN_MEASURED_SECS: f64 = 10.0;

/// How the disks are and how long they will do.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct StorageReport {
    /// The folders for recordings.
    pub directories: Vec<DirectoryReport>,
    /// What every stream has on disk.
    pub streams: Vec<StreamReport>,
    /// All recordings together.
    pub recorded_bytes: u64,
    /// The most that they may take.
    pub max_size_bytes: Option<u64>,
    /// Bytes that the running recordings write in an hour, as measured.
    pub bytes_per_hour: u64,
    /// Days until the first old recording has to go, at that rate; the shortest of all folders.
    pub days_of_room: Option<f64>,
    /// Limits that cannot be kept, and why.
    pub unmet: BTreeMap<String, String>,
    /// Why the index cannot be written to at the moment.
    pub index_problem: Option<String>,
    /// Whether files and index have been compared since the start.
    pub checked: bool,
}

/// A folder for recordings.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct DirectoryReport {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// `ok`, `slow` or `unavailable`.
    pub state: &'static str,
    /// Why it is not `ok`.
    pub problem: Option<String>,
    /// The size of its disk.
    pub total_bytes: Option<u64>,
    /// Room on its disk.
    pub free_bytes: Option<u64>,
    /// Room that is kept free.
    pub min_free_bytes: Option<u64>,
    /// The recordings in it.
    pub recorded_bytes: u64,
    /// Bytes that the running recordings write into it in an hour, as measured.
    pub bytes_per_hour: u64,
    /// Days until the first old recording in it has to go, at that rate.
    pub days_of_room: Option<f64>,
    /// Parts written to its disk.
    pub writes: u64,
    /// Bytes written to its disk.
    pub written_bytes: u64,
    /// Times that data was made safe on its disk.
    pub syncs: u64,
    /// Writes that are waiting for its disk.
    pub queued_writes: usize,
    /// The slowest write of the last second.
    pub slowest_write_secs: f64,
    /// How far syncing is behind.
    pub sync_behind_secs: f64,
}

/// A stream's recordings.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct StreamReport {
    /// The stream's id.
    pub id: String,
    /// Its segments.
    pub segments: u64,
    /// Their size.
    pub bytes: u64,
    /// The size of those that are protected.
    pub protected_bytes: u64,
    /// Where they begin.
    pub oldest: Option<WallTime>,
    /// Where they end.
    pub newest: Option<WallTime>,
    /// How old they may become, in seconds.
    pub max_age_secs: Option<u64>,
    /// The same for those in which something was seen.
    pub events_max_age_secs: Option<u64>,
    /// The most that they may take.
    pub max_size_bytes: Option<u64>,
    /// Bytes that its recording writes in an hour, if it runs.
    pub bytes_per_hour: Option<u64>,
}

impl StreamManager {
    pub(super) fn need_index(&self) -> Result<Index, ManagerError> {
        self.index().cloned().ok_or(ManagerError::NoIndex)
    }

    /// Checks that a stream is running or has recordings.
    pub(super) async fn recorded_id(&self, id: &str) -> Result<String, ManagerError> {
        let index = self.need_index()?;
        self.known(&index, id).await
    }

    async fn known(&self, index: &Index, id: &str) -> Result<String, ManagerError> {
        let not_found = || ManagerError::NotFound(id.chars().take(200).collect());
        let id: StreamId = id.parse().map_err(|_| not_found())?;
        let name = id.as_str().to_owned();
        let known = self.info(&name).is_ok() || {
            let name = name.clone();
            index.read(move |catalog| catalog.knows(&name)).await?
        };
        if known { Ok(name) } else { Err(not_found()) }
    }

    /// The spans and gaps of a stream's recordings in a range, and where the next page begins. Also of
    /// streams that are no longer there.
    ///
    /// # Errors
    /// If there is no such stream, or the index cannot be read.
    pub async fn recordings(
        &self,
        id: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<(Vec<RecordingItem>, Option<WallTime>), ManagerError> {
        let index = self.need_index()?;
        let id = self.known(&index, id).await?;
        Ok(index.recordings(&id, range, limit).await?)
    }

    /// What is marked in a stream's recordings, by time: where the clock was set, where something stood in for the source.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn marks(&self, id: &str, range: TimeRange, limit: usize) -> Result<Vec<Mark>, ManagerError> {
        let index = self.need_index()?;
        let id = self.known(&index, id).await?;
        Ok(index.marks(&id, range, limit).await?)
    }

    /// The segments of a stream in a range, beginning after one if it is given.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn segments(
        &self,
        id: &str,
        range: TimeRange,
        after: Option<(WallTime, SegmentId)>,
        limit: usize,
    ) -> Result<Vec<SegmentRow>, ManagerError> {
        let index = self.need_index()?;
        let id = self.known(&index, id).await?;
        Ok(index.segments(&id, range, after, limit).await?)
    }

    /// One segment, if there is one with this number, and its parts.
    ///
    /// # Errors
    /// If the index cannot be read.
    #[cfg(all(feature = "hls", feature = "http"))]
    pub(crate) async fn segment_with_parts(
        &self,
        id: crate::storage::index::SegmentId,
    ) -> Result<Option<(SegmentRow, Vec<crate::storage::index::PartEntry>)>, ManagerError> {
        let index = self.need_index()?;
        let Some(row) = index.segment(id).await? else { return Ok(None) };
        let parts = if row.complete { index.parts(id).await? } else { Vec::new() };
        Ok(Some((row, parts)))
    }

    /// Protects the segments that touch a range from being deleted, or no longer does. Gives how many have
    /// changed.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn protect_recordings(
        &self,
        id: &str,
        range: TimeRange,
        protected: bool,
    ) -> Result<usize, ManagerError> {
        let index = self.need_index()?;
        let id = self.known(&index, id).await?;
        Ok(index.write(move |catalog| catalog.protect(&id, range, protected)).await?)
    }

    /// Deletes the finished segments that lie wholly in a range, protected ones only if asked for. Gives how
    /// many went and their size.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub async fn delete_recordings(
        &self,
        id: &str,
        range: TimeRange,
        protected: bool,
    ) -> Result<(u64, u64), ManagerError> {
        let index = self.need_index()?;
        let id = self.known(&index, id).await?;
        index.flush().await?;
        let data_dir = index.data_dir().to_owned();
        // Files are removed here, so not on the index's own thread.
        let deleted = tokio::task::spawn_blocking(move || {
            let mut catalog = Catalog::open(&data_dir)?;
            retention::delete(&mut catalog, &id, range, protected)
        });
        Ok(deleted.await.map_err(|_| ManagerError::ShutDown)??)
    }

    /// What is known of the folders for recordings at the moment, without asking the index.
    pub fn storage_state(&self) -> crate::storage::StorageState {
        self.inner.storage.keeper().map(crate::storage::Keeper::state).unwrap_or_default()
    }

    /// How the disks are.
    ///
    /// # Errors
    /// If there is no index, or it cannot be read.
    pub async fn storage(&self) -> Result<StorageReport, ManagerError> {
        let index = self.need_index()?;
        let Some(keeper) = self.inner.storage.keeper() else { return Err(ManagerError::NoIndex) };
        let (totals, folders, extents) = index
            .read(|catalog| {
                let totals = catalog.totals()?;
                let mut extents = Vec::with_capacity(totals.len());
                for total in &totals {
                    extents.push(catalog.extent(&total.stream)?);
                }
                Ok((totals, catalog.folders()?, extents))
            })
            .await?;
        let (state, policy) = (keeper.state(), keeper.policy());
        let mut rates: BTreeMap<String, u64> = BTreeMap::new();
        for stream in self.streams() {
            let recording = stream.recorder().status();
            if recording.state == RecordingState::Recording && recording.duration_secs >= MIN_MEASURED_SECS {
                let per_hour = recording.bytes as f64 / recording.duration_secs * 3600.0;
                rates.insert(stream.id().as_str().to_owned(), per_hour as u64);
            }
        }
        let recorded_bytes = totals.iter().map(|t| t.bytes).sum::<u64>() + index.live_bytes();
        let in_directory = |path: &std::path::Path| -> (u64, u64) {
            let own = |folder: &PathBuf| folder.starts_with(path);
            let bytes = folders.iter().filter(|(folder, _)| own(folder)).map(|(_, bytes)| bytes).sum();
            let rate = rates
                .iter()
                .filter(|(id, _)| folders.iter().any(|(folder, _)| folder == &path.join(id.as_str())))
                .map(|(_, rate)| rate)
                .sum();
            (bytes, rate)
        };
        let directories: Vec<DirectoryReport> = state
            .directories
            .into_iter()
            .map(|directory| {
                let (recorded, rate) = in_directory(&directory.path);
                let min_free = directory.space.map(|s| policy.min_free.bytes(s.total_bytes));
                let room = directory.space.zip(min_free).map(|(s, min)| s.free_bytes.saturating_sub(min));
                DirectoryReport {
                    name: directory.name,
                    state: match (&directory.problem, &directory.slow) {
                        (Some(_), _) => "unavailable",
                        (None, Some(_)) => "slow",
                        (None, None) => "ok",
                    },
                    problem: directory.problem.or(directory.slow),
                    total_bytes: directory.space.map(|s| s.total_bytes),
                    free_bytes: directory.space.map(|s| s.free_bytes),
                    min_free_bytes: min_free,
                    recorded_bytes: recorded,
                    bytes_per_hour: rate,
                    days_of_room: room.and_then(|room| days(room, rate)),
                    writes: directory.stats.writes,
                    written_bytes: directory.stats.bytes,
                    syncs: directory.stats.sync.syncs,
                    queued_writes: directory.stats.queued,
                    slowest_write_secs: directory.stats.slowest_write.as_secs_f64(),
                    sync_behind_secs: directory.stats.sync.behind.as_secs_f64(),
                    path: directory.path,
                }
            })
            .collect();
        let bytes_per_hour = rates.values().sum();
        let by_limit =
            policy.max_bytes.and_then(|max| days(max.saturating_sub(recorded_bytes), bytes_per_hour));
        let days_of_room =
            directories.iter().filter_map(|d| d.days_of_room).chain(by_limit).min_by(f64::total_cmp);
        let streams = totals
            .into_iter()
            .zip(extents)
            .map(|(total, extent)| {
                let limits = policy.of(&total.stream);
                StreamReport {
                    bytes_per_hour: rates.get(&total.stream).copied(),
                    segments: total.segments,
                    bytes: total.bytes,
                    protected_bytes: total.protected_bytes,
                    oldest: extent.map(|(start, _)| start),
                    newest: extent.map(|(_, end)| end),
                    max_age_secs: limits.max_age.map(|age| age.as_secs()),
                    events_max_age_secs: limits.events_max_age.map(|age| age.as_secs()),
                    max_size_bytes: limits.max_bytes,
                    id: total.stream,
                }
            })
            .collect();
        Ok(StorageReport {
            directories,
            streams,
            recorded_bytes,
            max_size_bytes: policy.max_bytes,
            bytes_per_hour,
            days_of_room,
            unmet: state.unmet,
            index_problem: index.failing(),
            checked: state.repaired.is_some(),
        })
    }
}

fn days(room_bytes: u64, bytes_per_hour: u64) -> Option<f64> {
    (bytes_per_hour > 0).then(|| room_bytes as f64 / bytes_per_hour as f64 / 24.0)
}
