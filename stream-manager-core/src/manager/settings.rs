//! The configuration in force, and changing it while everything runs.
//!
//! A new configuration is read and checked as a whole first. Then those who use parts of it (listeners, hooks, the
//! log) take it over one after the other; if one cannot, the others go back to the old one. Only then is it in force,
//! and the streams that it touches are brought up to date.

use super::definition::{FileChange, Origin};
use super::from_config::check_streams;
use super::patch::merge_patch;
use super::plan::check_trust;
use super::reconcile::differs_live_only;
use super::reload::{ConfigStatus, ConfigUser, ReloadError, ReloadReport, Trigger};
use super::wish::stale_wishes;
use super::{ManagerError, StreamManager};
use crate::config::{Config, Effect};
use crate::event::EventKind;
use crate::frame::WallTime;
use crate::storage::retention::{RetentionPolicy, StreamLimits};
use crate::storage::state::StateChange;
use crate::trace::trace_span;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tracing::Instrument as _;

/// Sections and keys that cannot be set through the API.
const NOT_BY_API: &[(&str, &str)] = &[
    ("streams", "streams have their own calls, see /api/streams"),
    ("auth", "users can only be set in the file"),
    ("backup.folder", "folders can only be set in the file"),
    ("backup.recipients", "who can read backups can only be set in the file"),
    ("hooks.commands", "programs can only be set in the file"),
    ("inference", "models and libraries can only be set in the file"),
    ("server.tls_", "certificates can only be set in the file"),
    ("server.trusted_proxies", "whom to believe can only be set in the file"),
    ("server.listen", "where HTTP listens can only be set in the file"),
    ("server.reload_on_change", "it can only be set in the file"),
    ("outbound", "what is connected to can only be set in the file"),
    ("telemetry.otlp", "where telemetry goes can only be set in the file"),
    ("rtsp.tls_", "certificates can only be set in the file"),
    ("storage.data_dir", "folders can only be set in the file"),
    ("storage.recordings_dir", "folders can only be set in the file"),
    ("storage.directories", "folders can only be set in the file"),
    ("storage.disk_threads", "it needs a restart of the process and can only be set in the file"),
    ("telemetry.log_format", "it needs a restart of the process and can only be set in the file"),
];

/// ONNX Runtime's library, if it is set, and where engines for GPUs are kept.
#[cfg(feature = "inference")]
pub(super) fn model_places(config: &Config) -> (Option<std::path::PathBuf>, Option<std::path::PathBuf>) {
    let engines = config.inference.engine_dir.clone();
    let engines = engines.unwrap_or_else(|| config.storage.data_dir.join("engines"));
    (config.inference.onnxruntime.clone(), Some(engines))
}

/// The sections of the configuration.
const SECTIONS: &[&str] = &[
    "server",
    "storage",
    "rtsp",
    "rtmp",
    "auth",
    "backup",
    "outbound",
    "telemetry",
    "events",
    "hooks",
    "inference",
    "hls",
    "webrtc",
    "defaults",
    "streams",
];

impl StreamManager {
    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.inner.control.config.read().clone()
    }

    /// The file that the configuration is read from.
    pub fn config_file(&self) -> Option<std::path::PathBuf> {
        self.inner.control.source.as_ref().and_then(|source| source.file.clone())
    }

    /// Whether the file is as it was when it was read last. Blocks.
    #[cfg(feature = "http")]
    pub(crate) fn file_is_known(&self) -> bool {
        let control = &self.inner.control;
        control.source.as_ref().and_then(crate::config::ConfigSource::content)
            == control.status.lock().content
    }

    /// How the configuration stands.
    pub fn config_status(&self) -> ConfigStatus {
        let control = &self.inner.control;
        let status = control.status.lock().clone();
        let defined = control.defined.read();
        ConfigStatus {
            file: control.source.as_ref().and_then(|s| s.file.as_ref()).map(|f| f.display().to_string()),
            loaded: status.loaded,
            attempted: status.attempted,
            problem: status.problem,
            needs_restart: status.needs_restart,
            reloads: status.reloads,
            rejected: status.rejected,
            shadowed: defined.api.keys().filter(|id| defined.file.contains_key(*id)).cloned().collect(),
        }
    }

    /// Has somebody take over each new configuration from now on, behind those who do so already.
    pub fn add_config_user(&self, user: Arc<dyn ConfigUser>) {
        self.inner.control.users.write().push(user);
    }

    /// Reads the configuration again and takes it over.
    ///
    /// # Errors
    /// If it is wrong, or cannot be carried out; the old one stays in force as a whole.
    pub async fn reload(&self, trigger: Trigger) -> Result<ReloadReport, ReloadError> {
        let manager = self.clone();
        let work = async move {
            let result = manager.read_and_apply(None, false).await;
            manager.note(trigger, &result);
            result
        };
        let task = self.inner.control.tasks.spawn(work.instrument(trace_span!("manager.reload")));
        task.await.map_err(|_| ReloadError::Manager(ManagerError::ShutDown))?
    }

    /// Changes settings by a JSON merge patch, RFC 7396. What is set like this is remembered, and lies below what the
    /// file, the environment and the arguments set. With `dry_run` it is only checked.
    ///
    /// # Errors
    /// If a key does not exist, cannot be set like this, is set by the file, or the whole would be wrong.
    pub async fn patch_settings(&self, patch: Value, dry_run: bool) -> Result<ReloadReport, ReloadError> {
        let manager = self.clone();
        let task = self.inner.control.tasks.spawn(async move {
            let result = manager.read_and_apply(Some(&patch), dry_run).await;
            if !dry_run && result.is_ok() {
                manager.note(Trigger::Request, &result);
            }
            result
        });
        task.await.map_err(|_| ReloadError::Manager(ManagerError::ShutDown))?
    }

    fn note(&self, trigger: Trigger, result: &Result<ReloadReport, ReloadError>) {
        let mut status = self.inner.control.status.lock();
        let now = WallTime::now();
        status.attempted = Some(now);
        let trigger = trigger.name();
        match result {
            Ok(report) => {
                status.loaded = Some(now);
                status.problem = None;
                status.reloads += 1;
                for key in &report.needs_restart {
                    if !status.needs_restart.contains(key) {
                        status.needs_restart.push(key.clone());
                    }
                }
                tracing::info!(
                    trigger,
                    changed = ?report.changed,
                    created = report.streams_created.len(),
                    streams_changed = report.streams_changed.len(),
                    deleted = report.streams_deleted.len(),
                    "the configuration was read"
                );
                if !report.needs_restart.is_empty() {
                    tracing::warn!(keys = ?report.needs_restart, "these keys need a restart of the process");
                }
                self.inner.events.emit(EventKind::ConfigReloaded {
                    trigger,
                    changed: report.changed.clone(),
                    needs_restart: report.needs_restart.clone(),
                });
            }
            Err(error) => {
                let problem = error.to_string();
                status.problem = Some(problem.clone());
                status.rejected += 1;
                tracing::error!(
                    trigger,
                    problem,
                    "the new configuration is refused; the old one stays in force"
                );
                self.inner.events.emit(EventKind::ConfigRejected { trigger, problem });
            }
        }
    }

    async fn read_and_apply(
        &self,
        patch: Option<&Value>,
        dry_run: bool,
    ) -> Result<ReloadReport, ReloadError> {
        if self.is_shut_down() {
            return Err(ManagerError::ShutDown.into());
        }
        let control = &self.inner.control;
        let turn = control.changing.clone().lock_owned().await;
        let source = control.source.clone().ok_or(ReloadError::Fixed)?;
        let mut settings = control.settings.lock().clone();
        let old = self.config();
        let (new, written) = match patch {
            Some(patch) => {
                // What has changed in the file since is for a reload.
                let written = control.written.lock().clone();
                check_patch(patch, &source.operator_keys(&written))?;
                settings = patched(&settings, patch, &old)?;
                (source.with(&written, Some(&settings))?, written)
            }
            None => {
                let with = settings.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let content = source.content();
                    let new =
                        source.written().and_then(|w| source.with(&w, Some(&with)).map(|config| (config, w)));
                    (content, new)
                });
                let (content, new) = read.await.map_err(|_| ManagerError::ShutDown)?;
                control.status.lock().content = content;
                new?
            }
        };
        if patch.is_some() {
            let url = new.defaults.fallback.url.as_ref();
            let url = url.filter(|url| old.defaults.fallback.url.as_ref() != Some(url));
            check_trust([("/defaults/fallback/url", url)])?;
        }
        let problems = check_streams(&new);
        if let Some((_, error)) = problems.first() {
            let more = problems.len() - 1;
            let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            return Err(ReloadError::Refused(format!("{error}{rest}")));
        }
        let changes = old.changes_to(&new);
        let needs_restart =
            changes.iter().filter(|c| c.effect == Effect::ProcessRestart).map(|c| c.key.clone()).collect();
        let mut report = ReloadReport {
            changed: changes.iter().map(|c| c.key.clone()).collect(),
            needs_restart,
            ..ReloadReport::default()
        };
        let new = Arc::new(new.keeping_process_keys(&old));
        self.check_stored(&new)?;
        if dry_run {
            return Ok(report);
        }
        let revision = control.defined.read().revision;
        if patch.is_some() {
            control.remember(vec![settings_change(&settings)], revision).await?;
        }
        if let Err(problem) = self.hand_over(&old, &new).await {
            if patch.is_some() {
                let before = settings_change(&control.settings.lock());
                control.remember(vec![before], revision).await?;
            }
            return Err(ReloadError::Refused(problem));
        }
        *control.written.lock() = written;
        let (touched, events) = self.take_over(&old, &new, settings, &mut report);
        self.forget_stale(&new).await;
        drop(turn);
        self.emit_all(events).await;
        self.reconcile_all(touched, &[]).await;
        Ok(report)
    }

    /// Streams made through the API have to stay possible.
    fn check_stored(&self, new: &Config) -> Result<(), ReloadError> {
        let defined = self.inner.control.defined.read();
        for definition in defined.api.values() {
            super::from_config::check_stream(&definition.config, new)
                .map_err(|error| ReloadError::Refused(format!("{error} (a stream made through the API)")))?;
        }
        Ok(())
    }

    async fn hand_over(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        let users = self.inner.control.users.read().clone();
        for (index, user) in users.iter().enumerate() {
            if let Err(problem) = user.change(old, new).await {
                for user in users[..index].iter().rev() {
                    if let Err(error) = user.change(new, old).await {
                        tracing::error!(error, "the old configuration could not be taken up again in a part");
                    }
                }
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Puts a configuration into force. Gives the streams that it touches, and what is to be told.
    fn take_over(
        &self,
        old: &Arc<Config>,
        new: &Arc<Config>,
        settings: toml::Table,
        report: &mut ReloadReport,
    ) -> (Vec<String>, Vec<(String, EventKind)>) {
        let control = &self.inner.control;
        *control.config.write() = new.clone();
        *control.settings.lock() = settings;
        if let Some(keeper) = self.inner.storage.keeper() {
            keeper.change_policy(|policy| {
                let RetentionPolicy { default, max_bytes, min_free, .. } = retention_of(new);
                (policy.default, policy.max_bytes, policy.min_free) = (default, max_bytes, min_free);
            });
        }
        #[cfg(feature = "inference")]
        {
            let (library, engine_dir) = model_places(new);
            self.inner.models.set_places(library, engine_dir);
            if old.inference.models != new.inference.models {
                self.inner.models.set(new.inference.models.clone());
            }
        }
        self.inner.connects.set_limits(new.server.max_connects, new.server.max_connects_per_host);
        if let Some(journal) = &control.journal {
            journal.set_length(new.events.journal_size);
        }
        let (mut touched, mut events) = (Vec::new(), Vec::new());
        let mut defined = control.defined.write();
        let before: BTreeMap<String, _> =
            defined.all().map(|d| (d.config.id.clone(), d.config.resolve(&old.defaults))).collect();
        for (id, change) in defined.set_file(&new.streams) {
            let (list, event) = match change {
                FileChange::Created => {
                    (&mut report.streams_created, EventKind::StreamCreated { origin: Origin::File.name() })
                }
                FileChange::Deleted => {
                    (&mut report.streams_deleted, EventKind::StreamDeleted { origin: Origin::File.name() })
                }
                FileChange::Changed => {
                    let after = defined.get(&id).map(|d| d.config.resolve(&new.defaults));
                    let live = before.get(&id).zip(after).is_some_and(|(b, a)| differs_live_only(b, &a));
                    let effect = if live { "live" } else { "restart" };
                    (
                        &mut report.streams_changed,
                        EventKind::StreamChanged { origin: Origin::File.name(), effect },
                    )
                }
            };
            list.push(id.clone());
            events.push((id.clone(), event));
            touched.push(id);
        }
        // New defaults touch streams that have not changed themselves.
        let mut known: HashSet<String> = touched.iter().cloned().collect();
        for definition in defined.all() {
            let id = &definition.config.id;
            let same = before.get(id) == Some(&definition.config.resolve(&new.defaults));
            if !same && known.insert(id.clone()) {
                touched.push(id.clone());
            }
        }
        (touched, events)
    }

    async fn forget_stale(&self, config: &Config) {
        let control = &self.inner.control;
        let (stale, revision) = {
            let mut defined = control.defined.write();
            let configured = |id: &str| {
                let resolved = defined.get(id)?.config.resolve(&config.defaults);
                Some((resolved.enabled, resolved.recording.enabled, resolved.inference.enabled))
            };
            let stale = stale_wishes(&defined.wishes, configured);
            for (id, what) in &stale {
                if let Some(wishes) = defined.wishes.get_mut(id) {
                    wishes.forget(what);
                }
            }
            defined.wishes.retain(|_, wishes| *wishes != Default::default());
            (stale, defined.revision)
        };
        let changes = stale.into_iter().map(|(id, what)| StateChange::Unwish { id, what }).collect();
        if let Err(error) = control.remember(changes, revision).await {
            // They do not count any more as it is: each says which value it goes against.
            tracing::warn!(%error, "wishes that no longer hold could not be forgotten");
        }
    }

    /// Everything that differs from the defaults and every stream, as a configuration file. Passwords are in it only
    /// with `secrets`, and shown as `***` otherwise.
    pub fn export_toml(&self, secrets: bool) -> String {
        let defined = self.inner.control.defined.read();
        let streams = defined.all().map(|d| d.config.clone()).collect();
        let config = Config { streams, ..Config::clone(&self.config()) };
        config.to_toml(secrets)
    }
}

fn settings_change(settings: &toml::Table) -> StateChange {
    StateChange::Settings(serde_json::to_string(settings).unwrap_or_default())
}

/// How long recordings are kept, by a configuration.
pub(super) fn retention_of(config: &Config) -> RetentionPolicy {
    RetentionPolicy {
        streams: Default::default(),
        default: StreamLimits {
            max_age: config.defaults.recording.retention.max_age.map(|d| d.0),
            events_max_age: config.defaults.recording.retention.events_max_age.map(|d| d.0),
            max_bytes: config.defaults.recording.retention.max_size.map(|b| b.0),
        },
        max_bytes: config.storage.max_size.map(|b| b.0),
        min_free: config.storage.min_free.0,
    }
}

fn check_patch(patch: &Value, operator: &std::collections::BTreeSet<String>) -> Result<(), ReloadError> {
    let fail = |key: &str, problem: String, by_operator: bool| ReloadError::Key {
        pointer: if key.is_empty() { String::new() } else { format!("/{}", key.replace('.', "/")) },
        problem,
        by_operator,
    };
    if !patch.is_object() {
        let problem =
            "expected an object with the keys that change, such as {\"server\": {\"max_connects\": 8}}";
        return Err(fail("", problem.into(), false));
    }
    for section in patch.as_object().into_iter().flat_map(|o| o.keys()) {
        // Also one that is to be taken out has to exist.
        if !SECTIONS.contains(&section.as_str()) {
            let problem = format!("unknown key; {}", crate::config::suggest(section, SECTIONS));
            return Err(fail(section, problem, false));
        }
    }
    let mut keys = std::collections::BTreeSet::new();
    crate::config::collect_keys(patch, "", &mut keys);
    for key in keys {
        if let Some((_, problem)) = NOT_BY_API.iter().find(|(prefix, _)| is_within(&key, prefix)) {
            return Err(fail(&key, (*problem).into(), false));
        }
        if operator.iter().any(|set| is_within(&key, set) || is_within(set, &key)) {
            let problem = "the file, the environment or an argument sets it, which wins; change it there";
            return Err(fail(&key, problem.into(), true));
        }
    }
    Ok(())
}

/// Whether a key is another one or a part of it. A prefix that ends in `_` is one of names.
fn is_within(key: &str, other: &str) -> bool {
    key.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || other.ends_with('_'))
}

/// The settings with a patch applied. Secrets that are sent back hidden stay as they are.
fn patched(settings: &toml::Table, patch: &Value, old: &Config) -> Result<toml::Table, ReloadError> {
    let mut value = serde_json::to_value(settings).unwrap_or_default();
    merge_patch(&mut value, patch);
    for hook in value.pointer_mut("/hooks/webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        let known = old.hooks.webhooks.iter().find(|known| hook["name"] == known.name.as_str());
        if let Some(known) = known.filter(|known| hook["url"] == known.url.shown()) {
            hook["url"] = known.url.reveal().into();
        }
        if hook.get("secret").is_some_and(|s| s == "***") {
            restore(hook, "secret", known.and_then(|k| k.secret.as_ref()))?;
        }
    }
    if let Some(mqtt) =
        value.pointer_mut("/hooks/mqtt").filter(|m| m.get("password").is_some_and(|p| p == "***"))
    {
        restore(mqtt, "password", old.hooks.mqtt.as_ref().and_then(|m| m.password.as_ref()))?;
    }
    serde_json::from_value(value).map_err(|error| ReloadError::Key {
        pointer: String::new(),
        problem: error.to_string(),
        by_operator: false,
    })
}

fn restore(value: &mut Value, key: &str, known: Option<&crate::auth::Secret>) -> Result<(), ReloadError> {
    let Some(known) = known else {
        return Err(ReloadError::Key {
            pointer: format!("/hooks/{key}"),
            problem: "*** stands for a secret that is known already, and there is none; expected the secret"
                .into(),
            by_operator: false,
        });
    };
    value[key] = known.reveal().into();
    Ok(())
}
