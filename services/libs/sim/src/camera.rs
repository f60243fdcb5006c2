//! The camera: what the ground looks like from a true pose.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use nalgebra::{UnitQuaternion, Vector3};
use rayon::prelude::*;
use sovereign_model::geo::Attitude;
use sovereign_model::{CameraPose, Image, Intrinsics};

use crate::{VehicleTruth, World};

/// A camera fixed under a vehicle, looking straight down with the image's top towards the nose.
#[derive(Debug)]
pub struct Camera {
    intrinsics: Intrinsics,
    /// Viewing direction of every pixel in the camera's axes, row by row.
    rays: Vec<Vector3<f64>>,
}

/// A picture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The encoder refused.
    #[error("encode the picture as jpeg")]
    Encode(#[source] image::ImageError),
}

pub(crate) const MOUNT_PITCH_DEG: f64 = -90.0;
/// Attitude of a camera that is mounted on a body, as a gimbal would report it: the aerospace angles of
/// the camera's own axes (forward along the optical axis, right along the rows).
pub(crate) fn gimbal_attitude(body: Attitude, mount_pitch_deg: f64) -> Attitude {
    let ned_from_camera = body.ned_from_body()
        * UnitQuaternion::from_axis_angle(&Vector3::y_axis(), mount_pitch_deg.to_radians());
    let (roll, pitch, yaw) = ned_from_camera.euler_angles();
    Attitude {
        roll_deg: roll.to_degrees(),
        pitch_deg: pitch.to_degrees(),
        yaw_deg: yaw.to_degrees(),
    }
}

const HAZE: [u8; 3] = [188, 196, 204];

impl Camera {
    /// A camera with these intrinsics.
    pub fn new(intrinsics: Intrinsics) -> Self {
        let mut rays =
            Vec::with_capacity((intrinsics.width_px() * intrinsics.height_px()) as usize);
        for row in 0..intrinsics.height_px() {
            for column in 0..intrinsics.width_px() {
                rays.push(intrinsics.ray([f64::from(column) + 0.5, f64::from(row) + 0.5]));
            }
        }
        Self { intrinsics, rays }
    }

    /// The calibrated camera.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.intrinsics
    }

    /// The true pose of this camera on a vehicle.
    pub fn pose(&self, truth: &VehicleTruth) -> CameraPose {
        CameraPose::from_body(
            truth.position,
            truth.attitude,
            MOUNT_PITCH_DEG,
            truth.height_m,
        )
    }

    /// What the camera sees from `truth`.
    pub fn render(&self, world: &World, truth: &VehicleTruth) -> Image {
        let rotation = self.pose(truth).enu_from_camera;
        let width = self.intrinsics.width_px() as usize;
        let mut pixels = vec![0u8; self.rays.len() * 3];
        pixels
            .par_chunks_mut(width * 3)
            .zip(self.rays.par_chunks(width))
            .for_each(|(line, rays)| {
                for (pixel, ray) in line.chunks_exact_mut(3).zip(rays) {
                    let direction = rotation * ray;
                    let colour = (direction.z < 0.0)
                        .then(|| {
                            let reach = truth.enu.up / -direction.z;
                            world.colour_at(
                                truth.enu.east + direction.x * reach,
                                truth.enu.north + direction.y * reach,
                            )
                        })
                        .flatten()
                        .unwrap_or(HAZE);
                    pixel.copy_from_slice(&colour);
                }
            });
        Image::new(
            self.intrinsics.width_px(),
            self.intrinsics.height_px(),
            pixels,
        )
        .expect("three bytes were made for every pixel")
    }

    /// [`Camera::render`], as JPEG of the given quality (1 to 100).
    ///
    /// # Errors
    /// When the encoder refuses the picture.
    pub fn render_jpeg(
        &self,
        world: &World,
        truth: &VehicleTruth,
        quality: u8,
    ) -> Result<Vec<u8>, RenderError> {
        let image = self.render(world, truth);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality)
            .write_image(
                image.pixels(),
                image.width(),
                image.height(),
                ExtendedColorType::Rgb8,
            )
            .map_err(RenderError::Encode)?;
        Ok(jpeg)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Survey, SurveyArea, WorldConfig};

    #[test]
    fn a_control_mark_is_seen_where_the_camera_model_says() {
        let world = World::generate(WorldConfig {
            width_m: 160.0,
            height_m: 120.0,
            ..WorldConfig::default()
        });
        let area = SurveyArea {
            west: -30.0,
            east: 30.0,
            south: -30.0,
            north: 30.0,
        };
        let survey = Survey::lawnmower(area, 30.0, 40.0, 8.0);
        let camera =
            Camera::new(Intrinsics::new(752, 480, 610.0, 610.0, 376.0, 240.0, -0.03, 0.0).unwrap());
        let mut seen = 0;
        for second in 0..40 {
            let truth = survey.truth(&world, Duration::from_secs(second));
            let image = camera.render(&world, &truth);
            let view = camera.pose(&truth).view(camera.intrinsics());
            for mark in world.control_marks() {
                let place = world.frame().geodetic_from_enu(&mark.position);
                let Some([x, y]) = view
                    .pixel_of(&place)
                    .filter(|pixel| camera.intrinsics().contains(*pixel))
                else {
                    continue;
                };
                let colour = image.pixel(x as u32, y as u32).unwrap();
                assert!(colour.iter().all(|&c| c > 200), "{colour:?} at {x}, {y}");
                seen += 1;
            }
        }
        assert!(seen >= 5, "only {seen} marks in view");
    }
}
