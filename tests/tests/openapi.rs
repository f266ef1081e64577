//! The API's description, tested by other people's programs: schemathesis calls everything that it allows and forbids, and
//! an ordinary generator makes a client from it that works.
//!
//! Both are Python programs that scripts/test installs; without them these tests say that they are skipped.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stream_manager_tests::program::{Server, finish, run, tool};

#[test]
fn schemathesis_finds_nothing() {
    let Some(schemathesis) = tool("schemathesis") else { return };
    let folder = tempfile::tempdir().unwrap();
    // Users are made and taken away, but whoever calls stays who they are.
    let config = "[defaults]\nstart_timeout = \"1s\"\n[[streams]]\nid = \"of-the-file\"\nsource_url = \"publisher\"\n\
         [[auth.anonymous]]\nactions = [\"admin\"]\n";
    let server = Server::start(folder.path(), Some(config));
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis.toml");
    // The same values each time, so that what it says is about the change at hand; others by hand: SCHEMATHESIS_SEED=$RANDOM.
    let seed = std::env::var("SCHEMATHESIS_SEED").unwrap_or_else(|_| "1".into());
    let mut command = Command::new(schemathesis);
    command.arg("--config-file").arg(settings).args(["run", &server.url("/api/openapi.json")]);
    command
        .args(["--max-examples", "20", "--request-timeout", "30", "--no-color", "--seed", &seed])
        .current_dir(folder.path());
    let output = finish(command, Duration::from_secs(600));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Selected: 89/95"), "fewer operations than there are were called: {said}");
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

/// What a program does with a client that was made from the description.
const PROGRAM: &str = r#"
import sys
from stream_manager_client import Client
from stream_manager_client.api.streams import create_stream, list_streams, patch_stream, get_stream, delete_stream
from stream_manager_client.api.system import get_system
from stream_manager_client.models import StreamConfig, StreamPatch, StreamState
client = Client(base_url=sys.argv[1])
made = create_stream.sync(client=client, body=StreamConfig(id="yard/door", source_url="publisher"))
assert made.id == "yard/door" and made.state == StreamState.IDLE, made
page = list_streams.sync(client=client, limit=10)
assert [stream.id for stream in page.items] == ["yard/door"], page
changed = patch_stream.sync("yard/door", client=client, body=StreamPatch(enabled=False))
assert changed.enabled is False and changed.revision > made.revision, changed
refused = create_stream.sync_detailed(client=client, body=StreamConfig(id="yard/door", source_url="publisher"))
assert refused.status_code == 409, refused
assert delete_stream.sync_detailed("yard/door", client=client).status_code == 204
assert get_stream.sync_detailed("yard/door", client=client).status_code == 404
assert "http" in get_system.sync(client=client).features
print("done")
"#;

#[test]
fn a_generated_client_works() {
    let Some(generator) = tool("openapi-python-client") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (code, description) = run(&["openapi"], folder.path());
    assert_eq!(code, 0);
    std::fs::write(folder.path().join("openapi.json"), &description).unwrap();
    // It has no words for videos of its own, and for pictures without an end.
    let bytes = "application/octet-stream";
    let types = json!({"video/mp4": bytes, "multipart/x-mixed-replace": bytes});
    let settings = json!({"post_hooks": [], "content_type_overrides": types}).to_string();
    std::fs::write(folder.path().join("generator.json"), settings).unwrap();
    let mut command = Command::new(&generator);
    command.args([
        "generate",
        "--path",
        "openapi.json",
        "--config",
        "generator.json",
        "--output-path",
        "client",
    ]);
    command.arg("--fail-on-warning").current_dir(folder.path()).stdin(Stdio::null());
    let output = finish(command, Duration::from_secs(120));
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let server = Server::start(folder.path(), None);
    // What is served is what is printed.
    let (_, served) = server.call("GET", "/api/openapi.json", None);
    assert_eq!(served, serde_json::from_str::<serde_json::Value>(&description).unwrap());
    let mut program = Command::new(generator.with_file_name("python"));
    program.args(["-c", PROGRAM, &server.url("")]).env("PYTHONPATH", folder.path().join("client"));
    let output = finish(program, Duration::from_secs(60));
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("done"), "{said}");
    server.stop();
}
