//! The ground under a camera by a terrain model: how far below, and what shape.

use sovereign_model::{CameraPose, Intrinsics, Relief};

/// A terrain model.
pub(crate) trait Elevation: std::fmt::Debug + Send + Sync {
    /// Height of the ground above the WGS 84 ellipsoid, metres; `None` where the model has none.
    fn ellipsoidal_m(&self, latitude_deg: f64, longitude_deg: f64) -> Option<f64>;

    /// Degrees of latitude between two heights of the model where it is finest.
    fn step_deg(&self) -> f64;
}

/// Ground further from below the camera than this many heights is looked at too flatly to matter.
const REACH: f64 = 2.6;
/// Around what is seen of the plane, in heights: lower ground is seen further out.
const MARGIN: f64 = 0.5;
/// Metres in a degree of latitude.
const DEGREE_M: f64 = 111_000.0;

/// The shape of the ground that a picture may show, `below_m` the height of the ground straight below it. Where
/// the model has a hole the ground is taken to be level with that.
pub(crate) fn relief(
    terrain: &dyn Elevation,
    pose: &CameraPose,
    camera: &Intrinsics,
    below_m: f64,
) -> Option<Relief> {
    let place = pose.position;
    let height = pose.height_above_ground_m;
    let [mut south, mut west, mut north, mut east] = [0.0_f64; 4];
    for pixel in corners(camera) {
        let ray = pose.enu_from_camera * camera.ray(pixel);
        let along = ray.x.hypot(ray.y);
        let flat = if ray.z < 0.0 {
            along / -ray.z
        } else {
            f64::MAX
        };
        let reach = (flat.min(REACH) + MARGIN) * height;
        let (x, y) = if along > 0.0 {
            (ray.x / along * reach, ray.y / along * reach)
        } else {
            (0.0, 0.0)
        };
        (west, east) = (west.min(x), east.max(x));
        (south, north) = (south.min(y), north.max(y));
    }
    let margin = MARGIN * height;
    let lat_m = DEGREE_M;
    let lon_m = DEGREE_M * place.latitude_deg.to_radians().cos().max(1e-3);
    let south_deg = place.latitude_deg + (south - margin) / lat_m;
    let west_deg = place.longitude_deg + (west - margin) / lon_m;
    let side = Relief::MAX_SIDE;
    let finest_m = terrain.step_deg() * DEGREE_M;
    let count = |metres: f64| ((metres / finest_m).ceil() as usize + 1).clamp(2, side);
    let (tall_m, wide_m) = (north - south + 2.0 * margin, east - west + 2.0 * margin);
    let (rows, columns) = (count(tall_m), count(wide_m));
    let step_lat_deg = tall_m / lat_m / (rows - 1) as f64;
    let step_lon_deg = wide_m / lon_m / (columns - 1) as f64;
    let metres = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let metres = metres.map(|(row, column)| {
        let latitude = south_deg + step_lat_deg * row as f64;
        let longitude = wrapped(west_deg + step_lon_deg * column as f64);
        let ground = terrain
            .ellipsoidal_m(latitude, longitude)
            .unwrap_or(below_m);
        (ground - below_m) as f32
    });
    let metres = metres.collect();
    let west_deg = wrapped(west_deg);
    Relief::new(
        south_deg,
        west_deg,
        step_lat_deg,
        step_lon_deg,
        columns,
        metres,
    )
    .ok()
}

fn wrapped(longitude_deg: f64) -> f64 {
    (longitude_deg + 180.0).rem_euclid(360.0) - 180.0
}

fn corners(camera: &Intrinsics) -> [[f64; 2]; 4] {
    let (w, h) = (f64::from(camera.width_px()), f64::from(camera.height_px()));
    [[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]]
}
