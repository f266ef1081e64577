//! Running a program for an event. Only the configuration file can say which.
//!
//! The event is in the environment: `STREAM_MANAGER_EVENT` is its JSON, `STREAM_MANAGER_EVENT_ID`, `_KIND`, `_STREAM`
//! and `_TIME` its parts, and each plain field is `STREAM_MANAGER_EVENT_<FIELD>`. No shell is involved. The program and
//! everything that it starts form a process group, which is ended when its time is over or the program has ended.

use super::Context;
use crate::config::CommandConfig;
use crate::storage::journal::JournalEntry;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a program has after it was asked to end.
const GRACE: Duration = Duration::from_secs(2);
/// What is kept of what a program says.
const MAX_OUTPUT: usize = 1000;

pub(super) struct CommandHook {
    config: CommandConfig,
    /// Tests count, too.
    places: Arc<Semaphore>,
}

impl CommandHook {
    pub(super) fn new(config: CommandConfig) -> Self {
        let places = Arc::new(Semaphore::new(config.max_running.max(1)));
        Self { config, places }
    }

    pub(super) async fn run(self: Arc<Self>, context: Context) {
        let mut listener = context.listen(&self.config.streams, &self.config.kinds).await;
        let mut running = JoinSet::new();
        loop {
            while running.try_join_next().is_some() {}
            // A place first: what waits, waits in the journal.
            let place = context.cancel.run_until_cancelled(self.places.clone().acquire_owned()).await;
            let Some(Ok(place)) = place else { break };
            let Some(entry) = context.next(&mut listener).await else { break };
            // Begun is done: a program that the server took down with it is not run again.
            context.keep_place(entry.id).await;
            let (hook, context) = (self.clone(), context.clone());
            running.spawn(async move {
                let _place = place;
                match hook.start(&entry, context.cancel.clone()).await {
                    Ok(()) => context.done(&entry),
                    Err(problem) => context.failed(entry.stream.as_ref(), &problem, true),
                }
            });
        }
        while running.join_next().await.is_some() {}
    }

    /// Runs it as soon as there is a place.
    pub(super) async fn execute(
        &self,
        entry: &JournalEntry,
        cancel: CancellationToken,
    ) -> Result<(), String> {
        let _place = self.places.acquire().await.map_err(|e| e.to_string())?;
        self.start(entry, cancel).await
    }

    async fn start(&self, entry: &JournalEntry, cancel: CancellationToken) -> Result<(), String> {
        let Some((program, arguments)) = self.config.command.split_first() else {
            return Err("there is no command".into());
        };
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Our own settings are none of its business, and may be secret.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STREAM_MANAGER_") {
                command.env_remove(name);
            }
        }
        command.envs(variables(entry));
        let mut child = command.spawn().map_err(|e| format!("{program} cannot be run: {e}"))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Group(group);
        let said = child.stderr.take();
        let output = tokio::spawn(read_some(said));
        let limit = self.config.timeout.0;
        let ended = tokio::select! {
            status = child.wait() => Ok(status),
            () = tokio::time::sleep(limit) => Err(format!("it did not end within {limit:?} and was ended")),
            () = cancel.cancelled() => Err("it was ended because the hook ends".to_owned()),
        };
        if ended.is_err() {
            end(&group, &mut child).await;
        }
        drop(group);
        // Whoever holds the pipe has been ended with the group.
        let said = tokio::time::timeout(Duration::from_secs(1), output).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        let status = ended.map_err(|problem| format!("{program}: {problem}"))?;
        let status = status.map_err(|e| format!("{program}: {e}"))?;
        if status.success() {
            return Ok(());
        }
        let said = said.trim();
        Err(format!("{program}: {status}{}{said}", if said.is_empty() { "" } else { ": " }))
    }
}

/// Ends what is left of a process group.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error says that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn end(group: &Group, child: &mut Child) {
    group.signal(Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
    }
}

/// The beginning of what it says; the rest is read and forgotten, so that nobody waits for a full pipe.
async fn read_some(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The event as variables of the environment.
fn variables(entry: &JournalEntry) -> Vec<(String, String)> {
    const PREFIX: &str = "STREAM_MANAGER_EVENT";
    let mut variables = vec![(PREFIX.to_owned(), entry.json.to_string())];
    let Ok(Value::Object(fields)) = serde_json::from_str(&entry.json) else { return variables };
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        // A zero cannot be in a variable.
        variables.push((format!("{PREFIX}_{}", name.to_ascii_uppercase()), text.replace('\0', "")));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Duration) -> CommandHook {
        CommandHook::new(CommandConfig {
            name: "test".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            streams: Vec::new(),
            kinds: Vec::new(),
            timeout: crate::config::DurationText(timeout),
            max_running: 1,
        })
    }

    fn entry() -> JournalEntry {
        let json = r#"{"id":7,"stream":"a b","kind":"test","hook":"x","list":[1]}"#;
        JournalEntry { id: 7, stream: Some("a b".into()), kind: "test".into(), json: json.into() }
    }

    #[tokio::test]
    async fn a_program_gets_the_event_and_its_words_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let script = format!("env | grep ^STREAM_MANAGER > '{}'", file.display());
        hook(&script, Duration::from_secs(20)).start(&entry(), CancellationToken::new()).await.unwrap();
        let mut lines: Vec<String> =
            std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                format!("STREAM_MANAGER_EVENT={}", entry().json),
                "STREAM_MANAGER_EVENT_HOOK=x".into(),
                "STREAM_MANAGER_EVENT_ID=7".into(),
                "STREAM_MANAGER_EVENT_KIND=test".into(),
                "STREAM_MANAGER_EVENT_STREAM=a b".into()
            ]
        );
        let failing = hook("echo so not >&2; exit 3", Duration::from_secs(20));
        let problem = failing.start(&entry(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(problem, "sh: exit status: 3: so not");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; sleep 1000' & echo $! > '{}'; wait; sleep 1000",
            file.display()
        );
        let problem = hook(&script, Duration::from_secs(1))
            .start(&entry(), CancellationToken::new())
            .await
            .unwrap_err();
        assert!(problem.contains("did not end within 1s"), "{problem}");
        let pid = std::fs::read_to_string(file).unwrap();
        let left = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            // A zombie that nobody has collected is dead.
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while left() {
            assert!(std::time::Instant::now() < deadline, "a child lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
