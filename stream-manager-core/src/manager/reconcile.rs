//! Making streams run as they are defined.
//!
//! A change only changes what is defined; then each stream that it touches is brought from how it runs to how it
//! should run, one at a time for each id. Whatever happens in between, what counts is what is defined in the end.

use super::control::Turn;
use super::definition::{Desired, RecordingWish};
use super::from_config::{limits_of, make_pattern, make_stream};
use super::{ManagerError, STOP_TIMEOUT, StreamHandle, StreamId, StreamManager};
use crate::config::ResolvedStream;
use crate::event::{EventKind, RecordingState};
use crate::recording::{RecordError, Recorder};

/// Streams that are brought up to date at one time.
const AT_ONCE: usize = 64;

impl StreamManager {
    /// Brings these streams up to date; those in `restart` are started again in any case.
    pub(super) async fn reconcile_all(&self, ids: Vec<String>, restart: &[String]) {
        use futures_util::StreamExt;
        if ids.iter().any(|id| id.contains('*')) {
            self.renew_patterns().await;
        }
        let ids =
            ids.into_iter().filter_map(|id| Some((restart.contains(&id), id.parse::<StreamId>().ok()?)));
        let each = futures_util::stream::iter(ids).for_each_concurrent(AT_ONCE, |(restart, id)| async move {
            self.reconcile(&id, restart).await;
        });
        each.await;
    }

    async fn reconcile(&self, id: &StreamId, mut restart: bool) {
        let _turn: Turn = self.inner.control.turns.take(id).await;
        loop {
            let desired = self.desired(id.as_str());
            let running = self.inner.streams.read().get(id).cloned();
            match (desired.filter(|d| d.enabled), running) {
                (None, None) => return,
                // Made by the program or by a publisher, and no business of any definition.
                (None, Some(handle)) if handle.built().is_none() => return,
                (None, Some(handle)) => self.end(&handle).await,
                (Some(desired), None) => {
                    self.begin(id, &desired);
                    return;
                }
                (Some(desired), Some(handle)) => match handle.built() {
                    None if !handle.shared.by_pattern => return,
                    Some(built) if !restart && built == desired.resolved => return,
                    Some(built) if !restart && differs_live_only(&built, &desired.resolved) => {
                        self.change_live(&handle, &built, &desired).await;
                        return;
                    }
                    _ => {
                        restart = false;
                        self.end(&handle).await;
                    }
                },
            }
        }
    }

    pub(super) fn desired(&self, id: &str) -> Option<Desired> {
        let config = self.config();
        self.inner.control.defined.read().desired(id, &config.defaults)
    }

    /// Starts a stream that is defined.
    pub(super) fn begin(&self, id: &StreamId, desired: &Desired) {
        let mut resolved = desired.resolved.clone();
        resolved.recording.enabled = desired.recording != RecordingWish::Off;
        resolved.inference.enabled = desired.inference;
        let started = make_stream(&resolved, None, &self.config().webrtc.ice())
            .map_err(ManagerError::from)
            .and_then(|mut stream| {
                stream.paused = desired.recording == RecordingWish::Paused;
                stream.forced = desired.recording == RecordingWish::Forced;
                stream.built = Some(desired.resolved.clone());
                self.add(stream, false).map(drop)
            });
        let mut failed = self.inner.control.failed.lock();
        match started {
            Ok(()) => drop(failed.remove(id.as_str())),
            Err(ManagerError::ShutDown) => {}
            Err(error) => {
                // It was checked before; what is left is what the machine refuses.
                tracing::error!(stream = %id, %error, "a stream cannot be started");
                failed.insert(id.as_str().to_owned(), error.to_string());
                let problem = format!("stream {id} cannot be started: {error}");
                self.inner.events.emit(EventKind::Health { component: "stream", healthy: false, problem });
            }
        }
    }

    /// Stops a stream. Until its files are finished its id, and so its folder, is taken.
    pub(super) async fn end(&self, handle: &StreamHandle) {
        let _ = handle.stop(STOP_TIMEOUT).await;
        self.inner.streams.write().remove(handle.id());
    }

    async fn change_live(&self, handle: &StreamHandle, built: &ResolvedStream, desired: &Desired) {
        self.inner.storage.limit(handle.id(), Some(limits_of(&desired.resolved)));
        if built.recording.enabled != desired.resolved.recording.enabled {
            let recorder = handle.recorder();
            let done = match desired.recording {
                RecordingWish::On => recorder.auto().await,
                RecordingWish::Forced => recorder.start().await,
                RecordingWish::Off => recorder.stop().await.map(drop),
                RecordingWish::Paused if recorder.status().state == RecordingState::Off => {
                    match recorder.auto().await {
                        Ok(()) => recorder.pause().await,
                        Err(error) => Err(error),
                    }
                }
                RecordingWish::Paused => recorder.pause().await,
            };
            match done {
                Ok(()) | Err(RecordError::State { .. } | RecordError::Ended) => {}
                Err(error) => {
                    tracing::warn!(stream = %handle.id(), %error, "a recording could not be changed")
                }
            }
        }
        #[cfg(feature = "inference")]
        handle.analysis().configure(crate::config::AnalysisSettings {
            enabled: desired.inference,
            ..desired.resolved.inference.clone()
        });
        #[cfg(feature = "hls")]
        handle.packager().configure(desired.resolved.hls.clone());
        *handle.shared.built.lock() = Some(desired.resolved.clone());
    }

    /// Takes up the patterns that are defined, and ends the streams that came by one that is so no longer.
    pub(super) async fn renew_patterns(&self) {
        let config = self.config();
        let patterns: Vec<_> = {
            let defined = self.inner.control.defined.read();
            let enabled = |d: &&std::sync::Arc<super::Definition>| {
                defined.desired(&d.config.id, &config.defaults).is_some_and(|d| d.enabled)
            };
            defined.patterns().iter().filter(enabled).cloned().collect()
        };
        let mut made = Vec::new();
        for definition in patterns {
            match make_pattern(&definition.config, &config.defaults, config.webrtc.ice()) {
                Ok(pattern) => made.push((definition.config.resolve(&config.defaults), pattern)),
                Err(error) => tracing::error!(%error, "a pattern cannot be used"),
            }
        }
        let old = std::mem::replace(&mut *self.inner.patterns.write(), made);
        let gone: Vec<ResolvedStream> = {
            let now = self.inner.patterns.read();
            old.into_iter().map(|(r, _)| r).filter(|r| now.iter().all(|(n, _)| n != r)).collect()
        };
        let fits = |handle: &StreamHandle| {
            handle.shared.by_pattern
                && gone.iter().any(|r| {
                    r.id.parse::<crate::auth::PathPattern>().is_ok_and(|p| p.matches(handle.id().as_str()))
                })
        };
        let streams: Vec<StreamHandle> =
            self.inner.streams.read().values().filter(|h| fits(h)).cloned().collect();
        for handle in streams {
            let _turn = self.inner.control.turns.take(handle.id()).await;
            self.end(&handle).await;
        }
    }
}

/// Whether a change from one to the other interrupts nothing.
pub(super) fn differs_live_only(old: &ResolvedStream, new: &ResolvedStream) -> bool {
    let mut old = old.clone();
    old.enabled = new.enabled;
    old.recording.enabled = new.recording.enabled;
    old.recording.max_age = new.recording.max_age;
    old.recording.events_max_age = new.recording.events_max_age;
    old.recording.max_bytes = new.recording.max_bytes;
    let (substream, variant) = (old.inference.source_url.take(), old.inference.variant.take());
    let (annotated, metadata_track) = (old.inference.annotated, old.inference.metadata_track);
    old.hls = new.hls.clone();
    old.inference = crate::config::AnalysisSettings {
        source_url: substream,
        variant,
        annotated,
        metadata_track,
        ..new.inference.clone()
    };
    old == *new
}
