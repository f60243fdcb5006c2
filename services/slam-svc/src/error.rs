//! What can go wrong, and which status a caller sees.

use sovereign_bus::PublishError;
use sovereign_service::{Code, HasCode};

/// The keyframe store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database refused.
    #[error("{operation} in the keyframe store")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed; boxed because it is large.
        #[source]
        cause: Box<redb::Error>,
    },
    /// The thread that asked it is gone.
    #[error("wait for the keyframe store")]
    Thread(#[source] tokio::task::JoinError),
}

/// A capture could not be settled; it will be delivered again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// The keyframe could not be kept.
    #[error("keep the keyframe")]
    Store(#[from] StoreError),
    /// The keyframe or pose could not be published.
    #[error("publish the verdict")]
    Publish(#[from] PublishError),
    /// The capture could not be judged.
    #[error("judge the capture")]
    Judge(#[source] tokio::task::JoinError),
}

/// A call could not be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No frame named.
    #[error("`frame_id` is empty")]
    NoFrameId,
    /// Never seen, or expired.
    #[error("no keyframe of the frame `{0}`: it was never seen, or its record has expired")]
    UnknownFrame(String),
    /// The store failed.
    #[error("read the keyframe store")]
    Store(#[from] StoreError),
}

impl HasCode for CallError {
    fn code(&self) -> Code {
        match self {
            CallError::NoFrameId => Code::InvalidArgument,
            CallError::UnknownFrame(_) => Code::NotFound,
            CallError::Store(StoreError::Database { .. } | StoreError::Thread(_)) => Code::Internal,
        }
    }
}
