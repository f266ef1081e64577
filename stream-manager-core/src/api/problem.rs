//! Errors as problem details, RFC 9457.

use crate::manager::{BuildError, ManagerError};
use crate::playback::PlaybackError;
use crate::recording::RecordError;
use crate::storage::state::StateError;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the `code` tells errors apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status' own words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened and what would be right.
    detail: String,
    /// A stable name of the error.
    code: &'static str,
    /// JSON pointer (RFC 6901) to the field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
}

impl Problem {
    /// An error with a stable code and its explanation.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            pointer: None,
        }
    }

    /// Names the field that is wrong.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The same inside a larger body.
    pub(super) fn within(mut self, prefix: &str) -> Self {
        self.pointer = Some(format!("{prefix}{}", self.pointer.unwrap_or_default()));
        self
    }

    /// The same inside a smaller body.
    #[cfg(feature = "inference")]
    pub(super) fn without(mut self, prefix: &str) -> Self {
        self.pointer = self.pointer.map(|p| p.strip_prefix(prefix).map_or(p.clone(), str::to_owned));
        self
    }
    /// A body that is read, and means something that cannot be.
    pub(super) fn invalid_body<T: Into<String>>(pointer: &str, detail: T) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at(pointer)
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "internal error in the API");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string_pretty(&self).unwrap_or_default() + "\n";
        (status, [("content-type", "application/problem+json")], body).into_response()
    }
}

impl From<&BuildError> for Problem {
    fn from(error: &BuildError) -> Self {
        let pointer = match error.key {
            key @ ("segment_duration" | "segment_size" | "part_duration" | "format") => {
                format!("/recording/{key}")
            }
            key @ ("sync_interval" | "directory" | "retention/max_age" | "retention/events_max_age") => {
                format!("/recording/{key}")
            }
            key => format!("/{key}"),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_stream", error.problem.clone()).at(pointer)
    }
}

impl From<ManagerError> for Problem {
    fn from(error: ManagerError) -> Self {
        Self::of(&error)
    }
}

impl From<BuildError> for Problem {
    fn from(error: BuildError) -> Self {
        Self::from(&error)
    }
}

impl Problem {
    /// What a manager's error is in an answer.
    pub(super) fn of(error: &ManagerError) -> Self {
        let (status, code) = match error {
            ManagerError::NotFound(_) => (StatusCode::NOT_FOUND, "stream_not_found"),
            ManagerError::Exists(_) => (StatusCode::CONFLICT, "stream_exists"),
            ManagerError::InvalidId(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_stream"),
            ManagerError::DefinedInFile(_) => (StatusCode::CONFLICT, "defined_in_file"),
            ManagerError::NotDefined(_) => (StatusCode::CONFLICT, "not_configured"),
            ManagerError::Disabled(_) => (StatusCode::CONFLICT, "stream_disabled"),
            ManagerError::Pattern(_) => (StatusCode::CONFLICT, "stream_is_pattern"),
            ManagerError::Precondition { .. } => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            ManagerError::Invalid { pointer, problem } => {
                let made = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", problem.clone());
                return if pointer.is_empty() { made } else { made.at(pointer.clone()) };
            }
            ManagerError::Untrusted { pointer, .. } => {
                return Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_stream", error.to_string())
                    .at(*pointer);
            }
            ManagerError::TooMany { .. } => (StatusCode::CONFLICT, "too_many_streams"),
            ManagerError::TooManyExports { .. } => (StatusCode::CONFLICT, "too_many_exports"),
            ManagerError::BackupRunning(_) => (StatusCode::CONFLICT, "backup_running"),
            ManagerError::Backup(_) => (StatusCode::INTERNAL_SERVER_ERROR, "backup_not_deleted"),
            ManagerError::NoRoom { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            ManagerError::State(StateError::Database { full: true, .. }) => {
                (StatusCode::INSUFFICIENT_STORAGE, "disk_full")
            }
            ManagerError::State(_) => (StatusCode::SERVICE_UNAVAILABLE, "state_unavailable"),
            ManagerError::Recording(error) => return error.into(),
            ManagerError::NoDirectory { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no_such_directory"),
            ManagerError::NoIndex => (StatusCode::NOT_FOUND, "no_index"),
            ManagerError::Index(_) => (StatusCode::SERVICE_UNAVAILABLE, "index_unavailable"),
            ManagerError::Playback(error) => match error {
                PlaybackError::Nothing { .. } => (StatusCode::NOT_FOUND, "no_recordings"),
                PlaybackError::Format { .. } => (StatusCode::CONFLICT, "not_playable"),
                PlaybackError::TooLong => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_query"),
                PlaybackError::Index(_) => (StatusCode::SERVICE_UNAVAILABLE, "index_unavailable"),
                PlaybackError::NoPictures => (StatusCode::CONFLICT, "no_picture"),
                PlaybackError::Pipeline(_) => (StatusCode::SERVICE_UNAVAILABLE, "picture_failed"),
                PlaybackError::GivenUp => (StatusCode::CONFLICT, "export_ended"),
                PlaybackError::File { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "recording_damaged"),
            },
            ManagerError::Picture(_) => (StatusCode::SERVICE_UNAVAILABLE, "picture_failed"),
            ManagerError::NoPicture(_) => (StatusCode::CONFLICT, "no_picture"),
            ManagerError::ShutDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        match error {
            ManagerError::Build(error) => error.into(),
            // What is wrong with a file is no secret, and no fault of ours.
            ManagerError::Playback(_) => Self::new(status, code, error.to_string()),
            _ if status == StatusCode::INTERNAL_SERVER_ERROR => Self::internal(error),
            _ => Self::new(status, code, error.to_string()),
        }
    }
}

impl From<&RecordError> for Problem {
    fn from(error: &RecordError) -> Self {
        let (status, code) = match error {
            RecordError::State { .. } => (StatusCode::CONFLICT, "recording_state"),
            RecordError::Storage(e) if e.is_full() => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            RecordError::NoEvents => (StatusCode::CONFLICT, "no_events"),
            RecordError::Ended => (StatusCode::CONFLICT, "stream_ended"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "recording_failed"),
        };
        Self::new(status, code, error.to_string())
    }
}
