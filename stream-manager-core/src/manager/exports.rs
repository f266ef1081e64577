//! Exports as jobs: written in the background into `<data_dir>/exports`, a few at a time, where no retention comes, until somebody deletes
//! them.
//!
//! Beside each file lies what is known of it (`<id>.json`), so that exports survive a restart. One that was under way then has failed.

use super::{ManagerError, StreamManager};
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::playback::{Export, ExportOptions, Gaps, Plan, PlaybackError, PlaybackRequest, export};
use crate::storage::Keeper;
use crate::storage::index::TimeRange;
use crate::storage::space::space;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The folder in the data folder.
const FOLDER: &str = "exports";
/// Exports that are made at one time: they are to disturb nobody.
const AT_ONCE: usize = 2;
/// Exports that are there at one time, those that are done included.
const MAX_EXPORTS: usize = 1000;
/// How often it is looked whether there is room.
const LOOK: Duration = Duration::from_secs(1);
/// How long one that is deleted may take to end.
const STOP: Duration = Duration::from_secs(20);

/// Where an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportState {
    /// Others are before it.
    Waiting,
    /// It is being written.
    Running,
    /// It is there.
    Done,
    /// It could not be made.
    Failed,
}

/// An export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ExportInfo {
    /// Its name.
    pub id: String,
    /// The stream's id.
    pub stream: String,
    /// Where it stands.
    pub state: ExportState,
    /// How far it is, from 0 to 1.
    pub progress: f64,
    /// What has been written so far.
    pub bytes: u64,
    /// What was asked for: from here on.
    pub start: WallTime,
    /// Up to here.
    pub end: WallTime,
    /// How.
    pub options: ExportOptions,
    /// When it was asked for.
    pub created: WallTime,
    /// When it was done, or had failed.
    pub finished: Option<WallTime>,
    /// Why it failed.
    pub problem: Option<String>,
    /// What was written.
    pub result: Option<Export>,
}

struct Job {
    info: ExportInfo,
    cancel: CancellationToken,
    ended: CancellationToken,
}

/// All exports of a manager.
pub(super) struct Exports {
    folder: Option<PathBuf>,
    jobs: Mutex<BTreeMap<String, Job>>,
    turns: Arc<Semaphore>,
}

impl Exports {
    /// Those that a data folder has. Blocks.
    pub(super) fn open(data_dir: Option<&Path>) -> Self {
        let folder = data_dir.map(|data_dir| data_dir.join(FOLDER));
        let jobs = folder.as_deref().map(read).unwrap_or_default();
        Self { folder, jobs: Mutex::new(jobs), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// What lies in a folder. What was not finished is taken away.
fn read(folder: &Path) -> BTreeMap<String, Job> {
    let mut jobs = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("part") => {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(file = %path.display(), %error, "what is left of an export cannot be removed");
                }
            }
            Some("json") => {
                let info = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
                let Some(mut info): Option<ExportInfo> = info else {
                    tracing::warn!(file = %path.display(), "an export cannot be read, and is left alone");
                    continue;
                };
                // The data folder may lie elsewhere by now, or be named in another way.
                if let Some(result) = &mut info.result
                    && let Some(name) = result.path.file_name()
                {
                    result.path = folder.join(name);
                }
                let is_there = info.result.as_ref().is_some_and(|result| result.path.is_file());
                if info.state != ExportState::Failed && !is_there {
                    info.state = ExportState::Failed;
                    info.finished = info.finished.or(Some(WallTime::now()));
                    let problem = if info.result.take().is_some() {
                        "its file is gone"
                    } else {
                        "the server ended before it was done"
                    };
                    info.problem = Some(problem.into());
                    remember(folder, &info);
                }
                let job = Job { info, cancel: CancellationToken::new(), ended: CancellationToken::new() };
                job.ended.cancel();
                jobs.insert(job.info.id.clone(), job);
            }
            _ => {}
        }
    }
    jobs
}

/// Writes down what is known of an export. Blocks.
fn remember(folder: &Path, info: &ExportInfo) {
    let path = folder.join(format!("{}.json", info.id));
    let part = path.with_extension("json.part");
    let text = serde_json::to_vec_pretty(info).unwrap_or_default();
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&part, text))
        .and_then(|()| std::fs::rename(&part, &path));
    if let Err(error) = written {
        // It is there as long as this process is.
        tracing::warn!(export = info.id, %error, "an export cannot be remembered");
    }
}

/// What may be written into a folder beside what is kept free. Blocks.
fn room_in(folder: &Path, keeper: Option<&Keeper>) -> Option<u64> {
    let space = space(folder).ok()?;
    let least = keeper.map_or(0, |keeper| keeper.policy().min_free.bytes(space.total_bytes));
    Some(space.free_bytes.saturating_sub(least))
}

impl StreamManager {
    /// Begins to write a span of a stream's recordings into a file.
    ///
    /// # Errors
    /// If there is no such stream, nothing was recorded then, the options make no sense, there are too many exports or too little room.
    pub async fn begin_export(
        &self,
        id: &str,
        range: TimeRange,
        gaps: Gaps,
        options: ExportOptions,
    ) -> Result<ExportInfo, ManagerError> {
        options
            .check()
            .map_err(|(key, problem)| ManagerError::Invalid { pointer: format!("/{key}"), problem })?;
        let exports = &self.inner.exports;
        let folder = exports.folder.clone().ok_or(ManagerError::NoIndex)?;
        let stream = self.recorded_id(id).await?;
        let request = PlaybackRequest { start: range.start, end: Some(range.end), gaps };
        let plan = self.plan_playback(&stream, request).await?;
        let (checked, keeper) = (folder.clone(), self.inner.storage.keeper().cloned());
        let wanted = plan.length_bytes();
        let room = move || {
            std::fs::create_dir_all(&checked).ok()?;
            room_in(&checked, keeper.as_ref())
        };
        let free = tokio::task::spawn_blocking(room).await.ok().flatten();
        if let Some(free) = free.filter(|free| *free < wanted) {
            return Err(ManagerError::NoRoom { wanted, free });
        }
        let info = ExportInfo {
            id: format!(
                "{}-{:06x}",
                WallTime::now().format_utc("%Y%m%dT%H%M%S"),
                fastrand::u32(..0x100_0000)
            ),
            stream,
            state: ExportState::Waiting,
            progress: 0.0,
            bytes: 0,
            start: range.start,
            end: range.end,
            options,
            created: WallTime::now(),
            finished: None,
            problem: None,
            result: None,
        };
        let (cancel, ended) = (self.inner.cancel.child_token(), CancellationToken::new());
        {
            let mut jobs = exports.jobs.lock();
            if jobs.len() >= MAX_EXPORTS {
                return Err(ManagerError::TooManyExports { limit: MAX_EXPORTS });
            }
            let job = Job { info: info.clone(), cancel: cancel.clone(), ended: ended.clone() };
            jobs.insert(info.id.clone(), job);
        }
        let (manager, id) = (self.clone(), info.id.clone());
        self.inner.control.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            manager.remember_export(&id).await;
            manager.run_export(&id, plan, &folder, &cancel).await;
        });
        Ok(info)
    }

    async fn remember_export(&self, id: &str) {
        let exports = &self.inner.exports;
        let info = exports.jobs.lock().get(id).map(|job| job.info.clone());
        let (Some(info), Some(folder)) = (info, exports.folder.clone()) else { return };
        // Its thread has nothing to answer.
        let _ = tokio::task::spawn_blocking(move || remember(&folder, &info)).await;
    }

    fn change_export(&self, id: &str, change: impl FnOnce(&mut ExportInfo)) {
        if let Some(job) = self.inner.exports.jobs.lock().get_mut(id) {
            change(&mut job.info);
        }
    }

    async fn run_export(&self, id: &str, plan: Plan, folder: &Path, cancel: &CancellationToken) {
        let turn = cancel.run_until_cancelled(self.inner.exports.turns.clone().acquire_owned()).await;
        let made = match turn {
            None | Some(Err(_)) => Err(PlaybackError::GivenUp),
            Some(Ok(_turn)) => {
                self.change_export(id, |info| info.state = ExportState::Running);
                self.write_export(id, plan, folder, cancel).await
            }
        };
        let mut told = None;
        self.change_export(id, |info| {
            info.finished = Some(WallTime::now());
            match made {
                Ok(result) => {
                    (info.state, info.progress, info.bytes) = (ExportState::Done, 1.0, result.bytes);
                    info.result = Some(result);
                }
                Err(error) => {
                    info.state = ExportState::Failed;
                    info.problem = Some(error.to_string());
                }
            }
            told = Some((info.stream.clone(), info.problem.clone()));
        });
        self.remember_export(id).await;
        if let Some((stream, problem)) = told {
            let export = id.to_owned();
            let kind = match problem {
                None => EventKind::ExportFinished { export },
                Some(problem) => EventKind::ExportFailed { export, problem },
            };
            self.inner.events.for_stream(stream.into()).emit(kind);
        }
    }

    async fn write_export(
        &self,
        id: &str,
        plan: Plan,
        folder: &Path,
        cancel: &CancellationToken,
    ) -> Result<Export, PlaybackError> {
        let Some((range, options)) = self.inner.exports.jobs.lock().get(id).map(|job| {
            let range = TimeRange { start: job.info.start, end: job.info.end };
            (range, job.info.options.clone())
        }) else {
            return Err(PlaybackError::GivenUp);
        };
        let path = folder.join(format!("{id}.{}", options.format.extension()));
        // The disk is for what is recorded first.
        let (full, keeper) = (CancellationToken::new(), self.inner.storage.keeper().cloned());
        let stop = cancel.child_token();
        let watch = {
            let (full, stop, folder) = (full.clone(), stop.clone(), folder.to_owned());
            async move {
                loop {
                    tokio::time::sleep(LOOK).await;
                    let (folder, keeper) = (folder.clone(), keeper.clone());
                    let left = tokio::task::spawn_blocking(move || room_in(&folder, keeper.as_ref()));
                    if let Ok(Some(0)) = left.await {
                        full.cancel();
                        stop.cancel();
                        return;
                    }
                }
            }
        };
        let mut told = Instant::now();
        let writing = export(plan, range, &path, &options, &stop, |progress| {
            // Often enough for anybody.
            if told.elapsed() >= Duration::from_millis(100) {
                told = Instant::now();
                self.change_export(id, |info| (info.progress, info.bytes) = (progress.done, progress.bytes));
            }
        });
        let mut writing = std::pin::pin!(writing);
        let made = tokio::select! {
            made = &mut writing => made,
            // It sees that it is to end, and takes away what it has written.
            () = watch => writing.await,
        };
        if full.is_cancelled() && made.is_err() {
            let problem = "the disk is full, but for what storage.min_free keeps free".into();
            return Err(PlaybackError::File { path: path.clone(), problem });
        }
        made
    }

    /// All exports, in the order in which they were asked for.
    pub fn exports(&self) -> Vec<ExportInfo> {
        self.inner.exports.jobs.lock().values().map(|job| job.info.clone()).collect()
    }

    /// Those of one stream.
    ///
    /// # Errors
    /// If there is no such stream.
    pub async fn exports_of(&self, id: &str) -> Result<Vec<ExportInfo>, ManagerError> {
        let stream = self.recorded_id(id).await?;
        Ok(self.exports().into_iter().filter(|export| export.stream == stream).collect())
    }

    /// One of them.
    pub fn export(&self, id: &str) -> Option<ExportInfo> {
        self.inner.exports.jobs.lock().get(id).map(|job| job.info.clone())
    }

    /// Takes an export away: it is given up if it is under way, and its file deleted. False if there is none of this name.
    ///
    /// # Errors
    /// If its file cannot be deleted.
    pub async fn delete_export(&self, id: &str) -> Result<bool, ManagerError> {
        let exports = &self.inner.exports;
        let found = exports.jobs.lock().get(id).map(|job| (job.cancel.clone(), job.ended.clone()));
        let (Some((cancel, ended)), Some(folder)) = (found, exports.folder.clone()) else { return Ok(false) };
        cancel.cancel();
        if tokio::time::timeout(STOP, ended.cancelled()).await.is_err() {
            tracing::warn!(export = id, "an export does not end; its file is deleted all the same");
        }
        let info = exports.jobs.lock().remove(id).map(|job| job.info);
        let Some(info) = info else { return Ok(false) };
        let file = info.result.map(|result| result.path);
        let removing = tokio::task::spawn_blocking(move || {
            for path in file.into_iter().chain([folder.join(format!("{}.json", info.id))]) {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        let problem = error.to_string();
                        return Err(PlaybackError::File { path, problem });
                    }
                    _ => {}
                }
            }
            Ok(())
        });
        removing.await.map_err(|_| ManagerError::ShutDown)??;
        Ok(true)
    }
}
