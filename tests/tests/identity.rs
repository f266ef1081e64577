//! Who somebody is, said by others: an identity provider's tokens, and a server that is asked.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stream_manager_tests::http::{get, request};
use stream_manager_tests::program::{Server, basic, finish};
use stream_manager_tests::wait_until;

const LIMIT: Duration = Duration::from_secs(40);
const STREAMS: &str = "[[streams]]\nid = \"yard/door\"\nsource_url = \"test://smpte?width=320&height=180&gop=25\"\n\
                       [[streams]]\nid = \"house\"\nsource_url = \"test://ball?width=320&height=180&gop=25\"\n\
                       [[streams]]\nid = \"in\"\nsource_url = \"publisher\"\n";

/// Answers every request by a function of its path and body; keeps what was asked.
struct Answering {
    address: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Answering {
    fn start(answer: impl Fn(&Value) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (kept, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(socket.try_clone().unwrap());
                    let (mut line, mut length) = (String::new(), 0usize);
                    loop {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0u8; length];
                    reader.read_exact(&mut body).unwrap();
                    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
                    kept.lock().unwrap().push(question.clone());
                    let (status, body) = answer(&question);
                    let mut socket = socket;
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&body));
                });
            }
        });
        Self { address, asked }
    }
}

/// A key pair: what signs, and its JSON Web Key.
struct Pair {
    id: &'static str,
    signs: EncodingKey,
    public: Value,
}

impl Pair {
    fn new(folder: &Path, id: &'static str) -> Self {
        let script = format!(
            "openssl genrsa -traditional -out {id}.pem 2048 2>/dev/null && openssl rsa -in {id}.pem -traditional -outform DER -out {id}.der 2>/dev/null \
             && openssl rsa -in {id}.pem -noout -modulus 2>/dev/null"
        );
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let hex = text.trim().strip_prefix("Modulus=").unwrap_or_else(|| panic!("{text}"));
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let public = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": URL_SAFE_NO_PAD.encode(bytes), "e": "AQAB"
        });
        let der = std::fs::read(folder.join(format!("{id}.der"))).unwrap();
        Self { id, signs: EncodingKey::from_rsa_der(&der), public }
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(Algorithm::RS256) };
        encode(&header, claims, &self.signs).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "sub": "ann", "aud": "cameras", "iss": "https://id.example", "exp": get_current_timestamp() + 600,
        "permissions": [{"actions": ["read", "api.read"], "streams": ["yard/*"]}, {"action": "publish", "path": "in"}]
    })
}

fn status(server: &Server, path: &str, token: &str) -> u16 {
    request("GET", &server.url(path), &[("authorization", &format!("Bearer {token}"))]).status
}

#[test]
fn tokens_of_an_identity_provider() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, foreign) = (
        Pair::new(folder.path(), "one"),
        Pair::new(folder.path(), "two"),
        Pair::new(folder.path(), "one-too"),
    );
    let held: Arc<Mutex<(u16, Vec<u8>)>> = Arc::default();
    let serve = |keys: &[&Pair]| {
        let keys: Vec<&Value> = keys.iter().map(|pair| &pair.public).collect();
        (200, json!({"keys": keys}).to_string().into_bytes())
    };
    // Down at first.
    *held.lock().unwrap() = (500, Vec::new());
    let answering = held.clone();
    let provider = Answering::start(move |_| answering.lock().unwrap().clone());
    let config = format!(
        "[auth.jwt]\njwks = \"http://{}/keys\"\nissuer = \"https://id.example\"\naudience = [\"cameras\"]\n{STREAMS}",
        provider.address
    );
    let server = Server::start(folder.path(), Some(&config));
    let good = one.token(&claims());
    assert_eq!(
        get(&server.url("/api/streams")).status,
        401,
        "where there is a provider, nobody is let in for being here"
    );
    let down = request("GET", &server.url("/api/streams"), &[("authorization", &format!("Bearer {good}"))]);
    assert_eq!((down.status, down.code().as_str()), (503, "authentication_unavailable"));
    assert!(down.text().contains("500"), "{}", down.text());
    // A hundred megabytes are no key set, and are not read.
    *held.lock().unwrap() = (200, vec![b' '; 100 << 20]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(status(&server, "/api/streams", &good), 503);
    *held.lock().unwrap() = serve(&[&one]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(status(&server, "/api/streams", &good), 200);
    assert_eq!(status(&server, "/api/streams/yard%2Fdoor", &good), 200);
    assert_eq!(status(&server, "/api/streams/house", &good), 403);
    assert_eq!(status(&server, "/api/config", &good), 403);
    assert_eq!(get(&server.url(&format!("/api/streams?jwt={good}"))).status, 200);
    // ffmpeg takes passwords of 127 characters at most: by RTSP, too, the token stands behind the name.
    let url = format!("rtsp://{}/yard/door?jwt={good}", server.rtsp);
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", &url]).stdin(Stdio::null());
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        one.token(&claims)
    };
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for (what, bad) in [
        ("no algorithm", format!("{}.{}.", part(json!({"alg": "none", "kid": "one"})), part(claims()))),
        ("a public key as a secret", {
            let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
            let secret = one.public["n"].as_str().unwrap().as_bytes();
            encode(&header, &claims(), &EncodingKey::from_secret(secret).unwrap()).unwrap()
        }),
        ("another's key", Pair { id: "one", ..foreign }.token(&claims())),
        ("expired", with("exp", json!(get_current_timestamp() - 120))),
        ("a day too early", with("nbf", json!(get_current_timestamp() + 86_400))),
        ("another audience", with("aud", json!("printers"))),
        ("another issuer", with("iss", json!("https://evil.example"))),
    ] {
        assert_eq!(status(&server, "/api/streams", &bad), 401, "{what}");
    }
    // The provider has another key: it is asked once more, and what it had stays good as long as it says so.
    *held.lock().unwrap() = serve(&[&two]);
    wait_until("the new key is known", LIMIT, || {
        // Wrong ones count as attempts; these are not wrong for long.
        status(&server, "/api/streams", &two.token(&claims())) == 200
    });
    assert_eq!(status(&server, "/api/streams", &good), 401, "its key is gone");
    // While nobody answers, what is known stays.
    *held.lock().unwrap() = (500, Vec::new());
    assert_eq!(status(&server, "/api/streams", &two.token(&claims())), 200);
    let log = server.stop();
    assert!(!log.contains(&good), "{log}");
}

#[test]
fn a_server_that_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Answering::start(|question| {
        let who = (question["user"].as_str().unwrap(), question["password"].as_str().unwrap());
        let right = match who {
            ("ann", "geheim") => question["path"] == "yard/door" || question["action"] == "api",
            ("", "") => question["path"] == "house" && question["action"] == "read",
            _ => false,
        };
        (if right { 204 } else { 401 }, Vec::new())
    });
    let config = format!(
        "[auth.callback]\nurl = \"http://{}/auth?secret=south\"\nexclude = [\"metrics\"]\n{STREAMS}",
        asked.address
    );
    let server = Server::start(folder.path(), Some(&config));
    let call = |path: &str, who: Option<(&str, &str)>| {
        let authorization = who.map(|(user, password)| basic(user, password));
        let headers: Vec<(&str, &str)> =
            authorization.iter().map(|a| ("authorization", a.as_str())).collect();
        request("GET", &server.url(path), &headers).status
    };
    let ann = Some(("ann", "geheim"));
    assert_eq!(
        (call("/api/streams", None), call("/api/streams", ann), call("/metrics", None)),
        (401, 200, 200)
    );
    assert_eq!(call("/api/streams/house/snapshot.jpg?width=64", ann), 401);
    wait_until("pictures", LIMIT, || call("/api/streams/house/snapshot.jpg?width=64", None) == 200);
    let mut command = Command::new("ffprobe");
    let url = format!("rtsp://ann:geheim@{}/yard/door?quality=best", server.rtsp);
    command.args(["-v", "error", &url]).stdin(Stdio::null());
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let questions = asked.asked.lock().unwrap().clone();
    let by_rtsp = questions.iter().rfind(|q| q["protocol"] == "rtsp" && q["user"] == "ann").unwrap();
    for (field, expected) in [
        ("password", "geheim"),
        ("ip", "127.0.0.1"),
        ("action", "read"),
        ("path", "yard/door"),
        ("query", "quality=best"),
        ("permission", "read"),
        ("token", ""),
    ] {
        assert_eq!(by_rtsp[field], expected, "{field}: {by_rtsp}");
    }
    assert!(
        by_rtsp["id"].is_string() && by_rtsp["userAgent"].as_str().unwrap().contains("Lavf"),
        "{by_rtsp}"
    );
    let listing = questions.iter().find(|q| q["permission"] == "api.read" && q["user"] == "ann").unwrap();
    assert_eq!((&listing["action"], &listing["path"]), (&json!("api"), &json!("")));
    let log = server.stop();
    assert!(!log.contains("geheim") && !log.contains("south"), "{log}");
}

/// Nobody answers: nobody is let in, and it is said why; what runs goes on.
#[test]
fn a_server_that_does_not_answer() {
    let (_folder, server) = Server::alone(&format!(
        "[auth.callback]\nurl = \"http://127.0.0.1:9/\"\ntimeout = \"1s\"\n{STREAMS}"
    ));
    let answer = get(&server.url("/api/streams"));
    assert_eq!((answer.status, answer.code().as_str()), (503, "authentication_unavailable"));
    assert_eq!(get(&server.url("/health/live")).status, 200);
    server.stop();
}
