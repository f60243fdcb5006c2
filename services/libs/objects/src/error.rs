use sovereign_model::Digest;
use sovereign_service::{Code, HasCode};

/// Why the content store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// It is not here, or no longer.
    #[error("{0} is not in the content store")]
    Missing(Digest),
    /// What came is not what was asked for.
    #[error("{0} is damaged in the content store")]
    Damaged(Digest),
    /// More than the caller takes.
    #[error("the object is larger than {0} bytes")]
    TooLarge(u64),
    /// Its class has no room.
    #[error("the content store has no room")]
    NoRoom(#[source] tonic::Status),
    /// Any other answer, or none.
    #[error("call the content store")]
    Call(#[source] tonic::Status),
    /// It answered without a digest.
    #[error("understand the answer of the content store")]
    Answer(#[source] sovereign_model::ParseDigestError),
    /// The store ended the call before all was sent, without a word.
    #[error("the content store hung up")]
    HungUp,
}

impl ObjectsError {
    pub(crate) fn of(digest: Digest, status: tonic::Status) -> Self {
        if status.code() == tonic::Code::NotFound {
            Self::Missing(digest)
        } else if status.code() == tonic::Code::DataLoss {
            Self::Damaged(digest)
        } else {
            Self::Call(status)
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Damaged(_) | Self::TooLarge(_) | Self::Answer(_) => false,
            Self::NoRoom(_) | Self::HungUp => true,
            Self::Call(status) => matches!(
                Code::from_grpc(status.code()),
                Code::Unavailable | Code::DeadlineExceeded | Code::Internal
            ),
        }
    }
}

impl HasCode for ObjectsError {
    fn code(&self) -> Code {
        match self {
            Self::Missing(_) => Code::NotFound,
            Self::Damaged(_) => Code::DataLoss,
            Self::TooLarge(_) | Self::NoRoom(_) => Code::ResourceExhausted,
            Self::Call(status) => Code::from_grpc(status.code()),
            Self::HungUp => Code::Unavailable,
            Self::Answer(_) => Code::Internal,
        }
    }
}
