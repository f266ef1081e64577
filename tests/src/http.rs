//! Single HTTP requests, with everything that an answer says.

use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request without a body.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    send(method, url, headers, ())
}

/// Sends a request with a body.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: impl ureq::AsSendBody) -> Answer {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(30)))
            .build(),
    );
    let mut builder = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let mut answer = agent.run(builder.body(body).unwrap()).unwrap_or_else(|e| panic!("{method} {url}: {e}"));
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap_or_default();
    Answer { status: answer.status().as_u16(), headers, body }
}

/// `GET` without more ado.
pub fn get(url: &str) -> Answer {
    request("GET", url, &[])
}

/// The address that a relative one means beside another.
pub fn join(base: &str, relative: &str) -> String {
    let (scheme, rest) = base.split_once("://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let path = path.split('?').next().unwrap();
    if let Some(absolute) = relative.strip_prefix('/') {
        return format!("{scheme}://{host}/{absolute}");
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("{scheme}://{host}/{}", parts.join("/"))
}

/// Reads server-sent events until there are `number` of them. Gives their ids and their data.
pub fn sse(address: &str, path: &str, number: usize) -> (Vec<u64>, Vec<serde_json::Value>) {
    use std::io::{BufRead, BufReader, Write};
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(40))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut ids, mut data) = (Vec::new(), Vec::new());
    for line in BufReader::new(socket).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("id: ") {
            ids.push(id.parse().unwrap());
        }
        if let Some(json) = line.strip_prefix("data: ") {
            data.push(serde_json::from_str(json).unwrap());
        }
        if data.len() == number {
            break;
        }
    }
    (ids, data)
}
