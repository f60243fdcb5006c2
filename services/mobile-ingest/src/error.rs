//! What can go wrong at the door, and the one place where a status is chosen for it.

use std::time::Duration;

use axum::http::StatusCode;
use sovereign_bus::PublishError;
use sovereign_objects::{ObjectsError, PutPictureError};
use sovereign_picture::NotAPicture;
use sovereign_service::{Code, HasCode};

use crate::domain::clients::TableFull;
use crate::domain::frame::{Reject, RejectCode};

/// A sender that pauses for longer than this in a body is cut off.
pub(crate) const PAUSE: Duration = Duration::from_secs(30);

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive in time: {} s are the longest pause", PAUSE.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    BrokeOff,
    #[error("too many uploads are being handled")]
    NoRoom,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Refused(#[from] Reject),
    #[error(transparent)]
    Full(#[from] TableFull),
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error("the picture {0}")]
    Picture(NotAPicture),
    #[error("store the picture")]
    Store(#[source] ObjectsError),
    #[error("queue the sample")]
    Queue(#[source] PublishError),
    #[error("the queue did not answer in time")]
    QueueTimeout,
}

impl IngestError {
    pub(crate) fn reject_code(&self) -> RejectCode {
        match self {
            Self::Refused(reject) => reject.code,
            Self::Picture(NotAPicture::Empty) => RejectCode::MissingImageData,
            Self::Picture(_)
            | Self::Body(BodyFault::TooLarge { .. } | BodyFault::TooSlow | BodyFault::BrokeOff) => {
                RejectCode::InvalidPayload
            }
            Self::Body(BodyFault::NoRoom) | Self::Store(_) => RejectCode::BufferFull,
            // It will be as large when it is sent again.
            Self::Queue(PublishError::TooLarge { .. }) => RejectCode::InvalidPayload,
            Self::Full(_)
            | Self::Queue(
                PublishError::InvalidMessageId
                | PublishError::Subject(_)
                | PublishError::Full(_)
                | PublishError::Closed
                | PublishError::Transport(_),
            )
            | Self::QueueTimeout => RejectCode::BufferFull,
        }
    }
}

impl IngestError {
    /// The status of the answer: 507 where somebody has to make room before a retry is of use.
    pub(crate) fn status(&self) -> StatusCode {
        if let Self::Store(ObjectsError::NoRoom(_)) | Self::Queue(PublishError::Full(_)) = self {
            return StatusCode::INSUFFICIENT_STORAGE;
        }
        self.code().http()
    }
}

impl From<PutPictureError<BodyFault>> for IngestError {
    fn from(error: PutPictureError<BodyFault>) -> Self {
        match error {
            PutPictureError::Source(fault) => Self::Body(fault),
            PutPictureError::NotAPicture(why) => Self::Picture(why),
            PutPictureError::Store(error) => Self::Store(error),
        }
    }
}

impl HasCode for IngestError {
    fn code(&self) -> Code {
        code_from_reject(self.reject_code())
    }
}

fn code_from_reject(code: RejectCode) -> Code {
    match code {
        RejectCode::InvalidPayload
        | RejectCode::UnsupportedContractVersion
        | RejectCode::MissingClientId
        | RejectCode::InvalidClientId
        | RejectCode::UnsupportedSensorType
        | RejectCode::FutureTimestamp
        | RejectCode::StaleTimestamp
        | RejectCode::InvalidLatitude
        | RejectCode::InvalidLongitude
        | RejectCode::MissingImageData
        | RejectCode::MissingImuData => Code::InvalidArgument,
        RejectCode::ClientNotRegistered | RejectCode::Unauthorized => Code::Unauthenticated,
        RejectCode::DuplicateFrame | RejectCode::OutOfOrderFrame => Code::AlreadyExists,
        RejectCode::BufferFull => Code::Unavailable,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{service} answered: {message}")]
pub(crate) struct CallError {
    pub(crate) service: &'static str,
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl CallError {
    pub(crate) fn new(service: &'static str, status: &tonic::Status) -> Self {
        Self {
            service,
            code: Code::from_grpc(status.code()),
            message: status.message().to_owned(),
        }
    }
}

impl HasCode for CallError {
    fn code(&self) -> Code {
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_later_is_asked_for_again() {
        let too_large = PublishError::TooLarge { limit: 1, size: 2 };
        assert_eq!(IngestError::Queue(too_large).code(), Code::InvalidArgument);
        for error in [
            IngestError::Queue(PublishError::Closed),
            IngestError::QueueTimeout,
        ] {
            assert_eq!(error.code(), Code::Unavailable);
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let full = IngestError::Queue(PublishError::Full("no room".to_owned()));
        assert_eq!(full.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(full.reject_code(), RejectCode::BufferFull);
    }
}
