//! `POST /api/streams:batch`: many changes in one transaction.

use super::body::{self, Media};
use super::idempotency::Key;
use super::problem::Problem;
use super::query;
use super::streams::{DeleteWhat, done_name, may_change, with_id};
use super::{ApiState, json};
use crate::auth::Grant;
use crate::config::StreamConfig;
use crate::manager::{ChangeOptions, Done, ManagerError, Operation, Outcome};
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Operations in one call.
const MAX_OPERATIONS: usize = 10_000;

/// Many changes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// All or none.
    #[serde(default)]
    atomic: bool,
    /// The changes, made in this order.
    #[schemars(length(max = 10_000))]
    operations: Vec<Item>,
}

/// One of them. What is wrong within a configuration or a patch fails only its operation; what is none at all, an unknown operation
/// likewise, is no batch.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Item {
    /// Makes a stream.
    Create {
        /// Its configuration.
        #[schemars(with = "super::openapi::AnyObject")]
        stream: Map<String, Value>,
    },
    /// Makes a stream or replaces its configuration.
    Put {
        /// Its id.
        id: String,
        /// Its configuration.
        #[schemars(with = "super::openapi::AnyObject")]
        stream: Map<String, Value>,
    },
    /// Changes a stream's configuration by a JSON merge patch, RFC 7396.
    Patch {
        /// Its id.
        id: String,
        /// The patch.
        #[schemars(with = "super::openapi::AnyObject")]
        patch: Map<String, Value>,
    },
    /// Deletes a stream.
    Delete {
        /// Its id.
        id: String,
        /// What becomes of its recordings.
        #[serde(default)]
        recordings: DeleteWhat,
    },
    /// Lets a stream run.
    Enable {
        /// Its id.
        id: String,
    },
    /// Lets a stream run no longer.
    Disable {
        /// Its id.
        id: String,
    },
    /// Stops a stream and starts it again.
    Restart {
        /// Its id.
        id: String,
    },
}

/// What became of a batch.
#[derive(Serialize, JsonSchema)]
pub(super) struct BatchResult {
    /// Whether what could be done was done: not in a dry run, and not if all or none was asked for and one failed.
    applied: bool,
    succeeded: usize,
    failed: usize,
    /// One for each operation, in their order.
    results: Vec<ItemResult>,
}

#[derive(Serialize, JsonSchema)]
struct ItemResult {
    id: String,
    /// As the answer to a call of its own would have.
    status: u16,
    /// `created`, `changed`, `unchanged`, `deleted` or `restarted`; none if it failed.
    done: Option<&'static str>,
    revision: Option<u64>,
    /// As it is configured now.
    config: Option<StreamConfig>,
    error: Option<Problem>,
}

impl Item {
    fn operation(self) -> Result<Operation, Problem> {
        Ok(match self {
            Self::Create { stream } => {
                Operation::Create(body::stream(stream.into()).map_err(|p| p.within("/stream"))?)
            }
            Self::Put { id, stream } => {
                let mut stream = stream.into();
                with_id(&mut stream, &id).map_err(|p| p.within("/stream"))?;
                Operation::Put(body::stream(stream).map_err(|p| p.within("/stream"))?)
            }
            Self::Patch { id, patch } => Operation::Patch { id, patch: patch.into() },
            Self::Delete { id, recordings } => Operation::Delete { id, recordings: recordings.into() },
            Self::Enable { id } => Operation::Enable { id, enabled: true },
            Self::Disable { id } => Operation::Enable { id, enabled: false },
            Self::Restart { id } => Operation::Restart { id },
        })
    }

    fn id(&self) -> String {
        match self {
            Self::Create { stream } => {
                let id = stream.get("id").and_then(Value::as_str).unwrap_or_default();
                id.chars().take(200).collect()
            }
            Self::Put { id, .. }
            | Self::Patch { id, .. }
            | Self::Delete { id, .. }
            | Self::Enable { id }
            | Self::Disable { id }
            | Self::Restart { id } => id.chars().take(200).collect(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BatchQuery {
    dry_run: bool,
}

pub(super) async fn run(
    State(state): State<Arc<ApiState>>,
    Extension(grant): Extension<Grant>,
    uri: Uri,
    headers: HeaderMap,
    key: Option<Extension<Key>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let query: BatchQuery = query::parse(&uri)?;
    let value = body::value(&headers, &body, Media::Json)?;
    let batch: Batch = body::object(value)?;
    if batch.operations.len() > MAX_OPERATIONS {
        let detail = format!("there are {}; expected {MAX_OPERATIONS} at most", batch.operations.len());
        return Err(Problem::invalid_body("/operations", detail));
    }
    // What is no operation at all fails by itself, like one that cannot be carried out.
    let ids: Vec<String> = batch.operations.iter().map(Item::id).collect();
    let operation = |(item, id): (Item, &String)| may_change(&grant, id).and_then(|()| item.operation());
    let parsed: Vec<Result<Operation, Problem>> =
        batch.operations.into_iter().zip(&ids).map(operation).collect();
    let atomic = batch.atomic;
    let refused = atomic && parsed.iter().any(Result::is_err);
    let (mut operations, mut errors) = (Vec::new(), Vec::new());
    for operation in parsed {
        match operation {
            Ok(operation) => {
                operations.push(operation);
                errors.push(None);
            }
            Err(problem) => errors.push(Some(problem)),
        }
    }
    let dry_run = query.dry_run || refused;
    let report = Arc::new(move |results: &[Result<Outcome, ManagerError>]| {
        report(&ids, &errors, results, atomic, dry_run)
    });
    let render = report.clone();
    let answer = key.filter(|_| !dry_run).map(|Extension(key)| {
        key.answer(Arc::new(move |results: &[Result<Outcome, ManagerError>]| {
            let (status, result) = render(results);
            (status.as_u16(), serde_json::to_string_pretty(&result).unwrap_or_default())
        }))
    });
    let options = ChangeOptions { atomic, dry_run, untrusted: true, answer, ..ChangeOptions::default() };
    let results = state.manager.change_all(operations, options).await?;
    let (status, result) = report(&results);
    Ok(json(status, &result))
}

fn report(
    ids: &[String],
    errors: &[Option<Problem>],
    results: &[Result<Outcome, ManagerError>],
    atomic: bool,
    dry_run: bool,
) -> (StatusCode, BatchResult) {
    let mut results = results.iter();
    let items: Vec<ItemResult> = ids
        .iter()
        .zip(errors)
        .map(|(id, error)| match error {
            Some(problem) => failed(id.clone(), problem.clone()),
            None => match results.next() {
                Some(Ok(outcome)) => done(outcome),
                Some(Err(error)) => failed(id.clone(), Problem::of(error)),
                None => failed(id.clone(), Problem::of(&ManagerError::ShutDown)),
            },
        })
        .collect();
    let failed = items.iter().filter(|item| item.error.is_some()).count();
    let refused = atomic && failed > 0;
    let status = if refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let applied = !refused && !dry_run;
    (status, BatchResult { applied, succeeded: items.len() - failed, failed, results: items })
}

fn done(outcome: &Outcome) -> ItemResult {
    let status = match outcome.done {
        Done::Created => StatusCode::CREATED,
        Done::Deleted => StatusCode::NO_CONTENT,
        _ => StatusCode::OK,
    };
    ItemResult {
        id: outcome.id.clone(),
        status: status.as_u16(),
        done: Some(done_name(outcome.done)),
        revision: outcome.definition.as_ref().map(|d| d.revision),
        config: outcome.definition.as_ref().map(|d| d.config.shown()),
        error: None,
    }
}

fn failed(id: String, problem: Problem) -> ItemResult {
    ItemResult {
        id,
        status: problem.status(),
        done: None,
        revision: None,
        config: None,
        error: Some(problem),
    }
}
