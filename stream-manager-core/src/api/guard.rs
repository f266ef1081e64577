//! What each call takes: looked up before anything of a request is read, and refused unless somebody may do it.
//!
//! [`need`] knows every path; one that it does not know takes everything (`admin`), so a new call without a rule is closed, not
//! open. Calls about streams find out themselves which one is meant, and ask with [`check`]: what is checked is what is done. Who it
//! is goes along with the request as a [`Grant`], by which lists leave out what somebody may not see. Whatever changes something is
//! written into the audit log with what came of it.

use super::ApiState;
use super::access::{Refused, authorize_for, peer};
use super::target::Target;
use crate::auth::{Action, AuditEntry, Grant, Subject};
use crate::frame::WallTime;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// What a call takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// What the handler asks itself.
    Handler,
    /// To do this with a stream.
    Stream(Action, String),
    /// To do this with some streams; the handler looks at which.
    Streams(Action),
    /// To do this with everything.
    Server(Action),
}

/// Whether a request changes nothing.
pub(super) fn looks(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What a request for a path takes. Streams and sessions are looked up by `stream_of`.
pub(super) fn need(method: &Method, path: &str, stream_of: impl Fn(Thing<'_>) -> Option<String>) -> Need {
    let looks = looks(method);
    let by_method = if looks { Action::ApiRead } else { Action::ApiWrite };
    match path {
        "/" | "/health/live" | "/health/ready" | "/api/openapi.json" | "/api/docs" => return Need::Nothing,
        // Each looks at who asks in its own way.
        "/api/setup" | "/api/login" | "/api/logout" | "/api/me" => return Need::Handler,
        "/metrics" => return Need::Server(Action::Metrics),
        "/api/streams" | "/api/streams:batch" | "/api/sessions" => return Need::Streams(by_method),
        "/api/events" | "/api/config/schema" => return Need::Streams(Action::ApiRead),
        "/api/exports" | "/api/marks" | "/api/objects" | "/api/counts" | "/api/heat" => {
            return Need::Streams(Action::Playback);
        }
        "/api/storage" | "/api/system" | "/api/infer" => return Need::Server(Action::ApiRead),
        "/api/probe" | "/api/discover" => return Need::Server(Action::ApiWrite),
        _ => {}
    }
    // What is built in, and says nothing.
    if path.starts_with("/page/") && looks {
        return Need::Nothing;
    }
    if path.starts_with("/api/streams/") || path.starts_with("/health/streams/") {
        return Need::Handler;
    }
    if path == "/api/models" || path.starts_with("/api/models/") {
        return if looks { Need::Streams(Action::ApiRead) } else { Need::Server(Action::ApiWrite) };
    }
    // The handler looks which stream's it is.
    if path.starts_with("/api/objects/") {
        return Need::Streams(if looks { Action::Playback } else { Action::Record });
    }
    // One that is not there is looked for by whoever may see some.
    if let Some(number) = path.strip_prefix("/api/sessions/") {
        let stream = stream_of(Thing::Session(number));
        return stream.map_or(Need::Streams(by_method), |stream| Need::Stream(by_method, stream));
    }
    if let Some(rest) = path.strip_prefix("/api/exports/") {
        let name = rest.strip_suffix("/file").unwrap_or(rest);
        let stream = stream_of(Thing::Export(name));
        return stream
            .map_or(Need::Streams(Action::Playback), |stream| Need::Stream(Action::Playback, stream));
    }
    Need::Server(Action::Admin)
}

/// What belongs to a stream.
#[derive(Clone, Copy)]
pub(super) enum Thing<'a> {
    Session(&'a str),
    Export(&'a str),
}

fn stream_of(state: &ApiState, thing: Thing<'_>) -> Option<String> {
    match thing {
        Thing::Session(number) => {
            state.manager.sessions().get(number.parse().ok()?).map(|session| session.stream.to_string())
        }
        Thing::Export(name) => state.manager.export(name).map(|export| export.stream),
    }
}

impl Target<'_> {
    /// What a request for it takes; none if its handler asks by itself, since it depends on more.
    pub(super) fn need(&self, method: &Method) -> Option<(Action, &str)> {
        let looks = looks(method);
        let by_method = if looks { Action::ApiRead } else { Action::ApiWrite };
        Some(match self {
            Self::Stream(id) | Self::Stats(id) | Self::Sessions(id) | Self::Inference(id) => (by_method, id),
            Self::Enable(id, _) | Self::Restart(id) | Self::Analyse(id, _) => (Action::ApiWrite, id),
            Self::Protect(id, _) | Self::Recording(id, _) | Self::Trigger(id) | Self::Mark(id, _) => {
                (Action::Record, id)
            }
            Self::Recordings(id) => (if looks { Action::Playback } else { Action::ApiWrite }, id),
            Self::Marks(id) => (if looks { Action::Playback } else { Action::Record }, id),
            Self::Timeline(id) | Self::Exports(id) => (Action::Playback, id),
            // What is signed for is looked at by the handler; here, whether somebody may have anything of the stream.
            Self::Sign(id) => (Action::ApiRead, id),
            Self::Live(_)
            | Self::Playback(_)
            | Self::Playlist(_)
            | Self::Snapshot(_)
            | Self::Thumbnails(_)
            | Self::Mjpeg(_)
            | Self::Detections(_) => {
                return None;
            }
        })
    }
}

/// Asks for what a call needs.
pub(super) async fn check(state: &ApiState, request: &Parts, need: &Need) -> Result<Option<Grant>, Refused> {
    let (action, subject) = match need {
        Need::Nothing | Need::Handler => return Ok(None),
        Need::Stream(action, stream) => (*action, Subject::Stream(stream)),
        Need::Streams(action) => (*action, Subject::Streams),
        Need::Server(action) => (*action, Subject::Server),
    };
    authorize_for(state, request, subject, action, "http").await.map(Some)
}

/// Lets requests through that may be.
pub(super) async fn layer(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let need = need(&parts.method, parts.uri.path(), |thing| stream_of(&state, thing));
    let mut user = None;
    match check(&state, &parts, &need).await {
        Ok(Some(grant)) => {
            user.clone_from(&grant.user);
            parts.extensions.insert(grant);
        }
        Ok(None) => {}
        Err(refused) => return refused.into_response(),
    }
    let changes = !parts.method.is_safe() && need != Need::Nothing;
    let entry = changes.then(|| AuditEntry {
        number: 0,
        time: WallTime::now(),
        user,
        address: peer(&parts).ip().to_canonical().to_string(),
        action: parts.method.to_string(),
        target: parts.uri.path().chars().take(300).collect(),
        status: 0,
        detail: None,
    });
    let response = next.run(Request::from_parts(parts, body)).await;
    if let Some(mut entry) = entry {
        entry.status = response.status().as_u16();
        if let Some(asked) = response.extensions().get::<AskedBy>() {
            entry.user.clone_from(&asked.0);
        }
        // Whom nobody knows fills no log: that is what the limits on attempts are for.
        if entry.status != 401 && entry.status != 429 {
            audit(&state, entry).await;
        }
    }
    response
}

/// Who a handler has found out asks; goes along with its answer.
#[derive(Clone)]
pub(super) struct AskedBy(pub(super) Option<String>);

/// Writes an entry into the audit log, before the answer goes out.
pub(super) async fn audit(state: &ApiState, entry: AuditEntry) {
    tracing::info!(
        user = entry.user,
        peer = entry.address,
        status = entry.status,
        "{} {}",
        entry.action,
        entry.target
    );
    let Some(accounts) = state.options.users.as_ref().and_then(|users| users.accounts().cloned()) else {
        return;
    };
    let written = tokio::task::spawn_blocking(move || accounts.audit(&entry)).await;
    if let Ok(Err(error)) = written {
        tracing::error!(%error, "a change could not be written into the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::super::openapi;
    use super::*;

    fn rule(method: &str, path: &str) -> Need {
        let stream_of = |thing: Thing<'_>| match thing {
            Thing::Session("7") => Some("door".to_owned()),
            Thing::Export("clip") => Some("door".to_owned()),
            _ => None,
        };
        need(&method.parse().unwrap(), path, stream_of)
    }

    /// Calls that only somebody who may do everything may make. Whatever else has no rule of its own is a mistake.
    const ADMIN: &[&str] = &[
        "/api/config",
        "/api/config/reload",
        "/api/config/status",
        "/api/logs",
        "/api/hooks",
        "/api/hooks/{name}/test",
        "/api/users",
        "/api/users/{name}",
        "/api/tokens",
        "/api/tokens/{id}",
        "/api/audit",
        "/api/backups",
        "/api/backups/{name}",
        "/api/backups/{name}/file",
    ];

    #[test]
    fn every_call_has_a_rule() {
        let mut checked = 0;
        for (method, path) in openapi::calls() {
            checked += 1;
            if let Some(rest) = path.strip_prefix("/api/streams/") {
                let rest = rest.replace("{id}", "door").replace("{number}", "7");
                assert_eq!(rule(method, path), Need::Handler);
                let target = Target::by_end(&rest);
                if let Some((_, stream)) = target.need(&method.to_uppercase().parse().unwrap()) {
                    assert_eq!(stream, "door", "{method} {path}");
                }
                continue;
            }
            if !path.starts_with("/api/") && path != "/metrics" && !path.starts_with("/health") {
                // Players' addresses and WebRTC's ask by themselves.
                continue;
            }
            let need = rule(&method.to_uppercase(), path);
            assert_eq!(
                need == Need::Server(Action::Admin),
                ADMIN.contains(&path),
                "{method} {path}: {need:?}"
            );
        }
        assert!(checked > 60, "{checked}");
    }

    #[test]
    fn what_is_not_known_is_closed() {
        for path in [
            "/page",
            "/api",
            "/api/",
            "/api/new",
            "/api/%73ystem",
            "/api/streams%2Fdoor",
            "/metrics/",
            "/api/users/x",
        ] {
            for method in ["GET", "POST", "DELETE", "PATCH", "PUT"] {
                assert_eq!(rule(method, path), Need::Server(Action::Admin), "{method} {path}");
            }
        }
        assert_eq!(rule("DELETE", "/api/sessions/7"), Need::Stream(Action::ApiWrite, "door".into()));
        assert_eq!(rule("GET", "/api/sessions/8"), Need::Streams(Action::ApiRead));
        assert_eq!(rule("GET", "/api/exports/clip/file"), Need::Stream(Action::Playback, "door".into()));
    }

    #[test]
    fn what_calls_about_streams_take() {
        let of = |method: &str, path: &str| {
            Target::by_end(path).need(&method.parse().unwrap()).map(|(action, id)| (action, id.to_owned()))
        };
        let some = |action, id: &str| Some((action, id.to_owned()));
        assert_eq!(of("GET", "yard/door"), some(Action::ApiRead, "yard/door"));
        assert_eq!(of("DELETE", "yard/door"), some(Action::ApiWrite, "yard/door"));
        assert_eq!(of("POST", "yard/door/recording/stop"), some(Action::Record, "yard/door"));
        assert_eq!(of("GET", "a/recordings"), some(Action::Playback, "a"));
        assert_eq!(of("DELETE", "a/recordings"), some(Action::ApiWrite, "a"));
        assert_eq!(of("POST", "a/exports"), some(Action::Playback, "a"));
        assert_eq!(of("DELETE", "a/sessions"), some(Action::ApiWrite, "a"));
        assert_eq!(of("GET", "a/snapshot.jpg"), None);
    }
}
