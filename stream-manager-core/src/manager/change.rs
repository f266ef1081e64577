//! Making, changing and deleting streams while everything runs, one or many at once.
//!
//! Each call looks at what is defined, checks all that it is asked for, has it remembered in one transaction, and only
//! then brings the streams that it touches up to date. Once begun it is carried through, also if whoever asked is gone.

use super::definition::{Definition, Wishes};
use super::plan::Plan;
use super::{ManagerError, StreamManager};
use crate::config::StreamConfig;
use crate::storage::index::TimeRange;
use crate::storage::state::{Answer, StateChange};
use crate::trace::trace_span;
use serde_json::Value;
use std::sync::Arc;
use tracing::Instrument as _;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Makes a stream.
    Create(StreamConfig),
    /// Makes a stream or replaces its configuration.
    Put(StreamConfig),
    /// Changes a stream's configuration by a JSON merge patch, RFC 7396.
    Patch {
        /// The stream.
        id: String,
        /// The patch.
        patch: Value,
    },
    /// Deletes a stream.
    Delete {
        /// The stream.
        id: String,
        /// What becomes of its recordings.
        recordings: DeleteRecordings,
    },
    /// Lets a stream run, or not.
    Enable {
        /// The stream.
        id: String,
        /// Whether it is to run.
        enabled: bool,
    },
    /// Stops a stream and starts it again.
    Restart {
        /// The stream.
        id: String,
    },
}

/// What becomes of a deleted stream's recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteRecordings {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted; protected ones stay.
    Unprotected,
    /// All are deleted.
    All,
}

impl Operation {
    /// The stream that it is about.
    pub fn id(&self) -> &str {
        match self {
            Self::Create(config) | Self::Put(config) => &config.id,
            Self::Patch { id, .. }
            | Self::Delete { id, .. }
            | Self::Enable { id, .. }
            | Self::Restart { id } => id,
        }
    }
}

/// Under which conditions a change is made, and how.
#[derive(Clone, Debug, Default)]
pub struct ChangeOptions {
    /// The stream's revision has to be one of these.
    pub if_revision: Option<Vec<u64>>,
    /// There has to be such a stream.
    pub if_present: bool,
    /// There must not be such a stream yet.
    pub if_absent: bool,
    /// Everything is checked, nothing done.
    pub dry_run: bool,
    /// All changes or none.
    pub atomic: bool,
    /// It comes from outside: sources that can reach into this machine are refused.
    pub untrusted: bool,
    /// Remembered together with the change, so that the same request is not carried out twice.
    pub answer: Option<KeyedAnswer>,
}

/// How a request with an idempotency key is answered.
#[derive(Clone)]
pub struct KeyedAnswer {
    /// The key.
    pub key: String,
    /// What tells the request from others.
    pub fingerprint: String,
    /// Makes the answer, status and body, from what has become of the changes.
    pub render: Arc<Render>,
}

/// See [`KeyedAnswer`].
pub type Render = dyn Fn(&[Result<Outcome, ManagerError>]) -> (u16, String) + Send + Sync;

impl std::fmt::Debug for KeyedAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedAnswer").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The stream.
    pub id: String,
    /// What was done, or would have been.
    pub done: Done,
    /// The stream as it is defined now, unless it was deleted.
    pub definition: Option<Arc<Definition>>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was made.
    Created,
    /// It was changed.
    Changed,
    /// It was as asked for already.
    Unchanged,
    /// It was deleted.
    Deleted,
    /// It was started again.
    Restarted,
}

impl StreamManager {
    /// Makes one change.
    ///
    /// # Errors
    /// If it cannot be made or remembered; nothing has changed then.
    pub async fn change(
        &self,
        operation: Operation,
        options: ChangeOptions,
    ) -> Result<Outcome, ManagerError> {
        let mut results = self.change_all(vec![operation], options).await?;
        results.pop().unwrap_or(Err(ManagerError::ShutDown))
    }

    /// Makes many changes in one transaction. Gives what became of each, in their order. If they are to be made
    /// all or none and one cannot be, the others' outcomes say what would have been done.
    ///
    /// # Errors
    /// If nothing could be remembered; nothing has changed then.
    pub async fn change_all(
        &self,
        operations: Vec<Operation>,
        options: ChangeOptions,
    ) -> Result<Vec<Result<Outcome, ManagerError>>, ManagerError> {
        let manager = self.clone();
        let span = trace_span!("manager.change", operations = operations.len());
        let work = async move { manager.carry_out(operations, options).await };
        let task = self.inner.control.tasks.spawn(work.instrument(span));
        task.await.map_err(|_| ManagerError::ShutDown)?
    }

    async fn carry_out(
        &self,
        operations: Vec<Operation>,
        options: ChangeOptions,
    ) -> Result<Vec<Result<Outcome, ManagerError>>, ManagerError> {
        if self.is_shut_down() {
            return Err(ManagerError::ShutDown);
        }
        let control = &self.inner.control;
        let turn = control.changing.clone().lock_owned().await;
        let revision = control.defined.read().revision;
        let mut plan = Plan::new(self, &options, revision);
        let results: Vec<_> = operations.into_iter().map(|operation| plan.add(operation)).collect();
        let refused = options.atomic && results.iter().any(Result::is_err);
        if options.dry_run || refused {
            return Ok(results);
        }
        let Plan {
            revision, api, wishes, mut states, touched, restarts, deletions, removals, events, ..
        } = plan;
        if let Some(answer) = options.answer.clone().filter(|_| results.iter().any(Result::is_ok)) {
            let KeyedAnswer { key, fingerprint, render } = answer;
            let response = render(&results);
            states.push(StateChange::Answer(Answer { key, fingerprint, response }));
        }
        control.remember(states, revision).await?;
        {
            let mut defined = control.defined.write();
            defined.revision = revision;
            for (id, definition) in api {
                match definition {
                    Some(definition) => drop(defined.api.insert(id, definition)),
                    None => drop(defined.api.remove(&id)),
                }
            }
            for (id, wish) in wishes {
                if wish == Wishes::default() {
                    defined.wishes.remove(&id);
                } else {
                    defined.wishes.insert(id, wish);
                }
            }
        }
        // Remembered: what follows may take its time.
        drop(turn);
        self.emit_all(events).await;
        self.reconcile_all(touched, &restarts).await;
        for id in removals {
            if let Ok(handle) = self.stream(id.as_str()) {
                self.end(&handle).await;
            }
        }
        for (id, what) in deletions {
            // It may have been made anew since.
            if self.info(&id).is_err() {
                control.failed.lock().remove(&id);
                self.forget_limits(&id);
            }
            if what != DeleteRecordings::Keep {
                let all = TimeRange::ALL;
                match self.delete_recordings(&id, all, what == DeleteRecordings::All).await {
                    Ok(_) | Err(ManagerError::NotFound(_) | ManagerError::NoIndex) => {}
                    Err(error) => tracing::error!(stream = id, %error, "recordings could not be deleted"),
                }
            }
        }
        Ok(results)
    }

    fn forget_limits(&self, id: &str) {
        if let Ok(id) = id.parse() {
            self.inner.storage.limit(&id, None);
        }
    }

    /// What a request with this idempotency key was answered.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn answered(&self, key: &str) -> Result<Option<Answer>, ManagerError> {
        let Some(store) = self.inner.control.store.clone() else { return Ok(None) };
        let key = key.to_owned();
        let asked = tokio::task::spawn_blocking(move || store.answer(&key)).await;
        Ok(asked.unwrap_or(Err(crate::storage::state::StateError::Gone))?)
    }

    /// Remembers what a request with an idempotency key was answered.
    ///
    /// # Errors
    /// If it cannot be remembered.
    pub async fn remember_answer(&self, answer: Answer) -> Result<(), ManagerError> {
        let control = &self.inner.control;
        let _turn = control.changing.clone().lock_owned().await;
        let revision = control.defined.read().revision;
        control.remember(vec![StateChange::Answer(answer)], revision).await
    }
}
