//! What can go wrong, and which status a caller sees.

use sovereign_service::{Code, HasCode};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CameraError {
    #[error("`camera_id`: no camera has the id `{0}`")]
    Unknown(String),
    #[error("the camera `{0}` has not delivered a frame yet: see its last error in ListCameras")]
    NoFrame(String),
}

impl HasCode for CameraError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::NotFound,
            Self::NoFrame(_) => Code::Unavailable,
        }
    }
}
