//! Which camera took a picture: from what the sender says, from a calibration of the model, from the one
//! that the maker wrote into the picture, from the sensor of the model and the focal length, from the focal
//! plane resolution, or from the 35 mm equivalent, in that order.
//!
//! A drone with several cameras writes one model for all, and DJI names the one in `ImageSource`: each is a
//! camera of its own, `M3T InfraredCamera` beside `M3T WideCamera`.
//!
//! A sensor known in millimetres comes before the 35 mm equivalent because the latter is rounded to a
//! whole millimetre and some makers relate it to the diagonal: for the FC300S the three rules give
//! 2,411 px (measured), 2,340 px (sensor, 3 % short) and 2,222 px (film, 8 % short) at 4,000 px width.

use sovereign_model::{Distortion, Intrinsics};
use sovereign_picture::{Header, Projection};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CameraModel {
    pub(crate) model: String,
    /// Focal length divided by the longer side of the picture.
    pub(crate) focal_px_per_width: f64,
    /// First radial distortion coefficient (OpenCV's k1, which is COLMAP's k of SIMPLE_RADIAL).
    pub(crate) k1: f64,
    pub(crate) k2: f64,
}

impl CameraModel {
    pub(crate) const FOCAL_PX_PER_WIDTH: std::ops::RangeInclusive<f64> = 0.1..=20.0;
    pub(crate) const DISTORTION: std::ops::RangeInclusive<f64> = -1.0..=1.0;

    /// The first value that no camera has: its name, and what it must be.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.model.is_empty() {
            return Some(("model", "must not be empty"));
        }
        if !Self::FOCAL_PX_PER_WIDTH.contains(&self.focal_px_per_width) {
            return Some(("focal_px_per_width", "must be 0.1 to 20"));
        }
        [("k1", self.k1), ("k2", self.k2)]
            .into_iter()
            .find(|(_, value)| !Self::DISTORTION.contains(value))
            .map(|(name, _)| (name, "must be -1 to 1"))
    }
}

/// Cameras with a calibration, unless the configuration says otherwise.
///
/// FC300S (DJI Phantom 3), 16:9 pictures of 4,000 x 2,250: measured on a public survey of ten pictures.
/// What nadir pictures over flat ground show is the ratio of height to focal length, and overlapping
/// pictures agree at 0.01663 m a pixel where the camera reports 40.1 m: 2,411 px. (A structure-from-motion
/// calibration of the same set has 2,754.5 px and k 0.0096, together with 45.8 m above ground; the ratio
/// is the same, and so is the map. k1 here is that k for the shorter focal length.) The airframe's heading
/// is within 2.9 degrees of that reconstruction (1.4 rms), the gimbal's within 3.5 (2.8 rms).
pub(crate) fn built_in() -> Vec<CameraModel> {
    vec![CameraModel {
        model: "FC300S".to_owned(),
        focal_px_per_width: 2411.0 / 4000.0,
        k1: 0.0096 * (2411.0 / 2754.5) * (2411.0 / 2754.5),
        k2: 0.0,
    }]
}

/// A sensor: its longer side in millimetres, and the sides of the largest picture that it takes, in
/// pixels.
struct Sensor {
    long_mm: f64,
    long_px: u32,
    short_px: u32,
}

const fn sensor(long_mm: f64, long_px: u32, short_px: u32) -> Sensor {
    Sensor {
        long_mm,
        long_px,
        short_px,
    }
}

/// Sensors by model as Exif says it. DJI's and Hasselblad's from OpenSfM's `sensor_data.json` and the makers'
/// data sheets; Teal's from the pixels of its Hadron 640R (0.8 and 12 micrometres).
const SENSORS: [(&str, Sensor); 16] = [
    ("FC300S", sensor(6.17, 4000, 3000)),
    ("FC300X", sensor(6.17, 4000, 3000)),
    ("FC300C", sensor(6.17, 4000, 3000)),
    ("FC330", sensor(6.17, 4000, 3000)),
    ("FC350", sensor(6.17, 4000, 3000)),
    ("FC220", sensor(6.17, 4000, 3000)),
    ("FC2103", sensor(6.17, 4056, 3040)),
    ("FC6310", sensor(13.2, 5472, 3648)),
    ("FC6310S", sensor(13.2, 5472, 3648)),
    ("FC6310R", sensor(13.2, 5472, 3648)),
    ("L1D-20c", sensor(13.2, 5472, 3648)),
    ("L2D-20c", sensor(17.5, 5280, 3956)),
    ("ZENMUSEP1", sensor(35.9, 8192, 5460)),
    ("Hadron 640R EO", sensor(7.398, 9248, 6944)),
    ("Boson 640", sensor(7.68, 640, 512)),
    ("FC3411", sensor(13.2, 5472, 3648)),
];

impl Sensor {
    /// Millimetres of the sensor along the longer side of a picture, or `None` when the picture's size
    /// does not tell: a crop keeps one side of the full picture, a scaled picture keeps its shape, and
    /// anything else could be both.
    fn seen_mm(&self, width_px: u32, height_px: u32) -> Option<f64> {
        let (long, short) = (width_px.max(height_px), width_px.min(height_px));
        let is_crop = (short == self.short_px && long <= self.long_px)
            || (long == self.long_px && short <= self.short_px);
        // Scaling rounds a side to a whole pixel.
        let short_scaled = f64::from(long) * f64::from(self.short_px) / f64::from(self.long_px);
        let is_scaled = (f64::from(short) - short_scaled).abs() < 1.0;
        if is_crop {
            Some(self.long_mm * f64::from(long) / f64::from(self.long_px))
        } else {
            is_scaled.then_some(self.long_mm)
        }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum NoCamera {
    #[error(
        "the focal length of the camera is unknown: send intrinsics or add the camera model to the configuration"
    )]
    Unknown,
    #[error(
        "intrinsics are for {given_width} x {given_height} pixels, the picture has {width} x {height}"
    )]
    OtherSize {
        given_width: u32,
        given_height: u32,
        width: u32,
        height: u32,
    },
    #[error("the picture is from a fisheye lens, which is not supported yet")]
    Fisheye,
    #[error("the picture is a panorama, stitched from several: send the single pictures")]
    Panorama,
    #[error("the camera that the picture describes cannot be: {0}")]
    Impossible(sovereign_model::InvalidIntrinsics),
}

/// The camera of a model that took the picture, the best known first.
fn model_of<'a>(picture: &Header, cameras: &'a [CameraModel]) -> Option<&'a CameraModel> {
    let name = picture.camera_name()?;
    cameras.iter().find(|camera| camera.model == name)
}

/// The camera that took a picture.
pub(crate) fn intrinsics(
    metadata: &Header,
    given: Option<Intrinsics>,
    cameras: &[CameraModel],
) -> Result<Intrinsics, NoCamera> {
    let (width, height) = (metadata.width_px, metadata.height_px);
    match metadata.projection {
        Projection::Perspective => {}
        Projection::Fisheye => return Err(NoCamera::Fisheye),
        Projection::Panorama => return Err(NoCamera::Panorama),
    }
    if let Some(given) = given {
        let (given_width, given_height) = (given.width_px(), given.height_px());
        return if (given_width, given_height) == (width, height) {
            Ok(given)
        } else {
            Err(NoCamera::OtherSize {
                given_width,
                given_height,
                width,
                height,
            })
        };
    }
    // What is known of a lens or a sensor is known without an enlargement.
    let zoom = metadata.digital_zoom.unwrap_or(1.0);
    if let Some(camera) = model_of(metadata, cameras) {
        let focal_px = camera.focal_px_per_width * f64::from(width.max(height)) * zoom;
        let found = Intrinsics::new(
            width,
            height,
            focal_px,
            focal_px,
            f64::from(width) / 2.0,
            f64::from(height) / 2.0,
            camera.k1,
            camera.k2,
        );
        return found.map_err(NoCamera::Impossible);
    }
    let by_film = metadata
        .focal_35mm
        .map(|focal| Intrinsics::from_35mm(width, height, focal));
    let by_sensor = metadata.focal_mm.and_then(|focal| {
        let long_mm = seen_mm(metadata).or_else(|| {
            let pixel_mm = metadata.pixel_mm?;
            Some(pixel_mm * f64::from(width.max(height)))
        })?;
        Some(Intrinsics::from_focal_and_sensor(
            width,
            height,
            focal * zoom,
            long_mm,
        ))
    });
    let rough = by_sensor.or(by_film).transpose();
    let rough = rough.map_err(NoCamera::Impossible)?;
    measured_by_maker(metadata, rough.as_ref())
        .or(rough)
        .ok_or(NoCamera::Unknown)
}

/// The calibration that the maker wrote into the picture. It is of the sensor read out in full: it counts
/// only where its middle is the picture's, and its focal length about that which is known otherwise.
fn measured_by_maker(picture: &Header, rough: Option<&Intrinsics>) -> Option<Intrinsics> {
    /// Of a side.
    const OFF_CENTRE: f64 = 0.05;
    /// Of the focal length: film's word is that rough.
    const OFF_FOCAL: f64 = 0.25;
    if picture.digital_zoom.is_some() {
        return None;
    }
    let (width, height) = (f64::from(picture.width_px), f64::from(picture.height_px));
    let said = &picture.calibrated;
    let (fx, fy, cx, cy) = match said.dewarp {
        Some(dewarp) => {
            let [right, down] = dewarp.from_centre_px;
            (
                dewarp.fx_px,
                dewarp.fy_px,
                width / 2.0 + right,
                height / 2.0 + down,
            )
        }
        None => {
            let fx = said.fx_px?;
            (fx, said.fy_px.unwrap_or(fx), said.cx_px?, said.cy_px?)
        }
    };
    let is_middle = (cx - width / 2.0).abs() <= OFF_CENTRE * width
        && (cy - height / 2.0).abs() <= OFF_CENTRE * height;
    let is_plausible = rough.is_none_or(|rough| (fx / rough.fx_px() - 1.0).abs() <= OFF_FOCAL);
    if !is_middle || !is_plausible {
        return None;
    }
    let [k1, k2, p1, p2, k3] = said.distortion;
    Intrinsics::new(
        picture.width_px,
        picture.height_px,
        fx,
        fy,
        cx,
        cy,
        0.0,
        0.0,
    )
    .and_then(|camera| camera.with_distortion(Distortion { k1, k2, k3, p1, p2 }))
    .ok()
}

fn seen_mm(metadata: &Header) -> Option<f64> {
    let model = metadata.model.as_deref()?;
    let (_, sensor) = SENSORS.iter().find(|(name, _)| *name == model)?;
    sensor.seen_mm(metadata.width_px, metadata.height_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(model: &str, focal_mm: Option<f64>, focal_35mm: Option<f64>) -> Header {
        Header {
            width_px: 4000,
            height_px: 2250,
            model: (!model.is_empty()).then(|| model.to_owned()),
            focal_mm,
            focal_35mm,
            ..Header::default()
        }
    }

    #[test]
    fn the_best_word_on_the_focal_length_wins() {
        let given = Intrinsics::from_focal_px(4000, 2250, 3000.0).unwrap();
        let table = built_in();
        for (metadata, given, expected) in [
            (
                picture("FC300S", Some(3.61), Some(20.0)),
                Some(given),
                3000.0,
            ),
            (picture("FC300S", Some(3.61), Some(20.0)), None, 2411.0),
            (picture("FC300X", Some(3.61), Some(20.0)), None, 2340.356),
            (picture("Other", Some(3.61), Some(20.0)), None, 2222.222),
            (picture("", None, Some(20.0)), None, 2222.222),
        ] {
            let camera = intrinsics(&metadata, given, &table).unwrap();
            assert!((camera.fx_px() - expected).abs() < 1e-3, "{metadata:?}");
        }
    }

    #[test]
    fn a_crop_keeps_the_scale_of_its_sensor_and_a_scaled_picture_its_angle() {
        // 8.8 mm before 13.2 mm and 5,472 px: 3,648 px, two thirds of the longer side.
        for (width_px, height_px, expected) in [
            (5472, 3648, 3648.0),
            (4864, 3648, 3648.0),
            (3648, 4864, 3648.0),
            (5472, 3078, 3648.0),
            (2736, 1824, 1824.0),
            (1368, 912, 912.0),
            (1000, 667, 666.667),
            // Cropped and scaled, by how much each is not known: the film's word, 24 / 36.
            (4000, 3000, 2666.667),
            (1920, 1080, 1280.0),
        ] {
            let metadata = Header {
                width_px,
                height_px,
                ..picture("FC6310", Some(8.8), Some(24.0))
            };
            let camera = intrinsics(&metadata, None, &built_in()).unwrap();
            assert!((camera.fx_px() - expected).abs() < 1e-3, "{metadata:?}");
        }
        let metadata = Header {
            height_px: 3000,
            ..picture("FC6310", Some(8.8), None)
        };
        assert_eq!(
            intrinsics(&metadata, None, &built_in()),
            Err(NoCamera::Unknown)
        );
    }

    #[test]
    fn a_digital_zoom_lengthens_what_is_known_of_the_camera_without_it() {
        let given = Intrinsics::from_focal_px(4000, 2250, 3000.0).unwrap();
        for (model, given, expected) in [
            ("FC300S", Some(given), 3000.0),
            ("FC300S", None, 2.0 * 2411.0),
            ("FC300X", None, 2.0 * 2340.356),
            // Makers differ in whether the film's word has the zoom in it.
            ("Other", None, 2222.222),
        ] {
            let metadata = Header {
                digital_zoom: Some(2.0),
                ..picture(model, Some(3.61), Some(20.0))
            };
            let camera = intrinsics(&metadata, given, &built_in()).unwrap();
            assert!((camera.fx_px() - expected).abs() < 1e-2, "{metadata:?}");
        }
    }

    #[test]
    fn what_the_maker_measured_counts_where_it_fits_the_picture() {
        use sovereign_picture::{Calibrated, Dewarp};
        let film = 20.0 / 36.0 * 4000.0;
        let dewarp = |fx_px: f64, right: f64| Calibrated {
            fx_px: Some(9_999.0),
            dewarp: Some(Dewarp {
                fx_px,
                fy_px: fx_px + 1.0,
                from_centre_px: [right, -8.0],
            }),
            distortion: [-0.26, 0.11, 0.0001, -0.0002, -0.04],
            ..Calibrated::default()
        };
        let plain = |fx_px: f64, cx_px: f64| Calibrated {
            fx_px: Some(fx_px),
            cx_px: Some(cx_px),
            cy_px: Some(1120.0),
            ..Calibrated::default()
        };
        for (calibrated, expected) in [
            (dewarp(2300.0, 10.0), 2300.0),
            // Of another size, or of another lens.
            (dewarp(3700.0, 10.0), film),
            (dewarp(2300.0, 900.0), film),
            (plain(2310.0, 2010.0), 2310.0),
            (plain(2310.0, 2736.0), film),
        ] {
            let metadata = Header {
                calibrated,
                ..picture("Other", None, Some(20.0))
            };
            let camera = intrinsics(&metadata, None, &[]).unwrap();
            assert!((camera.fx_px() - expected).abs() < 1e-9, "{calibrated:?}");
        }
        let metadata = Header {
            calibrated: dewarp(2300.0, 10.0),
            ..picture("Other", None, Some(20.0))
        };
        let camera = intrinsics(&metadata, None, &[]).unwrap();
        assert_eq!((camera.cx_px(), camera.cy_px()), (2010.0, 1117.0));
        assert_eq!(
            (camera.distortion().k3, camera.distortion().p2),
            (-0.04, -0.0002)
        );
    }

    #[test]
    fn focal_plane_resolution_stands_in_for_a_sensor_that_is_not_known() {
        let metadata = Header {
            pixel_mm: Some(0.0024),
            ..picture("Other", Some(8.8), Some(20.0))
        };
        let camera = intrinsics(&metadata, None, &[]).unwrap();
        assert!((camera.fx_px() - 8.8 / 0.0024).abs() < 1e-6);
    }

    #[test]
    fn a_thermal_camera_beside_a_colour_one_is_a_camera_of_its_own() {
        let thermal = CameraModel {
            model: "M3T InfraredCamera".to_owned(),
            focal_px_per_width: 1.2,
            k1: 0.0,
            k2: 0.0,
        };
        let with = |lens: Option<&str>| {
            let metadata = Header {
                lens: lens.map(str::to_owned),
                ..picture("M3T", None, Some(40.0))
            };
            intrinsics(&metadata, None, std::slice::from_ref(&thermal))
                .unwrap()
                .fx_px()
        };
        assert!((with(Some("InfraredCamera")) - 4800.0).abs() < 1e-9);
        assert!((with(Some("WideCamera")) - 40.0 / 36.0 * 4000.0).abs() < 1e-9);
    }

    #[test]
    fn a_camera_that_nobody_described_is_not_guessed() {
        assert_eq!(
            intrinsics(&picture("Other", Some(4.3), None), None, &built_in()),
            Err(NoCamera::Unknown)
        );
        assert!(matches!(
            intrinsics(&picture("Other", None, Some(1e9)), None, &built_in()),
            Err(NoCamera::Impossible(_))
        ));
    }

    #[test]
    fn intrinsics_of_another_size_are_refused() {
        let given = Intrinsics::from_focal_px(752, 480, 500.0).unwrap();
        let error = intrinsics(&picture("", None, None), Some(given), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "intrinsics are for 752 x 480 pixels, the picture has 4000 x 2250"
        );
    }
}
