//! Doing something about events: [webhooks](crate::config::WebhookConfig), [programs](crate::config::CommandConfig),
//! and an [MQTT broker](crate::config::MqttConfig) (feature `mqtt`).
//!
//! Each hook is a task of its own that listens to events and keeps its place in the journal: what it has not carried
//! out yet waits there, also over a restart, as long as the journal reaches. A hook that fails is told of by one event,
//! and no hook is told of its own failures.

mod command;
#[cfg(feature = "mqtt")]
mod mqtt;
mod webhook;

use crate::backoff::Backoff;
use crate::config::{Config, HooksConfig};
use crate::event::{EventKind, EventSender};
use crate::frame::WallTime;
use crate::manager::{ConfigUser, EventFilter, EventListener, Heard, StreamManager};
use crate::storage::journal::JournalEntry;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The name of the broker's hook.
const BROKER: &str = "mqtt";
/// How long a hook may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt: a second, doubling to a minute.
fn backoff() -> Backoff {
    Backoff::between(Duration::from_secs(1), Duration::from_secs(60))
}

/// How a hook stands.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// `webhook`, `command` or `mqtt`.
    pub kind: &'static str,
    /// Where it goes, without secrets.
    pub target: String,
    /// Events carried out.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events given up.
    pub given_up: u64,
    /// Events that are waiting, those of other kinds and streams included.
    pub behind: u64,
    /// When it last carried one out.
    pub last_done: Option<WallTime>,
    /// Why the last attempt failed, until one succeeds.
    pub problem: Option<String>,
}

/// What a hook's task tells of itself.
#[derive(Default)]
struct Progress {
    done: u64,
    failed: u64,
    given_up: u64,
    last: u64,
    last_done: Option<WallTime>,
    problem: Option<String>,
}

/// What each kind of hook has.
#[derive(Clone)]
struct Context {
    name: String,
    manager: StreamManager,
    progress: Arc<Mutex<Progress>>,
    cancel: CancellationToken,
}

impl Context {
    /// Listens from where the hook was.
    async fn listen(&self, streams: &[String], kinds: &[String]) -> EventListener {
        // Both were checked with the configuration.
        let filter = EventFilter::new().streams(streams).unwrap_or_default();
        let filter = filter.kinds(kinds).unwrap_or_default();
        let place = match self.manager.journal() {
            Some(journal) => journal.place(&self.name).await.ok().flatten(),
            None => None,
        };
        let listener = self.manager.listen(filter, place);
        self.progress.lock().last = listener.last();
        if place.is_none() {
            self.keep_place(listener.last()).await;
        }
        listener
    }

    /// The next event that is this hook's.
    async fn next(&self, listener: &mut EventListener) -> Option<JournalEntry> {
        loop {
            let heard = self.cancel.run_until_cancelled(listener.next()).await.flatten()?;
            match heard {
                Heard::Event(entry) if self.is_own(&entry) => {}
                Heard::Event(entry) => return Some(entry),
                Heard::Missed => {
                    tracing::warn!(
                        hook = self.name,
                        "events are missing in the journal that this hook was to get"
                    );
                }
            }
        }
    }

    /// Told of its own failures a hook would fail for ever.
    fn is_own(&self, entry: &JournalEntry) -> bool {
        &*entry.kind == "hook_failed"
            && serde_json::from_str::<serde_json::Value>(&entry.json)
                .is_ok_and(|v| v["hook"] == self.name.as_str())
    }

    async fn keep_place(&self, id: u64) {
        if let Some(journal) = self.manager.journal()
            && let Err(error) = journal.set_place(&self.name, id).await
        {
            tracing::warn!(hook = self.name, error, "a hook's place cannot be kept; it may get events again");
        }
    }

    /// Waits, for a bounded time, until an event is in the journal.
    async fn written(&self, id: u64) {
        if let Some(journal) = self.manager.journal() {
            journal.written(id).await;
        }
    }

    fn done(&self, entry: &JournalEntry) {
        let mut progress = self.progress.lock();
        progress.done += 1;
        progress.last = progress.last.max(entry.id);
        progress.last_done = Some(WallTime::now());
        if progress.problem.take().is_some() {
            tracing::info!(hook = self.name, "a hook works again");
        }
    }

    /// An attempt has failed. Told of when it is the first, so that hooks cannot go on telling each other.
    fn failed(&self, stream: Option<&Arc<str>>, problem: &str, given_up: bool) {
        let first = {
            let mut progress = self.progress.lock();
            progress.failed += 1;
            progress.given_up += u64::from(given_up);
            progress.problem.replace(problem.to_owned()).is_none()
        };
        if first {
            tracing::warn!(hook = self.name, problem, "a hook fails");
            let kind =
                EventKind::HookFailed { hook: self.name.clone(), problem: problem.to_owned(), given_up };
            match stream {
                Some(stream) => EventSender::emit(&self.manager.events().for_stream(stream.clone()), kind),
                None => self.manager.events().emit(kind),
            }
        }
    }

    /// The event is left out for good.
    async fn give_up(&self, entry: &JournalEntry, problem: &str) {
        self.failed(entry.stream.as_ref(), problem, true);
        self.progress.lock().last = entry.id;
        self.keep_place(entry.id).await;
    }
}

struct Running {
    kind: &'static str,
    target: String,
    context: Context,
    tester: Tester,
    task: JoinHandle<()>,
}

/// How a hook is tested.
#[derive(Clone)]
enum Tester {
    Webhook(Arc<webhook::Webhook>),
    Command(Arc<command::CommandHook>),
    #[cfg(feature = "mqtt")]
    Mqtt(Arc<mqtt::Mqtt>),
}

/// The hooks of one manager. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Hooks {
    manager: StreamManager,
    running: Arc<Mutex<BTreeMap<String, Running>>>,
    client: crate::http_client::Client,
}

impl Hooks {
    /// Starts the hooks of a configuration. Must be called on a tokio runtime.
    pub async fn start(manager: StreamManager) -> Self {
        let config = manager.config();
        let hooks = Self { manager, running: Arc::default(), client: crate::http_client::client() };
        hooks.forget_others(&config.hooks).await;
        hooks.take_up(&config.hooks);
        hooks
    }

    /// A hook that was taken out is not to begin with what happened since, should it ever come back.
    async fn forget_others(&self, config: &HooksConfig) {
        let webhooks = config.webhooks.iter().map(|hook| hook.name.clone());
        let commands = config.commands.iter().map(|hook| hook.name.clone());
        let names = webhooks.chain(commands).chain(config.mqtt.iter().map(|_| BROKER.to_owned())).collect();
        if let Some(journal) = self.manager.journal()
            && let Err(error) = journal.keep_places(names).await
        {
            tracing::warn!(error, "the places of hooks that are no more could not be forgotten");
        }
    }

    fn context(&self, name: &str) -> Context {
        Context {
            name: name.to_owned(),
            manager: self.manager.clone(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn take_up(&self, config: &HooksConfig) {
        let mut running = self.running.lock();
        for hook in &config.webhooks {
            let context = self.context(&hook.name);
            let webhook = Arc::new(webhook::Webhook::new(hook.clone(), self.client.clone()));
            let task = tokio::spawn(webhook.clone().run(context.clone()));
            let target = hook.url.shown();
            let tester = Tester::Webhook(webhook);
            running.insert(hook.name.clone(), Running { kind: "webhook", target, context, tester, task });
        }
        for hook in &config.commands {
            let context = self.context(&hook.name);
            let command = Arc::new(command::CommandHook::new(hook.clone()));
            let task = tokio::spawn(command.clone().run(context.clone()));
            // Arguments may hold secrets.
            let target = hook.command.first().cloned().unwrap_or_default();
            let tester = Tester::Command(command);
            running.insert(hook.name.clone(), Running { kind: "command", target, context, tester, task });
        }
        #[cfg(feature = "mqtt")]
        if let Some(config) = &config.mqtt {
            let context = self.context(BROKER);
            let mqtt = Arc::new(mqtt::Mqtt::new(config.clone()));
            let task = tokio::spawn(mqtt.clone().run(context.clone()));
            let target = config.url.shown();
            let tester = Tester::Mqtt(mqtt);
            running.insert(BROKER.into(), Running { kind: "mqtt", target, context, tester, task });
        }
        #[cfg(not(feature = "mqtt"))]
        if config.mqtt.is_some() {
            tracing::error!("hooks.mqtt is set, but this program was built without the feature mqtt");
        }
    }

    /// Ends all hooks and waits, for a bounded time, for what they are doing.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for hook in running.values() {
            hook.context.cancel.cancel();
        }
        let ended = running.into_values().map(|hook| async move {
            let abort = hook.task.abort_handle();
            if tokio::time::timeout(STOP_TIMEOUT, hook.task).await.is_err() {
                abort.abort();
            }
        });
        futures_util::future::join_all(ended).await;
    }

    /// How they stand.
    pub fn status(&self) -> Vec<HookStatus> {
        let last = self.manager.events().last_id();
        let running = self.running.lock();
        let status = |(name, hook): (&String, &Running)| {
            let progress = hook.context.progress.lock();
            HookStatus {
                name: name.clone(),
                kind: hook.kind,
                target: hook.target.clone(),
                done: progress.done,
                failed: progress.failed,
                given_up: progress.given_up,
                behind: last.saturating_sub(progress.last),
                last_done: progress.last_done,
                problem: progress.problem.clone(),
            }
        };
        running.iter().map(status).collect()
    }

    /// Carries one out with an event that says that it is a test. `None` if there is no such hook.
    pub async fn test(&self, name: &str) -> Option<Result<(), String>> {
        let tester = self.running.lock().get(name)?.tester.clone();
        let kind = EventKind::Test { hook: name.to_owned() };
        let json = serde_json::json!({"id": 0, "time": WallTime::now(), "kind": kind.name(), "hook": name});
        let entry =
            JournalEntry { id: 0, stream: None, kind: kind.name().into(), json: json.to_string().into() };
        Some(match tester {
            Tester::Webhook(hook) => hook.send(&entry).await.map_err(|e| e.to_string()),
            Tester::Command(hook) => hook.execute(&entry, CancellationToken::new()).await,
            #[cfg(feature = "mqtt")]
            Tester::Mqtt(hook) => hook.test(&entry).await,
        })
    }
}

#[async_trait::async_trait]
impl ConfigUser for Hooks {
    async fn change(&self, old: &Arc<Config>, new: &Arc<Config>) -> Result<(), String> {
        if old.hooks != new.hooks {
            self.stop().await;
            self.forget_others(&new.hooks).await;
            self.take_up(&new.hooks);
        }
        Ok(())
    }
}
