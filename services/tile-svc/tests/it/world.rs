//! A flat world with a texture and marks whose places are known exactly, and cameras above it.

use std::io::Write as _;
use std::path::PathBuf;

use nalgebra::{Matrix3, Vector3};
use prost::bytes::Bytes;
use sovereign_model::geo::{Attitude, Enu, Geodetic, LocalFrame};
use sovereign_model::{CameraPose, Intrinsics};

/// Altitude of the ground.
pub(crate) const GROUND_ALTITUDE_M: f64 = 150.0;
/// Metres between marks.
const MARK_SPACING_M: f64 = 14.0;
/// Radius of a mark.
const MARK_RADIUS_M: f64 = 0.55;

fn origin() -> LocalFrame {
    LocalFrame::at(Geodetic::new(46.842_656, -91.994_008, GROUND_ALTITUDE_M).unwrap())
}

/// A calibrated camera with distortion.
pub(crate) fn camera() -> Intrinsics {
    Intrinsics::new(752, 480, 460.0, 460.0, 370.0, 245.0, -0.05, 0.01).unwrap()
}

/// A camera `east`, `north` of the origin and `height` metres above the ground.
pub(crate) fn pose(east: f64, north: f64, height: f64, pitch_deg: f64, yaw_deg: f64) -> CameraPose {
    let place = origin().geodetic_from_enu(&Enu {
        east,
        north,
        up: 0.0,
    });
    CameraPose::from_gimbal(
        place.at_altitude(GROUND_ALTITUDE_M + height),
        Attitude {
            roll_deg: 0.0,
            pitch_deg,
            yaw_deg,
        },
        height,
    )
}

/// A line of overlapping looks, each turned and tilted a little.
pub(crate) fn flight(frames: usize) -> Vec<CameraPose> {
    (0..frames)
        .map(|i| {
            let i = i as f64;
            pose(
                i * 11.0,
                i * -4.0,
                60.0 + i,
                -90.0 + i * 2.0,
                20.0 + i * 7.0,
            )
        })
        .collect()
}

/// Where the marks around the origin are.
pub(crate) fn mark_places() -> Vec<Geodetic> {
    let origin = origin();
    (-3..=3)
        .flat_map(|i| (-3..=3).map(move |j| (i, j)))
        .map(|(i, j)| {
            origin.geodetic_from_enu(&Enu {
                east: f64::from(i) * MARK_SPACING_M,
                north: f64::from(j) * MARK_SPACING_M,
                up: 0.0,
            })
        })
        .collect()
}

pub(crate) struct World {
    origin: LocalFrame,
}

impl World {
    pub(crate) fn with_marks() -> Self {
        Self { origin: origin() }
    }

    /// What `camera` sees from `pose`, as JPEG.
    pub(crate) fn photograph(&self, pose: &CameraPose, camera: &Intrinsics) -> Bytes {
        let view = pose.view(camera);
        // Two local frames differ by a rotation and a shift: four points say which.
        let here = |point: Vector3<f64>| {
            let place = view.frame().geodetic_from_enu(&Enu::from_vector(point));
            self.origin.enu_from_geodetic(&place).to_vector()
        };
        let shift = here(Vector3::zeros());
        let axis = |unit: Vector3<f64>| (here(unit * 1_000.0) - shift) / 1_000.0;
        let rotation =
            Matrix3::from_columns(&[axis(Vector3::x()), axis(Vector3::y()), axis(Vector3::z())]);
        let picture = image::RgbImage::from_fn(camera.width_px(), camera.height_px(), |x, y| {
            let mut sum = 0.0;
            // Four looks a pixel, so that edges are not chance.
            for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                let ground = view.ground_enu([f64::from(x) + dx, f64::from(y) + dy]);
                sum += ground.map_or(0.0, |enu| brightness(shift + rotation * enu.to_vector()));
            }
            let value = (sum / 4.0) as u8;
            image::Rgb([value / 2, value, 60])
        });
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95)
            .encode_image(&picture)
            .unwrap();
        jpeg.into()
    }
}

fn brightness(ground: Vector3<f64>) -> f64 {
    let (east, north) = (ground.x, ground.y);
    let from_mark = |v: f64| v - (v / MARK_SPACING_M).round() * MARK_SPACING_M;
    if from_mark(east).hypot(from_mark(north)) < MARK_RADIUS_M {
        return 250.0;
    }
    60.0 + 30.0 * (east * 0.31).sin() * (north * 0.23).cos()
}

/// The real flight, where it is at hand.
pub(crate) fn brighton_beach() -> Option<PathBuf> {
    let root = std::env::var_os("SOVEREIGN_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join("aerial-brighton-beach");
    if folder.join("reference_poses_colmap.csv").is_file() {
        return Some(folder);
    }
    // Not through the macro, whose output is hidden while a test passes.
    let line = format!("skipped: no real flight at {}\n", folder.display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// Where artefacts of tests are left.
pub(crate) fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
