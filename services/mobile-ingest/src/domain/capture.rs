//! What is said of a picture, apart from its bytes.

use sovereign_model::{Intrinsics, Timestamp};

use super::frame::Place;

#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureNote {
    pub(crate) captured: Option<Timestamp>,
    pub(crate) place: Place,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct DroneCapture {
    pub(crate) vehicle_id: String,
    /// 0 when the sender did not say.
    pub(crate) captured_unix_nanos: i64,
    pub(crate) calibration: Option<Intrinsics>,
    pub(crate) mount_pitch_deg: Option<f64>,
    pub(crate) simulated: bool,
}
