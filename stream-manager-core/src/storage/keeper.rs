//! The task that looks after the disks: repairs at the start, deletes what has to go, tells of slow disks.
//!
//! One per manager. Everything that blocks runs on blocking threads, one job at a time; the index's own
//! thread and the recorders never wait for it.

use super::index::{Catalog, Index, IndexError};
use super::repair::{Repair, Report};
use super::retention::{self, Disk, Pass, RetentionPolicy};
use super::{DiskPool, DiskStats, Place, space};
use crate::event::{EventBus, EventKind, RecordingState};
use crate::frame::WallTime;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// How often disks are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked for what has to go, when nothing calls for it earlier.
const RETENTION_EVERY: Duration = Duration::from_secs(5);
/// How often what could not be finished is tried again.
const REPAIR_EVERY: Duration = Duration::from_secs(60);
/// A write, or a job of a lane, that takes longer is slow.
const SLOW_WRITE: Duration = Duration::from_secs(1);
/// A sync thread that is further behind its schedule is slow.
const SLOW_SYNC: Duration = Duration::from_secs(2);
/// Quiet seconds after which a slow disk is as it should be.
const QUIET_TICKS: u32 = 5;
/// A clock that jumps ahead further than this may be wrong ...
const CLOCK_JUMP: Duration = Duration::from_secs(3600);
/// ... and nothing is deleted for its age for this long.
const CLOCK_HOLD: Duration = Duration::from_secs(600);

/// What is known of a folder for recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryState {
    /// Its name in the configuration; `default` for the first.
    pub name: String,
    /// Where it is.
    pub path: std::path::PathBuf,
    /// Its disk's room, if it can be reached.
    pub space: Option<space::Space>,
    /// Why it cannot be recorded to.
    pub problem: Option<String>,
    /// Its disk is slow at the moment.
    pub slow: Option<String>,
    /// What its disk's threads have done; the slowest times are those of the last second.
    pub stats: DiskStats,
}

/// What the keeper knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageState {
    /// The folders for recordings.
    pub directories: Vec<DirectoryState>,
    /// Limits that cannot be kept, and why.
    pub unmet: BTreeMap<String, String>,
    /// What the repair at the start has found; `None` while it runs.
    pub repaired: Option<Report>,
}

/// A folder for recordings with its disk's threads.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Its name in the configuration.
    pub name: String,
    /// The folder.
    pub place: Arc<Place>,
    /// The threads of the disk that it lies on.
    pub pool: DiskPool,
}

/// Looks after the disks of one manager.
#[derive(Clone, Debug)]
pub struct Keeper {
    index: Index,
    directories: Arc<[Directory]>,
    policy: Arc<Mutex<RetentionPolicy>>,
    state: Arc<Mutex<StorageState>>,
    events: EventBus,
}

impl Keeper {
    /// A keeper that has yet to [run](Self::run).
    pub fn new(
        index: Index,
        directories: impl Into<Arc<[Directory]>>,
        policy: RetentionPolicy,
        events: EventBus,
    ) -> Self {
        let (policy, state) = (Arc::new(Mutex::new(policy)), Arc::default());
        Self { index, directories: directories.into(), policy, state, events }
    }

    /// What it knows at the moment.
    pub fn state(&self) -> StorageState {
        self.state.lock().clone()
    }

    /// The limits in force.
    pub fn policy(&self) -> RetentionPolicy {
        self.policy.lock().clone()
    }

    /// Changes the limits.
    pub fn change_policy(&self, change: impl FnOnce(&mut RetentionPolicy)) {
        change(&mut self.policy.lock());
    }

    /// Runs until it is cancelled. `rebuild` says that the index is new and has to be filled from the files.
    pub async fn run(self, rebuild: bool, cancel: CancellationToken) {
        let stop = Arc::new(AtomicBool::new(false));
        // What runs on a blocking thread is told to stop, and safe to be cut off anywhere.
        let _stop_with_me = StopOnDrop(stop.clone());
        let mut events = self.events.subscribe();
        let mut repairing = Some(self.repair(true, rebuild, stop.clone()));
        let mut retention = None;
        // None: at once.
        let mut last_retention: Option<Instant> = None;
        let mut last_repair = Instant::now();
        let mut clock = Clock::new();
        let mut slow: BTreeMap<usize, u32> = BTreeMap::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => self.look(&mut slow).await,
                event = events.recv() => match event {
                    Ok(event) => {
                        if matches!(event.kind, EventKind::RecordingState { state: RecordingState::Blocked, .. }) {
                            // No room: what may go should go now.
                            last_retention = None;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    // The manager, which owns the bus, is gone.
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                result = wait_for(&mut repairing) => {
                    repairing = None;
                    self.repaired(result).await;
                }
                result = wait_for(&mut retention) => {
                    retention = None;
                    self.retained(result).await;
                }
            }
            // One at a time: both write the index.
            if repairing.is_none() && retention.is_none() {
                let missed = self.index.take_missed();
                if missed || last_repair.elapsed() >= REPAIR_EVERY {
                    last_repair = Instant::now();
                    repairing = Some(self.repair(missed, false, stop.clone()));
                } else if last_retention.is_none_or(|at| at.elapsed() >= RETENTION_EVERY) {
                    last_retention = Some(Instant::now());
                    retention = Some(self.retain(clock.now()));
                }
            }
        }
    }

    /// Repairs in the background: all files, or only what is known to be unfinished.
    fn repair(&self, all: bool, rebuild: bool, stop: Arc<AtomicBool>) -> Job<Report> {
        let keeper = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut catalog = Catalog::open(keeper.index.data_dir())?;
            if all && !rebuild {
                catalog.check()?;
            }
            let places: Vec<Arc<Place>> = keeper.directories.iter().map(|d| d.place.clone()).collect();
            let repair = Repair {
                places: &places,
                change: true,
                trust_folders: false,
                index: Some(&keeper.index),
                stop: &stop,
            };
            let mut report = Report::default();
            if all {
                repair.everything(&mut catalog, &mut report)?
            } else {
                repair.unfinished(&mut catalog, &mut report)?
            }
            Ok(report)
        })
    }

    async fn repaired(&self, result: Result<Report, IndexError>) {
        let report = match result {
            Ok(report) => report,
            Err(error) if error.is_corrupt() => {
                tracing::error!(%error, "the index of recordings is damaged; it is made anew from the files");
                match self.index.renew().await {
                    Ok(aside) => {
                        self.events.emit(EventKind::IndexDamaged { kept_as: aside.display().to_string() });
                    }
                    Err(error) => tracing::error!(%error, "the damaged index cannot be replaced"),
                }
                self.index.look_again();
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the recordings cannot be compared with their index");
                return;
            }
        };
        for finding in report.damaged.iter().chain(&report.unavailable) {
            tracing::warn!(path = %finding.path.display(), problem = finding.problem, "recordings");
        }
        for finding in
            report.repaired.iter().chain(&report.adopted).chain(&report.dropped).chain(&report.removed)
        {
            tracing::info!(path = %finding.path.display(), problem = finding.problem, "recordings put right");
        }
        if !report.is_clean() {
            self.events.emit(EventKind::IndexRepaired {
                repaired: report.repaired.len() as u64,
                adopted: report.adopted.len() as u64,
                dropped: report.dropped.len() as u64,
                removed: report.removed.len() as u64,
                damaged: report.damaged.len() as u64,
            });
        }
        self.state.lock().repaired.get_or_insert(report);
    }

    /// Deletes in the background what is beyond its limits.
    fn retain(&self, now: Option<WallTime>) -> Job<Pass> {
        let keeper = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut policy = keeper.policy();
            let (mut disks, mut all_there): (BTreeMap<u64, Disk>, bool) = (BTreeMap::new(), true);
            for directory in keeper.directories.iter() {
                let path = directory.place.path();
                match (directory.place.ready(), space::space(path), space::device(path)) {
                    (Ok(()), Ok(space), Some(device)) => {
                        let disk = disks.entry(device).or_insert_with(|| Disk { places: Vec::new(), space });
                        disk.places.push(path.to_owned());
                    }
                    _ => all_there = false,
                }
            }
            if !all_there {
                // The entries of a disk that is away are not to go: only make room where recordings go now.
                policy.streams.clear();
                policy.default = retention::StreamLimits::default();
                policy.max_bytes = None;
            }
            let mut catalog = Catalog::open(keeper.index.data_dir())?;
            let disks: Vec<Disk> = disks.into_values().collect();
            let refresh = |path: &std::path::Path| space::space(path).ok();
            retention::pass(&mut catalog, &policy, now, keeper.index.live_bytes(), &disks, &refresh)
        })
    }

    async fn retained(&self, result: Result<Pass, IndexError>) {
        let pass = match result {
            Ok(pass) => pass,
            Err(error) => {
                tracing::warn!(%error, "old recordings cannot be deleted at the moment");
                return;
            }
        };
        for (reason, (segments, bytes)) in &pass.deleted {
            tracing::info!(segments, bytes, reason, "old recordings deleted");
            let (segments, bytes, reason) = (*segments, *bytes, (*reason).to_owned());
            self.events.emit(EventKind::SegmentsDeleted { segments, bytes, reason });
        }
        for path in &pass.protected {
            tracing::warn!(path = %path.display(), "a protected segment had to go: protected ones alone fill the disk");
            self.events.emit(EventKind::ProtectedDeleted { path: path.display().to_string() });
        }
        for (path, problem) in &pass.failed {
            tracing::warn!(path = %path.display(), problem, "a segment cannot be deleted");
        }
        let before = std::mem::replace(&mut self.state.lock().unmet, pass.unmet.clone());
        for (limit, problem) in pass.unmet.iter().filter(|(limit, _)| !before.contains_key(*limit)) {
            tracing::warn!(limit, problem, "a limit on recordings cannot be kept");
            let (limit, problem) = (limit.clone(), problem.clone());
            self.tell_room(&limit, true).await;
            self.events.emit(EventKind::RetentionUnmet { limit, problem });
        }
        for limit in before.keys().filter(|limit| !pass.unmet.contains_key(*limit)) {
            self.tell_room(limit, false).await;
            self.events.emit(EventKind::RetentionMet { limit: limit.clone() });
        }
    }

    /// Tells of a disk without room, or with enough again, if it is that which a limit is about.
    async fn tell_room(&self, limit: &str, low: bool) {
        let Some(path) = limit.strip_prefix(retention::MIN_FREE_ON).map(str::to_owned) else { return };
        let asked = path.clone();
        let space = tokio::task::spawn_blocking(move || space::space(std::path::Path::new(&asked)));
        let Ok(Ok(Ok(space))) = tokio::time::timeout(SLOW_SYNC, space).await else { return };
        let free_bytes = space.free_bytes;
        self.events.emit(if low {
            let wanted_bytes = self.policy().min_free.bytes(space.total_bytes);
            EventKind::StorageLow { path, free_bytes, wanted_bytes }
        } else {
            EventKind::StorageRecovered { path, free_bytes }
        });
    }

    /// Looks at the disks.
    async fn look(&self, slow: &mut BTreeMap<usize, u32>) {
        let directories = self.directories.clone();
        let looked = tokio::task::spawn_blocking(move || {
            directories
                .iter()
                .map(|d| (space::space(d.place.path()).ok(), d.place.ready().err().map(|e| e.to_string())))
                .collect::<Vec<_>>()
        });
        // A disk that does not answer is slow, whatever else it is.
        let looked = tokio::time::timeout(SLOW_SYNC, looked).await.ok().and_then(Result::ok);
        let mut states = Vec::new();
        let mut stats_of: Vec<(&DiskPool, DiskStats)> = Vec::new();
        for (number, directory) in self.directories.iter().enumerate() {
            // Folders on one disk share its threads, whose slowest times are told only once.
            let known =
                stats_of.iter().find(|(pool, _)| pool.is_same(&directory.pool)).map(|(_, stats)| *stats);
            let stats = known.unwrap_or_else(|| directory.pool.stats());
            stats_of.push((&directory.pool, stats));
            let problem = match &looked {
                None => Some("the file system does not answer".to_owned()),
                Some(_) => slowness(&stats),
            };
            let path = directory.place.path().display().to_string();
            match (problem.clone(), slow.get(&number).copied()) {
                (Some(problem), before) => {
                    slow.insert(number, QUIET_TICKS);
                    if before.is_none() {
                        tracing::warn!(path, problem, "the disk is slow");
                        self.events.emit(EventKind::DiskSlow { path, problem });
                    }
                }
                (None, Some(0)) => {
                    slow.remove(&number);
                    tracing::info!(path, "the disk is as fast as it should be again");
                    self.events.emit(EventKind::DiskRecovered { path });
                }
                (None, Some(ticks)) => {
                    slow.insert(number, ticks - 1);
                }
                (None, None) => {}
            }
            let (space, trouble) = looked.as_ref().and_then(|l| l.get(number)).cloned().unwrap_or_default();
            states.push(DirectoryState {
                name: directory.name.clone(),
                path: directory.place.path().to_owned(),
                space,
                problem: trouble.or_else(|| looked.is_none().then(|| "does not answer".into())),
                slow: problem.or_else(|| slow.contains_key(&number).then(|| "was slow a moment ago".into())),
                stats,
            });
        }
        self.state.lock().directories = states;
    }
}

fn slowness(stats: &DiskStats) -> Option<String> {
    if stats.slowest_write >= SLOW_WRITE || stats.running >= SLOW_WRITE {
        let took = stats.slowest_write.max(stats.running).as_secs_f64();
        return Some(format!("a write takes {took:.1} s"));
    }
    if stats.sync.behind >= SLOW_SYNC || stats.sync.slowest >= SLOW_SYNC {
        let behind = stats.sync.behind.max(stats.sync.slowest).as_secs_f64();
        return Some(format!("syncing is {behind:.1} s behind"));
    }
    (stats.queued >= super::LANE_LENGTH).then(|| format!("{} writes are waiting", stats.queued))
}

type Job<T> = tokio::task::JoinHandle<Result<T, IndexError>>;

async fn wait_for<T>(job: &mut Option<Job<T>>) -> Result<T, IndexError> {
    match job {
        Some(job) => job.await.unwrap_or(Err(IndexError::Gone)),
        None => std::future::pending().await,
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The wall clock, as far as ages may be taken from it.
struct Clock {
    wall: WallTime,
    monotonic: Instant,
    hold_until: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self { wall: WallTime::now(), monotonic: Instant::now(), hold_until: None }
    }

    /// Now; `None` for a while after the clock has jumped ahead: every recording would be too old at once.
    fn now(&mut self) -> Option<WallTime> {
        let (wall, monotonic) = (WallTime::now(), Instant::now());
        if wall.saturating_since(self.wall + (monotonic - self.monotonic)) >= CLOCK_JUMP {
            tracing::warn!(
                "the system clock has jumped ahead; nothing is deleted for its age for ten minutes"
            );
            self.hold_until = Some(monotonic + CLOCK_HOLD);
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        self.hold_until.is_none_or(|until| monotonic >= until).then_some(wall)
    }
}
