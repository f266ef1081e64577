//! What people ask for at run time about recordings: done, and remembered as a wish.

use super::definition::{ENABLED, INFERENCE, RECORDING, RecordingWish, Wishes, wish_change};
use super::{ManagerError, StreamId, StreamManager};
use crate::recording::{Recorder, RecorderStatus, RecordingAction, RecordingTrigger};
use crate::trace::trace_span;
use std::collections::BTreeMap;
use tracing::Instrument as _;

impl StreamManager {
    /// Does something about a stream's recording. For a stream that is defined it is remembered: a recording that
    /// was started, stopped or paused by hand is so after a restart, until what is configured changes.
    ///
    /// # Errors
    /// If there is no such stream, it does not run, it cannot be done, or not be remembered.
    pub async fn control_recording(
        &self,
        id: &str,
        action: RecordingAction,
    ) -> Result<RecorderStatus, ManagerError> {
        let (manager, id) = (self.clone(), id.to_owned());
        let span = trace_span!("manager.control_recording", stream = id, ?action);
        let work = async move { manager.act(&id, action).await };
        let task = self.inner.control.tasks.spawn(work.instrument(span));
        task.await.map_err(|_| ManagerError::ShutDown)?
    }

    async fn act(&self, id: &str, action: RecordingAction) -> Result<RecorderStatus, ManagerError> {
        let handle = self.running(id)?;
        let recorder = handle.recorder();
        let wish = match action {
            // By hand it is recorded whatever its modes say.
            RecordingAction::Start if recorder.status().modes != ["continuous"] => {
                Some(RecordingWish::Forced)
            }
            RecordingAction::Start | RecordingAction::Resume | RecordingAction::Auto => {
                Some(RecordingWish::On)
            }
            RecordingAction::Stop => Some(RecordingWish::Off),
            RecordingAction::Pause => Some(RecordingWish::Paused),
            RecordingAction::Split => None,
        };
        // What cannot be done at all is not wished for.
        recorder.can(action).map_err(ManagerError::Recording)?;
        let before = match wish {
            Some(wish) => self.wish_recording(handle.id(), Some(wish)).await?,
            None => None,
        };
        let done = match action {
            RecordingAction::Start => recorder.start().await,
            RecordingAction::Stop => recorder.stop().await.map(drop),
            RecordingAction::Pause => recorder.pause().await,
            RecordingAction::Resume => recorder.resume().await,
            RecordingAction::Split => recorder.split().await,
            RecordingAction::Auto => recorder.auto().await,
        };
        if let (Err(error), Some(_)) = (&done, wish)
            && let Err(other) = self.wish_recording(handle.id(), before).await
        {
            tracing::error!(stream = id, %error, %other, "a recording's wish could not be taken back");
        }
        done.map_err(ManagerError::Recording)?;
        Ok(recorder.status())
    }

    /// Something has happened: it is recorded with what came before it, if the stream's modes say so, and marked.
    ///
    /// # Errors
    /// If there is no such stream, it does not run, it is not recorded at the moment, or nothing is done about events.
    pub async fn trigger_recording(
        &self,
        id: &str,
        trigger: RecordingTrigger,
    ) -> Result<RecorderStatus, ManagerError> {
        let handle = self.running(id)?;
        handle.recorder().trigger(trigger).await.map_err(ManagerError::Recording)?;
        Ok(handle.recorder().status())
    }

    /// Remembers what is wished for a recording. Gives what was wished before.
    async fn wish_recording(
        &self,
        id: &StreamId,
        wish: Option<RecordingWish>,
    ) -> Result<Option<RecordingWish>, ManagerError> {
        let control = &self.inner.control;
        let _turn = control.changing.clone().lock_owned().await;
        let Some(desired) = self.desired(id.as_str()) else { return Ok(None) };
        let configured = desired.resolved.recording.enabled;
        let default = RecordingWish::configured(configured);
        let (before, revision) = {
            let defined = control.defined.read();
            let wishes = defined.wishes.get(id.as_str()).copied().unwrap_or_default();
            (wishes.recording, defined.revision)
        };
        let same = wish.is_none_or(|wish| wish == default);
        let value = wish.unwrap_or(default).name();
        let after = wish.filter(|_| !same).map(|wish| (wish, configured));
        if before != after {
            control
                .remember(vec![wish_change(id.as_str(), RECORDING, value, configured, same)], revision)
                .await?;
            let mut defined = control.defined.write();
            defined.wishes.entry(id.as_str().to_owned()).or_default().recording = after;
        }
        Ok(before.map(|(wish, _)| wish))
    }
}

#[cfg(feature = "inference")]
impl StreamManager {
    /// Begins or ends a stream's analysis. For a stream that is defined it is remembered: it is so after a restart,
    /// until what is configured changes.
    ///
    /// # Errors
    /// If there is no such stream, it does not run, or it cannot be remembered.
    pub async fn control_inference(
        &self,
        id: &str,
        enabled: bool,
    ) -> Result<crate::inference::AnalysisStatus, ManagerError> {
        let (manager, id) = (self.clone(), id.to_owned());
        let task = self.inner.control.tasks.spawn(async move {
            let handle = manager.running(&id)?;
            manager.wish_inference(handle.id(), enabled).await?;
            handle.analysis().set_enabled(enabled);
            Ok(handle.analysis().status())
        });
        task.await.map_err(|_| ManagerError::ShutDown)?
    }

    async fn wish_inference(&self, id: &StreamId, enabled: bool) -> Result<(), ManagerError> {
        let control = &self.inner.control;
        let _turn = control.changing.clone().lock_owned().await;
        let Some(desired) = self.desired(id.as_str()) else { return Ok(()) };
        let configured = desired.resolved.inference.enabled;
        let revision = control.defined.read().revision;
        let same = enabled == configured;
        let change = wish_change(id.as_str(), INFERENCE, &enabled.to_string(), configured, same);
        control.remember(vec![change], revision).await?;
        let mut defined = control.defined.write();
        let wishes = defined.wishes.entry(id.as_str().to_owned()).or_default();
        wishes.inference = (!same).then_some((enabled, configured));
        Ok(())
    }
}

/// Wishes that go against a value that is no longer configured, or are for streams that are no more.
pub(super) fn stale_wishes(
    wishes: &BTreeMap<String, Wishes>,
    configured: impl Fn(&str) -> Option<(bool, bool, bool)>,
) -> Vec<(String, &'static str)> {
    let mut stale = Vec::new();
    for (id, wish) in wishes {
        let [enabled, recording, inference] = match configured(id) {
            Some((enabled, recording, inference)) => [
                wish.enabled.is_some_and(|(_, against)| against != enabled),
                wish.recording.is_some_and(|(_, against)| against != recording),
                wish.inference.is_some_and(|(_, against)| against != inference),
            ],
            None => [wish.enabled.is_some(), wish.recording.is_some(), wish.inference.is_some()],
        };
        stale.extend(enabled.then(|| (id.clone(), ENABLED)));
        stale.extend(recording.then(|| (id.clone(), RECORDING)));
        stale.extend(inference.then(|| (id.clone(), INFERENCE)));
    }
    stale
}
