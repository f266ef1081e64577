//! A program of the user's that writes media to its output.

use super::gst_source::{self, GstOptions};
use super::{AddressError, Source, SourceEnd, SourceError};
use crate::error::redact_unparsed;
use crate::hub::HubWriter;
use crate::pipeline::{self, parse_pipeline};
use gstreamer::prelude::*;
use parking_lot::Mutex;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a program may take to write the first of it.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to end by itself once it has closed its output.
const BY_ITSELF: Duration = Duration::from_millis(500);
/// How long it may take to end when it is asked to, before it is ended.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// How long its last words may take to be read once it has ended: somebody whom it has left behind may hold its output open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of what it says so much is shown.
const SHOWN_CHARS: usize = 300;

/// A program that writes MPEG-TS, fragmented MP4, MKV or FLV to its output; `exec:` and what a shell is to do. It is started for
/// each attempt, and ended with all that it has started.
///
/// ```
/// # use stream_manager_core::source::ExecSource;
/// let source = ExecSource::new("ffmpeg -f lavfi -i testsrc -c:v libx264 -f mpegts -").unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ExecSource {
    command: String,
}

impl ExecSource {
    /// From a line for `/bin/sh`.
    ///
    /// # Errors
    /// If it is empty.
    pub fn new(command: &str) -> Result<Self, AddressError> {
        let command = command.trim();
        if command.is_empty() || command.contains('\0') {
            return Err(AddressError::Parameter {
                address: "exec:".into(),
                parameter: "command".into(),
                value: String::new(),
                expected: "a program that writes MPEG-TS or fMP4 to its output".into(),
            });
        }
        Ok(Self { command: command.to_owned() })
    }
}

/// A program at work, and those that it has started. Dropping it ends them.
struct Running {
    child: Child,
    /// What it said last on its error output.
    said: Arc<Mutex<String>>,
    /// Reads that; ends with the program, which ends with us.
    errors: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(command: &str) -> std::io::Result<(Self, ChildStdout)> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that all of it can be ended.
            .process_group(0)
            .spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let mut reading = None;
        if let Some(errors) = child.stderr.take() {
            let shared = said.clone();
            let thread = std::thread::Builder::new().name("exec errors".into()).spawn(move || {
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    let line: String = line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
                    if !line.trim().is_empty() {
                        tracing::debug!(line, "a program says");
                        *shared.lock() = line;
                    }
                }
            })?;
            reading = Some(thread);
        }
        let output = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok((Self { child, said, errors: reading }, output))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // Gone already, if that fails.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    /// Says what became of it. If it has not ended by itself within this time it is asked to, and then made to. Blocks.
    fn end(&mut self, by_itself: Duration) -> String {
        let closed = Instant::now();
        let ended = loop {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || closed.elapsed() >= by_itself {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.signal(rustix::process::Signal::TERM);
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < END_TIMEOUT {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(rustix::process::Signal::KILL);
        let _ = self.child.wait();
        let killed = Instant::now();
        while self.errors.as_ref().is_some_and(|e| !e.is_finished()) && killed.elapsed() < LAST_WORDS {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = self.said.lock().clone();
        let said = if said.is_empty() { said } else { format!(": {}", redact_unparsed(&said)) };
        match ended {
            Some(status) => format!("the program has ended ({status}){said}"),
            None => format!("the program has closed its output{said}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[async_trait::async_trait]
impl Source for ExecSource {
    async fn run(&mut self, hub: &HubWriter, cancel: CancellationToken) -> Result<SourceEnd, SourceError> {
        pipeline::init()?;
        let failed = |problem: String| SourceError::Other(problem);
        let command = self.command.clone();
        let started = tokio::task::spawn_blocking(move || Running::start(&command)).await;
        let (mut running, output) = started
            .map_err(|e| failed(e.to_string()))?
            .map_err(|e| failed(format!("the program does not start: {e}")))?;
        let pipeline = parse_pipeline("fdsrc name=source ! parsebin")?;
        if let Some(source) = pipeline.by_name("source") {
            source.set_property("fd", output.as_raw_fd());
        }
        let options =
            GstOptions { may_end: false, timeout: START_TIMEOUT, ..GstOptions::live(self.address()) };
        let result = gst_source::run(pipeline, &options, hub, &cancel).await;
        // Read until here.
        drop(output);
        // A program that ends closes its output a moment before.
        let by_itself = if result.is_err() { BY_ITSELF } else { Duration::ZERO };
        let ended = tokio::task::spawn_blocking(move || running.end(by_itself)).await.unwrap_or_default();
        match result {
            Ok(end) => Ok(end),
            // The program's own words are better than GStreamer's.
            Err(
                SourceError::Ended
                | SourceError::Pipeline(_)
                | SourceError::NoTracks { .. }
                | SourceError::UnsupportedCodecs { .. },
            ) => Err(failed(ended)),
            Err(error) => Err(error),
        }
    }

    fn address(&self) -> String {
        format!("exec:{}", redact_unparsed(&self.command))
    }
}
