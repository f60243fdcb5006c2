//! What can go wrong, and the status a caller sees.

use sovereign_disk::OpenDatabaseError;
use sovereign_model::Digest;
use sovereign_service::{Code, HasCode};

use crate::domain::Impossible;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("open the store of rounds")]
    Open(#[from] OpenDatabaseError),
    #[error("{operation}")]
    Use {
        operation: &'static str,
        #[source]
        cause: Box<redb::Error>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error("open a round")]
    Impossible(#[source] Impossible),
    #[error("the checkpoint store has no model {0}")]
    NoModel(Digest),
    #[error("ask the checkpoint store for the model")]
    Checkpoints(#[source] Box<tonic::Status>),
    #[error("{limit} rounds of this node are open, which is as many as it keeps")]
    TooManyOpen { limit: usize },
    #[error("keep the rounds")]
    Store(#[from] StoreError),
    #[error("run on a thread for blocking work")]
    Blocking(#[source] tokio::task::JoinError),
}

impl HasCode for RoundError {
    fn code(&self) -> Code {
        match self {
            Self::Impossible(Impossible::Clock) => Code::Internal,
            Self::Impossible(
                Impossible::Model(_)
                | Impossible::Participants
                | Impossible::Timeout { .. }
                | Impossible::RoundId
                | Impossible::Name
                | Impossible::Times,
            ) => Code::InvalidArgument,
            Self::NoModel(_) => Code::NotFound,
            Self::TooManyOpen { .. } => Code::ResourceExhausted,
            Self::Checkpoints(status) => Code::from_grpc(status.code()),
            Self::Store(_) | Self::Blocking(_) => Code::Internal,
        }
    }
}
