//! coturn, as STUN and TURN server of a test: by UDP and TCP, and by TLS with a certificate of its own.

use super::program::finish;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is shared with it, for passwords that end.
pub const SECRET: &str = "north";

/// A running coturn. Dropping it ends it.
pub struct Turn {
    child: Child,
    folder: tempfile::TempDir,
    /// Its port by UDP and TCP.
    pub port: u16,
    /// Its port by TLS.
    pub tls_port: u16,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificate(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:false", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder);
    assert!(finish(openssl, Duration::from_secs(20)).status.success());
}

impl Turn {
    /// Starts it, if it is installed; says that the test is skipped if not.
    #[allow(clippy::print_stdout)]
    pub fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let (port, tls_port) = (crate::free_port(), crate::free_port());
        let mut command = Command::new("turnserver");
        command
            .args(["-n", "--no-cli", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"])
            .args(["--allow-loopback-peers", "--use-auth-secret", &format!("--static-auth-secret={SECRET}")])
            .args(["--realm=tests", "--no-dtls", "--cert=cert.pem", "--pkey=key.pem", "--verbose"])
            .args([&format!("--listening-port={port}"), &format!("--tls-listening-port={tls_port}")])
            .args(["--log-file=turn.log", "--simple-log", "--pidfile=/dev/null"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("SKIPPED: coturn is not installed");
            return None;
        };
        let turn = Self { child, folder, port, tls_port };
        super::wait_until("coturn listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", turn.port)).is_ok()
        });
        Some(turn)
    }

    /// Whom to trust to speak TLS with it.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("turn.log")).unwrap_or_default()
    }

    /// As an entry of a configuration, by its address: `turn:…`.
    pub fn entry(&self, url: &str) -> String {
        format!("[[webrtc.ice_servers]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n")
    }
}
