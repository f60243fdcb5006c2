//! What can go wrong with a picture or scan, and what its sender is told.

use sovereign_bus::{InvalidKey, PublishError};
use sovereign_objects::{ObjectsError, PutPictureError};
use sovereign_picture::NotAPicture;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

use crate::domain::reject::Reject;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("the capture cannot be used: {} {}", .0.field, .0.why)]
    Field(FieldError),
    #[error("receive the picture")]
    Receive(#[source] tonic::Status),
    #[error("the picture {0}")]
    Picture(NotAPicture),
    #[error("store what was captured")]
    Store(#[source] ObjectsError),
    #[error("make a bus key of the vehicle id")]
    Key(#[source] InvalidKey),
    #[error("queue what was captured")]
    Queue(#[source] PublishError),
}

impl From<FieldError> for CaptureError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<PutPictureError<tonic::Status>> for CaptureError {
    fn from(error: PutPictureError<tonic::Status>) -> Self {
        match error {
            PutPictureError::Source(status) => Self::Receive(status),
            PutPictureError::NotAPicture(why) => Self::Picture(why),
            PutPictureError::Store(error) => Self::Store(error),
        }
    }
}

impl CaptureError {
    pub(crate) fn reject(&self) -> Reject {
        match self {
            Self::Picture(NotAPicture::TooLarge | NotAPicture::Size { .. }) => {
                Reject::CaptureTooLarge
            }
            Self::Field(_) | Self::Receive(_) | Self::Picture(_) => Reject::InvalidCapture,
            Self::Store(_) | Self::Key(_) | Self::Queue(_) => Reject::QueueFailed,
        }
    }
}

impl HasCode for CaptureError {
    fn code(&self) -> Code {
        match self {
            Self::Field(_) | Self::Picture(_) => Code::InvalidArgument,
            Self::Receive(status) => Code::from_grpc(status.code()),
            Self::Store(error) => error.code(),
            Self::Queue(PublishError::Closed | PublishError::Transport(_)) => Code::Unavailable,
            Self::Queue(PublishError::TooLarge { .. } | PublishError::Full(_)) => {
                Code::ResourceExhausted
            }
            Self::Key(_)
            | Self::Queue(PublishError::InvalidMessageId | PublishError::Subject(_)) => {
                Code::Internal
            }
        }
    }
}
