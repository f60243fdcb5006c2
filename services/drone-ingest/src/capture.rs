//! A picture at the door, apart from its bytes.

use sovereign_model::geo::Position;
use sovereign_model::{Intrinsics, SensorId, Timestamp};

use crate::domain::history::{Fix, Place};

/// What its sender says of a picture, checked.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) vehicle_id: SensorId,
    /// Exposure; `None` when the sender did not say.
    pub(crate) captured: Option<Timestamp>,
    /// Calibrated camera.
    pub(crate) intrinsics: Option<Intrinsics>,
    /// Camera pitch relative to the body, degrees.
    pub(crate) mount_pitch_deg: Option<f64>,
    pub(crate) simulated: bool,
}

/// A picture or scan that is in the content store.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) object: sovereign_objects::Stored,
    /// `None` for a scan.
    pub(crate) header: Option<sovereign_picture::Header>,
}

/// A capture whose record is on disk.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) frame_id: String,
    /// It had been accepted before.
    pub(crate) duplicate: bool,
}

/// A sample says itself where it was taken.
pub(crate) fn fix_at(position: Position) -> Fix {
    Fix {
        place: Place {
            position,
            relative_altitude_m: None,
        },
        looking: None,
        offset: std::time::Duration::ZERO,
    }
}
