//! `/api/setup`, `/api/login`, `/api/me`, `/api/users`, `/api/tokens`, `/api/audit` and signed addresses.

use super::access::{Refused, authorize_for, peer, refusal};
use super::body::{self, Media};
use super::guard::AskedBy;
use super::problem::Problem;
use super::query;
use super::view::StreamView;
use super::{ApiState, json, session_cookie};
use crate::auth::{
    Account, AccountError, Accounts, Action, AuditEntry, AuditFilter, Grant, NewAccount, NewToken,
    PasswordHash, Permission, Role, Secret, SignedAddress, Signer, Subject, TokenInfo, Users,
};
use crate::config::DurationText;
use crate::frame::WallTime;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

type Shared = State<Arc<ApiState>>;

/// Whether TLS, ours or a trusted proxy's, is between the client and us.
#[derive(Clone, Copy)]
pub(super) struct ByTls;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/api/setup", get(setup_state).post(set_up))
        .route("/api/login", post(log_in))
        .route("/api/logout", post(log_out))
        .route("/api/me", get(me))
        .route("/api/users", get(users).post(add_user))
        .route("/api/users/{name}", get(user).patch(change_user).delete(remove_user))
        .route("/api/tokens", get(tokens).post(add_token))
        .route("/api/tokens/{id}", axum::routing::delete(remove_token))
        .route("/api/audit", get(audit))
}

/// The server's own users, if it has any.
fn own(state: &ApiState) -> Result<(&Arc<Users>, &Arc<Accounts>), Problem> {
    let users = state.options.users.as_ref();
    users.and_then(|users| Some((users, users.accounts()?))).ok_or_else(|| {
        let detail = "this server does not keep users of its own";
        Problem::new(StatusCode::NOT_FOUND, "no_accounts", detail)
    })
}

fn problem(error: &AccountError) -> Problem {
    let (status, code) = match error {
        AccountError::Exists(_) => (StatusCode::CONFLICT, "user_exists"),
        AccountError::NotFound { what: "token", .. } => (StatusCode::NOT_FOUND, "token_not_found"),
        AccountError::NotFound { .. } => (StatusCode::NOT_FOUND, "user_not_found"),
        AccountError::LastAdmin(_) => (StatusCode::CONFLICT, "last_admin"),
        AccountError::Invalid { field, problem } => {
            return Problem::invalid_body(&format!("/{field}"), problem);
        }
        AccountError::Database { .. } | AccountError::TooNew { .. } => return Problem::internal(error),
    };
    Problem::new(status, code, error.to_string())
}

/// Asks the database on a thread where that may take a while.
async fn with<T: Send + 'static>(
    accounts: &Arc<Accounts>,
    call: impl FnOnce(&Accounts) -> Result<T, AccountError> + Send + 'static,
) -> Result<T, Problem> {
    let accounts = accounts.clone();
    let done = tokio::task::spawn_blocking(move || call(&accounts)).await;
    done.map_err(|e| Problem::internal(&e))?.map_err(|error| problem(&error))
}

async fn hash(password: Secret) -> Result<PasswordHash, Problem> {
    let made = tokio::task::spawn_blocking(move || PasswordHash::of(&password)).await;
    made.map_err(|e| Problem::internal(&e))?.map_err(|e| Problem::invalid_body("/password", e.to_string()))
}

/// Whether the first user is still to be made.
#[derive(Serialize, JsonSchema)]
pub(super) struct SetupState {
    /// Whether there is no user yet.
    needed: bool,
    /// Whether the code is needed from where the request comes from.
    code_needed: bool,
}

/// The first user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetUp {
    /// The code that the server printed when it started; not needed from the server's own machine.
    #[serde(default)]
    code: Secret,
    /// The first user's name.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// The password.
    password: Secret,
}

fn is_local(request: &axum::http::request::Parts) -> bool {
    peer(request).ip().to_canonical().is_loopback()
}

async fn setup_state(State(state): Shared, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse(&parts.uri)?;
    let needed = own(&state).is_ok_and(|(users, _)| users.is_open());
    Ok(json(StatusCode::OK, &SetupState { needed, code_needed: needed && !is_local(&parts) }))
}

async fn set_up(State(state): Shared, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let _: query::Nothing = query::parse(&parts.uri)?;
    // Its size was limited when it was read.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let new: SetUp = body::object(body::value(&parts.headers, &body, Media::Json)?)?;
    let (users, accounts) = own(&state)?;
    let from = peer(&parts).ip().to_canonical();
    if let Err(denied) = users.limited(from, "") {
        return Err(refusal(denied, from, None, true).await);
    }
    if !users.is_open() {
        let detail = "there are users already; log in as one of them";
        return Err(Problem::new(StatusCode::CONFLICT, "already_set_up", detail).into());
    }
    let code = state.options.setup.as_ref();
    if !is_local(&parts) && !code.is_some_and(|code| code.matches(&new.code)) {
        users.failed(from);
        tracing::warn!(peer = %from, "a wrong set-up code");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let detail = "the code is wrong; expected the one that the server printed when it started";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_code", detail).into());
    }
    let hash = hash(new.password).await?;
    let permissions = vec![Role::Admin.permission(vec![crate::auth::PathPattern::everything()])];
    let first = NewAccount { name: new.name.clone(), hash, permissions };
    let first = with(accounts, move |accounts| accounts.add_first_user(&first)).await?;
    if let Some(code) = code {
        code.spend();
    }
    tracing::info!(user = first.name, peer = %from, "the first user was made; from now on everybody needs to log in");
    let name = first.name.clone();
    logged_in(&state, accounts, &parts, name, StatusCode::CREATED, &first).await
}

/// A name and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    /// The user's name.
    name: String,
    /// The password.
    password: Secret,
}

/// Who somebody is and what they may.
#[derive(Serialize, JsonSchema)]
pub(super) struct Me {
    /// The user's name; none for whoever has not logged in.
    user: Option<String>,
    /// What may be done; none if that is everything.
    permissions: Option<Vec<Permission>>,
    /// The time zone that the server is in, such as Europe/Berlin; none if the machine has none with a name.
    time_zone: Option<String>,
}

async fn log_in(State(state): Shared, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let _: query::Nothing = query::parse(&parts.uri)?;
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let given: LogIn = body::object(body::value(&parts.headers, &body, Media::Json)?)?;
    let (users, accounts) = own(&state)?;
    let from = peer(&parts).ip().to_canonical();
    if let Err(denied) = users.log_in(&given.name, &given.password, from).await {
        return Err(refusal(denied, from, Some(&given.name), true).await);
    }
    logged_in(
        &state,
        accounts,
        &parts,
        given.name.clone(),
        StatusCode::OK,
        &serde_json::json!({"user": given.name}),
    )
    .await
}

/// Answers with the cookie of a new session.
async fn logged_in(
    state: &ApiState,
    accounts: &Arc<Accounts>,
    request: &axum::http::request::Parts,
    user: String,
    status: StatusCode,
    body: &impl Serialize,
) -> Result<Response, Refused> {
    let lifetime = state.manager.config().auth.session_lifetime.0;
    let new = NewToken {
        name: "browser session".into(),
        user: Some(user.clone()),
        permissions: None,
        expires: Some(WallTime::now() + lifetime),
        session: true,
    };
    let (_, token) = with(accounts, move |accounts| accounts.add_token(&new)).await?;
    let mut response = json(status, body);
    let by_tls = request.extensions.get::<ByTls>().is_some();
    if let Some(cookie) = session_cookie::set(Some(&token), lifetime, by_tls) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.extensions_mut().insert(AskedBy(Some(user)));
    Ok(response)
}

async fn log_out(State(state): Shared, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    // The session ends here, too, not only in this browser.
    if let Some(id) = session_cookie::token(&headers).and_then(|token| accounts.token_id(&token)) {
        with(accounts, move |accounts| accounts.remove_token(&id)).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = session_cookie::set(None, Duration::ZERO, false) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn me(State(state): Shared, request: Request) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    let _: query::Nothing = query::parse_for_media(&parts.uri)?;
    // Whoever may do anything at all is told what; the first of these that is allowed says it.
    let mut refused = None;
    for action in Action::ALL {
        match authorize_for(&state, &parts, Subject::Streams, action, "http").await {
            Ok(grant) => {
                let permissions = grant.permissions().map(<[Permission]>::to_vec);
                let time_zone = crate::week::zone_name();
                return Ok(json(StatusCode::OK, &Me { user: grant.user, permissions, time_zone }));
            }
            Err(denied) => {
                // A wrong password is wrong for all, and counted once.
                let status = denied.status();
                refused = Some(denied);
                if status != StatusCode::FORBIDDEN {
                    break;
                }
            }
        }
    }
    let nobody = || Problem::new(StatusCode::FORBIDDEN, "forbidden", "nothing may be done").into();
    Err(refused.unwrap_or_else(nobody))
}

/// All users.
#[derive(Serialize, JsonSchema)]
pub(super) struct UserPage {
    items: Vec<Account>,
    /// None: the list is whole.
    next: Option<String>,
}

/// A user to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// The name.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// The password.
    password: Secret,
    /// A usual set of permissions, for all streams.
    #[serde(default)]
    role: Option<Role>,
    /// What the user may, beside the role.
    #[serde(default)]
    permissions: Vec<Permission>,
}

/// What changes about a user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserPatch {
    /// Another password; ends the user's sessions.
    #[serde(default)]
    password: Option<Secret>,
    /// A usual set of permissions instead of those before.
    #[serde(default)]
    role: Option<Role>,
    /// What the user may instead of what was before, beside the role.
    #[serde(default)]
    permissions: Option<Vec<Permission>>,
    /// Whether the user may do nothing for now.
    #[serde(default)]
    disabled: Option<bool>,
}

fn permissions_of(role: Option<Role>, more: Vec<Permission>) -> Vec<Permission> {
    let everything = || vec![crate::auth::PathPattern::everything()];
    role.map(|role| role.permission(everything())).into_iter().chain(more).collect()
}

fn no_user(name: &str) -> Problem {
    problem(&AccountError::NotFound { what: "user", name: name.chars().take(64).collect() })
}

async fn users(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    Ok(json(StatusCode::OK, &UserPage { items: accounts.users(), next: None }))
}

async fn user(State(state): Shared, uri: Uri, Path(name): Path<String>) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    Ok(json(StatusCode::OK, &accounts.user(&name).ok_or_else(|| no_user(&name))?))
}

async fn add_user(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let new: NewUser = body::object(body::value(&headers, &body, Media::Json)?)?;
    let (users, accounts) = own(&state)?;
    let permissions = permissions_of(new.role, new.permissions);
    let is_admin = permissions.iter().any(|p| p.actions.contains(&Action::Admin));
    if users.is_open() && !is_admin {
        let detail = "the first user has to be one who may do everything; expected the role \"admin\"";
        return Err(Problem::invalid_body("/role", detail));
    }
    let new = NewAccount { name: new.name, hash: hash(new.password).await?, permissions };
    let account = with(accounts, move |accounts| accounts.add_user(&new)).await?;
    if let Some(code) = &state.options.setup {
        code.spend();
    }
    Ok(json(StatusCode::CREATED, &account))
}

async fn change_user(
    State(state): Shared,
    uri: Uri,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let patch: UserPatch = body::object(body::value(&headers, &body, Media::MergePatch)?)?;
    let (_, accounts) = own(&state)?;
    accounts.user(&name).ok_or_else(|| no_user(&name))?;
    let hash = match patch.password {
        None => None,
        Some(password) => Some(hash(password).await?),
    };
    let permissions = (patch.role.is_some() || patch.permissions.is_some())
        .then(|| permissions_of(patch.role, patch.permissions.unwrap_or_default()));
    let account = with(accounts, move |accounts| {
        accounts.change_user(&name, hash.as_ref(), permissions.as_deref(), patch.disabled)
    });
    Ok(json(StatusCode::OK, &account.await?))
}

async fn remove_user(State(state): Shared, uri: Uri, Path(name): Path<String>) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    with(accounts, move |accounts| accounts.remove_user(&name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All tokens.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenPage {
    items: Vec<TokenInfo>,
    /// None: the list is whole.
    next: Option<String>,
}

/// A token to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiToken {
    /// What it is for.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// Whose it is; it ends with the user. Of nobody if not given.
    #[serde(default)]
    user: Option<String>,
    /// A usual set of permissions.
    #[serde(default)]
    role: Option<Role>,
    /// What it may, beside the role; with neither, what its user may.
    #[serde(default)]
    permissions: Vec<Permission>,
    /// For how long it is good; for ever if not given.
    #[serde(default)]
    expires_in: Option<DurationText>,
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct MadeToken {
    /// The token itself: this is the only time that it is shown.
    token: String,
    #[serde(flatten)]
    info: TokenInfo,
}

async fn tokens(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    Ok(json(StatusCode::OK, &TokenPage { items: accounts.tokens(), next: None }))
}

async fn add_token(
    State(state): Shared,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let new: NewApiToken = body::object(body::value(&headers, &body, Media::Json)?)?;
    let (users, accounts) = own(&state)?;
    if users.is_open() {
        let detail = "there are no users yet; make the first one, then tokens";
        return Err(Problem::new(StatusCode::CONFLICT, "not_set_up", detail));
    }
    if let Some(name) = &new.user
        && accounts.user(name).is_none()
        && !state.manager.config().auth.users.iter().any(|user| user.name == *name)
    {
        return Err(Problem::invalid_body("/user", "there is no such user"));
    }
    let permissions = permissions_of(new.role, new.permissions);
    let new = NewToken {
        name: new.name,
        user: new.user,
        permissions: Some(permissions).filter(|permissions| !permissions.is_empty()),
        expires: new.expires_in.map(|lifetime| WallTime::now() + lifetime.0),
        session: false,
    };
    let (info, token) = with(accounts, move |accounts| accounts.add_token(&new)).await?;
    Ok(json(StatusCode::CREATED, &MadeToken { token: token.reveal().to_owned(), info }))
}

async fn remove_token(State(state): Shared, uri: Uri, Path(id): Path<String>) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let (_, accounts) = own(&state)?;
    let id: String = id.chars().take(64).collect();
    with(accounts, move |accounts| accounts.remove_token(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A page of the audit log, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditPage {
    items: Vec<AuditEntry>,
    /// What `after` has to be for the next page; none on the last.
    next: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuditQuery {
    limit: Option<usize>,
    after: Option<u64>,
    user: Option<String>,
}

async fn audit(State(state): Shared, uri: Uri) -> Result<Response, Problem> {
    let query: AuditQuery = query::parse(&uri)?;
    let limit = query::limit(query.limit)?;
    let (_, accounts) = own(&state)?;
    let filter = AuditFilter { user: query.user, before: query.after, limit: limit + 1 };
    let mut items = with(accounts, move |accounts| accounts.audited(&filter)).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|entry| entry.number.to_string());
    Ok(json(StatusCode::OK, &AuditPage { items, next }))
}

/// What is to be signed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSignature {
    /// What for: `read`, `playback` or `publish`.
    #[serde(default = "reading")]
    #[schemars(extend("enum" = ["read", "playback", "publish"]))]
    action: Action,
    /// For how long it is good; seven days at most.
    #[serde(default = "one_hour")]
    expires_in: DurationText,
}

fn reading() -> Action {
    Action::Read
}

fn one_hour() -> DurationText {
    DurationText(Duration::from_secs(3600))
}

/// What makes an address good without credentials.
#[derive(Serialize, JsonSchema)]
pub(super) struct Signature {
    /// What has to stand behind an address of the stream, after `?` or `&`.
    query: String,
    /// Until when it is good.
    expires: WallTime,
    /// The stream's addresses with it, by protocol.
    urls: std::collections::BTreeMap<String, String>,
}

/// Makes addresses of a stream that are good without credentials, for somebody who may do the same with it.
pub(super) async fn sign(
    state: &ApiState,
    stream: &str,
    grant: &Grant,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let new: NewSignature = body::object(body::value(headers, body, Media::Json)?)?;
    let (_, accounts) = own(state)?;
    let info = state.manager.info(stream)?;
    if !(Duration::from_secs(1)..=Signer::MAX_LIFETIME).contains(&new.expires_in.0) {
        let detail = format!("it is {}; expected 1s to 7d", new.expires_in);
        return Err(Problem::invalid_body("/expires_in", detail));
    }
    if !grant.may(new.action, Some(stream)) {
        let detail = format!("an address gives no more than its maker may; {} is missing", new.action);
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let expires = WallTime::now() + new.expires_in.0;
    let address =
        SignedAddress { action: new.action, stream: stream.to_owned(), expires, user: grant.user.clone() };
    let query = accounts.signer().sign(&address).ok_or_else(|| {
        Problem::invalid_body("/action", format!("it is {}; expected read, playback or publish", new.action))
    })?;
    let urls = StreamView::of(&info, state, super::ports::host_of(headers)).into_addresses();
    let with = |(name, url): (String, String)| {
        let joint = if url.contains('?') { '&' } else { '?' };
        (name, format!("{url}{joint}{query}"))
    };
    Ok(json(StatusCode::CREATED, &Signature { urls: urls.into_iter().map(with).collect(), expires, query }))
}
