//! An address that webhooks call.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

/// A request as it arrived.
#[derive(Debug)]
pub struct Request {
    headers: Vec<(String, String)>,
    /// Its body as it is.
    pub body: String,
}

impl Request {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    /// Its body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Answers each request with what `answer` says to it, and hands it on.
pub fn endpoint(answer: impl Fn(&Request) -> u16 + Send + 'static) -> (SocketAddr, Receiver<(u16, Request)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            loop {
                let (mut line, mut headers) = (String::new(), Vec::new());
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
                let mut header = String::new();
                while reader.read_line(&mut header).unwrap_or(0) > 2 {
                    let (name, value) = header.split_once(':').unwrap();
                    headers.push((name.to_owned(), value.trim().to_owned()));
                    header.clear();
                }
                let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
                let mut body = vec![0; length.map_or(0, |(_, l)| l.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let request = Request { headers, body: String::from_utf8(body).unwrap() };
                let status = answer(&request);
                if write!(socket, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").is_err()
                    || sender.send((status, request)).is_err()
                {
                    return;
                }
            }
        }
    });
    (address, receiver)
}
