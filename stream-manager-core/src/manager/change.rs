//! Making, changing and deleting streams while everything runs, one or many at once.
//!
//! Each call looks at what is defined, checks all that it is asked for, has it remembered in one transaction, and only
//! then brings the streams that it touches up to date. Once begun it is carried through, also if whoever asked is gone.

use super::definition::{Definition, ENABLED, Origin, RECORDING, RecordingWish, Wishes, wish_change};
use super::from_config::check_stream;
use super::reconcile::differs_live_only;
use super::{ManagerError, StreamId, StreamManager};
use crate::config::{Config, StreamConfig};
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::recording::{Recorder, RecorderStatus, RecordingAction};
use crate::storage::index::TimeRange;
use crate::storage::state::{Answer, StateChange};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Streams that may be defined through the API.
const MAX_STREAMS: usize = 100_000;

/// No stream has a longer id.
const MAX_ID: usize = 200;

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

/// A set of changes while it is put together.
struct Plan<'a> {
    manager: &'a StreamManager,
    config: Arc<Config>,
    options: &'a ChangeOptions,
    revision: u64,
    /// Definitions as they will be.
    api: HashMap<String, Option<Arc<Definition>>>,
    wishes: HashMap<String, Wishes>,
    states: Vec<StateChange>,
    touched: Vec<String>,
    restarts: Vec<String>,
    deletions: Vec<(String, DeleteRecordings)>,
    /// Streams of code and publishers that go.
    removals: Vec<StreamId>,
    events: Vec<(String, EventKind)>,
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
        let task =
            self.inner.control.tasks.spawn(async move { manager.carry_out(operations, options).await });
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
            control.failed.lock().remove(&id);
            self.forget_limits(&id);
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
        let task = self.inner.control.tasks.spawn(async move { manager.act(&id, action).await });
        task.await.map_err(|_| ManagerError::ShutDown)?
    }

    async fn act(&self, id: &str, action: RecordingAction) -> Result<RecorderStatus, ManagerError> {
        let handle = self.running(id)?;
        let recorder = handle.recorder();
        let wish = match action {
            RecordingAction::Start | RecordingAction::Resume => Some(RecordingWish::On),
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
        };
        if let (Err(error), Some(_)) = (&done, wish)
            && let Err(other) = self.wish_recording(handle.id(), before).await
        {
            tracing::error!(stream = id, %error, %other, "a recording's wish could not be taken back");
        }
        done.map_err(ManagerError::Recording)?;
        Ok(recorder.status())
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
        let default = if configured { RecordingWish::On } else { RecordingWish::Off };
        let (before, revision) = {
            let defined = control.defined.read();
            let wishes = defined.wishes.get(id.as_str()).copied().unwrap_or_default();
            (wishes.recording, defined.revision)
        };
        let same = wish.is_none_or(|wish| wish == default);
        let value = match wish.unwrap_or(default) {
            RecordingWish::On => "on",
            RecordingWish::Paused => "paused",
            RecordingWish::Off => "off",
        };
        let after = wish.filter(|_| !same).map(|wish| (wish, configured));
        if before != after {
            control.remember(vec![wish_change(id, RECORDING, value, configured, same)], revision).await?;
            let mut defined = control.defined.write();
            defined.wishes.entry(id.as_str().to_owned()).or_default().recording = after;
        }
        Ok(before.map(|(wish, _)| wish))
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

impl<'a> Plan<'a> {
    fn new(manager: &'a StreamManager, options: &'a ChangeOptions, revision: u64) -> Self {
        Self {
            manager,
            config: manager.config(),
            options,
            revision,
            api: HashMap::new(),
            wishes: HashMap::new(),
            states: Vec::new(),
            touched: Vec::new(),
            restarts: Vec::new(),
            deletions: Vec::new(),
            removals: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A stream as it will be defined.
    fn get(&self, id: &str) -> Option<Arc<Definition>> {
        let defined = self.manager.inner.control.defined.read();
        if let Some(file) = defined.file.get(id) {
            return Some(file.clone());
        }
        self.own(id).unwrap_or_else(|| defined.api.get(id).cloned())
    }

    fn own(&self, id: &str) -> Option<Option<Arc<Definition>>> {
        self.api.get(id).cloned()
    }

    fn api_definition(&self, id: &str) -> Option<Arc<Definition>> {
        self.own(id).unwrap_or_else(|| self.manager.inner.control.defined.read().api.get(id).cloned())
    }

    fn wishes(&self, id: &str) -> Wishes {
        let known = || self.manager.inner.control.defined.read().wishes.get(id).copied().unwrap_or_default();
        self.wishes.get(id).copied().unwrap_or_else(known)
    }

    fn add(&mut self, operation: Operation) -> Result<Outcome, ManagerError> {
        let id = operation.id().to_owned();
        let known = self.get(&id);
        if known.is_none()
            && id.len() > MAX_ID
            && !matches!(operation, Operation::Create(_) | Operation::Put(_))
        {
            return Err(ManagerError::NotFound(shown(&id)));
        }
        match operation {
            Operation::Create(config) => {
                if known.is_some() || self.is_taken(&id) {
                    return Err(ManagerError::Exists(shown(&id)));
                }
                let config = self.checked(config, None)?;
                self.check_revision(None)?;
                self.define(config, None)
            }
            Operation::Put(config) => {
                // Conditions come last (RFC 9110 section 13.2.1).
                let config = self.checked(config, known.as_deref())?;
                self.may_change(&id, known.as_deref())?;
                self.check_revision(known.as_deref())?;
                self.define(config, known)
            }
            Operation::Patch { patch, .. } => {
                let old = known.ok_or_else(|| self.undefined(&id))?;
                let config = self.checked(patched(&old.config, &patch)?, Some(&old))?;
                self.may_change(&id, Some(&old))?;
                self.check_revision(Some(&old))?;
                self.define(config, Some(old))
            }
            Operation::Delete { recordings, .. } => {
                self.check_revision(known.as_deref())?;
                if self.api_definition(&id).is_none() {
                    if known.is_some() {
                        return Err(ManagerError::DefinedInFile(id));
                    }
                    let handle = self.manager.stream(&id)?;
                    self.removals.push(handle.id().clone());
                    self.deletions.push((id.clone(), recordings));
                    return Ok(Outcome { id, done: Done::Deleted, definition: None });
                }
                self.revision += 1;
                self.states.push(StateChange::Delete(id.clone()));
                self.api.insert(id.clone(), None);
                self.wishes.insert(id.clone(), Wishes::default());
                self.touched.push(id.clone());
                self.deletions.push((id.clone(), recordings));
                self.events.push((id.clone(), EventKind::StreamDeleted { origin: Origin::Api.name() }));
                Ok(Outcome { id, done: Done::Deleted, definition: None })
            }
            Operation::Enable { enabled, .. } => {
                let old = known.ok_or_else(|| self.undefined(&id))?;
                self.check_revision(Some(&old))?;
                self.enable(old, enabled)
            }
            Operation::Restart { .. } => {
                let old = known.ok_or_else(|| self.undefined(&id))?;
                self.check_revision(Some(&old))?;
                let resolved = old.config.resolve(&self.config.defaults);
                if !self.wishes(&id).enabled(resolved.enabled) {
                    return Err(ManagerError::Disabled(id));
                }
                if old.is_pattern() {
                    return Err(ManagerError::Pattern(id));
                }
                self.touched.push(id.clone());
                self.restarts.push(id.clone());
                Ok(Outcome { id, done: Done::Restarted, definition: Some(old) })
            }
        }
    }

    /// Taken by a stream that the program has made.
    fn is_taken(&self, id: &str) -> bool {
        self.manager.stream(id).is_ok_and(|handle| handle.built().is_none() && !handle.shared.by_pattern)
    }

    /// The error for a stream that has no definition, whether it runs or not.
    fn undefined(&self, id: &str) -> ManagerError {
        match self.manager.stream(id) {
            Ok(_) => ManagerError::NotDefined(id.to_owned()),
            Err(error) => error,
        }
    }

    fn may_change(&self, id: &str, known: Option<&Definition>) -> Result<(), ManagerError> {
        if known.is_some_and(|d| d.origin == Origin::File) {
            return Err(ManagerError::DefinedInFile(id.to_owned()));
        }
        if known.is_none() && self.is_taken(id) {
            return Err(ManagerError::NotDefined(id.to_owned()));
        }
        Ok(())
    }

    fn check_revision(&self, known: Option<&Definition>) -> Result<(), ManagerError> {
        let found = known.map(|d| d.revision);
        if self.options.if_absent && found.is_some() || self.options.if_present && found.is_none() {
            return Err(ManagerError::Precondition { found });
        }
        match &self.options.if_revision {
            Some(wanted) if found.is_none_or(|found| !wanted.contains(&found)) => {
                Err(ManagerError::Precondition { found })
            }
            _ => Ok(()),
        }
    }

    /// A configuration that can be carried out, with the password that it stands for.
    fn checked(
        &self,
        mut config: StreamConfig,
        old: Option<&Definition>,
    ) -> Result<StreamConfig, ManagerError> {
        restore_password(&mut config, old)?;
        if self.options.untrusted && config.source_url.trim_start().starts_with("gst:") {
            // A launch line can read and write any file: that is for who may edit the configuration.
            return Err(ManagerError::Untrusted("gst:"));
        }
        check_stream(&config, &self.config)?;
        Ok(config)
    }

    fn define(
        &mut self,
        config: StreamConfig,
        old: Option<Arc<Definition>>,
    ) -> Result<Outcome, ManagerError> {
        let id = config.id.clone();
        if let Some(old) = old.as_ref().filter(|old| old.config == config) {
            return Ok(Outcome { id, done: Done::Unchanged, definition: Some(old.clone()) });
        }
        let defined = self.manager.inner.control.defined.read().api.len();
        let added = self.api.values().filter(|d| d.is_some()).count();
        if old.is_none() && defined + added >= MAX_STREAMS {
            return Err(ManagerError::TooMany { limit: MAX_STREAMS });
        }
        self.revision += 1;
        let now = WallTime::now();
        let (created, new) = (old.as_ref().map_or(now, |o| o.created), config.resolve(&self.config.defaults));
        let event = match &old {
            None => EventKind::StreamCreated { origin: Origin::Api.name() },
            Some(old) => {
                let before = old.config.resolve(&self.config.defaults);
                self.drop_wishes(&id, &before, &new);
                let live = differs_live_only(&before, &new);
                let effect = if live { "live" } else { "restart" };
                EventKind::StreamChanged { origin: Origin::Api.name(), effect }
            }
        };
        let done = if old.is_some() { Done::Changed } else { Done::Created };
        let definition = Arc::new(Definition {
            config,
            origin: Origin::Api,
            revision: self.revision,
            created,
            changed: now,
            order: 0,
        });
        self.states.push(definition.put());
        self.api.insert(id.clone(), Some(definition.clone()));
        self.touched.push(id.clone());
        self.events.push((id.clone(), event));
        Ok(Outcome { id, done, definition: Some(definition) })
    }

    /// What was wished against a configured value ends with it.
    fn drop_wishes(
        &mut self,
        id: &str,
        before: &crate::config::ResolvedStream,
        new: &crate::config::ResolvedStream,
    ) {
        let mut wishes = self.wishes(id);
        for (differs, what) in [
            (before.enabled != new.enabled, ENABLED),
            (before.recording.enabled != new.recording.enabled, RECORDING),
        ] {
            if !differs {
                continue;
            }
            match what {
                ENABLED => wishes.enabled = None,
                _ => wishes.recording = None,
            }
            self.states.push(StateChange::Unwish { id: id.to_owned(), what });
            self.wishes.insert(id.to_owned(), wishes);
        }
    }

    fn enable(&mut self, old: Arc<Definition>, enabled: bool) -> Result<Outcome, ManagerError> {
        let id = old.config.id.clone();
        let configured = old.config.resolve(&self.config.defaults).enabled;
        let mut wishes = self.wishes(&id);
        if wishes.enabled(configured) == enabled {
            return Ok(Outcome { id, done: Done::Unchanged, definition: Some(old) });
        }
        if old.origin == Origin::Api {
            let config = StreamConfig { enabled: Some(enabled), ..old.config.clone() };
            return self.define(config, Some(old));
        }
        // The file says otherwise, and stays as it is.
        let same = enabled == configured;
        wishes.enabled = (!same).then_some((enabled, configured));
        let change = match same {
            true => StateChange::Unwish { id: id.clone(), what: ENABLED },
            false => StateChange::Wish(crate::storage::state::StoredWish {
                id: id.clone(),
                what: ENABLED,
                value: enabled.to_string(),
                against: configured.to_string(),
            }),
        };
        self.states.push(change);
        self.wishes.insert(id.clone(), wishes);
        self.touched.push(id.clone());
        self.events
            .push((id.clone(), EventKind::StreamChanged { origin: old.origin.name(), effect: "restart" }));
        Ok(Outcome { id, done: Done::Changed, definition: Some(old) })
    }
}

fn shown(id: &str) -> String {
    id.chars().take(200).collect()
}

/// Applies a JSON merge patch, RFC 7396, to a stream's configuration.
fn patched(config: &StreamConfig, patch: &Value) -> Result<StreamConfig, ManagerError> {
    let invalid = |pointer: &str, problem: &str| ManagerError::Invalid {
        pointer: pointer.into(),
        problem: problem.into(),
    };
    if !patch.is_object() {
        return Err(invalid(
            "",
            "expected an object with the keys that change, such as {\"enabled\": false}",
        ));
    }
    if patch.get("id").is_some_and(|id| *id != config.id) {
        return Err(invalid("/id", "a stream's id cannot be changed; make a new stream and delete this one"));
    }
    if let Some(pointer) = find_array(patch) {
        return Err(invalid(&pointer, NO_ARRAY));
    }
    let mut value = serde_json::to_value(config).unwrap_or_default();
    merge_patch(&mut value, patch);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer_of(error.path());
        let problem = crate::config::explain(&error.into_inner().to_string());
        ManagerError::Invalid { pointer, problem }
    })
}

/// What is wrong with an array in a stream's configuration.
pub(crate) const NO_ARRAY: &str = "it is an array; nothing in a stream's configuration is one";

/// Where a value has an array, as a JSON pointer. No key of a stream is one, but serde would take an array for an
/// object whose values come in its own order.
pub(crate) fn find_array(value: &Value) -> Option<String> {
    match value {
        Value::Array(_) => Some(String::new()),
        Value::Object(object) => object.iter().find_map(|(key, value)| {
            find_array(value).map(|rest| format!("/{}{rest}", key.replace('~', "~0").replace('/', "~1")))
        }),
        _ => None,
    }
}

/// The place of an error as a JSON pointer, RFC 6901.
pub(crate) fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}

/// RFC 7396 section 2.
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge_patch(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Answers show `***` instead of a password. Sent back like that it stands for the one that is known.
fn restore_password(config: &mut StreamConfig, old: Option<&Definition>) -> Result<(), ManagerError> {
    const HIDDEN: &str = ":***@";
    if !config.source_url.contains(HIDDEN) {
        return Ok(());
    }
    if let Some(old) = old
        && crate::error::redact_url(&old.config.source_url) == config.source_url
    {
        config.source_url.clone_from(&old.config.source_url);
        return Ok(());
    }
    let known = old.and_then(|old| url::Url::parse(&old.config.source_url).ok());
    if let (Some(known), Ok(mut url)) = (known, url::Url::parse(&config.source_url))
        && (known.host_str(), known.port(), known.username()) == (url.host_str(), url.port(), url.username())
        && url.set_password(known.password()).is_ok()
    {
        config.source_url = url.into();
        return Ok(());
    }
    Err(ManagerError::Invalid {
        pointer: "/source_url".into(),
        problem: "*** stands for a password that is known already, and there is none for this user at this address; \
                  expected the password"
            .into(),
    })
}

/// Wishes that go against a value that is no longer configured, or are for streams that are no more.
pub(super) fn stale_wishes(
    wishes: &BTreeMap<String, Wishes>,
    configured: impl Fn(&str) -> Option<(bool, bool)>,
) -> Vec<(String, &'static str)> {
    let mut stale = Vec::new();
    for (id, wish) in wishes {
        let (enabled, recording) = match configured(id) {
            Some((enabled, recording)) => (
                wish.enabled.is_some_and(|(_, against)| against != enabled),
                wish.recording.is_some_and(|(_, against)| against != recording),
            ),
            None => (wish.enabled.is_some(), wish.recording.is_some()),
        };
        stale.extend(enabled.then(|| (id.clone(), ENABLED)));
        stale.extend(recording.then(|| (id.clone(), RECORDING)));
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn merge_patches_as_the_rfc_has_them() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target;
            merge_patch(&mut merged, &patch);
            assert_eq!(merged, result);
        }
    }

    #[test]
    fn a_hidden_password_stands_for_the_known_one() {
        let now = WallTime::now();
        let old = Definition {
            config: StreamConfig::new("a", "rtsp://u:geheim@10.0.0.1/one"),
            origin: Origin::Api,
            revision: 1,
            created: now,
            changed: now,
            order: 0,
        };
        for (url, restored) in [
            ("rtsp://u:***@10.0.0.1/one", Some("rtsp://u:geheim@10.0.0.1/one")),
            ("rtsp://u:***@10.0.0.1/two", Some("rtsp://u:geheim@10.0.0.1/two")),
            ("rtsp://u:new@10.0.0.1/two", Some("rtsp://u:new@10.0.0.1/two")),
            // Never to another host: that would hand the password out.
            ("rtsp://u:***@10.0.0.2/one", None),
            ("rtsp://other:***@10.0.0.1/one", None),
        ] {
            let mut config = StreamConfig::new("a", url);
            let result = restore_password(&mut config, Some(&old));
            assert_eq!(result.is_ok().then_some(config.source_url.as_str()), restored, "{url}");
        }
        assert!(restore_password(&mut StreamConfig::new("a", "rtsp://u:***@h/"), None).is_err());
    }
}
