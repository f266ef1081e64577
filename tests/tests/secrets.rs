//! Secrets that are planted everywhere, and searched for in everything that the server says to anybody.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine as _;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stream_manager_tests::program::{Server, basic, run};
use stream_manager_tests::{free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(40);

/// Each place has its own, so that one that shows says where from.
fn planted(number: usize) -> String {
    format!("geheim{number:02}x{number:02}")
}

/// Who takes requests and remembers them.
fn sink(status: &'static str) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
    let shared = taken.clone();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
            let mut request = Vec::new();
            let _ = socket.read_to_end(&mut request);
            let _ = socket.write_all(
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes(),
            );
            shared.lock().unwrap().push_str(&format!("{}\n", String::from_utf8_lossy(&request)));
        }
    });
    (port, taken)
}

#[test]
fn none_is_ever_said() {
    let mut number = 0;
    let mut secret = || {
        number += 1;
        planted(number)
    };
    let nobody = free_port();
    let (hook_port, hooked) = sink("204 No Content");
    let (refusing, _) = sink("401 Unauthorized");
    let config = format!(
        "[telemetry]\nlog = \"trace\"\nlog_repeats = 0\n[defaults]\nstart_timeout = \"1s\"\n\
         [telemetry.otlp]\nendpoint = \"http://u:{}@127.0.0.1:{nobody}\"\nheaders = {{ api-key = \"{}\" }}\ninterval = \"1s\"\n\
         [auth.callback]\nurl = \"http://u:{}@127.0.0.1:{refusing}/ask?key={}\"\n\
         [[auth.users]]\nname = \"root\"\npassword = \"{}\"\nrole = \"admin\"\n\
         [[hooks.webhooks]]\nname = \"w\"\nurl = \"http://u:{}@127.0.0.1:{hook_port}/h?token={}\"\nsecret = \"{}\"\n\
         [hooks.mqtt]\nurl = \"mqtt://127.0.0.1:{nobody}\"\nusername = \"m\"\npassword = \"{}\"\n\
         [[webrtc.ice_servers]]\nurl = \"turn:127.0.0.1:{nobody}\"\nusername = \"t\"\npassword = \"{}\"\n\
         [[streams]]\nid = \"file\"\nsource_url = \"rtsp://u:{}@127.0.0.1:{nobody}/x?token={}\"\n",
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
        secret(),
    );
    let root = planted(5);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), Some(&config));
    server.log_in("root", &root);
    let mut said = Vec::new();
    let mut call = |method: &str, path: &str, body: Option<&Value>| {
        let (status, answer) = server.call(method, path, body);
        said.push((format!("{method} {path} {status}"), answer.to_string()));
        (status, answer)
    };
    // Sources of all kinds, which fail; what they are given is somebody's secret in each way that there is.
    let sources = [
        json!({"source_url": format!("rtsp://u:{}@127.0.0.1:{refusing}/x", secret())}),
        json!({"source_url": format!("rtsp://127.0.0.1:{nobody}/x"), "user": "u", "password": secret()}),
        json!({"source_url": format!("http://u:{}@127.0.0.1:{nobody}/x.mp4?auth={}", secret(), secret())}),
        json!({"source_url": format!("http://u:{}@127.0.0.1:{refusing}/x.m3u8?access_token={}", secret(), secret())}),
        json!({"source_url": format!("rtmp://u:{}@127.0.0.1:{nobody}/live/x?pass={}", secret(), secret())}),
        json!({"source_url": format!("srt://127.0.0.1:{nobody}?passphrase={}", secret())}),
        json!({"source_url": format!("whep://u:{}@127.0.0.1:{refusing}/x?jwt={}", secret(), secret())}),
        json!({"source_url": format!("whep://:{}@127.0.0.1:{nobody}/x", secret())}),
        json!({"source_url": "test://ball?width=320&height=180", "recording": {"enabled": true},
               "fallback": {"url": format!("rtsp://u:{}@127.0.0.1:{nobody}/f", secret())},
               "forward": [
                   {"url": format!("rtmp://127.0.0.1:{nobody}/live/{}", secret())},
                   {"url": format!("rtsp://u:{}@127.0.0.1:{refusing}/x", secret())},
                   {"url": format!("srt://127.0.0.1:{nobody}?passphrase={}", secret())},
                   {"url": format!("whip://:{}@127.0.0.1:{refusing}/x", secret())},
               ],
               "variants": [{"name": "low", "source_url": format!("rtsp://u:{}@127.0.0.1:{nobody}/low", secret())}]}),
        json!({"source_url": format!("rtsp://127.0.0.1:{nobody}/x"),
               "onvif": {"events": true, "url": format!("http://127.0.0.1:{refusing}/onvif"), "user": "u", "password": secret()}}),
    ];
    for (n, source) in sources.iter().enumerate() {
        let mut stream = source.clone();
        stream["id"] = json!(format!("s{n}"));
        let (status, made) = call("POST", "/api/streams", Some(&stream));
        assert_eq!(status, 201, "{stream}: {made}");
        // Once more, which is refused; and a shape that is wrong.
        call("POST", "/api/streams", Some(&stream));
        stream["nonsense"] = json!(true);
        call("PUT", &format!("/api/streams/s{n}"), Some(&stream));
    }
    for wrong in [
        format!("rtsp://u:{}@", secret()),
        format!("gopher://u:{}@h/x", secret()),
        format!("rtsp://u:{}@h:99999/x", secret()),
    ] {
        call("POST", "/api/streams", Some(&json!({"id": "wrong", "source_url": wrong})));
        call("POST", "/api/probe", Some(&json!({ "url": wrong })));
    }
    call(
        "POST",
        "/api/probe",
        Some(&json!({"url": format!("rtsp://u:{}@127.0.0.1:{refusing}/x", secret())})),
    );
    call(
        "POST",
        "/api/discover",
        Some(
            &json!({"addresses": [format!("http://127.0.0.1:{refusing}/onvif/device_service")], "user": "u", "password": secret(), "timeout": "1s"}),
        ),
    );
    // Users, tokens and what proves who somebody is.
    let (user, changed) = (secret(), secret());
    assert_eq!(
        call("POST", "/api/users", Some(&json!({"name": "ann", "password": user, "role": "viewer"}))).0,
        201
    );
    assert_eq!(call("PATCH", "/api/users/ann", Some(&json!({"password": changed}))).0, 200);
    call("POST", "/api/users", Some(&json!({"name": "ann", "password": user, "role": "viewer"})));
    call("POST", "/api/login", Some(&json!({"name": "ann", "password": changed})));
    call("POST", "/api/login", Some(&json!({"name": "ann", "password": secret()})));
    call("PATCH", "/api/config", Some(&json!({"auth": {"users": [{"name": "x", "password": secret()}]}})));
    let wrong_token = secret();
    for header in
        [basic("ann", &secret()), format!("Bearer {}", secret()), format!("Bearer ann:{}", secret())]
    {
        let (_, answer) = server.call_with("GET", "/api/streams", &[("authorization", &header)], None);
        said.push((header, answer.to_string()));
    }
    for path in [
        format!("/api/streams?token={wrong_token}"),
        format!("/hls/file/index.m3u8?jwt={}", secret()),
        format!("/api/streams/file/snapshot.jpg?sig={}", secret()),
    ] {
        let answer = stream_manager_tests::http::get(&server.url(&path));
        said.push((path.split('?').next().unwrap().to_owned(), answer.text()));
    }
    let rtsp = server.rtsp_url("file").replace("rtsp://", &format!("rtsp://ann:{}@", secret()));
    let output =
        std::process::Command::new("ffprobe").args(["-rtsp_transport", "tcp", &rtsp]).output().unwrap();
    assert!(!output.status.success());
    let (status, made) = server.call("POST", "/api/tokens", Some(&json!({"name": "t", "user": "ann"})));
    assert_eq!(status, 201, "{made}");
    // It is said here, and nowhere else.
    let token = made["token"].as_str().unwrap().to_owned();
    // Everything has been tried, and has failed.
    for n in 0..sources.len() {
        if n != 8 {
            server.wait_for(&format!("s{n}"), "it fails", LIMIT, |s| s["last_error"].is_string());
        }
    }
    server.wait_for("s8", "all forwards fail", LIMIT, |s| {
        s["forwards"].as_array().unwrap().iter().all(|f| f["last_error"].is_string())
    });
    wait_until("telemetry fails", LIMIT, || server.log().contains("telemetry cannot be sent"));
    wait_until("a webhook has come", LIMIT, || hooked.lock().unwrap().contains("POST /h"));
    // Everything that can be read.
    let (_, description) = server.call("GET", "/api/openapi.json", None);
    let mut read = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        if methods.get("get").is_none() || path.contains("backups/{name}/file") || path == "/api/events" {
            continue;
        }
        for stream in ["file", "s1", "s3", "s8"] {
            let path = path.replace("{id}", stream).replace("{name}", "ann").replace("{number}", "1");
            if path.contains("live.mp4") || path.contains("mjpeg") || path.contains('{') {
                continue;
            }
            let headers = [("authorization", basic("root", &root))];
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let answer = stream_manager_tests::http::request("GET", &server.url(&path), &headers);
            said.push((path, String::from_utf8_lossy(&answer.body).into_owned()));
            read += 1;
        }
    }
    assert!(read > 60, "{read}");
    let headers = format!("authorization: {}\r\n", basic("root", &root));
    let mut events = std::net::TcpStream::connect(server.address()).unwrap();
    write!(events, "GET /api/events?after=0 HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").unwrap();
    events.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut heard = Vec::new();
    let _ = events.read_to_end(&mut heard);
    assert!(heard.len() > 1000, "{}", String::from_utf8_lossy(&heard));
    said.push(("events".into(), String::from_utf8_lossy(&heard).into_owned()));
    let toml = stream_manager_tests::http::request(
        "GET",
        &server.url("/api/config?format=toml"),
        &[("authorization", &basic("root", &root))],
    );
    said.push(("config as TOML".into(), toml.text()));
    // What was sent to the hook: its own address has its own secrets, the rest is nobody's.
    let bodies: String = hooked.lock().unwrap().lines().filter(|line| line.starts_with('{')).collect();
    assert!(bodies.len() > 500, "{bodies}");
    said.push(("webhooks".into(), bodies));
    said.push(("the log".into(), server.stop()));
    for arguments in [
        ["check"].as_slice(),
        &["config", "export"],
        &["user", "list"],
        &["token", "list"],
        &["recordings", "list"],
    ] {
        let (_, text) = run(arguments, folder.path());
        said.push((arguments.join(" "), text));
    }
    // Also as it is where it is hidden a little.
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut secrets: Vec<String> = (1..=number).map(planted).collect();
    secrets.push(token);
    assert!(secrets.len() >= 48, "{}", secrets.len());
    let mut leaks = Vec::new();
    for (place, text) in &said {
        for secret in &secrets {
            let shown = [
                secret.clone(),
                encoded(&format!("u:{secret}")),
                encoded(&format!("ann:{secret}")),
                encoded(&format!("root:{secret}")),
            ];
            for form in shown {
                if let Some(at) = text.find(&form) {
                    let from = (at.saturating_sub(150)..=at).find(|i| text.is_char_boundary(*i)).unwrap();
                    let to = (at + form.len()..text.len())
                        .find(|i| text.is_char_boundary(*i))
                        .unwrap_or(text.len());
                    leaks.push(format!("{secret} in {place}: …{}", &text[from..to]));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{} times: {}", leaks.len(), leaks.join("\n\n"));
}
