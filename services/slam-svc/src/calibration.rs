//! What somebody said a camera really is.

use sovereign_model::Timestamp;

use crate::domain::camera::CameraModel;

/// Calibrations kept at most; a further one is refused. Each picture is compared with all of them.
pub(crate) const MAX_CALIBRATIONS: usize = 256;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calibration {
    pub(crate) camera: CameraModel,
    pub(crate) sensor_id: String,
    pub(crate) set: Timestamp,
}

impl Calibration {
    pub(crate) fn is_of(&self, model: &str, sensor_id: &str) -> bool {
        self.camera.model == model && self.sensor_id == sensor_id
    }
}

/// The cameras that may have taken a picture of a sensor, the best known first: what was said of its own,
/// of its model, then what the configuration knows.
pub(crate) fn cameras_of(
    sensor_id: &str,
    calibrations: &[Calibration],
    configured: &[CameraModel],
) -> Vec<CameraModel> {
    let said = |of: &str| {
        let of = of.to_owned();
        let own = calibrations.iter().filter(move |said| said.sensor_id == of);
        own.map(|said| said.camera.clone())
    };
    let said = said(sensor_id).chain(said(""));
    said.chain(configured.iter().cloned()).collect()
}
