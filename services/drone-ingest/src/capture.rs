//! A picture at the door, apart from its bytes.

use sovereign_model::geo::Position;
use sovereign_model::{Intrinsics, SensorId, Timestamp};

use crate::domain::history::{Fix, Place};

#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) vehicle_id: SensorId,
    /// Exposure; `None` when the sender did not say.
    pub(crate) captured: Option<Timestamp>,
    pub(crate) intrinsics: Option<Intrinsics>,
    /// Camera pitch relative to the body, degrees.
    pub(crate) mount_pitch_deg: Option<f64>,
    pub(crate) simulated: bool,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) object: sovereign_objects::Stored,
    /// `None` for a scan.
    pub(crate) header: Option<sovereign_picture::Header>,
}

#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) frame_id: String,
    pub(crate) duplicate: bool,
}

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
