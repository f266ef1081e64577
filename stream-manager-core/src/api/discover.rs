//! `POST /api/discover`: devices on the network, and the streams that take them in.

use super::body::{self, Media};
use super::{ApiState, Problem, json, query};
use crate::config::{DurationText, Password};
use crate::onvif::{Discovery, FoundDevice, OnvifError};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Devices that have not answered by then will not.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses in one request.
const MAX_ADDRESSES: usize = 256;

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/api/discover", post(discover))
}

/// What to look for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscoverRequest {
    /// Only these: hosts, hosts with a port, or addresses of ONVIF services. Otherwise all of the network is asked.
    #[serde(default)]
    addresses: Vec<String>,
    /// Who asks devices what they send.
    user: Option<String>,
    /// The user's password.
    password: Option<Password>,
    /// How long devices have to answer.
    #[serde(default = "three_seconds")]
    timeout: DurationText,
}

fn three_seconds() -> DurationText {
    DurationText(Duration::from_secs(3))
}

/// The devices.
#[derive(Serialize, JsonSchema)]
pub(super) struct DiscoverView {
    items: Vec<FoundDevice>,
}

async fn discover(
    State(state): State<Arc<ApiState>>,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let _: query::Nothing = query::parse(&uri)?;
    let value = body::value(&headers, &bytes, Media::Json)?;
    let request: DiscoverRequest = body::object(value)?;
    let invalid = Problem::invalid_body::<String>;
    if request.timeout.0 > MAX_TIMEOUT || request.timeout.0 < Duration::from_millis(100) {
        return Err(invalid("/timeout", format!("it is {}; expected 100ms to 30s", request.timeout)));
    }
    if request.addresses.len() > MAX_ADDRESSES {
        let detail = format!("there are {}; expected {MAX_ADDRESSES} at most", request.addresses.len());
        return Err(invalid("/addresses", detail));
    }
    let mut discovery = Discovery::new().timeout(request.timeout.0);
    discovery = request.addresses.iter().fold(discovery, Discovery::address);
    discovery = match (request.user, request.password) {
        (Some(user), Some(password)) => discovery.credentials(user, password.reveal()),
        (None, None) => discovery,
        _ => {
            let detail = "user and password go together; expected both or none".to_owned();
            return Err(invalid("/user", detail));
        }
    };
    let _place = state.probe_place()?;
    let items = discovery.run().await.map_err(|error| match error {
        OnvifError::Address { .. } => invalid("/addresses", error.to_string()),
        error => Problem::new(StatusCode::BAD_GATEWAY, "discovery_failed", error.to_string()),
    })?;
    Ok(json(StatusCode::OK, &DiscoverView { items }))
}
