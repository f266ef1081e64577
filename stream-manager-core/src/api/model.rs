//! A random sequence of calls, with restarts in between, against a model that is a map.

use super::*;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tower::ServiceExt;

#[derive(Clone, Debug)]
enum Call {
    Create(String, Value),
    Put(String, Value),
    Patch(String, Value),
    Delete(String),
    Enable(String, bool),
    /// All or none, or each for itself.
    Batch(bool, Vec<Call>),
    Restart,
}

fn id() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c/d", "e"]).prop_map(str::to_owned)
}

/// Some of the keys, right and wrong.
fn keys() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            json!({"transport": "udp"}),
            json!({"enabled": false}),
            json!({"enabled": true}),
            json!({"recording": {"segment_duration": "10s"}}),
            json!({"recording": {"retention": {"max_size": "1GiB"}}}),
        ]),
        1 => prop::sample::select(vec![
            json!({"transport": "pigeon"}),
            json!({"colour": "red"}),
            json!({"recording": {"segment_duration": "1ms"}}),
        ]),
    ];
    prop::collection::vec(key, 0..3).prop_map(|parts| {
        let mut all = json!({});
        parts.iter().for_each(|part| merge(&mut all, part));
        all
    })
}

/// As keys, and some that take others out.
fn patch() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => keys(),
        1 => prop::sample::select(vec![
            json!({"transport": null}),
            json!({"recording": null}),
            json!({"recording": {"retention": null}}),
            json!({"source_url": null}),
        ]),
    ]
}

fn one() -> impl Strategy<Value = Call> {
    prop_oneof![
        (id(), keys()).prop_map(|(id, keys)| Call::Create(id, keys)),
        (id(), keys()).prop_map(|(id, keys)| Call::Put(id, keys)),
        (id(), patch()).prop_map(|(id, patch)| Call::Patch(id, patch)),
        id().prop_map(Call::Delete),
        (id(), any::<bool>()).prop_map(|(id, on)| Call::Enable(id, on)),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => one(),
        2 => (any::<bool>(), prop::collection::vec(one(), 0..5)).prop_map(|(atomic, all)| Call::Batch(atomic, all)),
        1 => Just(Call::Restart),
    ]
}

/// Written down once more, as simply as can be: objects key by key, null takes out.
fn merge(target: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            Value::Object(_) if target[key].is_object() => merge(&mut target[key], value),
            Value::Object(_) => {
                target[key] = json!({});
                merge(&mut target[key], value);
            }
            value => target[key] = value.clone(),
        }
    }
}

/// What is said of each stream, without what says nothing.
type Model = BTreeMap<String, Value>;

fn with(id: &str, keys: &Value) -> Value {
    let mut config = json!({"id": id, "source_url": "publisher"});
    merge(&mut config, keys);
    config
}

fn is_right(config: &Value) -> bool {
    config.get("colour").is_none()
        && config["transport"] != "pigeon"
        && config["recording"]["segment_duration"] != "1ms"
        && config["source_url"].is_string()
}

/// Takes out objects with nothing in them: they say nothing.
fn clean(value: &mut Value) {
    if let Value::Object(object) = value {
        object.values_mut().for_each(clean);
        object.retain(|_, value| value.as_object().is_none_or(|o| !o.is_empty()));
    }
}

/// What the call does to the model; the status that it is answered.
fn apply(model: &mut Model, call: &Call) -> u16 {
    match call {
        Call::Create(id, _) if model.contains_key(id) && is_right(&with(id, &json!({}))) => match call {
            // What is wrong in itself is told before anything else.
            Call::Create(_, keys) if keys.get("colour").is_some() || keys["transport"] == "pigeon" => 422,
            _ => 409,
        },
        Call::Create(id, keys) | Call::Put(id, keys) => {
            let config = with(id, keys);
            if !is_right(&config) {
                return 422;
            }
            let new = model.insert(id.clone(), config).is_none();
            if new { 201 } else { 200 }
        }
        Call::Patch(id, patch) => {
            let Some(config) = model.get(id) else { return 404 };
            let mut config = config.clone();
            merge(&mut config, patch);
            if !is_right(&config) {
                return 422;
            }
            model.insert(id.clone(), config);
            200
        }
        Call::Delete(id) => model.remove(id).map_or(404, |_| 204),
        Call::Enable(id, on) => match model.get_mut(id) {
            None => 404,
            Some(config) => {
                // Being so already it is left as it is.
                if config["enabled"].as_bool().unwrap_or(true) != *on {
                    config["enabled"] = json!(on);
                } else if config["enabled"].is_null() {
                    config.as_object_mut().unwrap().remove("enabled");
                }
                200
            }
        },
        Call::Batch(atomic, calls) => {
            let before = model.clone();
            let failed = calls.iter().filter(|call| apply(model, call) >= 400).count() > 0;
            if *atomic && failed {
                *model = before;
                return 422;
            }
            200
        }
        Call::Restart => 0,
    }
}

fn operation(call: &Call) -> Value {
    match call {
        Call::Create(id, keys) => json!({"op": "create", "stream": with(id, keys)}),
        Call::Put(id, keys) => json!({"op": "put", "id": id, "stream": with(id, keys)}),
        Call::Patch(id, patch) => json!({"op": "patch", "id": id, "patch": patch}),
        Call::Delete(id) => json!({"op": "delete", "id": id}),
        Call::Enable(id, true) => json!({"op": "enable", "id": id}),
        Call::Enable(id, false) => json!({"op": "disable", "id": id}),
        Call::Batch(..) | Call::Restart => unreachable!(),
    }
}

async fn send(app: &Router, call: &Call) -> u16 {
    let (method, path, body) = match call {
        Call::Create(id, keys) => ("POST", "/api/streams".to_owned(), with(id, keys)),
        Call::Put(id, keys) => ("PUT", format!("/api/streams/{id}"), with(id, keys)),
        Call::Patch(id, patch) => ("PATCH", format!("/api/streams/{id}"), patch.clone()),
        Call::Delete(id) => ("DELETE", format!("/api/streams/{id}"), Value::Null),
        Call::Enable(id, on) => {
            let action = if *on { "enable" } else { "disable" };
            ("POST", format!("/api/streams/{id}/{action}"), Value::Null)
        }
        Call::Batch(atomic, calls) => {
            let operations: Vec<Value> = calls.iter().map(operation).collect();
            let body = json!({"atomic": atomic, "operations": operations});
            ("POST", "/api/streams:batch".to_owned(), body)
        }
        Call::Restart => unreachable!(),
    };
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).body(body).unwrap();
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

async fn state(app: &Router) -> Model {
    let request = Request::get("/api/streams?limit=1000").body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let page: Value =
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 22).await.unwrap()).unwrap();
    let item = |s: &Value| {
        let config = s["config"].clone();
        // What runs is what is said.
        let enabled = config["enabled"].as_bool().unwrap_or(true);
        assert_eq!((s["enabled"] == true, s["state"] != "stopped"), (enabled, enabled), "{s}");
        (s["id"].as_str().unwrap().to_owned(), config)
    };
    page["items"].as_array().unwrap().iter().map(item).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn calls_and_restarts_do_what_the_model_does(calls in prop::collection::vec(call(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
            let mut app = router(manager.clone(), ApiOptions::default());
            let mut model = Model::new();
            for call in &calls {
                if let Call::Restart = call {
                    manager.shutdown().await;
                    manager = StreamManager::builder().data_dir(folder.path()).build().await.unwrap();
                    app = router(manager.clone(), ApiOptions::default());
                } else {
                    let expected = apply(&mut model, call);
                    assert_eq!(send(&app, call).await, expected, "{call:?}");
                }
                let mut wanted = model.clone();
                wanted.values_mut().for_each(clean);
                assert_eq!(state(&app).await, wanted, "after {call:?}");
            }
            manager.shutdown().await;
        });
    }
}

/// Text that is nearly JSON.
fn nearly_json() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "null",
        "true",
        "-1",
        "1e400",
        r#""""#,
        r#""a""#,
        r#""publisher""#,
        "[]",
        "{}",
        "[{}]",
        r#""\u0000""#,
        r#"{"op":"put"}"#,
    ]);
    let key = prop::sample::select(vec![
        "id",
        "source_url",
        "enabled",
        "recording",
        "retention",
        "operations",
        "op",
        "stream",
        "patch",
        "atomic",
        "defaults",
        "hooks",
        "webhooks",
        "storage",
        "",
    ]);
    let object = prop::collection::vec((key, value), 0..4).prop_map(|pairs| {
        let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", pairs.join(","))
    });
    prop_oneof![4 => object, 1 => "\\PC{0,40}", 1 => "[\\[\\]{}\":,0-9a-z]{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_is_answered(bodies in prop::collection::vec((nearly_json(), 0usize..6), 1..20)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let manager = StreamManager::builder().build().await.unwrap();
            let app = router(manager.clone(), ApiOptions::default());
            for (body, target) in bodies {
                let (method, path) = [
                    ("POST", "/api/streams"),
                    ("PUT", "/api/streams/x"),
                    ("PATCH", "/api/streams/x"),
                    ("POST", "/api/streams:batch"),
                    ("PATCH", "/api/config"),
                    ("POST", "/api/streams?dry_run=true"),
                ][target];
                let request = Request::builder().method(method).uri(path).body(Body::from(body.clone())).unwrap();
                let status = app.clone().oneshot(request).await.unwrap().status().as_u16();
                assert!(status < 500, "{method} {path} {body}: {status}");
            }
            manager.shutdown().await;
        });
    }
}
