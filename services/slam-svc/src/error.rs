//! What can go wrong, and which status a caller sees.

use sovereign_bus::PublishError;
use sovereign_disk::OpenDatabaseError;
use sovereign_objects::ObjectsError;
use sovereign_proto::convert::FieldError;
use sovereign_service::{Code, HasCode};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("open the keyframe store")]
    Open(#[source] OpenDatabaseError),
    #[error("{operation} in the keyframe store")]
    Database {
        operation: &'static str,
        /// Why it failed; boxed because it is large.
        #[source]
        cause: Box<redb::Error>,
    },
    #[error("wait for the keyframe store")]
    Thread(#[source] tokio::task::JoinError),
}

/// A capture could not be settled; it will be delivered again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    #[error("keep the keyframe")]
    Store(#[from] StoreError),
    #[error("publish the verdict")]
    Publish(#[from] PublishError),
    #[error("read the header of the picture")]
    Fetch(#[source] ObjectsError),
    #[error("judge the capture")]
    Judge(#[source] tokio::task::JoinError),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("`frame_id` is empty")]
    NoFrameId,
    #[error("no keyframe of the frame `{0}`: it was never seen, or its record has expired")]
    UnknownFrame(String),
    #[error("`after` is {after}, ahead of the newest verdict, {newest}: read the newest again")]
    Ahead { after: u64, newest: u64 },
    #[error("the calibration cannot be used: {} {}", .0.field, .0.why)]
    Calibration(FieldError),
    #[error("no calibration of the camera `{model}`{}", of_sensor(sensor))]
    UnknownCalibration {
        model: String,
        /// Sensor, empty for that of all.
        sensor: String,
    },
    #[error("there are {0} calibrations, which is the limit: remove one first")]
    TooManyCalibrations(usize),
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
            CallError::Ahead { .. } => Code::FailedPrecondition,
            CallError::TooManyCalibrations(_) => Code::ResourceExhausted,
            CallError::Store(
                StoreError::Open(_) | StoreError::Database { .. } | StoreError::Thread(_),
            ) => Code::Internal,
        }
    }
}
