//! Browser players: hls.js, Shaka Player, dash.js and the browser itself, in headless Chromium.
//!
//! `tests/players/play.mjs` plays an address and tells which burnt-in counter was shown when. scripts/test installs what it
//! needs; without it these tests say that they are skipped.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A frame as it was shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// Milliseconds since 1970.
    pub at: f64,
    /// The burnt-in counter.
    pub counter: u32,
    /// Media time in seconds.
    pub time: f64,
    /// Width of the picture.
    pub width: u64,
}

/// What a player did.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// When it was told to play, in milliseconds since 1970.
    pub begin: f64,
    /// What it has shown.
    pub shown: Vec<Shown>,
    /// Errors that it told of.
    pub told: Vec<String>,
    /// What it said at its end.
    pub end: Value,
}

impl Played {
    /// Errors that the player has told of.
    pub fn errors(&self) -> Vec<String> {
        self.told.clone()
    }

    /// Checks that the pictures are the camera's, in their order, at their times: nothing lost, doubled or reordered, however
    /// many of them the browser found the time to show.
    pub fn assert_whole(&self, frames_per_second: f64, least: usize) {
        assert!(self.shown.len() >= least, "{} frames were shown: {:?}", self.shown.len(), self.end);
        for pair in self.shown.windows(2) {
            assert!(pair[0].counter <= pair[1].counter, "frame {:?} behind {:?}", pair[1], pair[0]);
        }
        // A frame that is lost, doubled or out of its place puts all behind it at other times. A busy browser may draw the
        // next picture already when it tells of one, so a few may be off.
        let mut offsets: Vec<f64> =
            self.shown.iter().map(|s| f64::from(s.counter) - s.time * frames_per_second).collect();
        offsets.sort_by(f64::total_cmp);
        let median = offsets[offsets.len() / 2];
        let right = offsets.iter().filter(|offset| (**offset - median).abs() < 0.5).count();
        assert!(right * 10 >= offsets.len() * 9, "{right} of {} at their time: {offsets:?}", offsets.len());
    }
}

/// The folder with the players, if they are installed.
pub fn modules() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folder = cache.join("stream-manager/players");
    folder.join("node_modules/playwright-core").is_dir().then_some(folder)
}

/// Why players cannot be tried here, if they cannot.
pub fn missing() -> Option<String> {
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    if !node.is_ok_and(|s| s.success()) {
        return Some("node is not installed".into());
    }
    if !std::path::Path::new("/usr/bin/chromium").exists() && std::env::var_os("CHROMIUM").is_none() {
        return Some("chromium is not installed".into());
    }
    modules().is_none().then(|| "the players are not installed; scripts/test does that".into())
}

/// Why Firefox cannot be tried here, if it cannot.
pub fn firefox_missing() -> Option<String> {
    if !std::path::Path::new("/usr/bin/firefox-esr").exists() {
        return Some("firefox-esr is not installed".into());
    }
    let driver = modules().is_some_and(|folder| folder.join("node_modules/puppeteer-core").is_dir());
    (!driver).then(|| "puppeteer-core is not installed; scripts/test does that".into())
}

/// A player at work.
pub struct Playing {
    child: Child,
    played: Arc<Mutex<Played>>,
}

impl Playing {
    /// Starts a player (`hlsjs`, `shaka`, `dashjs`, `websocket`, `whep`, `whep-tcp`, `video`) for so many seconds. Only where [`missing`] says
    /// nothing.
    pub fn start(player: &str, url: &str, seconds: u64) -> Self {
        Self::start_in("chromium", player, url, seconds)
    }

    /// The same in `firefox`; only where [`firefox_missing`] says nothing.
    pub fn start_in(browser: &str, player: &str, url: &str, seconds: u64) -> Self {
        Self::start_with(browser, player, url, seconds, |_| {})
    }

    /// The same with something changed about the process.
    pub fn start_with(
        browser: &str,
        player: &str,
        url: &str,
        seconds: u64,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("players/play.mjs");
        let mut command = Command::new("node");
        command
            .env("BROWSER", browser)
            .arg(script)
            .args([player, url, &seconds.to_string()])
            .arg(modules().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let played = Arc::new(Mutex::new(Played::default()));
        let (lines, shared) = (BufReader::new(child.stdout.take().unwrap()).lines(), played.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                let mut played = shared.lock().unwrap();
                if let Some(begin) = line["begin"].as_f64() {
                    played.begin = begin;
                } else if let Some(error) = line["error"].as_str() {
                    played.told.push(error.to_owned());
                } else if line["end"] == true {
                    played.end = line;
                } else if let (Some(at), Some(counter)) = (line["at"].as_f64(), line["counter"].as_u64()) {
                    let (time, width) = (line["time"].as_f64().unwrap(), line["width"].as_u64().unwrap());
                    played.shown.push(Shown { at, counter: counter as u32, time, width });
                }
            }
        });
        Self { child, played }
    }

    /// What it has done so far.
    pub fn so_far(&self) -> Played {
        self.played.lock().unwrap().clone()
    }

    /// Waits until what it has done is as wished; otherwise says what it has done.
    pub fn wait_until(&self, what: &str, limit: Duration, mut done: impl FnMut(&Played) -> bool) -> Played {
        let begun = std::time::Instant::now();
        loop {
            let played = self.so_far();
            if done(&played) {
                return played;
            }
            assert!(
                begun.elapsed() < limit,
                "{what} did not happen within {limit:?}: {} pictures, {:?}",
                played.shown.len(),
                played.errors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Played {
        super::program::wait(&mut self.child, Duration::from_secs(90));
        let done = || self.played.lock().unwrap().end["end"] == true;
        super::wait_until("the player's report", Duration::from_secs(5), done);
        self.so_far()
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        // Asked first, so that its browser ends with it.
        if matches!(self.child.try_wait(), Ok(None)) {
            super::program::signal(&self.child, "TERM");
            let asked = std::time::Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
