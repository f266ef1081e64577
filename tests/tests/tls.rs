//! HTTPS and RTSPS: other people's programs with an authority of the test's own, new certificates, wrong ones.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use stream_manager_tests::authority::{authority, certificate};
use stream_manager_tests::player::{self, Playing};
use stream_manager_tests::program::{Server, finish, run};
use stream_manager_tests::{free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(40);

fn install(folder: &Path, name: &str) {
    for kind in ["pem", "key"] {
        std::fs::copy(folder.join(format!("{name}.{kind}")), folder.join(format!("used.{kind}"))).unwrap();
    }
}

fn curl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20"]).args(arguments).current_dir(folder).stdin(Stdio::null());
    finish(command, LIMIT)
}

/// The serial number of the certificate that a port shows now.
fn serial(folder: &Path, port: u16) -> String {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn own_serial(folder: &Path, name: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial", "-in", &format!("{name}.pem")]).current_dir(folder);
    String::from_utf8_lossy(&command.output().unwrap().stdout).trim().to_owned()
}

#[test]
fn others_programs_and_new_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at);
    certificate(at, "one", "2");
    certificate(at, "two", "2");
    certificate(at, "old", "0");
    install(at, "one");
    let (https, rtsps) = (free_port(), free_port());
    let config = format!(
        "[server]\ntls_listen = \"127.0.0.1:{https}\"\ntls_certificate = \"used.pem\"\ntls_key = \"used.key\"\n\
         [rtsp]\ntls_listen = \"127.0.0.1:{rtsps}\"\ntls_certificate = \"used.pem\"\ntls_key = \"used.key\"\n\
         [[auth.users]]\nname = \"ann\"\npassword = \"geheim\"\nrole = \"admin\"\n\
         [[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n"
    );
    let mut server = Server::start(at, Some(&config));
    server.log_in("ann", "geheim");
    server.wait_for("cam", "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    let url = |path: &str| format!("https://localhost:{https}{path}");
    // Nobody takes a certificate that nobody vouches for.
    assert!(!curl(at, &[&url("/health/live")]).status.success());
    for (version, expected) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = curl(
            at,
            &[
                "--cacert",
                "ca.pem",
                version,
                "-u",
                "ann:geheim",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version}",
                &url("/api/streams"),
            ],
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("200 {expected}"));
    }
    let login = curl(
        at,
        &[
            "--cacert",
            "ca.pem",
            "-i",
            "-H",
            "content-type: application/json",
            "-d",
            r#"{"name":"ann","password":"geheim"}"#,
            &url("/api/login"),
        ],
    );
    let login = String::from_utf8_lossy(&login.stdout).into_owned();
    assert!(login.contains("SameSite=Strict") && login.contains("; Secure"), "{login}");
    for input in [
        format!("https://ann:geheim@localhost:{https}/hls/cam/index.m3u8"),
        format!("https://ann:geheim@localhost:{https}/api/streams/cam/live.mp4"),
        format!("rtsps://ann:geheim@localhost:{rtsps}/cam"),
    ] {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-ca_file", "ca.pem", "-tls_verify", "1"]);
        command.args(["-show_entries", "stream=codec_name", "-of", "csv=p=0", &input]).current_dir(at);
        command.stdin(Stdio::null());
        let output = finish(command, LIMIT);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("h264"), "{input}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    // Somebody watches while the certificate is replaced.
    let mut watching = Command::new("curl")
        .args([
            "-s",
            "--cacert",
            "ca.pem",
            "-u",
            "ann:geheim",
            "-o",
            "watched.mp4",
            &url("/api/streams/cam/live.mp4"),
        ])
        .current_dir(at)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let watched = || std::fs::metadata(at.join("watched.mp4")).map_or(0, |m| m.len());
    wait_until("somebody watches", LIMIT, || watched() > 10_000);
    assert_eq!(serial(at, https), own_serial(at, "one"));
    install(at, "two");
    for port in [https, rtsps] {
        wait_until("the new certificate is shown", LIMIT, || serial(at, port) == own_serial(at, "two"));
    }
    let before = watched();
    wait_until("who watches goes on", LIMIT, || watched() > before + 10_000);
    assert!(watching.try_wait().unwrap().is_none());
    // One that does not go with its key, one that has expired, rubbish: the one before stays.
    std::fs::copy(at.join("one.key"), at.join("used.key")).unwrap();
    wait_until("a wrong key is told", LIMIT, || {
        serial(at, https) == own_serial(at, "two") && server.log().contains("do not go together")
    });
    install(at, "old");
    wait_until("an expired one is told", LIMIT, || {
        serial(at, https) == own_serial(at, "two") && server.log().contains("it expired at")
    });
    std::fs::write(at.join("used.pem"), "rubbish").unwrap();
    wait_until("rubbish is told", LIMIT, || {
        serial(at, https) == own_serial(at, "two") && server.log().contains("there is no certificate in it")
    });
    assert!(watching.try_wait().unwrap().is_none());
    watching.kill().unwrap();
    watching.wait().unwrap();
    let log = server.stop();
    assert!(!log.contains("geheim"), "{log}");
}

#[test]
fn a_wrong_certificate_is_found_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at);
    certificate(at, "one", "2");
    certificate(at, "two", "2");
    let with = |certificate: &str, key: &str| {
        format!(
            "[server]\ntls_listen = \"127.0.0.1:0\"\ntls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\n"
        )
    };
    for (config, said) in [
        (with("one.pem", "two.key"), "do not go together"),
        (with("none.pem", "one.key"), "none.pem"),
        (with("one.key", "one.key"), "there is no certificate in it"),
        ("[server]\ntls_listen = \"127.0.0.1:0\"\n".to_owned(), "HTTPS needs all three"),
    ] {
        std::fs::write(at.join("c.toml"), &config).unwrap();
        let (code, text) = run(&["--config", "c.toml", "--port", "0"], at);
        assert!(code != 0 && text.contains(said), "{config}: {text}");
    }
}

/// Chromium, which trusts the authority: it plays by HTTPS, and refuses to without.
#[test]
fn a_browser_plays_by_https() {
    let has_certutil = Command::new("certutil").arg("-H").output().is_ok();
    if let Some(reason) = player::missing().or((!has_certutil).then(|| "certutil is not installed".into())) {
        println!("SKIPPED: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at);
    certificate(at, "one", "2");
    let https = free_port();
    let config = format!(
        "[server]\ntls_listen = \"127.0.0.1:{https}\"\ntls_certificate = \"one.pem\"\ntls_key = \"one.key\"\n\
         [[streams]]\nid = \"cam\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n"
    );
    let server = Server::start(at, Some(&config));
    server.wait_for("cam", "frames", LIMIT, |s| s["frames"].as_u64() > Some(5));
    // Where Chromium looks for authorities.
    let database = at.join("home/.pki/nssdb");
    std::fs::create_dir_all(&database).unwrap();
    let certutil = |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        command.arg("-d").arg(format!("sql:{}", database.display())).args(arguments).current_dir(at);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    certutil(&["-N", "--empty-password"]);
    let page = |name: &str| format!("https://localhost:{https}/{name}");
    let play = |player: &str, url: &str| {
        let home = at.join("home");
        Playing::start_with("chromium", player, url, 6, |command| {
            command.env("HOME", home);
        })
    };
    let refused = play("hlsjs", &page("hls/cam/index.m3u8")).finish();
    assert!(refused.shown.is_empty(), "nobody vouches for it: {} pictures", refused.shown.len());
    certutil(&["-A", "-n", "test", "-t", "C,,", "-i", "ca.pem"]);
    for (player, url) in [("hlsjs", page("hls/cam/index.m3u8")), ("whep", page("webrtc/cam/whep"))] {
        let playing = play(player, &url);
        let played = playing.wait_until("pictures", LIMIT, |played| played.shown.len() > 10);
        assert!(played.errors().is_empty(), "{player}: {:?}", played.errors());
    }
    server.stop();
}
