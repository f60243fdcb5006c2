//! What can go wrong, and the status a caller sees.

use std::io;
use std::path::PathBuf;

use sovereign_model::{Digest, InvalidVersion, ParseDigestError, Version};
use sovereign_service::{Code, HasCode};

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("field `{field}`")]
    Version {
        field: &'static str,
        #[source]
        cause: InvalidVersion,
    },
    #[error("field `digest`")]
    Digest(#[source] ParseDigestError),
    #[error("the first message must be the header, and only the first")]
    HeaderPlace,
    #[error("field `chunk` has {size} bytes, at most {limit} are allowed")]
    ChunkTooLarge { size: usize, limit: usize },
    #[error("field `chunk`: a checkpoint has at least one byte")]
    Empty,
    #[error("field `digest` is {expected}, the bytes have {actual}")]
    OtherDigest { expected: Digest, actual: Digest },
    #[error("field `key` is missing")]
    KeyMissing,
    #[error("version {0} is taken by other bytes")]
    Taken(Version),
    #[error("no such checkpoint")]
    NotFound,
    #[error("the store is full: {limit} bytes")]
    Full { limit: u64 },
    #[error("the store is full: {limit} checkpoints")]
    TooMany { limit: u64 },
    #[error("{limit} uploads are under way")]
    TooManyUploads { limit: usize },
    #[error("what is stored under {digest} does not match it")]
    Damaged { digest: Digest },
    #[error(
        "the index {path} is gone, and without it nothing tells which of the files in {objects} are checkpoints; put the index back from a backup, or move the files away to begin anew"
    )]
    IndexLost { path: PathBuf, objects: PathBuf },
    #[error("{operation}")]
    File {
        operation: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("{operation}")]
    Index {
        operation: &'static str,
        #[source]
        cause: Box<redb::Error>,
    },
    #[error("nothing of the upload came for {seconds} s")]
    Idle { seconds: u64 },
    #[error("receive the upload")]
    Upload(#[source] tonic::Status),
    #[error("run on a thread for blocking work")]
    Blocking(#[source] tokio::task::JoinError),
}

impl CheckpointError {
    /// `operation` failed on a file.
    pub(crate) fn file(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::File { operation, cause }
    }

    /// `operation` failed on the index.
    pub(crate) fn index(operation: &'static str) -> impl FnOnce(redb::Error) -> Self {
        move |cause| Self::Index {
            operation,
            cause: Box::new(cause),
        }
    }
}

impl HasCode for CheckpointError {
    fn code(&self) -> Code {
        match self {
            Self::Version { .. }
            | Self::Digest(_)
            | Self::HeaderPlace
            | Self::ChunkTooLarge { .. }
            | Self::Empty
            | Self::OtherDigest { .. }
            | Self::KeyMissing => Code::InvalidArgument,
            Self::Taken(_) => Code::AlreadyExists,
            Self::NotFound => Code::NotFound,
            Self::Full { .. } | Self::TooMany { .. } | Self::TooManyUploads { .. } => {
                Code::ResourceExhausted
            }
            Self::Damaged { .. } => Code::DataLoss,
            Self::File { .. } | Self::Index { .. } | Self::IndexLost { .. } | Self::Blocking(_) => {
                Code::Internal
            }
            Self::Idle { .. } => Code::DeadlineExceeded,
            Self::Upload(status) => Code::from_grpc(status.code()),
        }
    }
}
