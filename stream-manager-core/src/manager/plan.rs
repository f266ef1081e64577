//! A set of changes while it is put together: each is looked at as if those before it were made already.

use super::change::{ChangeOptions, DeleteRecordings, Done, Operation, Outcome};
use super::definition::{Definition, ENABLED, INFERENCE, Origin, RECORDING, Wishes, wish_change};
use super::from_config::check_stream;
use super::patch::{patched, restore_password};
use super::reconcile::differs_live_only;
use super::{ManagerError, StreamId, StreamManager};
use crate::config::{Address, Config, ResolvedStream, StreamConfig};
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::storage::state::StateChange;
use std::collections::HashMap;
use std::sync::Arc;

/// Streams that may be defined through the API.
const MAX_STREAMS: usize = 100_000;

/// No stream has a longer id.
const MAX_ID: usize = 200;

/// A set of changes while it is put together.
pub(super) struct Plan<'a> {
    pub(super) manager: &'a StreamManager,
    pub(super) config: Arc<Config>,
    pub(super) options: &'a ChangeOptions,
    pub(super) revision: u64,
    /// Streams of the API, as many as there will be.
    streams: usize,
    /// Definitions as they will be.
    pub(super) api: HashMap<String, Option<Arc<Definition>>>,
    pub(super) wishes: HashMap<String, Wishes>,
    pub(super) states: Vec<StateChange>,
    pub(super) touched: Vec<String>,
    pub(super) restarts: Vec<String>,
    pub(super) deletions: Vec<(String, DeleteRecordings)>,
    /// Streams of code and publishers that go.
    pub(super) removals: Vec<StreamId>,
    pub(super) events: Vec<(String, EventKind)>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(manager: &'a StreamManager, options: &'a ChangeOptions, revision: u64) -> Self {
        Self {
            manager,
            config: manager.config(),
            options,
            revision,
            streams: manager.inner.control.defined.read().api.len(),
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

    pub(super) fn add(&mut self, operation: Operation) -> Result<Outcome, ManagerError> {
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
                    // One that runs by a definition has just lost it.
                    let handle = self.manager.stream(&id)?;
                    if handle.built().is_some() {
                        return Err(ManagerError::NotFound(id));
                    }
                    if handle.is_derived() {
                        return Err(ManagerError::NotDefined(id));
                    }
                    self.removals.push(handle.id().clone());
                    self.deletions.push((id.clone(), recordings));
                    return Ok(Outcome { id, done: Done::Deleted, definition: None });
                }
                self.revision += 1;
                self.states.push(StateChange::Delete(id.clone()));
                self.api.insert(id.clone(), None);
                self.streams -= 1;
                self.touched.push(id.clone());
                // If the file names it too, it goes on as the file's, with its recordings and what is wished for it.
                if known.is_none_or(|known| known.origin != Origin::File) {
                    self.states.push(StateChange::Forget(id.clone()));
                    self.wishes.insert(id.clone(), Wishes::default());
                    self.deletions.push((id.clone(), recordings));
                }
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
            Ok(handle) if handle.built().is_none() => ManagerError::NotDefined(id.to_owned()),
            Ok(_) => ManagerError::NotFound(id.to_owned()),
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
        if self.options.untrusted {
            check_trust([
                ("/source_url", Some(&config.source_url)),
                ("/inference/source_url", config.inference.source_url.as_ref()),
                ("/fallback/url", config.fallback.url.as_ref()),
            ])?;
            check_trust(config.variants.iter().map(|variant| ("/variants", Some(&variant.source_url))))?;
        }
        check_stream(&config, &self.config)?;
        let taken =
            |pointer: &str, problem: String| ManagerError::Invalid { pointer: pointer.into(), problem };
        let defaults = &self.config.defaults;
        let clash = config.derived_ids(defaults).find(|(_, made)| self.get(made).is_some());
        if let Some((pointer, made)) = clash {
            let right = if pointer == "/inference/annotated" { "false" } else { "another name" };
            let problem = format!("\"{made}\" is the id of another stream already; expected {right}");
            return Err(taken(pointer, problem));
        }
        let parent = config.id.rsplit_once('/').and_then(|(parent, _)| self.get(parent));
        if parent.is_some_and(|parent| parent.config.derived_ids(defaults).any(|(_, made)| made == config.id))
        {
            return Err(ManagerError::Exists(shown(&config.id)));
        }
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
        if old.is_none() && self.streams >= MAX_STREAMS {
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
        self.streams += usize::from(done == Done::Created);
        self.touched.push(id.clone());
        self.events.push((id.clone(), event));
        Ok(Outcome { id, done, definition: Some(definition) })
    }

    /// What was wished against a configured value ends with it.
    fn drop_wishes(&mut self, id: &str, before: &ResolvedStream, new: &ResolvedStream) {
        let mut wishes = self.wishes(id);
        for (differs, what) in [
            (before.enabled != new.enabled, ENABLED),
            (before.recording.enabled != new.recording.enabled, RECORDING),
            (before.inference.enabled != new.inference.enabled, INFERENCE),
        ] {
            if !differs {
                continue;
            }
            wishes.forget(what);
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
        let change = wish_change(&id, ENABLED, &enabled.to_string(), configured, same);
        self.states.push(change);
        self.wishes.insert(id.clone(), wishes);
        self.touched.push(id.clone());
        self.events
            .push((id.clone(), EventKind::StreamChanged { origin: old.origin.name(), effect: "restart" }));
        Ok(Outcome { id, done: Done::Changed, definition: Some(old) })
    }
}

/// Addresses that read and write any file, or do anything at all, are for who may edit the configuration. Each comes with the key
/// that it stands at.
pub(super) fn check_trust<'a>(
    addresses: impl IntoIterator<Item = (&'static str, Option<&'a Address>)>,
) -> Result<(), ManagerError> {
    for (pointer, address) in addresses {
        let address = address.map(|address| address.trim_start()).unwrap_or_default();
        if let Some(kind) = ["gst:", "exec:"].into_iter().find(|kind| address.starts_with(kind)) {
            return Err(ManagerError::Untrusted { kind, pointer });
        }
    }
    Ok(())
}

fn shown(id: &str) -> String {
    id.chars().take(200).collect()
}
