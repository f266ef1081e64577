//! An MQTT broker, mosquitto, and what is published at it.

#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);

/// A real one. It ends with this.
pub struct Broker {
    child: Child,
    /// Where it is, on the loopback.
    pub port: u16,
}

impl Broker {
    /// Starts one with the user `sm` and the password `geheim`; None where mosquitto is not installed.
    pub fn start(folder: &Path, port: Option<u16>) -> Option<Self> {
        let port =
            port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let config = folder.join("mosquitto.conf");
        let passwords = folder.join("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-c", "-b"])
            .arg(&passwords)
            .args(["sm", "geheim"])
            .status();
        if made.is_err() {
            println!("SKIPPED: mosquitto is not installed");
            return None;
        }
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
            passwords.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("mosquitto").arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < LIMIT, "mosquitto does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port })
    }

    /// Topic and payload of all that is published from now on.
    pub fn subscribe(&self) -> (Child, Receiver<(String, String)>) {
        let port = self.port.to_string();
        let mut child = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-u",
                "sm",
                "-P",
                "geheim",
                "-t",
                "cams/#",
                "-v",
                "-q",
                "2",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (topic, text) = line.split_once(' ').unwrap();
                let _ = sender.send((topic.to_owned(), text.to_owned()));
            }
        });
        (child, receiver)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
