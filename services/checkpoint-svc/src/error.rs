//! What can go wrong, and the status a caller sees.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sovereign_disk::OpenDatabaseError;
use sovereign_model::{Digest, InvalidVersion, ParseDigestError, Version};
use sovereign_service::{Code, HasCode};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("field `{field}`")]
    Version {
        field: &'static str,
        #[source]
        cause: InvalidVersion,
    },
    #[error("field `{field}`")]
    Digest {
        field: &'static str,
        #[source]
        cause: ParseDigestError,
    },
    #[error("field `class` is missing")]
    ClassMissing,
    #[error("field `{field}` must have 1 to 128 of letters, digits, `.`, `-`, `_`, `/`")]
    PinName { field: &'static str },
    #[error("field `changes` has {count}, at most {limit} are allowed")]
    TooManyChanges { count: usize, limit: usize },
    #[error("the first message must be the header, and only the first")]
    HeaderPlace,
    #[error("the end is missing, so nothing was stored")]
    EndMissing,
    #[error("field `end.size_bytes` is {said}, {came} came")]
    OtherSize { said: u64, came: u64 },
    #[error("field `chunk` has {size} bytes, at most {limit} are allowed")]
    ChunkTooLarge { size: usize, limit: usize },
    #[error("field `chunk`: an object has at least one byte")]
    Empty,
    #[error("field `digest` is {expected}, the bytes have {actual}")]
    OtherDigest { expected: Digest, actual: Digest },
    #[error("field `key` is missing")]
    KeyMissing,
    #[error("version {0} is taken by other bytes")]
    Taken(Version),
    #[error("it is not here")]
    NotFound,
    #[error("the store is full: {limit} bytes of {class}")]
    Full { class: &'static str, limit: u64 },
    #[error("the store is full")]
    DiskFull(#[source] io::Error),
    #[error("the store is full: {limit} versions")]
    TooMany { limit: u64 },
    #[error("an object has at most {limit} pins")]
    TooManyPins { limit: usize },
    #[error("{limit} uploads are under way")]
    TooManyUploads { limit: usize },
    #[error("what is stored under {digest} does not match it")]
    Damaged { digest: Digest },
    #[error(
        "the index {} is gone, and without it nothing tells what the files in {} are; put the index back from a backup, or move the files away to begin anew",
        path.display(),
        dir.display()
    )]
    IndexLost { path: PathBuf, dir: PathBuf },
    #[error("open the index")]
    Open(#[source] OpenDatabaseError),
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
    #[error("write what came together")]
    Batch(#[source] Arc<StoreError>),
    #[error("the store did not write it; the log says why")]
    Unanswered,
    #[error("run on a thread for blocking work")]
    Blocking(#[source] tokio::task::JoinError),
}

impl StoreError {
    pub(crate) fn file(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::File { operation, cause }
    }

    pub(crate) fn index(operation: &'static str) -> impl FnOnce(redb::Error) -> Self {
        move |cause| Self::Index {
            operation,
            cause: Box::new(cause),
        }
    }
}

impl HasCode for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::Version { .. }
            | Self::Digest { .. }
            | Self::ClassMissing
            | Self::PinName { .. }
            | Self::TooManyChanges { .. }
            | Self::HeaderPlace
            | Self::EndMissing
            | Self::OtherSize { .. }
            | Self::ChunkTooLarge { .. }
            | Self::Empty
            | Self::OtherDigest { .. }
            | Self::KeyMissing => Code::InvalidArgument,
            Self::Taken(_) => Code::AlreadyExists,
            Self::NotFound => Code::NotFound,
            Self::Full { .. }
            | Self::DiskFull(_)
            | Self::TooMany { .. }
            | Self::TooManyPins { .. } => Code::ResourceExhausted,
            Self::TooManyUploads { .. } => Code::Unavailable,
            Self::Damaged { .. } => Code::DataLoss,
            Self::File { .. }
            | Self::Index { .. }
            | Self::IndexLost { .. }
            | Self::Open(_)
            | Self::Batch(_)
            | Self::Unanswered
            | Self::Blocking(_) => Code::Internal,
            Self::Idle { .. } => Code::DeadlineExceeded,
            Self::Upload(status) => Code::from_grpc(status.code()),
        }
    }
}
