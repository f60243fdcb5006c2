//! What can go wrong, and which status a caller sees.

use sovereign_bus::PublishError;
use sovereign_disk::OpenDatabaseError;
use sovereign_objects::ObjectsError;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

/// The keyframe store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It cannot be opened.
    #[error("open the keyframe store")]
    Open(#[source] OpenDatabaseError),
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
    /// The content store does not answer just now.
    #[error("read the header of the picture")]
    Fetch(#[source] ObjectsError),
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
    /// A field of a calibration cannot be used.
    #[error("the calibration cannot be used: {} {}", .0.field, .0.why)]
    Calibration(FieldError),
    /// There is no such calibration.
    #[error("no calibration of the camera `{model}`{}", of_sensor(sensor))]
    UnknownCalibration {
        /// Model.
        model: String,
        /// Sensor, empty for that of all.
        sensor: String,
    },
    /// As many as are kept.
    #[error("there are {0} calibrations, which is the limit: remove one first")]
    TooManyCalibrations(usize),
    /// The store failed.
    #[error("use the keyframe store")]
    Store(#[from] StoreError),
}

fn of_sensor(sensor: &str) -> String {
    if sensor.is_empty() {
        String::new()
    } else {
        format!(" of the sensor `{sensor}`")
    }
}

impl HasCode for CallError {
    fn code(&self) -> Code {
        match self {
            CallError::NoFrameId | CallError::Calibration(_) => Code::InvalidArgument,
            CallError::UnknownFrame(_) | CallError::UnknownCalibration { .. } => Code::NotFound,
            CallError::TooManyCalibrations(_) => Code::ResourceExhausted,
            CallError::Store(
                StoreError::Open(_) | StoreError::Database { .. } | StoreError::Thread(_),
            ) => Code::Internal,
        }
    }
}
