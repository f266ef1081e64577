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
        ("{} {}", 422, "invalid_body", ""),
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
    assert_eq!(call(&app, "POST", "/api/streams/x/recording/dance", "").await.0, 404);
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
    let body = json!({"id": "cam/*", "source_url": "publisher"}).to_string();
    assert_eq!(call(&app, "POST", "/api/streams", &body).await.0, 422);
}
