//! What the server tells about its work: logs by stream, to the journal, and telemetry by OTLP, taken by others.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stream_manager_tests::http::get;
use stream_manager_tests::program::{Server, stream_manager, tool, wait};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("telemetry").join(name)
}

/// A file of JSON, a line each, as far as it is written.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A receiver, which ends with this.
struct Receiver {
    child: Child,
    port: u16,
    file: std::path::PathBuf,
}

impl Receiver {
    fn start(folder: &Path) -> Option<Self> {
        let python = tool("python")?;
        let file = folder.join("received");
        let mut child = Command::new(python)
            .arg(script("otlp_receiver.py"))
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut port = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { child, port: port.trim().parse().unwrap(), file })
    }

    /// What has come of a kind.
    fn of(&self, kind: &str) -> Vec<Value> {
        lines(&self.file)
            .into_iter()
            .filter(|line| line["kind"] == kind)
            .map(|line| line["message"].clone())
            .collect()
    }

    fn spans(&self) -> Vec<Value> {
        let resources = self.of("/v1/traces").into_iter().flat_map(|m| list(&m["resourceSpans"]));
        let scopes = resources.flat_map(|resource| list(&resource["scopeSpans"]));
        scopes.flat_map(|scope| list(&scope["spans"])).collect()
    }

    fn records(&self) -> Vec<Value> {
        let resources = self.of("/v1/logs").into_iter().flat_map(|m| list(&m["resourceLogs"]));
        let scopes = resources.flat_map(|resource| list(&resource["scopeLogs"]));
        scopes.flat_map(|scope| list(&scope["logRecords"])).collect()
    }

    /// The metrics that came last, by their names.
    fn metrics(&self) -> BTreeMap<String, Value> {
        let last = self.of("/v1/metrics").pop().unwrap_or_default();
        let metrics = list(&last["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]);
        metrics.into_iter().map(|m| (m["name"].as_str().unwrap().to_owned(), m)).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Attributes as OTLP writes them.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        let value = value.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let one = |a: &Value| (a["key"].as_str().unwrap().to_owned(), text(&a["value"]));
    list(&of["attributes"]).iter().map(one).collect()
}

fn config(port: u16) -> String {
    format!(
        "[telemetry.otlp]\nendpoint = \"http://127.0.0.1:{port}/\"\nheaders = {{ x-key = \"geheim\" }}\ninterval = \"1s\"\ninstance = \"box\"\n"
    )
}

#[test]
fn one_trace_from_the_request_to_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let Some(receiver) = Receiver::start(folder.path()) else { return };
    let server = Server::start(folder.path(), Some(&config(receiver.port)));
    let stream = json!({"id": "cam", "source_url": "test://ball?width=320&height=180&gop=25", "recording": {"enabled": true}});
    // The client's own trace goes on.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{parent}-01");
    let (status, made) =
        server.call_with("POST", "/api/streams", &[("traceparent", &traceparent)], Some(&stream));
    assert_eq!(status, 201, "{made}");
    let bytes = |text: &str| {
        // Protobuf's JSON has bytes in base64.
        use base64::Engine as _;
        let raw: Vec<u8> =
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect();
        base64::engine::general_purpose::STANDARD.encode(raw)
    };
    let names = ["POST /api/streams", "manager.change", "recorder.start", "source.connect"];
    let mut spans = Vec::new();
    wait_until("the whole trace has come", LIMIT, || {
        spans = receiver.spans().into_iter().filter(|s| s["traceId"] == json!(bytes(trace))).collect();
        let mut found: Vec<&str> = spans.iter().filter_map(|s| s["name"].as_str()).collect();
        found.sort_unstable();
        found == names
    });
    let span = |name: &str| spans.iter().find(|s| s["name"] == name).unwrap();
    let (request, change) = (span(names[0]), span(names[1]));
    assert_eq!(request["parentSpanId"], json!(bytes(parent)));
    assert_eq!(request["kind"], "SPAN_KIND_SERVER");
    assert_eq!(change["parentSpanId"], request["spanId"]);
    assert_eq!(span("source.connect")["parentSpanId"], change["spanId"]);
    assert_eq!(span("recorder.start")["parentSpanId"], change["spanId"]);
    let about = attributes(request);
    assert_eq!(
        (about["http.route"].as_str(), about["http.response.status_code"].as_str()),
        ("/api/streams", "201")
    );
    assert_eq!(attributes(span("source.connect"))["stream"], "cam");
    assert!(attributes(span("recorder.start"))["file"].contains("cam"));
    // A request does not last until the recording has begun.
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanos(request, "endTimeUnixNano") >= nanos(change, "endTimeUnixNano"));
    assert!(nanos(request, "endTimeUnixNano") - nanos(request, "startTimeUnixNano") < 20_000_000_000);

    // Lines of the log, with their trace; none about sending.
    wait_until("the line about the change", LIMIT, || {
        receiver
            .records()
            .iter()
            .any(|r| r["body"]["stringValue"] == "POST /api/streams" && r["traceId"] == json!(bytes(trace)))
    });
    let record =
        receiver.records().into_iter().find(|r| r["body"]["stringValue"] == "POST /api/streams").unwrap();
    assert_eq!(
        (&record["severityText"], attributes(&record)["status"].as_str()),
        (&json!("INFO"), "201"),
        "{record}"
    );

    // The same numbers as Prometheus gets.
    wait_until("frames are counted", LIMIT, || {
        receiver.metrics().get("stream_manager_stream_frames_total").is_some_and(|m| {
            let point = &m["sum"]["dataPoints"][0];
            attributes(point)["stream"] == "cam" && point["asDouble"].as_f64() > Some(10.0)
        })
    });
    let metrics = receiver.metrics();
    let text = get(&server.url("/metrics")).text();
    let named: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .map(|l| l.split(' ').next().unwrap())
        .collect();
    assert!(named.len() > 40 && named.iter().all(|name| metrics.contains_key(*name)), "{named:?}");
    let durations = &metrics["stream_manager_http_request_duration_seconds"]["histogram"];
    let point = list(&durations["dataPoints"])
        .into_iter()
        .find(|p| attributes(p)["route"] == "/api/streams")
        .unwrap();
    assert_eq!(
        (&point["count"], list(&point["bucketCounts"]).len(), list(&point["explicitBounds"]).len()),
        (&json!("1"), 10, 9),
        "{point}"
    );
    let resource = receiver.of("/v1/metrics").pop().unwrap()["resourceMetrics"][0]["resource"].clone();
    let resource = attributes(&resource);
    assert_eq!(
        (resource["service.name"].as_str(), resource["service.instance.id"].as_str()),
        ("stream-manager", "box")
    );

    // A receiver that takes nothing disturbs nobody, and is said once; what comes after it is back arrives.
    std::fs::write(receiver.file.with_extension("refuse"), "").unwrap();
    wait_until("it is said", LIMIT, || server.log().contains("telemetry cannot be sent"));
    server.wait_for("cam", "it goes on", LIMIT, |s| s["recording"]["state"] == "recording");
    std::thread::sleep(Duration::from_secs(3));
    std::fs::remove_file(receiver.file.with_extension("refuse")).unwrap();
    wait_until("it is sent again", LIMIT, || server.log().contains("telemetry is sent again"));
    let log = server.stop();
    let said = log.matches("telemetry cannot be sent").count();
    assert!(said <= 3, "once for each kind, not {said} times: {log}");
    assert!(!log.contains("geheim"), "{log}");
    // What was said last has come, too: it is sent before the end.
    let said = |text: &str| receiver.records().iter().any(|r| r["body"]["stringValue"] == text);
    assert!(said("stopping: finishing recordings") && said("stopped"));
    assert!(
        !receiver
            .records()
            .iter()
            .any(|r| r["body"]["stringValue"].as_str().unwrap_or_default().contains("telemetry"))
    );
}

#[test]
fn a_receiver_that_is_not_there_costs_nothing() {
    let port = stream_manager_tests::free_port();
    let (_folder, server) = Server::alone(&config(port));
    let stream = json!({"id": "cam", "source_url": "test://ball", "recording": {"enabled": true}});
    assert_eq!(server.call("POST", "/api/streams", Some(&stream)).0, 201);
    server.wait_for("cam", "it is recorded", LIMIT, |s| s["recording"]["state"] == "recording");
    wait_until("it is said", LIMIT, || server.log().contains("telemetry cannot be sent"));
    let begun = std::time::Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for (wrong, said) in [
        ("endpoint = \"localhost:4318\"", "telemetry.otlp.endpoint"),
        ("endpoint = \"http://h\"\nsample = 2.0", "telemetry.otlp.sample"),
        ("endpoint = \"http://h\"\ninterval = \"1ms\"", "telemetry.otlp.interval"),
        ("endpoint = \"http://h\"\nheaders = { \"a b\" = \"c\" }", "telemetry.otlp.headers"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), format!("[telemetry.otlp]\n{wrong}\n")).unwrap();
        let (code, text) = stream_manager_tests::program::run(&["check"], folder.path());
        assert!(code == 2 && text.contains(said), "{wrong}: {code} {text}");
    }
}

#[test]
fn streams_have_levels_of_their_own() {
    // Nobody listens there: both say so again and again.
    let port = stream_manager_tests::free_port();
    let streams: String = ["yard/door", "house"]
        .map(|id| format!("[[streams]]\nid = \"{id}\"\nsource_url = \"rtsp://127.0.0.1:{port}/x\"\n"))
        .concat();
    let telemetry = |levels: &str| format!("[telemetry]\nlog_streams = {levels}\n{streams}");
    let (folder, server) = Server::alone(&telemetry("{ \"yard/*\" = \"debug\", house = \"error\" }"));
    let count = |server: &Server, stream: &str, level: &str| {
        let (_, page) = server.call("GET", &format!("/api/logs?limit=1000&stream={stream}"), None);
        list(&page["items"]).iter().filter(|line| line["level"] == level).count()
    };
    wait_until("more is said of one", LIMIT, || count(&server, "yard/door", "warn") >= 2);
    wait_until("the other is tried, too", LIMIT, || {
        server.stream("house")["failed_attempts"].as_u64() >= Some(2)
    });
    assert_eq!(count(&server, "house", "warn"), 0);
    // While it runs.
    std::fs::write(folder.path().join("config.toml"), telemetry("{ house = \"warn\" }")).unwrap();
    assert_eq!(server.call("POST", "/api/config/reload", None).0, 200);
    wait_until("now of the other", LIMIT, || count(&server, "house", "warn") >= 1);
    let (status, problem) =
        server.call("PATCH", "/api/config", Some(&json!({"telemetry": {"log_repeats": 0}})));
    assert_eq!(status, 200, "{problem}");
    server.stop();
}

#[test]
fn the_journal_gets_fields() {
    let folder = tempfile::tempdir().unwrap();
    let may = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/run"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there are no mount namespaces here");
        return;
    }
    let port = stream_manager_tests::free_port();
    let config = format!(
        "[telemetry]\nlog_format = \"journald\"\n[[streams]]\nid = \"door\"\nsource_url = \"rtsp://u:geheim@127.0.0.1:{port}/x\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let (file, real) = (folder.path().join("journal"), stream_manager());
    let mut command = Command::new("unshare");
    command.args(["--mount", "python3"]).arg(script("journal.py")).arg(&file).arg(real.get_program());
    for (name, value) in real.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut child = command
        .env("STREAM_MANAGER_SERVER__LISTEN", "127.0.0.1:0")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it fails", LIMIT, || lines(&file).iter().any(|e| e["MESSAGE"] == "source failed"));
    // The program itself, which has a parent that only waits for it.
    let inner = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let pid = inner.trim().to_owned();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    wait(&mut child, LIMIT);
    let entries = lines(&file);
    let entry = entries.iter().find(|e| e["MESSAGE"] == "source failed").unwrap();
    assert_eq!((&entry["STREAM"], &entry["PRIORITY"]), (&json!("door"), &json!("4")), "{entry}");
    assert!(entry["ERROR"].as_str().unwrap().contains("cannot connect"), "{entry}");
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "stream-manager");
    assert!(entries.iter().all(|e| !e.to_string().contains("geheim")));
}
