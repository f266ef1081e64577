//! Mistakes and mishaps: each gets a clear error and a code of its own, and nothing else is harmed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stream_manager_tests::camera::{Camera, Feed};
use stream_manager_tests::program::{finish, stream_manager};
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};

/// Runs the program in `folder` and expects this exit code and these words on standard error.
fn fails(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let mut command = stream_manager();
    command.current_dir(folder).args(arguments);
    let output = finish(command, Duration::from_secs(60));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} does not say \"{word}\": {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn sources_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("rtsp://me:geheim@127.0.0.1:{closed}/x");
    std::fs::write(folder.join("no.mp4"), "this is no video, whatever its name says".repeat(100)).unwrap();
    std::fs::write(folder.join("empty.mp4"), "").unwrap();
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    let camera = Camera::start(Feed::h264());
    let cases: &[(&str, i32, &[&str])] = &[
        ("camera", 2, &["is no URL", "expected rtsp://"]),
        ("gopher://x/y", 2, &["unknown scheme \"gopher\"", "expected rtsp://"]),
        ("rtsp:///x", 2, &["no host"]),
        ("publisher", 3, &["no address to read from"]),
        ("test://plaid", 2, &["expected smpte or ball"]),
        ("gst:videotestsrc ! nosuchelement", 2, &["\"nosuchelement\" is missing"]),
        ("gst:videotestsrc ! fakesink", 2, &["without a sink"]),
        ("rtsp://no-such-host.invalid/x", 3, &["\"no-such-host.invalid\" does not resolve"]),
        (&refused, 3, &["cannot connect to 127.0.0.1", "refused"]),
        (&camera.url_of("/nothing"), 3, &["does not exist on the server (404)"]),
        (&file("missing.mp4"), 3, &["missing.mp4", "No such file"]),
        (&file("empty.mp4"), 3, &["is empty"]),
        (&file("no.mp4"), 3, &["no.mp4"]),
        (&format!("file://{}", folder.display()), 3, &["is a folder"]),
        (&format!("http://127.0.0.1:{closed}/x.mp4"), 3, &["127.0.0.1"]),
    ];
    for (url, code, words) in cases {
        fails(folder, &["record", url, "-o", "out.mp4", "--duration", "1s"], *code, words);
        fails(folder, &["probe", url, "--duration", "100ms"], *code, words);
        assert!(!folder.join("out.mp4").exists(), "{url} left a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_offer_nothing_usable() {
    let cases = [
        ("", "offers no video or audio"),
        (
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 FUTURE/90000\r\na=control:1\r\n",
            "codecs that are not supported: future",
        ),
    ];
    for (sdp, words) in cases {
        let server = ReplayServer::start(Arc::new(Loop::described(sdp)), Mischief::default()).await;
        let url = server.url("x");
        let task = tokio::task::spawn_blocking(move || {
            let folder = tempfile::tempdir().unwrap();
            fails(folder.path(), &["record", &url, "-o", "out.mp4"], 3, &[words]);
        });
        task.await.unwrap();
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("there.mp4"), "mine").unwrap();
    std::fs::create_dir(folder.join("dir.mp4")).unwrap();
    let record = |output: &str, more: &[&str], code: i32, words: &[&str]| {
        let mut arguments = vec!["record", "test://smpte?audio=false", "-o", output, "--duration", "2s"];
        arguments.extend(more);
        fails(folder, &arguments, code, words);
    };
    record("there.mp4", &[], 4, &["there.mp4 exists already"]);
    assert_eq!(std::fs::read_to_string(folder.join("there.mp4")).unwrap(), "mine");
    record("dir.mp4", &["-y"], 4, &["dir.mp4 exists already"]);
    record("out.avi", &[], 2, &["expected a file name that ends in .mp4, .mkv or .ts"]);
    record("out.mp4", &["--format", "avi"], 2, &["expected fmp4, mp4, mkv or ts"]);
    record("-", &["--format", "mp4"], 2, &["cannot be streamed"]);
    record("out.mp4", &["--segment", "10ms"], 2, &["segment_duration"]);
    record("/proc/nothing/out.mp4", &[], 4, &["/proc/nothing"]);
    record("/proc/nothing/out.mkv", &[], 4, &["/proc/nothing"]);
    record("there.mp4/out.mp4", &[], 4, &["there.mp4"]);
    // A device that is always full.
    record("/dev/full", &["-y", "--format", "fmp4"], 4, &["/dev/full", "No space left"]);
    assert!(Path::new("/dev/full").exists());
    // Codecs that the container cannot hold.
    let mulaw = "gst:audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc";
    fails(folder, &["record", mulaw, "-o", "law.ts", "--duration", "1s"], 4, &["pcmu", "use fmp4 or mkv"]);
    record("out.mp4", &["--segment", "soon"], 2, &["is no duration"]);
}

#[test]
fn configurations_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stream = |more: &str| format!("[[streams]]\nid = \"a\"\nsource_url = \"test://smpte\"\n{more}");
    let cases: &[(&str, &[&str])] = &[
        ("[server\n", &["c.toml:1: "]),
        ("[server]\nlissen = 1\n", &["c.toml:2: server.lissen: unknown key; did you mean \"listen\"?"]),
        ("[server]\nmax_connects = \"many\"\n", &["c.toml:2: server.max_connects: invalid type"]),
        (
            &stream("recrding = 1\n"),
            &["c.toml:4: streams[0].recrding: unknown key; did you mean \"recording\"?"],
        ),
        (&(stream("") + &stream("")), &["c.toml:4: stream \"a\": id: is used by an earlier stream"]),
        (
            "\n[[streams]]\nid = \"../a\"\nsource_url = \"test://smpte\"\n",
            &["c.toml:2: stream \"../a\": id: "],
        ),
        (
            "[[streams]]\nid = \"a\"\nsource_url = \"smb://u:geheim@x/y\"\n",
            &["source_url: ", "unknown scheme \"smb\""],
        ),
        (
            &stream("[streams.recording]\npart_duration = \"1h\"\n"),
            &["part_duration is 3600s; expected between"],
        ),
        (
            "[[streams]]\nid = \"cam/*\"\nsource_url = \"test://smpte\"\n",
            &["c.toml:1: stream \"cam/*\": id: has a * in it"],
        ),
        ("[rtsp]\nqueue_size = \"1KiB\"\n", &["c.toml: rtsp.queue_size: it is 1KiB", "at least 64KiB"]),
        ("[rtsp]\ntls_key = \"k.pem\"\n", &["RTSPS needs all three"]),
        (
            "[[auth.users]]\nname = \"u\"\npassword = \"p\"\npublish = [\"a b\"]\n",
            &["auth.users[0].publish: \"a b\" is no pattern"],
        ),
    ];
    for (text, words) in cases {
        std::fs::write(folder.join("c.toml"), text).unwrap();
        fails(folder, &["--config", "c.toml", "--port", "0"], 2, words);
        fails(folder, &["check", "--config", "c.toml"], 2, words);
    }
    fails(folder, &["--config", "none.toml"], 2, &["none.toml: No such file"]);
    fails(folder, &["--port", "99999"], 2, &["99999"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(folder, &["--port", &port], 1, &["cannot listen on", &port, "the port is in use"]);
    let rtsp = format!("127.0.0.1:{port}");
    let words = ["cannot listen for RTSP on", &port, "choose another port with rtsp.listen"];
    fails(folder, &["--port", "0", "--rtsp-listen", &rtsp], 1, &words);
    let tls = "[rtsp]\ntls_listen = \"127.0.0.1:0\"\ntls_certificate = \"c.toml\"\ntls_key = \"k.pem\"\n";
    std::fs::write(folder.join("c.toml"), tls).unwrap();
    let words = ["rtsp.tls_certificate", "c.toml: there is no certificate in it"];
    fails(folder, &["--config", "c.toml", "--port", "0"], 1, &words);
    fails(folder, &["check", "--config", "c.toml"], 2, &words);
    let mut command = stream_manager();
    command.env("STREAM_MANAGER_SERVER__LISSEN", "x");
    let output = finish(command, Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("STREAM_MANAGER_SERVER__LISSEN: server.lissen: unknown key")
    );
}

#[test]
fn check_is_content_with_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../config.example.toml"),
        folder.path().join("config.toml"),
    )
    .unwrap();
    let mut command = stream_manager();
    command.current_dir(folder.path()).arg("check");
    let output = finish(command, Duration::from_secs(20));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("configuration: ok (config.toml, 1 streams)") && text.contains("GStreamer: ok"),
        "{text}"
    );
}
