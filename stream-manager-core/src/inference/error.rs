//! What can go wrong with models and pictures.

use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong with models and pictures.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// ONNX Runtime cannot be used.
    #[error("ONNX Runtime: {problem}; install it with: {}", super::INSTALL_COMMAND)]
    Library {
        /// What is the matter.
        problem: String,
    },
    /// The model's file cannot be used.
    #[error("model {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is the matter, and what would be right.
        problem: String,
    },
    /// The model does not fit its description.
    #[error("model \"{model}\": tensor \"{tensor}\" is {found}; expected {expected}")]
    Mismatch {
        /// The model.
        model: String,
        /// Its input or output.
        tensor: String,
        /// The shape that it has.
        found: String,
        /// The shape that it should have, and what to set otherwise.
        expected: String,
    },
    /// The model's description is wrong.
    #[error("model \"{model}\": {key}: {problem}")]
    Spec {
        /// The model.
        model: String,
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The hardware or its software cannot be used.
    #[error("backend {backend}: {problem}")]
    Backend {
        /// The backend's name.
        backend: String,
        /// What is the matter.
        problem: String,
    },
    /// Computing failed.
    #[error("model \"{model}\": {problem}")]
    Run {
        /// The model.
        model: String,
        /// What is the matter.
        problem: String,
    },
    /// Computing took too long.
    #[error("model \"{model}\" did not answer within {limit:?}")]
    Timeout {
        /// The model.
        model: String,
        /// The limit.
        limit: Duration,
    },
    /// There is no such model.
    #[error("there is no model \"{name}\"; there are: {known}")]
    NoModel {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// None was named, and it could be several.
    #[error("no model is named; expected one of: {known}")]
    NotNamed {
        /// Those that there are.
        known: String,
    },
    /// The model cannot be used at the moment.
    #[error("model \"{model}\" is not ready: {reason}")]
    NotReady {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// Too much is waiting already.
    #[error("model \"{model}\": {waiting} pictures are waiting already; try again later")]
    Busy {
        /// The model.
        model: String,
        /// How many.
        waiting: usize,
    },
    /// The picture cannot be used.
    #[error("picture: {problem}")]
    Picture {
        /// What is the matter, and what would be right.
        problem: String,
    },
    /// Decoding or encoding failed.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::PipelineError),
    /// A live source failed.
    #[error("{0}")]
    Source(String),
    /// A file cannot be written.
    #[error("{}: {problem}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        problem: String,
    },
    /// No thread could be started, or it is gone.
    #[error("threads: {0}")]
    Thread(String),
}

pub(super) fn picture(problem: impl Into<String>) -> InferenceError {
    InferenceError::Picture { problem: problem.into() }
}
