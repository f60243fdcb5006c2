//! What can go wrong with a picture, and what its sender is told.

use sovereign_bus::{InvalidKey, PublishError};
use sovereign_service::{Code, HasCode};

use crate::domain::jpeg::InvalidJpeg;
use crate::domain::reject::Reject;

/// A picture was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A field of the request cannot be used.
    #[error("the capture cannot be used: {field} {why}")]
    Field {
        /// Path of the field in the request.
        field: String,
        /// The rest of the sentence.
        why: String,
    },
    /// The picture is not a usable JPEG.
    #[error("`image` cannot be used")]
    Image(#[source] InvalidJpeg),
    /// The picture is larger than one message may be.
    #[error(
        "`image` has {size} bytes, more than the limit of {limit} that the bus payload limit leaves"
    )]
    TooLarge {
        /// Largest picture in bytes.
        limit: usize,
        /// Size of this one in bytes.
        size: usize,
    },
    /// The vehicle id cannot be a bus key, although it is a sensor id.
    #[error("make a bus key of the vehicle id")]
    Key(#[source] InvalidKey),
    /// The durable queue did not take it.
    #[error("queue what was captured")]
    Queue(#[source] PublishError),
}

impl CaptureError {
    /// The counter it belongs to.
    pub fn reject(&self) -> Reject {
        match self {
            CaptureError::Field { .. } | CaptureError::Image(_) => Reject::InvalidCapture,
            CaptureError::TooLarge { .. } => Reject::CaptureTooLarge,
            CaptureError::Key(_) | CaptureError::Queue(_) => Reject::QueueFailed,
        }
    }
}

impl HasCode for CaptureError {
    fn code(&self) -> Code {
        match self {
            CaptureError::Field { .. } | CaptureError::Image(_) => Code::InvalidArgument,
            CaptureError::TooLarge { .. } | CaptureError::Queue(PublishError::TooLarge { .. }) => {
                Code::ResourceExhausted
            }
            CaptureError::Queue(PublishError::Closed | PublishError::Transport(_)) => {
                Code::Unavailable
            }
            CaptureError::Key(_)
            | CaptureError::Queue(PublishError::InvalidMessageId | PublishError::Subject(_)) => {
                Code::Internal
            }
        }
    }
}
