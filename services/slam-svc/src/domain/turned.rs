//! Whether somebody turned the pixels of a picture after the exposure.
//!
//! An image editor that turns a picture keeps the maker's attitude, which then describes other pixels
//! than it is stored with. Nothing in the file says so; the ground does. So an edited picture is
//! compared with pictures of the same ground that nobody edited, as stored and turned, and the pose is
//! turned with the pixels when the ground says so clearly.
//!
//! Pipeline: embedded preview of both (some 160 pixels across; no full picture is decoded) -> ground
//! under each second pixel of the reference -> its place in the edited picture for each turn -> best
//! correlation over small shifts (GPS noise) -> the turn that is far better than all others.
//!
//! Degenerate cases: no preview, no overlap, or ground without texture leave the question open, and
//! [`turn`] says so with `None`.

use nalgebra::{UnitQuaternion, Vector3};
use sovereign_model::geo::horizontal_distance_m;
use sovereign_model::{CameraPose, Intrinsics, View};

/// How far the pixels of a picture are turned clockwise against the camera that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    Quarter,
    Half,
    ThreeQuarters,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) pose: &'a CameraPose,
    pub(crate) intrinsics: &'a Intrinsics,
    /// JPEG preview of the whole picture; bars may fill up its frame.
    pub(crate) preview: &'a [u8],
}

/// Correlation that two views of the same ground reach at least. The turned pictures of a real survey
/// reach 0.54 to 0.67 against their neighbours.
const MIN_CORRELATION: f64 = 0.4;
/// How much worse every other turn must be. In the same survey they are by 0.40 and more.
const MIN_LEAD: f64 = 0.25;
/// Samples that must overlap: fewer correlate by chance.
const MIN_SAMPLES: usize = 300;
/// References compared, nearest first; more cost time and see less of the same ground.
const MAX_COMPARED: usize = 6;
/// Shifts tried in each direction, preview pixels: some 1.2 m from 40 m above ground.
const MAX_SHIFT_PX: i32 = 3;
/// Larger previews are not decoded: a camera embeds some 160 x 120 pixels.
const MAX_PREVIEW_SIDE_PX: u32 = 1024;

pub(crate) fn turn(edited: Sight<'_>, references: &[Sight<'_>]) -> Option<Turn> {
    let preview = Preview::decode(edited)?;
    let mut nearest: Vec<_> = references
        .iter()
        .map(|r| {
            (
                horizontal_distance_m(&r.pose.position, &edited.pose.position),
                r,
            )
        })
        .collect();
    nearest.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    // A quarter turn swaps the sides, and cameras in the air are wider than high.
    let turns: &[Turn] = if edited.intrinsics.width_px() >= edited.intrinsics.height_px() {
        &[Turn::None, Turn::Half]
    } else {
        &[Turn::None, Turn::Quarter, Turn::Half, Turn::ThreeQuarters]
    };
    nearest
        .into_iter()
        .take(MAX_COMPARED)
        .filter_map(|(_, reference)| Preview::decode(*reference))
        .find_map(|reference| {
            let mut scores: Vec<_> = turns
                .iter()
                .map(|&turn| {
                    let view = turned(edited.pose, turn).view(edited.intrinsics);
                    (correlation(&reference, &preview, &view), turn)
                })
                .collect();
            scores.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            let ((best, turn), (second, _)) = (scores.first()?, scores.get(1)?);
            (*best >= MIN_CORRELATION && best - second >= MIN_LEAD).then_some(*turn)
        })
}

/// The pose of the pixels as stored, from the pose of the camera that took them.
pub(crate) fn turned(pose: &CameraPose, turn: Turn) -> CameraPose {
    let quarters = match turn {
        Turn::None => 0.0,
        Turn::Quarter => 1.0,
        Turn::Half => 2.0,
        Turn::ThreeQuarters => 3.0,
    };
    // Seen from behind the camera, clockwise is from x (right) to y (down): positive about z. Pixels
    // turned clockwise are those of a camera turned counter-clockwise.
    let back = UnitQuaternion::from_axis_angle(
        &Vector3::z_axis(),
        -quarters * std::f64::consts::FRAC_PI_2,
    );
    CameraPose {
        enu_from_camera: pose.enu_from_camera * back,
        ..*pose
    }
}

/// Brightness of a preview and where its pixels are in the full picture.
struct Preview {
    view: View,
    width: i32,
    height: i32,
    luma: Vec<u8>,
    /// Preview pixels per picture pixel.
    scale: f64,
    /// Left and top edge of the picture within the preview.
    offset: [f64; 2],
}

impl Preview {
    fn decode(sight: Sight<'_>) -> Option<Preview> {
        let mut reader = image::ImageReader::with_format(
            std::io::Cursor::new(sight.preview),
            image::ImageFormat::Jpeg,
        );
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(MAX_PREVIEW_SIDE_PX);
        limits.max_image_height = Some(MAX_PREVIEW_SIDE_PX);
        reader.limits(limits);
        let luma = reader.decode().ok()?.into_luma8();
        let (w, h) = (f64::from(luma.width()), f64::from(luma.height()));
        let (full_w, full_h) = (
            f64::from(sight.intrinsics.width_px()),
            f64::from(sight.intrinsics.height_px()),
        );
        let scale = (w / full_w).min(h / full_h);
        Some(Preview {
            view: sight.pose.view(sight.intrinsics),
            width: i32::try_from(luma.width()).ok()?,
            height: i32::try_from(luma.height()).ok()?,
            luma: luma.into_raw(),
            scale,
            offset: [(w - full_w * scale) / 2.0, (h - full_h * scale) / 2.0],
        })
    }

    fn at(&self, x: i32, y: i32) -> Option<f64> {
        const EDGE: f64 = 1.5;
        let inside = f64::from(x) >= self.offset[0] + EDGE
            && f64::from(y) >= self.offset[1] + EDGE
            && f64::from(x) < f64::from(self.width) - self.offset[0] - EDGE
            && f64::from(y) < f64::from(self.height) - self.offset[1] - EDGE;
        // Elsewhere there may not even be an index.
        if !inside {
            return None;
        }
        let index = usize::try_from(y * self.width + x).ok()?;
        self.luma.get(index).copied().map(f64::from)
    }
}

/// Best correlation between what two pictures show of the same ground, over small shifts; -1 when they
/// share too little.
fn correlation(reference: &Preview, edited: &Preview, edited_view: &View) -> f64 {
    const STEP: usize = 2;
    let mut samples = Vec::new();
    for y in (0..reference.height).step_by(STEP) {
        for x in (0..reference.width).step_by(STEP) {
            let Some(brightness) = reference.at(x, y) else {
                continue;
            };
            let full = [
                (f64::from(x) + 0.5 - reference.offset[0]) / reference.scale,
                (f64::from(y) + 0.5 - reference.offset[1]) / reference.scale,
            ];
            let pixel = reference
                .view
                .ground_point(full)
                .and_then(|ground| edited_view.pixel_of(&ground));
            if let Some([px, py]) = pixel {
                let px = (px * edited.scale + edited.offset[0]).floor();
                let py = (py * edited.scale + edited.offset[1]).floor();
                // A cast from far outside saturates and stays outside.
                samples.push((brightness, px as i32, py as i32));
            }
        }
    }
    let mut best = -1.0_f64;
    for dy in -MAX_SHIFT_PX..=MAX_SHIFT_PX {
        for dx in -MAX_SHIFT_PX..=MAX_SHIFT_PX {
            let pairs = samples.iter().filter_map(|&(brightness, x, y)| {
                let other = edited.at(x.saturating_add(dx), y.saturating_add(dy))?;
                Some((brightness, other))
            });
            best = best.max(pearson(pairs));
        }
    }
    best
}

/// Pearson's correlation coefficient; -1 for too few pairs or no contrast.
fn pearson(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut n, mut a, mut b, mut aa, mut bb, mut ab) = (0_usize, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in pairs {
        n += 1;
        a += x;
        b += y;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    if n < MIN_SAMPLES {
        return -1.0;
    }
    let count = n as f64;
    let variances = (aa - a * a / count) * (bb - b * b / count);
    if variances > 0.0 {
        (ab - a * b / count) / variances.sqrt()
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder;
    use sovereign_model::geo::{Attitude, Geodetic, LocalFrame};

    use super::*;

    fn pose(north_m: f64, yaw_deg: f64) -> CameraPose {
        let home = LocalFrame::at(Geodetic::new(47.0, 8.0, 440.0).unwrap());
        let position = home.geodetic_from_enu(&sovereign_model::geo::Enu {
            east: 0.0,
            north: north_m,
            up: 0.0,
        });
        let attitude = Attitude {
            roll_deg: 0.0,
            pitch_deg: -90.0,
            yaw_deg,
        };
        CameraPose::from_gimbal(position, attitude, 40.0)
    }

    /// Ground with a different brightness every few metres: a hash of the cell.
    fn brightness(point: &Geodetic) -> u8 {
        let enu = LocalFrame::at(Geodetic::new(47.0, 8.0, 400.0).unwrap()).enu_from_geodetic(point);
        let cell = |v: f64| (v / 2.5).floor() as i64;
        let mut h = (cell(enu.east).wrapping_mul(73_856_093)
            ^ cell(enu.north).wrapping_mul(19_349_663)) as u64;
        h = (h ^ (h >> 15)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (h >> 56) as u8
    }

    /// What a camera sees, 160 x 90 within bars of 160 x 120, or upright.
    fn preview(pose: &CameraPose, camera: &Intrinsics) -> Vec<u8> {
        let view = pose.view(camera);
        let (across, down) = (camera.width_px() / 25, camera.height_px() / 25);
        let (width, height) = (across.max(120), down.max(120));
        let (left, top) = ((width - across) / 2, (height - down) / 2);
        let mut luma = vec![0_u8; (width * height) as usize];
        for y in 0..down {
            for x in 0..across {
                let pixel = [f64::from(x) * 25.0 + 12.5, f64::from(y) * 25.0 + 12.5];
                let ground = view.ground_point(pixel).unwrap();
                luma[((y + top) * width + x + left) as usize] = brightness(&ground);
            }
        }
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85)
            .write_image(&luma, width, height, image::ExtendedColorType::L8)
            .unwrap();
        jpeg
    }

    fn camera() -> Intrinsics {
        Intrinsics::from_focal_px(4000, 2250, 2411.0).unwrap()
    }

    #[test]
    fn the_ground_tells_whether_a_picture_was_turned() {
        let camera = camera();
        let known = pose(0.0, 40.0);
        let known_preview = preview(&known, &camera);
        let reference = Sight {
            pose: &known,
            intrinsics: &camera,
            preview: &known_preview,
        };
        let taken = pose(14.0, -140.0);
        // A quarter turn swaps the sides of the picture.
        let upright = Intrinsics::from_focal_px(2250, 4000, 2411.0).unwrap();
        for (expected, stored) in [
            (Turn::None, camera),
            (Turn::Quarter, upright),
            (Turn::Half, camera),
            (Turn::ThreeQuarters, upright),
        ] {
            let pixels = preview(&turned(&taken, expected), &stored);
            let edited = Sight {
                pose: &taken,
                intrinsics: &stored,
                preview: &pixels,
            };
            assert_eq!(turn(edited, &[reference]), Some(expected));
        }
    }

    #[test]
    fn without_common_ground_the_question_stays_open() {
        let camera = camera();
        let (known, far) = (pose(0.0, 0.0), pose(500.0, 0.0));
        let (known_preview, far_preview) = (preview(&known, &camera), preview(&far, &camera));
        let sight = |pose, preview| Sight {
            pose,
            intrinsics: &camera,
            preview,
        };
        let edited = sight(&far, &far_preview);
        assert_eq!(turn(edited, &[]), None);
        assert_eq!(turn(edited, &[sight(&known, &known_preview)]), None);
        assert_eq!(
            turn(sight(&far, b"not a jpeg"), &[sight(&known, &known_preview)]),
            None
        );
    }

    #[test]
    fn far_outside_of_a_preview_is_no_pixel() {
        let (camera, pose) = (camera(), pose(0.0, 0.0));
        let pixels = preview(&pose, &camera);
        let preview = Preview::decode(Sight {
            pose: &pose,
            intrinsics: &camera,
            preview: &pixels,
        })
        .unwrap();
        assert!(preview.at(80, 60).is_some());
        for (x, y) in [
            (i32::MAX, i32::MAX),
            (i32::MIN, i32::MIN),
            (80, i32::MAX),
            (i32::MAX, 60),
        ] {
            assert_eq!(preview.at(x, y), None);
        }
    }

    #[test]
    fn pixels_turned_a_quarter_clockwise_have_their_top_where_the_left_was() {
        let pose = pose(0.0, 0.0);
        let quarter = turned(&pose, Turn::Quarter);
        // The left side of the camera (west) is now the top of the picture.
        let top = quarter.enu_from_camera * -Vector3::y();
        assert!((top + Vector3::x()).norm() < 1e-9, "{top}");
        let half = turned(&pose, Turn::Half);
        assert!((half.enu_from_camera * -Vector3::y() + Vector3::y()).norm() < 1e-9);
    }
}
