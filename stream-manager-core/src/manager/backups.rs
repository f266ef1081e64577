//! Backups that the server makes: by request and by schedule, one at a time, into a folder where the oldest give way.
//!
//! Beside each archive lies what is known of it (`<archive>.json`), so the folder itself is the list. A backup is due when the newest is
//! older than the last moment of the schedule: one that was missed because the machine was off is made at the next start.

use super::{Inner, ManagerError, StreamManager};
use crate::backup::{self, BackupOptions, Copied, Include, Made, Progress};
use crate::event::EventKind;
use crate::frame::WallTime;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The folder in the data folder.
const FOLDER: &str = "backups";
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(5);
/// After one that failed the next is tried after so long at the least.
const RETRY: Duration = Duration::from_secs(15 * 60);
/// One that is so late has not only just begun.
const LATE: Duration = Duration::from_secs(2 * 3600);
/// What a backup that was cut off has left is taken away after so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// How long one that is deleted may take to end.
const STOP: Duration = Duration::from_secs(20);

/// Where a backup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// It is being made.
    Running,
    /// It is there.
    Done,
    /// It could not be made.
    Failed,
}

/// Why a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupTrigger {
    /// Somebody asked for it.
    Request,
    /// It was due.
    Schedule,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackupInfo {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: BackupState,
    /// Why it was made.
    pub trigger: BackupTrigger,
    /// How far it is, from 0 to 1.
    pub progress: f64,
    /// What it is of.
    pub include: Vec<Include>,
    /// Whether only who has a key can read it.
    pub encrypted: bool,
    /// When it was begun.
    pub created: WallTime,
    /// When it was done, or had failed.
    pub finished: Option<WallTime>,
    /// Why it failed.
    pub problem: Option<String>,
    /// The archive's name in the folder of backups.
    pub file: String,
    /// The archive's size.
    pub bytes: Option<u64>,
    /// The archive's SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// The recordings that belong to it, if they do.
    pub recordings: Option<Copied>,
}

struct Job {
    info: BackupInfo,
    cancel: CancellationToken,
    ended: CancellationToken,
}

#[derive(Default)]
struct State {
    running: Option<Job>,
    /// The last one, if it failed.
    failed: Option<BackupInfo>,
    /// When the last one that failed was begun.
    tried: Option<Instant>,
    /// The newest that is there, and its size.
    newest: Option<(WallTime, u64)>,
    made: u64,
    failures: u64,
}

/// How backups go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackupStatus {
    /// When the newest was made, and its size.
    pub newest: Option<(WallTime, u64)>,
    /// Those made since the start.
    pub made: u64,
    /// Those that have failed since the start.
    pub failures: u64,
    /// What is the matter: the last one has failed, or one is overdue.
    pub problem: Option<String>,
}

/// All backups of a manager.
#[derive(Default)]
pub(super) struct Backups {
    state: Mutex<State>,
    /// Held by whoever writes or removes files: one that is being made counts on copies of recordings that others have.
    files: Arc<tokio::sync::Mutex<()>>,
}

fn note_of(folder: &Path, info: &BackupInfo) -> PathBuf {
    folder.join(format!("{}.json", info.file))
}

/// What lies in a folder, the oldest first. Blocks.
fn read(folder: &Path) -> Vec<BackupInfo> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_note = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(".tar.gz.json") || name.ends_with(".tar.gz.age.json"));
        if !is_note {
            continue;
        }
        let info =
            std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<BackupInfo>(&text).ok());
        match info {
            // The note says nothing that leads elsewhere.
            Some(info) if note_of(folder, &info) == path && folder.join(&info.file).is_file() => {
                found.push(info)
            }
            _ => {
                tracing::warn!(file = %path.display(), "a note on a backup cannot be read, or its backup is gone")
            }
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// What a backup that was cut off has left.
fn tidy(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(".staging-") && !name.starts_with(".partial-") {
            continue;
        }
        let age = entry.metadata().ok().and_then(|data| data.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "what is left of a backup cannot be removed");
            }
        }
    }
}

/// A backup and what has to be told afterwards.
struct Plan {
    folder: PathBuf,
    options: BackupOptions,
    keep: usize,
    info: BackupInfo,
}

impl Plan {
    /// Makes it, writes down what is known of it, and takes the oldest away. Blocks.
    fn carry_out(mut self, tell: &mut dyn FnMut(Progress) -> bool) -> Result<BackupInfo, String> {
        let text = |error: backup::BackupError| error.to_string();
        tidy(&self.folder);
        let Made { bytes, sha256, recordings, .. } =
            backup::make_telling(&self.options, tell).map_err(text)?;
        let info = &mut self.info;
        (info.state, info.progress, info.finished) = (BackupState::Done, 1.0, Some(WallTime::now()));
        (info.bytes, info.sha256, info.recordings) = (Some(bytes), Some(sha256), recordings);
        let note = note_of(&self.folder, info);
        let content = serde_json::to_vec_pretty(info).unwrap_or_default();
        let written =
            crate::storage::private::make_private(&note).and_then(|()| std::fs::write(&note, content));
        written.map_err(|error| format!("{}: {error}", note.display()))?;
        // It is there, whatever becomes of older ones: those are tried again with the next.
        let made = read(&self.folder);
        for old in made.iter().take(made.len().saturating_sub(self.keep)) {
            if let Err(problem) = remove(&self.folder, old) {
                tracing::warn!(backup = old.id, problem, "an older backup cannot be removed");
            }
        }
        if let Err(error) = backup::sweep(&self.folder) {
            tracing::warn!(%error, "what backups that came to nothing have left cannot be removed");
        }
        Ok(self.info)
    }
}

fn remove(folder: &Path, info: &BackupInfo) -> Result<(), String> {
    backup::forget(&folder.join(&info.file)).map_err(|error| error.to_string())?;
    let note = note_of(folder, info);
    std::fs::remove_file(&note).map_err(|error| format!("{}: {error}", note.display()))
}

/// Makes backups when they are due, until `cancel`.
pub(super) async fn keep_making(inner: Weak<Inner>, cancel: CancellationToken) {
    let mut seen = None;
    loop {
        let Some(manager) = inner.upgrade().map(|inner| StreamManager { inner }) else { return };
        let folder = manager.backup_folder();
        if seen.as_ref() != Some(&folder) {
            manager.look_at_backups(folder.clone()).await;
            seen = Some(folder);
        }
        if manager.backup_is_due(WallTime::now())
            && let Err(error) = manager.begin_backup(None, BackupTrigger::Schedule).await
        {
            // One is running, or the server ends.
            tracing::debug!(%error, "no backup is begun");
        }
        drop(manager);
        if cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

impl StreamManager {
    /// Where backups lie: in the data folder that this manager has, which need not be the configuration's.
    fn backup_folder(&self) -> PathBuf {
        let config = self.config();
        config.backup.folder.clone().unwrap_or_else(|| {
            let index = self.inner.storage.index();
            index.map_or(&*config.storage.data_dir, |index| index.data_dir()).join(FOLDER)
        })
    }

    async fn look_at_backups(&self, folder: PathBuf) {
        let newest = tokio::task::spawn_blocking(move || {
            // How old one from the future is cannot be said: the clock was wrong.
            let (all, now) = (read(&folder), WallTime::now());
            let newest = all.iter().rev().find(|info| info.created <= now);
            newest.map(|info| (info.created, info.bytes.unwrap_or_default()))
        });
        self.inner.backups.state.lock().newest = newest.await.ok().flatten();
    }

    /// The last moment of the schedule, if nothing newer is there.
    fn overdue_since(&self, now: WallTime) -> Option<WallTime> {
        let moments = self.config().backup.moments().ok()?;
        let due = moments.last_before(now)?;
        // One from the future was made while the clock was wrong: how old it is cannot be said.
        let newest = self.inner.backups.state.lock().newest.map(|(at, _)| at).filter(|at| *at <= now);
        newest.is_none_or(|newest| newest < due).then_some(due)
    }

    fn backup_is_due(&self, now: WallTime) -> bool {
        let tried = self.inner.backups.state.lock().tried;
        tried.is_none_or(|tried| tried.elapsed() >= RETRY) && self.overdue_since(now).is_some()
    }

    /// Begins to make a backup of what the configuration says, or of something else.
    ///
    /// # Errors
    /// If one is being made already, or the manager has no data folder.
    pub async fn begin_backup(
        &self,
        include: Option<Vec<Include>>,
        trigger: BackupTrigger,
    ) -> Result<BackupInfo, ManagerError> {
        let config = self.config();
        let data_dir = self.inner.storage.index().ok_or(ManagerError::NoIndex)?.data_dir().to_owned();
        let folder = self.backup_folder();
        let invalid =
            |pointer: &str, problem: String| ManagerError::Invalid { pointer: pointer.into(), problem };
        let recipients = config.backup.recipients().map_err(|problem| invalid("/recipients", problem))?;
        let mut include = include.unwrap_or_else(|| config.backup.include.clone());
        include.sort();
        include.dedup();
        if include.is_empty() {
            let problem =
                "it is empty; expected some of \"config\", \"state\", \"index\", \"recordings\"".to_owned();
            return Err(invalid("/include", problem));
        }
        let now = WallTime::now();
        // In the order of their names, also within a second.
        let millis = now.as_unix_nanos().rem_euclid(1_000_000_000) / 1_000_000;
        let id =
            format!("{}.{millis:03}Z-{:04x}", now.format_utc("%Y%m%dT%H%M%S"), fastrand::u32(..0x1_0000));
        let end = if recipients.is_empty() { "tar.gz" } else { "tar.gz.age" };
        let info = BackupInfo {
            file: format!("stream-manager-{id}.{end}"),
            id,
            state: BackupState::Running,
            trigger,
            progress: 0.0,
            include: include.clone(),
            encrypted: !recipients.is_empty(),
            created: now,
            finished: None,
            problem: None,
            bytes: None,
            sha256: None,
            recordings: None,
        };
        let (cancel, ended) = (self.inner.cancel.child_token(), CancellationToken::new());
        {
            let mut state = self.inner.backups.state.lock();
            if let Some(running) = &state.running {
                return Err(ManagerError::BackupRunning(running.info.id.clone()));
            }
            if self.inner.cancel.is_cancelled() {
                return Err(ManagerError::ShutDown);
            }
            state.running = Some(Job { info: info.clone(), cancel: cancel.clone(), ended: ended.clone() });
        }
        let source = self.inner.control.source.as_ref();
        let options = BackupOptions::new(data_dir, folder.join(&info.file))
            .config(source.and_then(|source| source.file.clone()))
            .include(include)
            .directories(self.inner.storage.folders())
            .recipients(recipients);
        let plan = Plan { folder, options, keep: config.backup.keep, info: info.clone() };
        let (manager, keeper) = (self.clone(), self.inner.storage.keeper().cloned());
        self.inner.control.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            let _files = manager.inner.backups.files.clone().lock_owned().await;
            let inner = Arc::downgrade(&manager.inner);
            let told = move |progress: Progress| {
                let Some(inner) = inner.upgrade() else { return false };
                if let Some(job) = &mut inner.backups.state.lock().running {
                    let total = progress.total_bytes.max(1) as f64;
                    job.info.progress = (progress.done_bytes as f64 / total).min(0.99);
                }
                !cancel.is_cancelled()
            };
            let work = tokio::task::spawn_blocking(move || {
                let mut told = told;
                make_folder(&plan.folder).map_err(|error| format!("{}: {error}", plan.folder.display()))?;
                let least = crate::storage::space::space(&plan.folder)
                    .ok()
                    .zip(keeper)
                    .map_or(0, |(space, keeper)| keeper.policy().min_free.bytes(space.total_bytes));
                let options = plan.options.keep_free_bytes(least);
                Plan { options, ..plan }.carry_out(&mut told)
            });
            let made = work.await.unwrap_or_else(|_| Err("it came to an unexpected end".into()));
            manager.backup_ended(made);
        });
        Ok(info)
    }

    fn backup_ended(&self, made: Result<BackupInfo, String>) {
        let kind = {
            let mut state = self.inner.backups.state.lock();
            let Some(job) = state.running.take() else { return };
            match made {
                Ok(info) => {
                    state.newest = Some((info.created, info.bytes.unwrap_or_default()));
                    (state.failed, state.tried, state.made) = (None, None, state.made + 1);
                    EventKind::BackupFinished { backup: info.id, bytes: info.bytes.unwrap_or_default() }
                }
                Err(problem) => {
                    let mut info = job.info;
                    (info.state, info.finished) = (BackupState::Failed, Some(WallTime::now()));
                    info.problem = Some(problem.clone());
                    let backup = info.id.clone();
                    (state.failed, state.tried, state.failures) =
                        (Some(info), Some(Instant::now()), state.failures + 1);
                    EventKind::BackupFailed { backup, problem }
                }
            }
        };
        match &kind {
            EventKind::BackupFailed { problem, .. } => tracing::error!(problem, "a backup could not be made"),
            EventKind::BackupFinished { backup, bytes } => tracing::info!(backup, bytes, "a backup was made"),
            _ => {}
        }
        self.inner.events.emit(kind);
    }

    /// The backups in the folder, the one that is being made, and the last one if it failed; the oldest first.
    pub async fn backups(&self) -> Vec<BackupInfo> {
        let folder = self.backup_folder();
        let mut all = tokio::task::spawn_blocking(move || read(&folder)).await.unwrap_or_default();
        {
            let state = self.inner.backups.state.lock();
            let others = state.failed.iter().chain(state.running.as_ref().map(|job| &job.info));
            for info in others {
                all.retain(|other| other.id != info.id);
                all.push(info.clone());
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// One of them.
    pub async fn backup(&self, id: &str) -> Option<BackupInfo> {
        self.backups().await.into_iter().find(|info| info.id == id)
    }

    /// Where a backup's archive is.
    pub fn backup_file(&self, info: &BackupInfo) -> PathBuf {
        self.backup_folder().join(&info.file)
    }

    /// Takes a backup away, with the copies of recordings that no other has; it is given up if it is being made. False if there is none of
    /// this name.
    ///
    /// # Errors
    /// If a file cannot be deleted, or another backup is being made, which may count on the same copies.
    pub async fn delete_backup(&self, id: &str) -> Result<bool, ManagerError> {
        let (running, failed) = {
            let mut state = self.inner.backups.state.lock();
            let running = state.running.as_ref().filter(|job| job.info.id == id);
            let running = running.map(|job| (job.cancel.clone(), job.ended.clone()));
            let failed = state.failed.take_if(|info| info.id == id).is_some();
            (running, failed)
        };
        let was_running = running.is_some();
        if let Some((cancel, ended)) = running {
            cancel.cancel();
            if tokio::time::timeout(STOP, ended.cancelled()).await.is_err() {
                tracing::warn!(backup = id, "a backup does not end");
            }
            // It may have been done before it saw that.
            self.inner.backups.state.lock().failed.take_if(|info| info.id == id);
        }
        let lock = self.inner.backups.files.clone().lock_owned();
        let another = || self.inner.backups.state.lock().running.as_ref().map(|job| job.info.id.clone());
        if let Some(another) = another() {
            return Err(ManagerError::BackupRunning(another));
        }
        let Ok(_files) = tokio::time::timeout(STOP, lock).await else {
            return Err(ManagerError::BackupRunning(another().unwrap_or_default()));
        };
        let folder = self.backup_folder();
        let id = id.to_owned();
        let removing = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || match read(&folder).into_iter().find(|info| info.id == id) {
                Some(info) => remove(&folder, &info).map(|()| true),
                None => Ok(false),
            }
        });
        let removed = removing.await.map_err(|_| ManagerError::ShutDown)?.map_err(ManagerError::Backup)?;
        self.look_at_backups(folder).await;
        Ok(removed || failed || was_running)
    }

    /// How backups go.
    pub fn backup_status(&self) -> BackupStatus {
        let now = WallTime::now();
        let late = self.overdue_since(now).filter(|due| *due + LATE < now);
        let state = self.inner.backups.state.lock();
        let failed = state.failed.as_ref().and_then(|info| info.problem.clone());
        let problem = failed
            .map(|problem| format!("the last one has failed: {problem}"))
            .or_else(|| late.map(|due| format!("one is due since {due}")));
        BackupStatus { newest: state.newest, made: state.made, failures: state.failures, problem }
    }
}

/// A folder that is nobody else's.
fn make_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
