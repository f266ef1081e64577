//! Query strings, cursors and conditions.

use super::problem::Problem;
use crate::frame::WallTime;
use crate::manager::ChangeOptions;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Items on a page if the caller does not say.
pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 1000;

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail)
}

/// Each part is right, but not together.
pub(super) fn contradiction(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", detail)
}

/// Reads a query string; what is not known is refused. Tokens and signatures are for authorizers to look at.
pub(super) fn parse<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    without(uri, &["token", "jwt", "sig"])
}

/// The same for media, in whose addresses names and passwords may stand, too.
pub(super) fn parse_for_media<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    without(uri, &["user", "pass", "token", "jwt", "sig"])
}

/// What is left to read where credentials stand in an address, too.
fn without<T: DeserializeOwned>(uri: &Uri, credentials: &[&str]) -> Result<T, Problem> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let others = pairs.filter(|(name, _)| !credentials.contains(&name.as_ref()));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
    let uri = Uri::try_from(format!("/?{query}")).map_err(|e| bad(e.to_string()))?;
    axum::extract::Query::<T>::try_from_uri(&uri)
        .map(|q| q.0)
        .map_err(|e| bad(crate::config::explain(&e.body_text())))
}

/// A call that takes no query at all.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// How many items a page is to have.
pub(super) fn limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(bad(format!("limit is {limit}; expected 1 to {MAX_LIMIT}")))
    }
}

/// Which of a list by time come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Oldest,
    Newest,
}

/// The place in a list by time that the page before has named, as in `1795960980000000000.17`.
pub(super) fn place(cursor: Option<&str>) -> Result<Option<(WallTime, u64)>, Problem> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let read = cursor
        .split_once('.')
        .and_then(|(time, id)| Some((WallTime::from_unix_nanos(time.parse().ok()?), id.parse().ok()?)));
    read.map(Some).ok_or_else(|| {
        let shown: String = cursor.chars().take(60).collect();
        contradiction(format!("after is \"{shown}\"; expected the \"next\" of the page before"))
    })
}

/// Names with commas between them.
pub(super) fn names(text: Option<&str>) -> Vec<String> {
    text.into_iter()
        .flat_map(|t| t.split(','))
        .map(|t| t.trim().to_owned())
        .filter(|t| !t.is_empty())
        .collect()
}

/// Values with commas between them, at least one.
pub(super) fn values<T: DeserializeOwned>(name: &str, text: Option<&str>) -> Result<Vec<T>, Problem> {
    let values = names(text);
    if text.is_some() && values.is_empty() {
        return Err(bad(format!("{name} is empty; expected one value or several with commas")));
    }
    values
        .into_iter()
        .map(|value| {
            serde_json::from_value(value.into()).map_err(|e: serde_json::Error| {
                bad(format!("{name}: {}", crate::config::explain(&e.to_string())))
            })
        })
        .collect()
}

/// Which page of a list, whose order is that of ids.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

impl PageQuery {
    /// What stands on it, and what `after` has to be for the next one, if there is one.
    pub(super) fn page<T>(
        &self,
        mut items: Vec<T>,
        id: impl Fn(&T) -> &str,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let limit = limit(self.limit)?;
        let after = self.after.as_deref().unwrap_or_default();
        items.retain(|item| *id(item) > *after);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|item| id(item).to_owned());
        Ok((items, next))
    }
}

/// `If-Match` and `If-None-Match`, RFC 9110 section 13.1.
pub(super) fn conditions(headers: &HeaderMap, options: &mut ChangeOptions) -> Result<(), Problem> {
    let wrong = |name: &str| {
        let detail =
            format!("{name} is no list of entity tags; expected the ETag of an answer, such as \"17\", or *");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail)
    };
    let value = |name: header::HeaderName| -> Result<Option<String>, Problem> {
        let Some(value) = headers.get(&name) else { return Ok(None) };
        value.to_str().map(|v| Some(v.trim().to_owned())).map_err(|_| wrong(name.as_str()))
    };
    match value(header::IF_MATCH)?.as_deref() {
        None | Some("") => {}
        Some("*") => options.if_present = true,
        Some(list) => {
            let mut revisions = Vec::new();
            for tag in list.split(',').map(str::trim) {
                let weak = tag.strip_prefix("W/");
                let quoted = weak.unwrap_or(tag);
                let inner = quoted.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
                let inner = inner.ok_or_else(|| wrong("If-Match"))?;
                // A weak tag, or one that is none of ours, matches nothing.
                if weak.is_none() {
                    revisions.extend(inner.parse::<u64>());
                }
            }
            options.if_revision = Some(revisions);
        }
    }
    match value(header::IF_NONE_MATCH)?.as_deref() {
        None | Some("") => Ok(()),
        Some("*") => {
            options.if_absent = true;
            Ok(())
        }
        Some(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_header",
            "If-None-Match here takes only *, for a stream that must not exist yet",
        )),
    }
}
