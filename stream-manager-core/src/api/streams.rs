//! `/api/streams`: make, change, list, look at, remove, and control recordings.

use super::access::Refused;
use super::batch;
use super::body::{self, Media};
use super::exports;
use super::guard::{self, AskedBy, Need};
use super::idempotency::Key;
use super::marks;
use super::ports::host_of;
use super::problem::Problem;
use super::query::{self, conditions};
use super::recordings::{self, RecordingsQuery};
use super::sessions;
use super::statistics;
use super::target::Target;
use super::view::{RecordingView, StreamView};
use super::{ApiState, json};
use crate::auth::{Action, Grant};
use crate::config::StreamConfig;
use crate::manager::{
    ChangeOptions, DeleteRecordings, Done, KeyedAnswer, ManagerError, Operation, Outcome, RecordingWish,
    StreamFilter, StreamInfo, StreamOrder,
};
use crate::session::SessionKind;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

type Shared = State<Arc<ApiState>>;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/streams", get(list).post(create))
        .route("/api/streams:batch", post(batch::run))
        // An id may contain slashes, so what follows it is told apart in the handler.
        .route("/api/streams/{*path}", any(by_path_of_somebody))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    sort: Option<String>,
    state: Option<String>,
    recording: Option<String>,
    origin: Option<String>,
    enabled: Option<bool>,
    search: Option<String>,
}

/// A page of streams.
#[derive(Serialize, JsonSchema)]
pub(super) struct StreamPage {
    items: Vec<StreamView>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
    /// How many streams pass the filter.
    total: usize,
}

impl ListQuery {
    fn filter(&self) -> Result<StreamFilter, Problem> {
        Ok(StreamFilter {
            states: query::values("state", self.state.as_deref())?,
            recordings: query::values("recording", self.recording.as_deref())?,
            origins: query::values("origin", self.origin.as_deref())?,
            enabled: self.enabled,
            search: self.search.clone().filter(|s| !s.is_empty()),
        })
    }

    fn order(&self) -> Result<(StreamOrder, bool), Problem> {
        let text = self.sort.as_deref().unwrap_or("id");
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let order = match name {
            "id" => StreamOrder::Id,
            "state" => StreamOrder::State,
            "created" => StreamOrder::Created,
            "changed" => StreamOrder::Changed,
            "bitrate" => StreamOrder::Bitrate,
            _ => {
                let shown: String = name.chars().take(40).collect();
                return Err(query::bad(format!(
                    "sort is \"{shown}\"; expected id, state, created, changed or bitrate, with a - in front for the \
                     other way round"
                )));
            }
        };
        Ok((order, descending))
    }
}

async fn list(
    State(state): Shared,
    Extension(grant): Extension<Grant>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query: ListQuery = query::parse(&uri)?;
    let host = host_of(&headers);
    // Who sees everything gets what others have got a moment ago.
    let sees_all = grant.may_all(Action::ApiRead);
    let key = format!("{} {}", host.unwrap_or_default(), uri.query().unwrap_or_default());
    if let Some(page) = state.lists.get(&state.manager, &key).filter(|_| sees_all) {
        return Ok(json_bytes(page));
    }
    let moment = state.lists.now(&state.manager);
    let limit = query::limit(query.limit)?;
    let (order, descending) = query.order()?;
    let mut infos = state.manager.infos(&query.filter()?, order, descending);
    infos.retain(|info| sees_all || grant.may(Action::ApiRead, Some(&info.id)));
    let after = query.after.as_deref().unwrap_or_default();
    let start = match after {
        "" => 0,
        after if order == StreamOrder::Id && !descending => infos.partition_point(|info| &*info.id <= after),
        after if order == StreamOrder::Id => infos.partition_point(|info| &*info.id >= after),
        after => infos.iter().position(|info| &*info.id == after).map(|at| at + 1).ok_or_else(|| {
            query::contradiction("after names a stream that is no longer in the list; begin again without it")
        })?,
    };
    let readers = readers(&state, None);
    let page = infos.get(start..).unwrap_or_default();
    let items: Vec<StreamView> = page
        .iter()
        .take(limit)
        .map(|info| StreamView::of(info, &state, host).with_readers(readers.get(&*info.id)))
        .collect();
    let next = if page.len() > limit { items.last().map(|s| s.id().to_owned()) } else { None };
    let text = serde_json::to_vec_pretty(&StreamPage { items, next, total: infos.len() })
        .map_err(|error| Problem::internal(&error))?;
    let text = Bytes::from(text);
    if sees_all {
        state.lists.put(key, moment, text.clone());
    }
    Ok(json_bytes(text))
}

fn json_bytes(text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// How many watch each stream, by protocol.
fn readers(state: &ApiState, stream: Option<&str>) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut readers: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    state.manager.sessions().for_each(|session| {
        if session.kind == SessionKind::Reader && stream.is_none_or(|stream| *stream == *session.stream) {
            let of_stream = readers.entry(session.stream.to_string()).or_default();
            *of_stream.entry(session.protocol.to_owned()).or_default() += 1;
        }
    });
    readers
}

fn view(state: &ApiState, info: &StreamInfo, headers: &HeaderMap) -> StreamView {
    let readers = readers(state, Some(&info.id));
    StreamView::of(info, state, host_of(headers)).with_readers(readers.get(&*info.id))
}

/// A stream with its ETag.
fn answer(state: &ApiState, status: StatusCode, id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let info = state.manager.info(id)?;
    let mut response = json(status, &view(state, &info, headers));
    if let Some(definition) = &info.definition {
        set_etag(&mut response, definition.revision);
    }
    Ok(response)
}

fn set_etag(response: &mut Response, revision: u64) {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

fn set_location(response: &mut Response, id: &str) {
    if let Ok(location) = HeaderValue::try_from(format!("/api/streams/{}", id.replace('/', "%2F"))) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ChangeQuery {
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeleteQuery {
    dry_run: bool,
    recordings: Option<DeleteWhat>,
}

/// What becomes of a stream's recordings.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeleteWhat {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted; protected ones stay.
    Unprotected,
    /// All are deleted.
    All,
}

impl From<DeleteWhat> for DeleteRecordings {
    fn from(what: DeleteWhat) -> Self {
        match what {
            DeleteWhat::Keep => Self::Keep,
            DeleteWhat::Unprotected => Self::Unprotected,
            DeleteWhat::All => Self::All,
        }
    }
}

/// What a change would do.
#[derive(Serialize, JsonSchema)]
pub(super) struct DryRun {
    dry_run: bool,
    /// `created`, `changed`, `unchanged`, `deleted` or `restarted`.
    done: &'static str,
    id: String,
    /// As it would be configured.
    config: Option<StreamConfig>,
}

pub(super) fn done_name(done: Done) -> &'static str {
    match done {
        Done::Created => "created",
        Done::Changed => "changed",
        Done::Unchanged => "unchanged",
        Done::Deleted => "deleted",
        Done::Restarted => "restarted",
    }
}

fn dry(outcome: Outcome) -> Response {
    let config = outcome.definition.as_ref().map(|d| d.config.shown());
    json(StatusCode::OK, &DryRun { dry_run: true, done: done_name(outcome.done), id: outcome.id, config })
}

/// Whether somebody may make or change this stream.
pub(super) fn may_change(grant: &Grant, id: &str) -> Result<(), Problem> {
    if grant.may(Action::ApiWrite, Some(id)) {
        return Ok(());
    }
    let shown: String = id.chars().take(200).collect();
    let detail = format!("there is no permission for {} of \"{shown}\"", Action::ApiWrite);
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

async fn create(
    State(state): Shared,
    Extension(grant): Extension<Grant>,
    uri: Uri,
    headers: HeaderMap,
    key: Option<Extension<Key>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let query: ChangeQuery = query::parse(&uri)?;
    let config = body::stream(body::value(&headers, &body, Media::Json)?)?;
    may_change(&grant, &config.id)?;
    let mut options = ChangeOptions { dry_run: query.dry_run, untrusted: true, ..ChangeOptions::default() };
    options.answer = key.as_ref().map(|Extension(key)| {
        let weak = Arc::downgrade(&state);
        key.answer(Arc::new(move |results: &[Result<Outcome, ManagerError>]| {
            let definition = results.first().and_then(|r| r.as_ref().ok()).and_then(|o| o.definition.clone());
            let view = definition.zip(weak.upgrade()).map(|(definition, state)| {
                let resolved = definition.config.resolve(&state.manager.config().defaults);
                let recording = RecordingWish::configured(resolved.recording.enabled);
                StreamView::defined(&definition, resolved.enabled, recording)
            });
            (StatusCode::CREATED.as_u16(), serde_json::to_string_pretty(&view).unwrap_or_default())
        }))
    });
    let render = options.answer.as_ref().map(|a: &KeyedAnswer| a.render.clone());
    let outcome = state.manager.change(Operation::Create(config), options).await?;
    if query.dry_run {
        return Ok(dry(outcome));
    }
    let id = outcome.id.clone();
    let mut response = match render {
        // The same words as whoever asks again with the same key gets.
        Some(render) => {
            let revision = outcome.definition.as_ref().map(|d| d.revision);
            let (_, text) = render(&[Ok(outcome)]);
            let mut response =
                (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], text).into_response();
            if let Some(revision) = revision {
                set_etag(&mut response, revision);
            }
            response
        }
        None => answer(&state, StatusCode::CREATED, &id, &headers)?,
    };
    set_location(&mut response, &id);
    Ok(response)
}

/// Asks what the call takes, of the same target that is then worked on.
async fn by_path_of_somebody(
    State(state): Shared,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let target = Target::of(&state, &path);
    let (parts, body) = request.into_parts();
    let grant = match target.need(&parts.method) {
        None => None,
        Some((action, stream)) => {
            guard::check(&state, &parts, &Need::Stream(action, stream.to_owned())).await?
        }
    };
    let asked_by = AskedBy(grant.as_ref().and_then(|grant| grant.user.clone()));
    let request = Request::from_parts(parts, body);
    let answered = by_path(&state, &path, target, &grant.unwrap_or_default(), request).await;
    let mut response = answered.into_response();
    response.extensions_mut().insert(asked_by);
    Ok(response)
}

async fn by_path(
    state: &Arc<ApiState>,
    path: &str,
    target: Target<'_>,
    grant: &Grant,
    request: Request,
) -> Result<Response, Problem> {
    #[cfg(feature = "hls")]
    if let Target::Live(id) = target
        && matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    {
        return Ok(super::players::live(state, id, request).await);
    }
    #[cfg(feature = "hls")]
    if let Target::Playlist(id) = target
        && matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    {
        return Ok(super::players::playback_playlist(state, id, request).await);
    }
    match (request.method().as_str(), target) {
        ("GET" | "HEAD", Target::Snapshot(id)) => {
            return Ok(super::pictures::snapshot(state, id, request.into_parts().0).await);
        }
        ("GET" | "HEAD", Target::Thumbnails(id)) => {
            return Ok(super::pictures::thumbnails(state, id, request.into_parts().0).await);
        }
        ("GET" | "HEAD", Target::Mjpeg(id)) => {
            return Ok(super::pictures::mjpeg(state, id, request.into_parts().0).await);
        }
        #[cfg(feature = "inference")]
        ("GET", Target::Detections(id)) => return Ok(super::seen::detections(state, id, request).await),
        _ => {}
    }
    if let Target::Playback(id) = target
        && matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
    {
        return Ok(super::playback::playback(state, id, request.into_parts().0).await);
    }
    let (parts, body) = request.into_parts();
    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
    // Its size was limited when it was read.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    match (method.as_str(), target) {
        ("GET" | "HEAD", Target::Stream(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            answer(state, StatusCode::OK, id, &headers)
        }
        ("PUT", Target::Stream(id)) => put(state, id, &uri, &headers, &body).await,
        ("PATCH", Target::Stream(id)) => patch(state, id, &uri, &headers, &body).await,
        ("DELETE", Target::Stream(id)) => remove(state, id, &uri, &headers).await,
        ("GET" | "HEAD", Target::Stats(id)) => statistics::stats(state, id, &uri),
        ("GET" | "HEAD", Target::Sessions(id)) => {
            let info = state.manager.info(id)?;
            sessions::list(state, &query::parse(&uri)?, |stream| *stream == *info.id)
        }
        ("DELETE", Target::Sessions(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            let info = state.manager.info(id)?;
            Ok(json(StatusCode::OK, &sessions::kick_all(state, &info.id)))
        }
        ("GET" | "HEAD", Target::Timeline(id)) => {
            super::playback::timeline(state, id, &query::parse(&uri)?).await
        }
        ("GET" | "HEAD", Target::Marks(id)) => marks::list(state, Some(id), grant, query::parse(&uri)?).await,
        ("POST", Target::Marks(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            marks::add(state, id, &headers, &body).await
        }
        ("DELETE", Target::Mark(id, number)) => {
            let _: query::Nothing = query::parse(&uri)?;
            marks::remove(state, id, number).await
        }
        ("GET" | "HEAD", Target::Exports(id)) => exports::of_stream(state, id, &uri).await,
        ("POST", Target::Sign(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            super::accounts::sign(state, id, grant, &headers, &body).await
        }
        ("POST", Target::Exports(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            exports::begin(state, id, &headers, &body).await
        }
        ("GET" | "HEAD", Target::Recordings(id)) => {
            recordings::list(state, id, &query::parse::<RecordingsQuery>(&uri)?).await
        }
        ("DELETE", Target::Recordings(id)) => {
            recordings::delete(state, id, &query::parse::<RecordingsQuery>(&uri)?).await
        }
        ("POST", Target::Protect(id, protected)) => {
            recordings::protect(state, id, &query::parse::<RecordingsQuery>(&uri)?, protected).await
        }
        ("POST", Target::Recording(id, action)) => {
            let _: query::Nothing = query::parse(&uri)?;
            let status = state.manager.control_recording(id, action).await?;
            Ok(json(StatusCode::OK, &RecordingView::from(status)))
        }
        ("POST", Target::Trigger(id)) => {
            let trigger = recordings::trigger(&query::parse(&uri)?, &body)?;
            let status = state.manager.trigger_recording(id, trigger).await?;
            Ok(json(StatusCode::OK, &RecordingView::from(status)))
        }
        ("POST", Target::Enable(id, enabled)) => {
            let operation = Operation::Enable { id: id.to_owned(), enabled };
            act(state, operation, &uri, &headers).await
        }
        ("POST", Target::Restart(id)) => {
            act(state, Operation::Restart { id: id.to_owned() }, &uri, &headers).await
        }
        #[cfg(feature = "inference")]
        ("GET" | "HEAD", Target::Inference(id)) => {
            let _: query::Nothing = query::parse(&uri)?;
            super::inference::get(state, id)
        }
        #[cfg(feature = "inference")]
        ("PATCH", Target::Inference(id)) => {
            let query: ChangeQuery = query::parse(&uri)?;
            let patch = super::inference::patch_of(body::value(&headers, &body, Media::MergePatch)?)?;
            let options = conditional(&headers, query.dry_run)?;
            let outcome = state.manager.change(Operation::Patch { id: id.to_owned(), patch }, options).await;
            let outcome = outcome.map_err(|e| super::inference::problem_of(&e))?;
            if query.dry_run { Ok(dry(outcome)) } else { super::inference::get(state, &outcome.id) }
        }
        #[cfg(feature = "inference")]
        ("POST", Target::Analyse(id, enabled)) => {
            let _: query::Nothing = query::parse(&uri)?;
            state.manager.control_inference(id, enabled).await?;
            super::inference::get(state, id)
        }
        (method, target) => {
            let shown: String = path.chars().take(200).collect();
            let detail = format!(
                "{method} is not possible at /api/streams/{shown}; possible are: {}",
                target.methods()
            );
            Ok(wrong_method(detail, target.methods()))
        }
    }
}

/// A method that is not possible, with those that are.
pub(super) fn wrong_method(detail: String, allowed: &'static str) -> Response {
    let mut response =
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A change under the conditions that the headers state.
fn conditional(headers: &HeaderMap, dry_run: bool) -> Result<ChangeOptions, Problem> {
    let mut options = ChangeOptions { dry_run, untrusted: true, ..ChangeOptions::default() };
    conditions(headers, &mut options)?;
    Ok(options)
}

async fn put(
    state: &Arc<ApiState>,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let query: ChangeQuery = query::parse(uri)?;
    let mut value = body::value(headers, body, Media::Json)?;
    with_id(&mut value, id)?;
    let config = body::stream(value)?;
    let options = conditional(headers, query.dry_run)?;
    let outcome = state.manager.change(Operation::Put(config), options).await?;
    if query.dry_run {
        return Ok(dry(outcome));
    }
    let status = if outcome.done == Done::Created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer(state, status, &outcome.id, headers)?;
    if outcome.done == Done::Created {
        set_location(&mut response, &outcome.id);
    }
    Ok(response)
}

/// The path says which stream it is; the body may say so too, but nothing else.
pub(super) fn with_id(value: &mut Value, id: &str) -> Result<(), Problem> {
    let Value::Object(object) = value else { return Ok(()) };
    match object.get("id") {
        None => {
            object.insert("id".into(), id.into());
            Ok(())
        }
        Some(Value::String(own)) if own == id => Ok(()),
        Some(_) => {
            let detail = format!("the path says that the id is \"{id}\"; expected the same here, or nothing");
            Err(Problem::invalid_body("/id", detail))
        }
    }
}

async fn patch(
    state: &Arc<ApiState>,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let query: ChangeQuery = query::parse(uri)?;
    let patch = body::value(headers, body, Media::MergePatch)?;
    let options = conditional(headers, query.dry_run)?;
    let outcome = state.manager.change(Operation::Patch { id: id.to_owned(), patch }, options).await?;
    if query.dry_run { Ok(dry(outcome)) } else { answer(state, StatusCode::OK, &outcome.id, headers) }
}

async fn remove(
    state: &Arc<ApiState>,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let query: DeleteQuery = query::parse(uri)?;
    let options = conditional(headers, query.dry_run)?;
    let recordings = query.recordings.unwrap_or_default().into();
    let outcome = state.manager.change(Operation::Delete { id: id.to_owned(), recordings }, options).await?;
    Ok(if query.dry_run { dry(outcome) } else { StatusCode::NO_CONTENT.into_response() })
}

/// A change without a body.
async fn act(
    state: &Arc<ApiState>,
    operation: Operation,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let query: ChangeQuery = query::parse(uri)?;
    let options = conditional(headers, query.dry_run)?;
    let outcome = state.manager.change(operation, options).await?;
    if query.dry_run { Ok(dry(outcome)) } else { answer(state, StatusCode::OK, &outcome.id, headers) }
}
