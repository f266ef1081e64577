//! Every mistake is found and named; the example file is true.

use super::*;
use proptest::prelude::*;

fn error(text: &str) -> String {
    Config::from_toml(text).unwrap_err().to_string()
}

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(Some(&path), env, &Overrides::default())
}

#[test]
fn mistakes_name_line_and_key() {
    assert_eq!(
        error("[storage]\n\ndata_dri = 1\n"),
        "line 3: storage.data_dri: unknown key; did you mean \"data_dir\"?"
    );
    assert_eq!(error("[storrage]\n"), "line 1: storrage: unknown key; did you mean \"storage\"?");
    assert!(error("[server]\nlisten = 5\n").starts_with("line 2: server.listen: invalid type: integer"));
    assert!(error("[server]\nlisten = \"here\"\n").contains("expected an IP address and a port"));
    assert!(
        error("[defaults]\nsilence_timeout = \"soon\"\n")
            .contains("defaults.silence_timeout: \"soon\" is no duration")
    );
    assert_eq!(
        error("[defaults.recording]\nformat = \"avi\"\n"),
        "line 2: defaults.recording.format: \"avi\" is not possible; expected \"fmp4\", \"mp4\", \"mkv\" or \"ts\""
    );
    assert_eq!(error("[[streams]]\nid = \"a\"\n"), "line 1: streams[0]: the key \"source_url\" is missing");
    assert!(error("[server\n").starts_with("line 1: "));
    assert!(
        error(
            "[[streams]]\nid = \"a\"\nsource_url = \"test://smpte\"\n[streams.recording]\nenabeld = true\n"
        )
        .contains("line 5: streams[0].recording.enabeld: unknown key; did you mean \"enabled\"?")
    );
}

#[test]
fn layers_override_each_other() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\n[storage]\ndata_dir = \"/file\"\n";
    let config =
        load(file, &[("STREAM_MANAGER_PORT", "8080"), ("STREAM_MANAGER_STORAGE__DISK_THREADS", "5")])
            .unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((config.storage.disk_threads, config.storage.data_dir.to_str()), (5, Some("/file")));
    let config = load(
        "",
        &[("STREAM_MANAGER_DEFAULTS__RECORDING__ENABLED", "true"), ("STREAM_MANAGER_STORAGE__DATA_DIR", "7")],
    )
    .unwrap();
    assert!(config.defaults.recording.enabled);
    assert_eq!(config.storage.data_dir.to_str(), Some("7"));
    let overrides = Overrides { port: Some(9), data_dir: Some("/arg".into()), ..Default::default() };
    let env = [("STREAM_MANAGER_PORT".to_owned(), "8080".to_owned())];
    let config = Config::load(None, env, &overrides).unwrap();
    assert_eq!((config.server.listen.port(), config.storage.data_dir.to_str()), (9, Some("/arg")));
}

#[test]
fn variables_are_checked_too() {
    let fail = |name, value| load("", &[(name, value)]).unwrap_err().to_string();
    assert_eq!(
        fail("STREAM_MANAGER_PORT", "high"),
        "environment variable STREAM_MANAGER_PORT: \"high\" is no port; expected a number from 0 to 65535"
    );
    assert_eq!(
        fail("STREAM_MANAGER_STORAGE__DATA_DRI", "x"),
        "environment variable STREAM_MANAGER_STORAGE__DATA_DRI: storage.data_dri: unknown key; did you mean \"data_dir\"?"
    );
    assert!(
        fail("STREAM_MANAGER_SERVER__MAX_CONNECTS", "many").contains("server.max_connects: invalid type")
    );
    assert!(load("", &[("STREAM_MANAGER_HOME", "x"), ("OTHER", "y")]).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some("/nonexistent/c.toml".as_ref()), [], &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/c.toml: No such file"), "{error}");
}

#[test]
fn what_contradicts_itself_is_named() {
    let cases = [
        ("[rtsp]\ntransports = []", "rtsp.transports: it is empty; expected \"tcp\""),
        ("[rtsp]\npacket_size = 10", "rtsp.packet_size: it is 10; expected 200 to 65000"),
        ("[rtsp]\nudp_port = 8001", "rtsp.udp_port: it is 8001; expected an even port"),
        ("[rtsp]\nsession_timeout = \"1s\"", "rtsp.session_timeout: it is 1s; expected at least 5s"),
        ("[rtsp]\ntls_listen = \"127.0.0.1:1\"", "RTSPS needs all three"),
        ("[rtsp]\nstart = \"slow\"", "\"slow\" is not possible; expected \"burst\" or \"paced\""),
        ("[auth]\nmethods = []", "auth.methods: it is empty"),
        ("[[auth.users]]\nname = \"a:b\"\npassword = \"x\"", "auth.users[0].name"),
        ("[[auth.users]]\nname = \"a\"\npassword = \"\"", "auth.users[0].password: it is empty"),
        (
            "[[auth.users]]\nname = \"a\"\npassword = \"x\"\nread = [\"a b\"]",
            "auth.users[0].read[0]: \"a b\" is no pattern",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    for (text, expected) in cases {
        std::fs::write(&path, text).unwrap();
        let error = Config::load(Some(&path), [], &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("c.toml") && error.contains(expected), "{text}: {error}");
    }
    let secret = Config::from_toml("[[auth.users]]\nname = \"a\"\npassword = \"geheim\"").unwrap();
    assert!(!format!("{secret:?}{}", toml::to_string(&secret).unwrap()).contains("geheim"));
}

#[test]
fn an_array_is_no_table() {
    let stream = "[[streams]]\nid = \"a\"\nsource_url = \"publisher\"\n";
    for (text, expected) in [
        (format!("{stream}recording = [true]\n"), "streams[0].recording: it is an array; expected a table"),
        ("server = [\"127.0.0.1:1\"]\n".to_owned(), "server: it is an array; expected a table"),
        ("[defaults]\nrecording = [true]\n".to_owned(), "defaults.recording: it is an array"),
    ] {
        let error = load(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(load(&format!("{stream}[rtsp]\ntransports = [\"tcp\"]\n"), &[]).is_ok());
}

#[test]
fn lines_of_streams() {
    let text = "\n[[streams]]\nid=\"a\"\nsource_url=\"x\"\n\n[[streams]]\nid=\"b\"\nsource_url=\"y\"\n";
    assert_eq!((Config::line_of_stream(text, 0), Config::line_of_stream(text, 1)), (Some(2), Some(6)));
}

/// Every key of the code stands in config.example.toml with its default, and nothing else does.
#[test]
fn the_example_is_the_default() {
    let text = include_str!("../../../config.example.toml");
    let mut example = Config::from_toml(text).unwrap();
    assert!(!example.streams.is_empty(), "the example shows a stream");
    example.streams.clear();
    assert_eq!(example, Config::default());
    // Optional keys are there as comments.
    let doc = include_str!("../../../docs/CONFIG.md");
    for (section, key) in keys_of(&everything()) {
        assert!(text.contains(&format!("{key} = ")), "config.example.toml lacks {section} {key}");
        assert!(doc.contains(&format!("`{key}`")), "docs/CONFIG.md lacks {section} {key}");
    }
    // So is what the comments show.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || is_key(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = Config::from_toml(&uncommented).unwrap();
    all.check().unwrap();
    assert!(!all.inference.models.is_empty());
    assert!(!all.hooks.webhooks.is_empty() && !all.hooks.commands.is_empty() && all.hooks.mqtt.is_some());
}

fn is_key(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

/// A configuration in which every key is set.
fn everything() -> Config {
    let text = r#"
        [server]
        tls_listen = "0.0.0.0:1"
        tls_certificate = "x"
        tls_key = "x"
        [storage]
        recordings_dir = "x"
        max_size = 1
        [storage.directories]
        fast = "y"
        [rtsp]
        tls_listen = "0.0.0.0:1"
        tls_certificate = "x"
        tls_key = "x"
        [[auth.users]]
        name = "x"
        password = "x"
        role = "viewer"
        streams = ["*"]
        read = ["*"]
        publish = ["*"]
        permissions = [{ actions = ["read"] }]
        [[auth.anonymous]]
        actions = ["read"]
        addresses = ["10.0.0.1"]
        [auth.jwt]
        jwks = "x"
        issuer = "x"
        audience = ["x"]
        [auth.callback]
        url = "http://h/"
        exclude = ["metrics"]
        [[hooks.webhooks]]
        name = "a"
        url = "http://h/"
        secret = "s"
        [[hooks.commands]]
        name = "b"
        command = ["c"]
        [hooks.mqtt]
        url = "mqtt://h"
        username = "u"
        password = "p"
        [inference]
        onnxruntime = "x"
        engine_dir = "x"
        [[inference.models]]
        name = "m"
        path = "m.onnx"
        kind = "detector"
        layout = "yolox"
        labels = "l.txt"
        input_size = [416, 416]
        color = "bgr"
        scale = 1.0
        mean = [0.0]
        std = [1.0]
        letterbox = "top-left"
        class_thresholds = { person = 0.5 }
        classes = ["person"]
        cpus = [0]
        [defaults.hls]
        enabled = true
        always = false
        low_latency = true
        segment_duration = "2s"
        part_duration = "200ms"
        window = "12s"
        max_size = "64MiB"
        idle_timeout = "30s"
        [defaults.inference]
        enabled = false
        model = "m"
        max_fps = 5
        priority = "normal"
        threshold = 0.5
        classes = ["person"]
        annotated = false
        metadata_track = false
        event_interval = "10s"
        [defaults.inference.motion]
        enabled = false
        area = 0.002
        contrast = 20
        hold = "2s"
        mask = [[0.0, 0.0, 1.0, 0.1]]
        [defaults.inference.tracking]
        enabled = true
        doubtful = 0.1
        max_lost = "2s"
        max_objects = 100
        [defaults.inference.objects]
        enabled = true
        classes = ["person"]
        min_score = 0.5
        min_area = 0.0
        min_time = "1s"
        zones = ["z"]
        update_interval = "10s"
        stationary_after = "30s"
        record = true
        max_per_minute = 60
        [[defaults.inference.zones]]
        name = "z"
        points = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
        classes = ["person"]
        loitering_after = "10s"
        max_objects = 3
        stationary_after = "10s"
        schedule = ["daily 00:00-24:00"]
        time_zone = "UTC"
        [[defaults.inference.lines]]
        name = "l"
        points = [[0.0, 0.0], [1.0, 0.0]]
        classes = ["person"]
        schedule = ["daily 00:00-24:00"]
        time_zone = "UTC"
        [[defaults.inference.cascade]]
        model = "m"
        classes = ["person"]
        interval = "5s"
        [[defaults.inference.masks]]
        points = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
        classes = ["person"]
        [defaults.recording]
        segment_size = 65536
        directory = "fast"
        [defaults.recording.retention]
        max_age = 1
        events_max_age = 2
        max_size = 1
    "#;
    Config::from_toml(text).unwrap()
}

/// Sections and keys of a configuration.
fn keys_of(config: &Config) -> Vec<(String, String)> {
    fn walk(section: &str, value: &serde_json::Value, keys: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(object) => {
                for (key, value) in object {
                    let inner = match value {
                        serde_json::Value::Object(_) => true,
                        serde_json::Value::Array(items) => {
                            items.first().is_some_and(serde_json::Value::is_object)
                        }
                        _ => false,
                    };
                    let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
                    const MAPS: [&str; 3] =
                        ["storage.directories", "streams", "inference.models.class_thresholds"];
                    if MAPS.contains(&path.as_str()) {
                        continue;
                    }
                    if inner {
                        walk(&path, value, keys)
                    } else {
                        keys.push((section.to_owned(), key.clone()))
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(section, item, keys)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    walk("", &serde_json::to_value(config).unwrap(), &mut keys);
    keys
}

/// The column that says what a change takes is what the code does.
#[test]
fn the_documentation_says_what_changes_take() {
    let doc = include_str!("../../../docs/CONFIG.md");
    let mut section = String::new();
    let mut documented = std::collections::HashMap::new();
    for line in doc.lines() {
        if let Some(rest) = line.strip_prefix("## ") {
            section = rest.trim_matches(|c| "`[]".contains(c)).to_owned();
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
        if !first.starts_with("| `") {
            continue;
        }
        let mut own = section.clone();
        for name in first.split('`').skip(1).step_by(2) {
            if name.starts_with('[') {
                own = name.trim_matches(|c| "[]".contains(c)).to_owned();
            } else {
                documented.insert(format!("{own}.{name}"), last.trim_end_matches(" |").to_owned());
            }
        }
    }
    for (section, key) in keys_of(&everything()) {
        let full = format!("{section}.{key}");
        let said = documented.get(&full).unwrap_or_else(|| panic!("{full} is not in a table"));
        assert_eq!(said, Effect::of(&full).name(), "{full}");
    }
}

#[test]
fn hooks_that_are_wrong_are_named() {
    for (text, expected) in [
        ("[[hooks.webhooks]]\nname = \"a b\"\nurl = \"http://h\"", "hooks.webhooks[0].name: expected"),
        (
            "[[hooks.webhooks]]\nname = \"a\"\nurl = \"ftp://u:geheim@h\"",
            "hooks.webhooks[0].url: \"ftp://u:***@h",
        ),
        (
            "[[hooks.webhooks]]\nname = \"a\"\nurl = \"http://h\"\nkinds = [\"stream_stat\"]",
            "did you mean \"stream_state\"?",
        ),
        ("[[hooks.commands]]\nname = \"a\"\ncommand = []", "hooks.commands[0].command: it is empty"),
        ("[[hooks.commands]]\nname = \"a\"\ncommand = [\"x\"]\nmax_running = 0", "expected 1 to 100"),
        (
            "[[hooks.webhooks]]\nname = \"a\"\nurl = \"http://h\"\n[[hooks.commands]]\nname = \"a\"\ncommand = [\"x\"]",
            "\"a\" is an earlier hook's already",
        ),
        ("[hooks.mqtt]\nurl = \"http://h\"", "hooks.mqtt.url"),
        ("[hooks.mqtt]\nurl = \"mqtt://h\"\ntopic = \"a/#\"", "hooks.mqtt.topic"),
        ("[hooks.mqtt]\nurl = \"mqtt://h\"\nqos = 3", "hooks.mqtt.qos: it is 3"),
    ] {
        let error = Config::from_toml(text).unwrap().check().unwrap_err();
        assert!(error.contains(expected) && !error.contains("geheim"), "{text}: {error}");
    }
}

#[test]
fn the_schema_knows_every_key() {
    let schema = json_schema();
    let text = schema.to_string();
    for (section, key) in keys_of(&everything()) {
        assert!(text.contains(&format!("\"{key}\"")), "the schema lacks {section} {key}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Config::from_toml(&text);
    }

    #[test]
    fn what_is_written_reads_back(port in any::<u16>(), threads in 1usize..64, secs in 0u64..100_000, size in any::<u32>()) {
        let mut config = Config::default();
        config.server.listen.set_port(port);
        config.storage.disk_threads = threads;
        config.defaults.retry_max = DurationText(Duration::from_secs(secs));
        config.defaults.gop_max_size = BytesText(u64::from(size));
        prop_assert_eq!(Config::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
