//! A verdict on a frame, as the map takes it.

use sovereign_model::geo::TileCoord;
use sovereign_model::{CameraPose, Digest, Intrinsics, Relief, Timestamp};

use crate::domain::plan::Plan;
use crate::store::FrameRecord;

#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) frame_id: String,
    pub(crate) sensor_id: String,
    pub(crate) revision: u32,
    pub(crate) received: Timestamp,
    pub(crate) simulated: bool,
    pub(crate) digest: Digest,
    pub(crate) keyframe: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) pose: CameraPose,
    pub(crate) camera: Intrinsics,
    /// Shape of the ground; a plane without it.
    pub(crate) relief: Option<Relief>,
}

impl Arrival {
    pub(crate) fn record_on(&self, plan: &Plan, tiles: Vec<TileCoord>) -> FrameRecord {
        FrameRecord {
            bounds: Some(plan.bounds),
            tiles,
            ..self.record()
        }
    }

    pub(crate) fn record(&self) -> FrameRecord {
        FrameRecord {
            revision: self.revision,
            simulated: self.simulated,
            bounds: None,
            tiles: Vec::new(),
            keyframe: self.keyframe.clone(),
        }
    }
}
