//! The routes, called in process.

use super::*;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn app() -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
    (router(manager, ApiOptions::default()), folder)
}

async fn call(app: &Router, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_stream_s_life() {
    let (app, _folder) = app().await;
    let body = json!({"id": "yard/door", "source_url": "rtsp://u:geheim@127.0.0.1:1/x"}).to_string();
    let (status, made) = call(&app, "POST", "/api/streams", &body).await;
    assert_eq!((status, &made["id"]), (201, &json!("yard/door")));
    assert_eq!(made["source_url"], "rtsp://u:***@127.0.0.1:1/x");
    let (status, problem) = call(&app, "POST", "/api/streams", &body).await;
    assert_eq!((status, &problem["code"]), (409, &json!("stream_exists")));
    for path in ["/api/streams/yard/door", "/api/streams/yard%2Fdoor"] {
        assert_eq!(call(&app, "GET", path, "").await.1["id"], "yard/door");
    }
    let (status, problem) = call(&app, "POST", "/api/streams/yard/door/recording/pause", "").await;
    assert_eq!((status, &problem["code"]), (409, &json!("recording_state")));
    let (status, recording) = call(&app, "POST", "/api/streams/yard/door/recording/start", "").await;
    assert_eq!((status, &recording["state"]), (200, &json!("recording")));
    assert_eq!(call(&app, "POST", "/api/streams/yard/door/recording/start", "").await.0, 200);
    assert_eq!(call(&app, "POST", "/api/streams/yard/door/recording/pause", "").await.1["state"], "paused");
    assert_eq!(
        call(&app, "POST", "/api/streams/yard/door/recording/resume", "").await.1["state"],
        "recording"
    );
    assert_eq!(call(&app, "POST", "/api/streams/yard/door/recording/split", "").await.0, 200);
    assert_eq!(call(&app, "POST", "/api/streams/yard/door/recording/stop", "").await.1["state"], "off");
    assert_eq!(call(&app, "DELETE", "/api/streams/yard/door", "").await.0, 204);
    assert_eq!(call(&app, "DELETE", "/api/streams/yard/door", "").await.0, 404);
}

#[tokio::test]
async fn backups_lie_with_the_data() {
    let (app, folder) = app().await;
    let (status, begun) = call(&app, "POST", "/api/backups", r#"{"include": ["state"]}"#).await;
    assert_eq!(status, 202, "{begun}");
    let path = format!("/api/backups/{}", begun["id"].as_str().unwrap());
    let done = async {
        while call(&app, "GET", &path, "").await.1["state"] == "running" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), done).await.unwrap();
    assert!(folder.path().join("backups").join(begun["file"].as_str().unwrap()).is_file());
}

#[tokio::test]
async fn lists_are_paged() {
    let (app, _folder) = app().await;
    for n in 0..5 {
        let body = json!({"id": format!("c{n}"), "source_url": "rtsp://127.0.0.1:1/x"}).to_string();
        assert_eq!(call(&app, "POST", "/api/streams", &body).await.0, 201);
    }
    let (_, page) = call(&app, "GET", "/api/streams?limit=2", "").await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &json!("c1")));
    let (_, page) = call(&app, "GET", "/api/streams?limit=9&after=c1", "").await;
    assert_eq!((page["items"][0]["id"].clone(), &page["next"]), (json!("c2"), &Value::Null));
    assert_eq!(call(&app, "GET", "/api/streams?limit=0", "").await.0, 400);
    assert_eq!(call(&app, "GET", "/api/streams?colour=red", "").await.0, 400);
}

#[tokio::test]
async fn mistakes_are_answered_with_what_would_be_right() {
    let (app, _folder) = app().await;
    let cases = [
        ("{", 400, "malformed_json", ""),
        ("[]", 422, "invalid_body", ""),
        ("{} {}", 400, "malformed_json", ""),
        (r#"{"id": "a"}"#, 422, "invalid_body", "source_url"),
        (r#"{"id": 5, "source_url": "test://smpte"}"#, 422, "invalid_body", "expected a string"),
        (
            r#"{"id": "a", "source_url": "test://smpte", "recroding": {}}"#,
            422,
            "invalid_body",
            "did you mean \"recording\"",
        ),
        (r#"{"id": "../a", "source_url": "test://smpte"}"#, 422, "invalid_stream", "part"),
        (r#"{"id": "a", "source_url": "gopher://x"}"#, 422, "invalid_stream", "unknown scheme"),
        (
            r#"{"id": "a", "source_url": "gst:filesrc location=/etc/passwd"}"#,
            422,
            "invalid_stream",
            "only be configured in the file",
        ),
        (
            r#"{"id": "a", "source_url": "test://smpte", "recording": {"part_duration": "1h"}}"#,
            422,
            "invalid_stream",
            "part_duration",
        ),
        (
            r#"{"id": "a", "source_url": "test://smpte", "recording": {"format": "avi"}}"#,
            422,
            "invalid_body",
            "\"avi\" is not possible",
        ),
    ];
    for (body, status, code, text) in cases {
        let (got, problem) = call(&app, "POST", "/api/streams", body).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{body} {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(text), "{body} {problem}");
        assert_eq!(problem["status"], status);
    }
    assert_eq!(call(&app, "GET", "/api/streams", "").await.1["items"], json!([]));
    assert_eq!(call(&app, "GET", "/api/streams/none", "").await.1["code"], "stream_not_found");
    assert_eq!(call(&app, "GET", "/api/nothing", "").await.1["code"], "no_such_path");
    assert_eq!(call(&app, "PUT", "/api/streams", "").await.1["code"], "method_not_allowed");
    assert_eq!(call(&app, "POST", "/api/streams/x/recording/dance", "").await.0, 405);
    let big = format!(r#"{{"id": "{}"}}"#, "x".repeat(2 << 20));
    assert_eq!(call(&app, "POST", "/api/streams", &big).await.0, 413);
    let request =
        Request::post("/api/streams").header("content-type", "text/xml").body(Body::from("<a/>")).unwrap();
    assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 415);
}

#[tokio::test]
async fn health() {
    let (app, _folder) = app().await;
    assert_eq!(call(&app, "GET", "/health/live", "").await, (200, json!({"status": "ok"})));
    assert_eq!(call(&app, "GET", "/health/ready", "").await.0, 200);
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    use crate::session::{NewSession, SessionKind, SessionStats};
    let folder = tempfile::tempdir().unwrap();
    let manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
    let app = router(manager.clone(), ApiOptions::default());
    let body = json!({"id": "yard/door", "source_url": "publisher"}).to_string();
    let (status, stream) = call(&app, "POST", "/api/streams", &body).await;
    assert_eq!((status, &stream["source_url"]), (201, &json!("publisher")));
    let open = |stream: &str| {
        let new = NewSession {
            protocol: "rtsp",
            kind: SessionKind::Reader,
            stream: stream.into(),
            address: "192.0.2.1:9".parse().unwrap(),
            user: Some("u".into()),
            user_agent: None,
            transport: "tcp",
        };
        manager.sessions().open(new, Arc::new(|| SessionStats { bytes: 7, ..Default::default() }))
    };
    let (first, _second) = (open("yard/door"), open("other"));
    let (status, list) = call(&app, "GET", "/api/streams/yard/door/sessions", "").await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!(list["items"][0]["address"], "192.0.2.1:9");
    assert_eq!((&list["items"][0]["bytes"], &list["items"][0]["user"]), (&json!(7), &json!("u")));
    let (_, page) = call(&app, "GET", "/api/sessions?limit=1", "").await;
    assert_eq!(page["next"], first.id().to_string());
    let (_, page) = call(&app, "GET", &format!("/api/sessions?limit=1&after={}", first.id()), "").await;
    assert_eq!((page["items"][0]["stream"].clone(), &page["next"]), (json!("other"), &Value::Null));
    assert_eq!(call(&app, "DELETE", &format!("/api/sessions/{}", first.id()), "").await.0, 204);
    first.kicked().await;
    drop(first);
    for (method, path, code) in [
        ("GET", "/api/sessions/1", "session_not_found"),
        ("DELETE", "/api/sessions/x", "session_not_found"),
        ("GET", "/api/sessions?limit=0", "invalid_query"),
        ("GET", "/api/streams/yard/door/sessions?colour=red", "invalid_query"),
        ("GET", "/api/streams/none/sessions", "stream_not_found"),
    ] {
        assert_eq!(call(&app, method, path, "").await.1["code"], code, "{path}");
    }
    let (_, ended) = call(&app, "DELETE", "/api/streams/yard/door/sessions", "").await;
    assert_eq!(ended, json!({"ended": 0}));
}

#[tokio::test]
async fn patterns_are_streams_that_do_not_run() {
    let (app, _folder) = app().await;
    let body = json!({"id": "cam/*", "source_url": "publisher"}).to_string();
    let (status, made) = call(&app, "POST", "/api/streams", &body).await;
    assert_eq!((status, &made["state"]), (201, &json!("idle")));
    let (status, problem) = call(&app, "POST", "/api/streams/cam/*/recording/start", "").await;
    assert_eq!((status, &problem["code"]), (409, &json!("stream_is_pattern")));
    let (_, off) = call(&app, "POST", "/api/streams/cam/*/disable", "").await;
    assert_eq!((&off["state"], &off["enabled"]), (&json!("stopped"), &json!(false)));
    let wrong = json!({"id": "x/*", "source_url": "rtsp://127.0.0.1:1/x"}).to_string();
    assert_eq!(call(&app, "POST", "/api/streams", &wrong).await.0, 422);
}

#[tokio::test]
async fn changes_are_made_under_conditions() {
    let (app, _folder) = app().await;
    let send = async |method: &str, path: &str, header: Option<(&str, &str)>, body: Value| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let tag = response.headers().get("etag").map(|t| t.to_str().unwrap().to_owned());
        let replayed = response.headers().contains_key("idempotency-replayed");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, tag, serde_json::from_slice(&body).unwrap_or(Value::Null), replayed)
    };
    let config = json!({"source_url": "rtsp://u:geheim@127.0.0.1:1/x"});
    // PUT makes it once, and then changes nothing.
    let (status, tag, ..) = send("PUT", "/api/streams/a", Some(("if-none-match", "*")), config.clone()).await;
    assert_eq!(status, 201);
    let tag = tag.unwrap();
    let (status, _, problem, _) =
        send("PUT", "/api/streams/a", Some(("if-none-match", "*")), config.clone()).await;
    assert_eq!((status, &problem["code"]), (412, &json!("precondition_failed")));
    let (status, same, ..) = send("PUT", "/api/streams/a", None, config).await;
    assert_eq!((status, same.as_deref()), (200, Some(tag.as_str())));
    // What was shown can be sent back: the password stays.
    let (_, _, shown, _) = send("GET", "/api/streams/a", None, Value::Null).await;
    assert_eq!(shown["config"]["source_url"], "rtsp://u:***@127.0.0.1:1/x");
    let (status, same, ..) = send("PUT", "/api/streams/a", None, shown["config"].clone()).await;
    assert_eq!((status, same.as_deref()), (200, Some(tag.as_str())));
    // A patch, once, for who has the current tag.
    let patch = json!({"enabled": false, "transport": "udp"});
    let (status, new, body, _) =
        send("PATCH", "/api/streams/a", Some(("if-match", &tag)), patch.clone()).await;
    assert_eq!((status, &body["enabled"], &body["state"]), (200, &json!(false), &json!("stopped")));
    assert_ne!(new.as_deref(), Some(tag.as_str()));
    assert_eq!(send("PATCH", "/api/streams/a", Some(("if-match", &tag)), patch).await.0, 412);
    let undo = json!({"transport": null});
    let (_, _, body, _) = send("PATCH", "/api/streams/a", Some(("if-match", "*")), undo).await;
    assert_eq!(body["config"].get("transport"), None);
    for (path, body, pointer) in [
        ("/api/streams/a", json!({"id": "b"}), "/id"),
        ("/api/streams/a", json!({"recording": {"format": "avi"}}), "/recording/format"),
        ("/api/streams/a", json!({"source_url": "gst:videotestsrc"}), "/source_url"),
        ("/api/streams/a", json!({"recording": {"directory": "none"}}), "/recording/directory"),
    ] {
        let (status, _, problem, _) = send("PATCH", path, None, body).await;
        assert_eq!((status, &problem["pointer"]), (422, &json!(pointer)), "{problem}");
    }
    // A dry run says what would be, and does nothing.
    let (status, _, dry, _) = send("DELETE", "/api/streams/a?dry_run=true", None, Value::Null).await;
    assert_eq!((status, &dry["done"]), (200, &json!("deleted")));
    assert_eq!(send("GET", "/api/streams/a", None, Value::Null).await.0, 200);
    // The same key, the same answer; another request with it is refused.
    let key = Some(("idempotency-key", "one"));
    let body = json!({"id": "k", "source_url": "publisher"});
    let (first, tag, made, replayed) = send("POST", "/api/streams", key, body.clone()).await;
    assert!(first == 201 && tag.is_some() && !replayed);
    let (again, _, same, replayed) = send("POST", "/api/streams", key, body.clone()).await;
    assert_eq!((again, &same, replayed), (201, &made, true));
    let (status, _, problem, _) =
        send("POST", "/api/streams", key, json!({"id": "l", "source_url": "publisher"})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    let (status, ..) = send("POST", "/api/streams", None, body).await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn many_changes_at_once() {
    let (app, _folder) = app().await;
    let batch =
        |atomic: bool, operations: Value| json!({"atomic": atomic, "operations": operations}).to_string();
    let stream = |id: &str| json!({"op": "create", "stream": {"id": id, "source_url": "publisher"}});
    let body = batch(false, json!([stream("a"), stream("b"), stream("a"), {"op": "delete", "id": "none"}]));
    let (status, result) = call(&app, "POST", "/api/streams:batch", &body).await;
    assert_eq!(
        (status, &result["applied"], &result["succeeded"]),
        (200, &json!(true), &json!(2)),
        "{result}"
    );
    let codes: Vec<&Value> = result["results"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(codes, [201, 201, 409, 404]);
    // All or none: the second one cannot be, so the first one is not either.
    let body = batch(
        true,
        json!([{"op": "delete", "id": "a"}, {"op": "patch", "id": "b", "patch": {"enabled": 5}}]),
    );
    let (status, result) = call(&app, "POST", "/api/streams:batch", &body).await;
    assert_eq!((status, &result["applied"]), (422, &json!(false)));
    assert_eq!(result["results"][1]["error"]["pointer"], "/enabled");
    assert_eq!(call(&app, "GET", "/api/streams/a", "").await.0, 200);
    let body = batch(true, json!([{"op": "disable", "id": "a"}, {"op": "delete", "id": "b"}, stream("c")]));
    let (status, result) = call(&app, "POST", "/api/streams:batch", &body).await;
    assert_eq!((status, &result["failed"]), (200, &json!(0)), "{result}");
    let (_, page) = call(&app, "GET", "/api/streams?enabled=false", "").await;
    assert_eq!((page["total"].clone(), &page["items"][0]["id"]), (json!(1), &json!("a")));
    let (_, page) = call(&app, "GET", "/api/streams?sort=-id&limit=1", "").await;
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&json!("c"), &json!("c")));
    let (_, page) = call(&app, "GET", "/api/streams?sort=-id&limit=1&after=c", "").await;
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&json!("a"), &Value::Null));
    // What is no operation at all is no batch, whatever else is in it.
    for body in [
        r#"{"operations": [{"op": "explode", "id": "a"}]}"#,
        r#"{"operations": [{"op": "put", "id": "a", "stream": null}]}"#,
        r#"{"operations": [{"op": "create", "stream": [1]}]}"#,
        r#"{"operations": [{"op": "patch", "id": "a", "patch": "enabled"}]}"#,
        r#"{"atomic": true}"#,
        r#"{"operations": {}}"#,
    ] {
        assert_eq!(call(&app, "POST", "/api/streams:batch", body).await.0, 422, "{body}");
    }
}

/// Every operation that is described exists, and knows its method.
#[tokio::test]
async fn the_description_is_true() {
    let (app, _folder) = app().await;
    let (status, description) = call(&app, "GET", "/api/openapi.json", "").await;
    assert_eq!((status, &description["openapi"]), (200, &json!("3.1.0")));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            // Without an end, or with a look at the network.
            if path == "/api/events" {
                continue;
            }
            let called = path.replace("{id}", "none").replace("{name}", "none");
            let (status, answer) = call(&app, &method.to_uppercase(), &called, "").await;
            let code = answer["code"].as_str().unwrap_or_default();
            assert!(
                status != 405 && status < 500 && code != "no_such_path",
                "{method} {path}: {status} {answer}"
            );
        }
    }
    let request = Request::builder().uri("/api/docs").body(Body::empty()).unwrap();
    let page = app.oneshot(request).await.unwrap();
    let page = String::from_utf8(to_bytes(page.into_body(), 1 << 22).await.unwrap().to_vec()).unwrap();
    assert!(page.contains("/api/streams:batch") && !page.contains("<script") && !page.contains("http://"));
}

#[test]
fn every_kind_of_event_is_documented() {
    let doc = include_str!("../../../docs/API.md");
    for kind in crate::event::EventKind::NAMES {
        assert!(doc.contains(&format!("`{kind}`")), "docs/API.md lacks {kind}");
    }
}
