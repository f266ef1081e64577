//! `/api/logs`: the last lines of the log, and those that come.

use super::problem::Problem;
use super::query;
use super::{ApiState, json};
use crate::logs::{LogLevel, LogLine};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::broadcast;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    level: Option<LogLevel>,
    stream: Option<String>,
    limit: Option<usize>,
    after: Option<u64>,
    #[serde(default)]
    follow: bool,
}

/// Lines of the log.
#[derive(Serialize, JsonSchema)]
pub(super) struct LogPage {
    /// Oldest first.
    items: Vec<Arc<LogLine>>,
    /// What `after` has to be to get what comes behind these; none if there are none.
    next: Option<String>,
}

impl LogsQuery {
    fn passes(&self, line: &LogLine) -> bool {
        self.level.is_none_or(|level| line.level <= level)
            && self.stream.as_ref().is_none_or(|stream| line.stream.as_ref() == Some(stream))
            && self.after.is_none_or(|after| line.id > after)
    }
}

pub(super) async fn logs(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Response, Problem> {
    let query: LogsQuery = query::parse(&uri)?;
    let limit = query::limit(query.limit)?;
    let Some(ring) = state.options.logs.clone() else {
        let detail = "the program keeps no lines of its log";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_logs", detail));
    };
    let (lines, receiver) = ring.follow();
    let passing: Vec<Arc<LogLine>> = lines.into_iter().filter(|line| query.passes(line)).collect();
    // The newest, unless somebody pages.
    let items: Vec<Arc<LogLine>> = match query.after {
        Some(_) => passing.into_iter().take(limit).collect(),
        None => passing.iter().skip(passing.len().saturating_sub(limit)).cloned().collect(),
    };
    if !query.follow {
        let next = items.last().map(|line| line.id.to_string());
        return Ok(json(StatusCode::OK, &LogPage { items, next }));
    }
    let closing = state.options.closing.clone();
    let lines = futures_util::stream::unfold(
        (VecDeque::from(items), receiver, query, closing),
        |(mut kept, mut receiver, query, closing)| async move {
            let line = match kept.pop_front() {
                Some(line) => Some(line),
                None => closing.run_until_cancelled(next(&mut receiver, &query)).await.flatten(),
            };
            let event = Event::default().id(line.as_ref()?.id.to_string()).json_data(&*line?).ok()?;
            Some((Ok::<_, Infallible>(event), (kept, receiver, query, closing)))
        },
    );
    Ok(Sse::new(lines).keep_alive(KeepAlive::default()).into_response())
}

/// The next line that passes; lines that come faster than they are taken are left out.
async fn next(receiver: &mut broadcast::Receiver<Arc<LogLine>>, query: &LogsQuery) -> Option<Arc<LogLine>> {
    loop {
        match receiver.recv().await {
            Ok(line) if query.passes(&line) => return Some(line),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
