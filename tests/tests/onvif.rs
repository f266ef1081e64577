//! Cameras by ONVIF: found, described, taken in, listened to. The device is `tests/players/onvif_device.py`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_manager_tests::camera::{Auth, Camera, Feed};
use stream_manager_tests::program::{Server, binary, finish, run};
use stream_manager_tests::wait_until;

const SOON: Duration = Duration::from_secs(30);

/// A device; it ends with this.
struct Device {
    child: Child,
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Device {
    fn script() -> String {
        format!("{}/players/onvif_device.py", env!("CARGO_MANIFEST_DIR"))
    }

    fn start(ip: &str, settings: &Value) -> Self {
        let mut child = Command::new("python3")
            .args([&Self::script(), ip, &settings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = asked.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| list.lock().unwrap().push(line))
        });
        Self { child, port, asked }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/onvif/device_service", self.port)
    }

    /// How often it was asked that.
    fn count(&self, operation: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with(operation)).count()
    }

    fn notices(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn profile(token: &str, codec: &str, height: u32, uri: &str) -> Value {
    json!({ "token": token, "source": "eye-1", "codec": codec, "width": height * 16 / 9, "height": height, "uri": uri })
}

fn cameras() -> (Camera, Camera) {
    let camera = || {
        Camera::with_auth(
            Feed::with_audio(false),
            Auth { user: "admin".into(), password: "secret".into(), digest: true },
        )
    };
    (camera(), camera())
}

fn open(camera: &Camera) -> String {
    camera.url().replace("admin:secret@", "")
}

/// What is printed goes into the configuration as it is, with the password beside it, and works.
#[test]
fn what_is_found_can_be_taken_in() {
    let (main, sub) = cameras();
    for settings in [
        // Its clock is wrong, and so is what it says of its own address, as behind a router.
        json!({ "auth": "wsse", "clock": 5000, "host": "192.0.2.9:8000", "media2": true }),
        json!({ "auth": "digest" }),
    ] {
        let mut settings = settings;
        settings["profiles"] =
            json!([profile("sub", "H264", 360, &sub.url()), profile("main", "H265", 2160, &main.url()),]);
        let device = Device::start("127.0.0.1", &settings);
        let folder = tempfile::tempdir().unwrap();
        let address = device.url();
        let (code, said) = run(&["discover", &address], folder.path());
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("wants a user and password") && !said.contains("[[streams]]"), "{said}");
        let (_, said) = run(&["discover", &address, "--user", "admin", "--password", "wrong"], folder.path());
        assert!(said.contains("wants a user and password"), "{said}");
        let (code, toml) =
            run(&["discover", &address, "--user", "admin", "--password", "secret"], folder.path());
        assert_eq!(code, 0, "{toml}");
        assert!(
            toml.contains("Example & Sons Eye 2, firmware 1.2.3") && toml.contains("3840x2160"),
            "{toml}"
        );
        assert!(!toml.contains("secret"), "{toml}");
        let config = toml.replacen("user = \"admin\"\n", "user = \"admin\"\npassword = \"secret\"\n", 1);
        let server = Server::start(folder.path(), Some(&config));
        let id = "eye-2-127-0-0-1";
        let stream = server.wait_for(id, "frames", SOON, |s| s["frames"].as_u64() > Some(25));
        assert_eq!(stream["config"]["source_url"], open(&main));
        assert_eq!(stream["renditions"], json!([format!("{id}/sub")]));
        server.wait_for(id, "events", SOON, |s| s["camera_events"]["state"] == "running");
        let shown = server.call("GET", &format!("/api/streams/{id}"), None).1.to_string();
        assert!(shown.contains("***") && !shown.contains("secret"), "{shown}");
        let (code, said) = run(
            &["record", &server.rtsp_url(&format!("{id}/sub")), "-o", "sub.mp4", "--duration", "1s"],
            folder.path(),
        );
        assert_eq!(code, 0, "{said}");
        let log = server.stop();
        assert!(!log.contains("secret"), "{log}");
    }
}

fn discover(server: &Server, body: &Value) -> (u16, Value) {
    server.call("POST", "/api/discover", Some(body))
}

#[test]
fn the_api_finds_them_too() {
    let profiles = json!([
        profile("a", "H264", 1080, "rtsp://0.0.0.0:554/a?x=1&y=2"),
        { "token": "b", "source": "eye-2", "codec": "H264", "width": 640, "height": 480, "uri": "rtsp://u:p@127.0.0.1/b" },
    ]);
    let settings = json!({ "auth": "wsse", "profiles": profiles, "discovery": "unicast" });
    let device = Device::start("127.0.0.83", &settings);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    let body = json!({ "addresses": ["127.0.0.83"], "user": "admin", "password": "secret", "timeout": "1s" });
    let (status, found) = discover(&server, &body);
    assert_eq!(status, 200, "{found}");
    assert!(device.count("Probe") > 0);
    let item = &found["items"][0];
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!((&item["name"], &item["location"]), (&json!("Front Door"), &json!("Yard")), "{found}");
    assert_eq!(item["url"], format!("http://127.0.0.83:{}/onvif/device_service", device.port));
    let report = &item["report"];
    assert_eq!((&report["serial"], &report["events"]), (&json!("0042"), &json!(true)), "{found}");
    assert_eq!(report["profiles"][0]["source_url"], "rtsp://127.0.0.83:554/a?x=1&y=2");
    assert!(!found.to_string().contains("u:p@") && !found.to_string().contains("secret"), "{found}");
    // What it says can be sent back as it is.
    let ids = ["eye-2-127-0-0-83", "eye-2-127-0-0-83-2"];
    for (index, id) in ids.iter().enumerate() {
        let mut stream = report["streams"][index].clone();
        assert_eq!(stream["id"], *id, "{found}");
        stream["password"] = json!("secret");
        let (status, made) = server.call("POST", "/api/streams", Some(&stream));
        assert_eq!(status, 201, "{made}");
    }
    // The password that is shown as stars is kept, and goes nowhere else.
    let path = format!("/api/streams/{}", ids[0]);
    let own = json!({ "onvif": { "events": true, "user": "a", "password": "geheim", "url": device.url() } });
    assert_eq!(server.call("PATCH", &path, Some(&own)).0, 200);
    let mut shown = server.call("GET", &path, None).1["config"].clone();
    assert_eq!(shown["onvif"]["password"], "***");
    shown["enabled"] = json!(false);
    assert_eq!(server.call("PUT", &path, Some(&shown)).0, 200);
    shown["onvif"]["url"] = json!("http://127.0.0.99/onvif/device_service");
    let (status, refused) = server.call("PUT", &path, Some(&shown));
    assert_eq!((status, &refused["pointer"]), (422, &json!("/onvif/password")), "{refused}");
    server.stop();
}

#[test]
fn devices_that_are_none_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), None);
    for (garbage, says) in
        [("html", "something else than ONVIF"), ("endless", "limit"), ("silent", "no answer within")]
    {
        let device = Device::start("127.0.0.1", &json!({ "garbage": garbage }));
        let begun = Instant::now();
        let (status, found) = discover(&server, &json!({ "addresses": [device.url()] }));
        assert_eq!(status, 200, "{found}");
        assert!(found["items"][0]["problem"].as_str().unwrap().contains(says), "{garbage}: {found}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{garbage}");
    }
    let (_, found) = discover(&server, &json!({ "addresses": ["127.0.0.1:1"] }));
    assert!(found["items"][0]["problem"].as_str().unwrap().contains("refused"), "{found}");
    for (body, pointer) in [
        (json!({ "addresses": ["rtsp://u:geheim@camera"] }), "/addresses"),
        (json!({ "timeout": "1h" }), "/timeout"),
        (json!({ "user": "admin" }), "/user"),
        (json!({ "adresses": [] }), "/adresses"),
    ] {
        let (status, refused) = discover(&server, &body);
        assert_eq!(status, 422, "{refused}");
        assert!(
            refused.to_string().contains(pointer) && !refused.to_string().contains("geheim"),
            "{refused}"
        );
    }
    let (code, said) = run(&["discover", "ftp://x"], folder.path());
    assert!(code != 0 && said.contains("no address of a device"), "{code} {said}");
    server.stop();
}

/// In a network of its own, which has nothing but itself, all of it is asked.
#[test]
fn the_network_is_asked() {
    let settings = json!({ "auth": "none", "discovery": "multicast", "profiles": [profile("a", "H264", 720, "rtsp://127.0.0.1/a")] });
    let script = "set -e; ip link set lo up; ip link set lo multicast on; ip route add 239.0.0.0/8 dev lo; echo ready; \
                  (sleep 30) | python3 \"$1\" 127.0.0.1 \"$2\" & device=$!; sleep 1; \"$3\" discover --json --timeout 2s; kill $device";
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
    command.args([&Device::script(), &settings.to_string(), binary("stream-manager").to_str().unwrap()]);
    let output = finish(command, Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.contains("ready") {
        println!("SKIPPED: a network of its own cannot be made: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let json = &text[text.find("\n[").expect(&text)..=text.rfind(']').expect(&text)];
    let found: Value = serde_json::from_str(json).unwrap();
    assert_eq!(found[0]["name"], "Front Door", "{text}");
    assert_eq!(found[0]["report"]["profiles"][0]["height"], 720, "{text}");
}

/// What a camera has noticed, oldest first.
fn noticed(server: &Server) -> Vec<(Value, Value)> {
    let address = server.url("/api/events?kind=camera_event&after=0");
    let output = Command::new("curl").args(["-sN", "--max-time", "1", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let items: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    items.iter().map(|event| (event["what"].clone(), event["active"].clone())).collect()
}

fn with_events(folder: &Path, camera: &Camera, device: &Device) -> Server {
    let config = format!(
        "[defaults]\non_demand = true\n[[streams]]\nid = \"door\"\nsource_url = \"{}\"\n[streams.onvif]\nevents = true\nurl = \"{}\"\n",
        camera.url(),
        device.url()
    );
    Server::start(folder, Some(&config))
}

#[test]
fn what_a_camera_notices_becomes_events() {
    const MOTION: &str = "tns1:RuleEngine/CellMotionDetector/Motion IsMotion";
    let (camera, _) = cameras();
    let mut device = Device::start("127.0.0.1", &json!({ "auth": "wsse" }));
    device.notices(&format!("{MOTION} false"));
    let folder = tempfile::tempdir().unwrap();
    let server = with_events(folder.path(), &camera, &device);
    server.wait_for("door", "listening", SOON, |s| s["camera_events"]["state"] == "running");
    device.notices(&format!("{MOTION} true"));
    device.notices(&format!("{MOTION} true"));
    device.notices("tns1:RuleEngine/LineDetector/Crossed ObjectId 7");
    let (motion, over) =
        (|active: bool| (json!("motion"), json!(active)), (json!("line_crossed"), Value::Null));
    wait_until("two", SOON, || noticed(&server).len() >= 2);
    assert_eq!(noticed(&server), [motion(true), over.clone()]);
    // It is listened to while nobody watches.
    let shown = server.stream("door");
    assert_eq!((&shown["state"], &shown["camera_events"]["events"]), (&json!("idle"), &json!(2)), "{shown}");
    // While it is away nothing is known to go on.
    let port = device.port;
    drop(device);
    wait_until("its end", SOON, || noticed(&server).last() == Some(&motion(false)));
    server.wait_for("door", "why", SOON, |s| s["camera_events"]["state"] == "backoff");
    let mut device = Device::start("127.0.0.1", &json!({ "auth": "wsse", "port": port }));
    device.notices(&format!("{MOTION} true"));
    server.wait_for("door", "listening", SOON * 2, |s| s["camera_events"]["state"] == "running");
    wait_until("again", SOON, || noticed(&server).last() == Some(&motion(true)));
    assert_eq!(noticed(&server).len(), 4, "{:?}", noticed(&server));
    // What it gave is given back.
    assert_eq!(device.count("CreatePullPoint"), 1);
    assert_eq!(server.call("PATCH", "/api/streams/door", Some(&json!({ "onvif": null }))).0, 409);
    let log = server.stop();
    wait_until("goodbye", SOON, || device.count("Unsubscribe") == 1);
    assert!(!log.contains("secret"), "{log}");
}
