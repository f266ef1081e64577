//! What Prometheus scrapes: streams, what stands in for their sources, and what they are sent on to, as numbers.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::http::request;
use stream_manager_tests::program::{Server, basic};
use stream_manager_tests::{free_port, wait_until};

const SOON: Duration = Duration::from_secs(40);

/// The value of a series.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// What Prometheus' own tool has to say; nothing if it is content, or not there.
fn complaints(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: promtool is not installed");
        return String::new();
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn streams_fallbacks_and_forwards_are_numbers() {
    let (dead, udp) = (free_port(), free_port());
    let (_folder, server) = Server::alone(&format!(
        "[[streams]]\nid = \"dead\"\nsource_url = \"rtsp://me:geheim@127.0.0.1:{dead}/x\"\n\
         [streams.fallback]\nslate = \"no signal\"\ntimeout = \"500ms\"\n\
         [[streams]]\nid = \"yard/one\"\nsource_url = \"test://ball\"\nrecording = {{ enabled = true }}\n\
         [[streams.forward]]\nurl = \"udp://127.0.0.1:{udp}\"\n\
         [[streams]]\nid = \"off\"\nsource_url = \"test://ball\"\nenabled = false\n"
    ));
    let scrape = || request("GET", &server.url("/metrics"), &[]);
    let now = |series: &str| value(&scrape().text(), series);
    let yard = |name: &str| format!("stream_manager_{name}{{stream=\"yard/one\"}}");
    wait_until("all of it goes", SOON, || {
        now("stream_manager_stream_fallback_active{stream=\"dead\"}") == Some(1.0)
            && now(&yard("recording_active")) == Some(1.0)
            && now(&yard("stream_frames_total")) > Some(20.0)
            && now(&format!(
                "stream_manager_forward_sent_bytes_total{{stream=\"yard/one\",url=\"udp://127.0.0.1:{udp}\"}}"
            )) > Some(10_000.0)
    });
    let answer = scrape();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    for (series, expected) in [
        ("stream_manager_stream_running{stream=\"dead\"}", 0.0),
        ("stream_manager_stream_fallback_switches_total{stream=\"dead\"}", 1.0),
        ("stream_manager_streams{state=\"running\"}", 1.0),
        ("stream_manager_streams{state=\"stopped\"}", 1.0),
        (&yard("stream_running"), 1.0),
        (&yard("stream_sessions_total"), 1.0),
        (&yard("stream_lost_packets_total"), 0.0),
        (&yard("recording_lost_frames_total"), 0.0),
        ("stream_manager_consumer_dropped_frames_total{stream=\"yard/one\",consumer=\"recorder\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
    // Only of those that have one; nothing of those that do not run; nothing secret.
    assert_eq!(value(&text, &yard("stream_fallback_active")), None);
    assert!(!text.contains("\"off\"") && !text.contains("geheim"), "{text}");
    assert_eq!(complaints(&text), "");
    let open =
        request("GET", &server.url("/metrics"), &[("accept", "application/openmetrics-text;version=1.0.0")]);
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n") && open.text().contains(&yard("stream_frames_total")));
    server.stop();
}

/// Names of families in a scrape.
fn families(text: &str) -> std::collections::BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect()
}

/// Names of metrics in an expression.
fn used(expression: &str) -> Vec<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let names =
        expression.split(word).filter(|w| w.starts_with("stream_manager_") || w.starts_with("process_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

fn root(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Everything that is served is documented, and the rules and the dashboard ask for nothing else.
#[test]
fn documents_rules_and_dashboard_know_the_same_names() {
    let (_folder, server) = Server::alone(
        "[[streams]]\nid = \"one\"\nsource_url = \"test://ball\"\nrecording = { enabled = true }\n\
         [[hooks.webhooks]]\nname = \"far\"\nurl = \"http://127.0.0.1:9/\"\n",
    );
    wait_until("it is recorded", SOON, || {
        server.call("GET", "/api/streams/one", None).1["recording"]["state"] == "recording"
    });
    // A segment that is finished is kept.
    wait_until("there is something to keep", SOON, || {
        server.call("POST", "/api/streams/one/recording/split", None);
        let text = request("GET", &server.url("/metrics"), &[]).text();
        value(&text, "stream_manager_recording_kept_segments{stream=\"one\"}") > Some(0.0)
    });
    let document = std::fs::read_to_string(root("docs/API.md")).unwrap();
    let documented: std::collections::BTreeSet<String> =
        document.lines().filter(|line| line.starts_with("| `")).flat_map(used).collect();
    // An answer that is streamed, one of nothing, one of an id: none of it makes a route of its own.
    for path in ["/api/streams/one", "/api/streams/none", "/no/such/path/17", "/hls/one/index.m3u8"] {
        request("GET", &server.url(path), &[]);
    }
    let text = request("GET", &server.url("/metrics"), &[]).text();
    let served = families(&text);
    for name in &served {
        assert!(documented.contains(name), "{name} is not in docs/API.md");
    }
    for name in [
        "stream_manager_storage_free_bytes",
        "stream_manager_hook_behind_events",
        "stream_manager_runtime_loop_delay_seconds",
        "process_cpu_seconds_total",
        "stream_manager_recording_kept_segments",
    ] {
        assert!(served.contains(name), "{name}: {text}");
    }
    let route = |path: &str, status: &str| {
        let labels = format!("method=\"GET\",route=\"{path}\",status=\"{status}\"");
        value(&text, &format!("stream_manager_http_request_duration_seconds_count{{{labels}}}"))
    };
    assert!(
        route("/api/streams/{id}", "2xx") >= Some(1.0) && route("/api/streams/{id}", "4xx") == Some(1.0),
        "{text}"
    );
    assert_eq!((route("other", "4xx"), route("/hls/{file}", "2xx")), (Some(1.0), Some(1.0)), "{text}");
    assert!(value(&text, "stream_manager_storage_free_bytes{directory=\"default\"}") > Some(0.0));
    assert!(value(&text, "process_resident_memory_bytes") > Some(1e6));
    assert_eq!(complaints(&text), "");
    let rules = std::fs::read_to_string(root("deploy/prometheus/alerts.yml")).unwrap();
    let asked = rules.lines().filter(|line| line.trim_start().starts_with("expr:")).flat_map(used);
    let dashboard = std::fs::read_to_string(root("deploy/grafana/stream-manager.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap().clone());
    let shown: Vec<String> = targets.flat_map(|target| used(target["expr"].as_str().unwrap())).collect();
    let all: Vec<String> = asked.chain(shown).collect();
    assert!(all.len() > 30, "{all:?}");
    for name in all {
        assert!(documented.contains(&name), "{name} is asked for, and there is no such thing");
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules"]).arg(root("deploy/prometheus/alerts.yml"));
    match promtool.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => println!("skipped: promtool is not installed"),
    }
    server.stop();
}

#[test]
fn health_says_what_is_the_matter_to_those_who_may_know() {
    let dead = free_port();
    let (folder, server) = Server::alone(&format!(
        "[[auth.users]]\nname = \"eye\"\npassword = \"geheim\"\nrole = \"monitor\"\n\
         [[streams]]\nid = \"dead\"\nsource_url = \"rtsp://127.0.0.1:{dead}/x\"\n\
         [[streams]]\nid = \"one\"\nsource_url = \"test://ball\"\n"
    ));
    let ask = |path: &str, who: bool| {
        let authorization = basic("eye", "geheim");
        let headers = [("authorization", authorization.as_str())];
        let answer = request("GET", &server.url(path), if who { &headers } else { &[] });
        (answer.status, serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default())
    };
    let component = |health: &serde_json::Value, name: &str| {
        health["components"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    wait_until("the dead one is told", SOON, || {
        component(&ask("/health/ready", true).1, "streams")["status"] == "degraded"
    });
    let (status, health) = ask("/health/ready", true);
    assert_eq!((status, &health["status"]), (200, &"degraded".into()));
    assert_eq!(component(&health, "streams")["reason"], "1 of 2 do not run: dead");
    for name in ["manager", "runtime", "configuration", "storage/default"] {
        assert_eq!(component(&health, name)["status"], "ok", "{name}: {health}");
    }
    // Nobody in particular is told how it is, and not why.
    let (status, health) = ask("/health/ready", false);
    assert_eq!((status, &health["status"]), (200, &"degraded".into()));
    assert!(!health.to_string().contains("dead"), "{health}");
    assert_eq!((ask("/health/live", false).0, ask("/health/streams/one", false).0), (200, 401));
    wait_until("the other runs", SOON, || ask("/health/streams/one", true).1["status"] == "ok");
    let (status, health) = ask("/health/streams/dead", true);
    assert_eq!((status, &health["status"]), (503, &"failing".into()), "{health}");
    assert_eq!(ask("/health/streams/none", true).0, 404);
    // A configuration that was refused.
    std::fs::write(folder.path().join("config.toml"), "[server\n").unwrap();
    wait_until("it is told", SOON, || {
        component(&ask("/health/ready", true).1, "configuration")["status"] == "degraded"
    });
    server.stop();
}
