//! The program under test, as a process of its own.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where cargo has built a program of this workspace, beside the running test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(name);
    assert!(path.is_file(), "{} is not built; run the tests with scripts/test", path.display());
    path
}

/// A command of `stream-manager` without anything of this shell's configuration.
pub fn stream_manager() -> Command {
    let mut command = Command::new(binary("stream-manager"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STREAM_MANAGER_")) {
        command.env_remove(name);
    }
    // Tests run beside each other.
    command.env("STREAM_MANAGER_RTSP__LISTEN", "127.0.0.1:0");
    command.env("STREAM_MANAGER_RTMP__LISTEN", "127.0.0.1:0");
    command.env("STREAM_MANAGER_WEBRTC__LISTEN", "127.0.0.1:0");
    command.stdin(Stdio::null());
    command
}

/// A program of the Python tools that scripts/test installs; without it, the test that wants it says that it is skipped.
#[allow(clippy::print_stdout)]
pub fn tool(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let path = cache.join("stream-manager/tools/bin").join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("SKIPPED: {} is not installed; scripts/test does that", path.display());
    None
}

/// A script of `tests/players` for GStreamer's webrtcbin; where that or its Python binding is not installed, the test that wants
/// it says that it is skipped.
#[allow(clippy::print_stdout)]
pub fn webrtcbin(arguments: &[&str]) -> Option<Command> {
    // The system's own Python, for which the packages are.
    let mut asks = Command::new("/usr/bin/python3");
    asks.args([
        "-c",
        "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst; Gst.init(None); \
         assert Gst.ElementFactory.find('webrtcbin') and Gst.ElementFactory.find('nicesrc')",
    ]);
    if !asks.output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: webrtcbin is not installed; scripts/test does that");
        return None;
    }
    let mut command = Command::new("/usr/bin/python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("players/gst.py")).args(arguments);
    Some(command)
}

/// Runs a command to its end, or panics after `limit`.
pub fn finish(mut command: Command, limit: Duration) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || {
        let mut data = Vec::new();
        stdout.read_to_end(&mut data).unwrap();
        data
    });
    let err = std::thread::spawn(move || {
        let mut data = Vec::new();
        stderr.read_to_end(&mut data).unwrap();
        data
    });
    let Some(status) = ended_within(&mut child, limit) else {
        // What it has started may hold its output open.
        let killed = Instant::now();
        while !err.is_finished() && killed.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = if err.is_finished() { err.join().unwrap() } else { Vec::new() };
        panic!("it did not end within {limit:?}: {command:?}\n{}", String::from_utf8_lossy(&said));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Runs a `gst-launch-1.0` that reads by RTSP to its end, or panics if it complains of anything but itself: closing
/// interrupts the PAUSE that it has just begun (`rtspsrc` of GStreamer 1.22), which it then calls an error.
pub fn finish_reading(command: Command, limit: Duration, what: &str) {
    let output = finish(command, limit);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("gst_rtspsrc_pause ()"), "{what}: {said}");
}

/// The folder with real models and videos, if it and ONNX Runtime are here; says so if not.
#[allow(clippy::print_stdout)]
pub fn material() -> Option<PathBuf> {
    let Some(folder) = crate::assets() else {
        println!("SKIPPED: no real models here; STREAM_MANAGER_TEST_ASSETS names a folder with them");
        return None;
    };
    let mut command = stream_manager();
    command.args(["models", "inspect"]).arg(folder.join("mnist.onnx"));
    let output = finish(command, Duration::from_secs(60));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && said.contains("ONNX Runtime") {
        println!("SKIPPED: {said}");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// Runs `stream-manager` in a folder to its end. Gives the exit code and all that it has said.
pub fn run(arguments: &[&str], folder: &Path) -> (i32, String) {
    let mut command = stream_manager();
    command.args(arguments).current_dir(folder);
    let output = finish(command, Duration::from_secs(40));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

/// `media.mp4` in a folder: some seconds of picture with the frame counter, and sound.
pub fn clip(folder: &Path, seconds: u32) -> PathBuf {
    let (duration, file) = (format!("{seconds}s"), folder.join("media.mp4"));
    let (code, text) =
        run(&["record", "test://smpte", "-o", "media.mp4", "--duration", &duration, "-y"], folder);
    assert_eq!(code, 0, "{text}");
    file
}

/// A program that ends with this.
pub struct Program(pub Child);

impl Program {
    /// Starts it; what it complains of goes nowhere.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx as an RTMP server with the application `live`, its files in a folder, and its port. Says so where it is not installed.
#[allow(clippy::print_stdout)]
pub fn nginx_rtmp(folder: &Path) -> Option<(Program, u16)> {
    let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    if !Path::new(module).is_file() {
        println!("SKIPPED: {module} is not installed (libnginx-mod-rtmp)");
        return None;
    }
    let (port, shown) = (super::free_port(), folder.display());
    let config = format!(
        "load_module {module};\ndaemon off;\nmaster_process off;\npid {shown}/pid;\nevents {{}}\n\
         rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut nginx = Command::new("/usr/sbin/nginx");
    nginx.arg("-c").arg(&file).arg("-e").arg(folder.join("log"));
    let nginx = Program::start(&mut nginx);
    super::wait_until("nginx", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some((nginx, port))
}

/// Waits for a process to end, or ends it and panics.
pub fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    ended_within(child, limit).unwrap_or_else(|| panic!("a process did not end within {limit:?}"))
}

/// How a process ended; nothing if it had to be killed, because it did not within `limit`.
fn ended_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this test has started.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// The `Authorization` header of a user.
pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// For a configuration with users: this machine may go on calling the API, but not watch or publish.
pub const OPEN_API: &str = "[[auth.anonymous]]\nactions = [\"api.read\", \"api.write\", \"record\"]\n\
                            addresses = [\"127.0.0.0/8\", \"::1\"]\n";

/// A running server. Dropping it ends it.
pub struct Server {
    /// The process.
    pub child: Child,
    url: String,
    /// Where it serves RTSP, such as `127.0.0.1:8554`; empty if it does not.
    pub rtsp: String,
    log: Arc<Mutex<String>>,
    /// What calls prove who they are with.
    authorization: Option<String>,
    /// Its working folder, with `config.toml` if there is one.
    pub folder: PathBuf,
}

impl Server {
    /// Starts the server in `folder` on a port that the system chooses, and waits until it answers.
    pub fn start(folder: &Path, config: Option<&str>) -> Self {
        Self::start_with(folder, config, |_| {})
    }

    /// The same in a folder of its own, which is gone when it is dropped.
    pub fn alone(config: &str) -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().unwrap();
        let server = Self::start(folder.path(), Some(config));
        (folder, server)
    }

    /// The same with WebRTC at all addresses: some clients do not use the loopback where there is something else.
    pub fn reachable(config: &str) -> (tempfile::TempDir, Self) {
        let folder = tempfile::tempdir().unwrap();
        let server = Self::start_with(folder.path(), Some(config), |command| {
            command.env("STREAM_MANAGER_WEBRTC__LISTEN", "0.0.0.0:0");
        });
        (folder, server)
    }

    /// As [`start`](Self::start); `change` may change how it is started.
    pub fn start_with(folder: &Path, config: Option<&str>, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = stream_manager();
        change(&mut command);
        command.current_dir(folder).args(["--port", "0"]);
        if let Some(config) = config {
            std::fs::write(folder.join("config.toml"), config).unwrap();
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let shared = log.clone();
        std::thread::spawn(move || {
            let mut rtsp = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("RTSP at rtsp://") {
                    rtsp = rest.split('/').next().unwrap().to_owned();
                }
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let _ = sender.send((rest.split_whitespace().next().unwrap().to_owned(), rtsp.clone()));
                }
                let mut log = shared.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (url, rtsp) = receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the server does not listen: {}", log.lock().unwrap())
        });
        Self { child, url, rtsp, log, authorization: None, folder: folder.to_owned() }
    }

    /// Calls it as this user from now on.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.authorization = Some(basic(user, password));
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The RTSP address of a stream.
    pub fn rtsp_url(&self, id: &str) -> String {
        format!("rtsp://{}/{id}", self.rtsp)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Calls it; gives the status and the JSON of the answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.call_with(method, path, &[], body)
    }

    /// The same with headers.
    pub fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let url = self.url(path);
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let known = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(authorization) = self.authorization.as_ref().filter(|_| !known) {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = agent.run(request.body(text).unwrap()).unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// Waits until the answer to a GET looks like `condition` says.
    pub fn wait_until(
        &self,
        path: &str,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let start = Instant::now();
        loop {
            let answer = self.call("GET", path, None).1;
            if condition(&answer) {
                return answer;
            }
            assert!(
                start.elapsed() < limit,
                "{what} did not happen within {limit:?}: {answer:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The address of HTTP, such as `127.0.0.1:3000`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The sessions of a protocol.
    pub fn sessions(&self, protocol: &str) -> Vec<Value> {
        let all = self.call("GET", "/api/sessions", None).1["items"].as_array().unwrap().clone();
        all.into_iter().filter(|session| session["protocol"] == protocol).collect()
    }

    /// The stream as the API shows it.
    pub fn stream(&self, id: &str) -> Value {
        self.call("GET", &format!("/api/streams/{id}"), None).1
    }

    /// Waits until the stream looks like `condition` says.
    pub fn wait_for(
        &self,
        id: &str,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        self.wait_until(&format!("/api/streams/{id}"), what, limit, condition)
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM and waits until its files are finished.
    pub fn stop(mut self) -> String {
        signal(&self.child, "TERM");
        let status = wait(&mut self.child, Duration::from_secs(30));
        let log = self.log();
        assert!(status.success(), "the server ended with {status}: {log}");
        log
    }
}

impl Drop for Server {
    /// Where a test has failed, what the server said last and whether it was still there is what one wants to know.
    #[allow(clippy::print_stdout)]
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            println!("--- a server of the test (ended before: {ended:?}) logged last:\n{last}\n---");
        }
    }
}
