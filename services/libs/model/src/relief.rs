//! The shape of the ground under a picture, as a grid of heights over the plane that its pose names.

use nalgebra::Vector3;

use crate::camera::{CameraPose, Intrinsics};
use crate::geo::{Enu, Geodetic};

/// Heights of the ground, metres above the plane `height_above_ground_m` below the camera: 0 straight
/// below it.
///
/// Rows run from south to north, columns from west to east; a place between four of them has their bilinear
/// mean, one outside the height of the nearest border.
#[derive(Clone, Debug, PartialEq)]
pub struct Relief {
    south_deg: f64,
    west_deg: f64,
    step_lat_deg: f64,
    step_lon_deg: f64,
    columns: usize,
    metres: Vec<f32>,
}

/// A grid that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct InvalidRelief {
    /// Name of the field.
    pub field: &'static str,
    /// What it must be.
    pub why: &'static str,
}

impl Relief {
    /// Columns or rows at most.
    pub const MAX_SIDE: usize = 64;

    /// Heights beyond this are no ground under a camera, metres.
    const MAX_M: f32 = 10_000.0;

    /// A grid whose south-western height stands at `south_deg`, `west_deg`; `metres` row by row.
    ///
    /// # Errors
    /// Names what no grid has.
    pub fn new(
        south_deg: f64,
        west_deg: f64,
        step_lat_deg: f64,
        step_lon_deg: f64,
        columns: usize,
        metres: Vec<f32>,
    ) -> Result<Self, InvalidRelief> {
        let check = |holds: bool, field, why| {
            if holds {
                Ok(())
            } else {
                Err(InvalidRelief { field, why })
            }
        };
        let is_step = |step: f64| step > 0.0 && step < 1.0;
        check(south_deg.abs() <= 90.0, "south_deg", "must be -90 to 90")?;
        check(west_deg.abs() <= 180.0, "west_deg", "must be -180 to 180")?;
        check(is_step(step_lat_deg), "step_lat_deg", "must be 0 to 1")?;
        check(is_step(step_lon_deg), "step_lon_deg", "must be 0 to 1")?;
        let sides = 2..=Self::MAX_SIDE;
        check(sides.contains(&columns), "columns", "must be 2 to 64")?;
        let is_whole =
            metres.len().is_multiple_of(columns) && sides.contains(&(metres.len() / columns));
        check(is_whole, "metres", "must be 2 to 64 whole rows")?;
        let are_heights = metres.iter().all(|m| m.abs() <= Self::MAX_M);
        check(are_heights, "metres", "must be -10,000 to 10,000")?;
        Ok(Self {
            south_deg,
            west_deg,
            step_lat_deg,
            step_lon_deg,
            columns,
            metres,
        })
    }

    /// Latitude of the first row, degrees.
    pub fn south_deg(&self) -> f64 {
        self.south_deg
    }

    /// Longitude of the first column, degrees.
    pub fn west_deg(&self) -> f64 {
        self.west_deg
    }

    /// Between two rows, degrees.
    pub fn step_lat_deg(&self) -> f64 {
        self.step_lat_deg
    }

    /// Between two columns, degrees.
    pub fn step_lon_deg(&self) -> f64 {
        self.step_lon_deg
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Heights row by row.
    pub fn metres(&self) -> &[f32] {
        &self.metres
    }

    /// Height at a place, metres above the plane.
    pub fn at(&self, latitude_deg: f64, longitude_deg: f64) -> f64 {
        let rows = self.metres.len() / self.columns;
        // The other side of 180 degrees is near, not far.
        let east = (longitude_deg - self.west_deg + 180.0).rem_euclid(360.0) - 180.0;
        let (row, up) = split((latitude_deg - self.south_deg) / self.step_lat_deg, rows);
        let (column, right) = split(east / self.step_lon_deg, self.columns);
        let height =
            |row: usize, column: usize| f64::from(self.metres[row * self.columns + column]);
        let lower = height(row, column) * (1.0 - right) + height(row, column + 1) * right;
        let upper = height(row + 1, column) * (1.0 - right) + height(row + 1, column + 1) * right;
        lower * (1.0 - up) + upper * up
    }

    /// Lowest and highest height, metres.
    pub fn range(&self) -> (f64, f64) {
        let low = self.metres.iter().copied().fold(f32::MAX, f32::min);
        let high = self.metres.iter().copied().fold(f32::MIN, f32::max);
        (f64::from(low), f64::from(high))
    }

    /// Ground under the four corners of a picture in picture order (top left, top right, bottom right,
    /// bottom left); `None` when one of them does not meet the ground.
    pub fn footprint(&self, pose: &CameraPose, camera: &Intrinsics) -> Option<[Geodetic; 4]> {
        let (w, h) = (f64::from(camera.width_px()), f64::from(camera.height_px()));
        let meet = |pixel| self.meet(pose, camera, pixel);
        Some([
            meet([0.0, 0.0])?,
            meet([w, 0.0])?,
            meet([w, h])?,
            meet([0.0, h])?,
        ])
    }

    /// Where the ray through a pixel first meets the ground; `None` when it does not before it is below the
    /// lowest.
    pub fn meet(
        &self,
        pose: &CameraPose,
        camera: &Intrinsics,
        pixel: [f64; 2],
    ) -> Option<Geodetic> {
        /// Steps on the way down, each looked at; then halvings of the one in which it meets.
        const STEPS: u32 = 256;
        const HALVINGS: u32 = 30;
        /// Sine of the flattest ray below the horizon that is followed.
        const FLATTEST: f64 = 1e-2;
        let view = pose.view(camera);
        let ray: Vector3<f64> = pose.enu_from_camera * camera.ray(pixel);
        if ray.z > -FLATTEST {
            return None;
        }
        let (low, high) = self.range();
        let length_to = |metres: f64| (pose.height_above_ground_m - metres) / -ray.z;
        let (first, last) = (length_to(high).max(0.0), length_to(low));
        let at = |length: f64| {
            let enu = Enu::from_vector(ray * length);
            let place = view.frame().geodetic_from_enu(&enu);
            let ground = self.at(place.latitude_deg, place.longitude_deg);
            (place, enu.up + pose.height_above_ground_m - ground)
        };
        let mut above = first;
        for step in 0..=STEPS {
            let length = first + (last - first) * f64::from(step) / f64::from(STEPS);
            if at(length).1 > 0.0 {
                above = length;
                continue;
            }
            let mut below = length;
            for _ in 0..HALVINGS {
                let middle = (above + below) / 2.0;
                if at(middle).1 > 0.0 {
                    above = middle;
                } else {
                    below = middle;
                }
            }
            return Some(at(below).0);
        }
        // Rounding may leave it a hair above the lowest ground.
        Some(at(last).0)
    }
}

/// The lower of two neighbours among `count`, and the share of the upper one.
fn split(position: f64, count: usize) -> (usize, f64) {
    let position = position.clamp(0.0, (count - 1) as f64);
    let lower = (position as usize).min(count - 2);
    (lower, position - lower as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::{Attitude, LocalFrame};

    fn slope() -> Relief {
        // Two by three: rises by 10 m to the north and by 1 m to the east.
        Relief::new(
            47.0,
            8.0,
            0.001,
            0.001,
            3,
            vec![0.0, 1.0, 2.0, 10.0, 11.0, 12.0],
        )
        .unwrap()
    }

    #[test]
    fn between_heights_is_their_mean_and_outside_the_nearest() {
        let relief = slope();
        assert_eq!(relief.at(47.0, 8.0), 0.0);
        assert!((relief.at(47.0005, 8.0015) - 6.5).abs() < 1e-9);
        assert!((relief.at(48.0, 9.0) - 12.0).abs() < 1e-9);
        assert_eq!(relief.at(0.0, -172.0), 0.0);
        assert_eq!(relief.range(), (0.0, 12.0));
    }

    #[test]
    fn a_ray_meets_the_slope_and_not_the_plane() {
        let camera = Intrinsics::from_focal_px(1000, 1000, 500.0).unwrap();
        let place = Geodetic::new(47.0, 8.0, 500.0).unwrap();
        let down = Attitude {
            roll_deg: 0.0,
            pitch_deg: -90.0,
            yaw_deg: 0.0,
        };
        let pose = CameraPose::from_gimbal(place, down, 100.0);
        let frame = LocalFrame::at(place);
        // A ramp of 0.5 m a metre to the north, as far as the picture looks.
        let metre = 1.0 / 111_170.0;
        let metres = (0..64_u8)
            .flat_map(|row| [f32::from(row) * 5.0 - 160.0; 2])
            .collect();
        let ramp = Relief::new(47.0 - 320.0 * metre, 7.9, 10.0 * metre, 0.2, 2, metres).unwrap();
        let north = |pixel| {
            let met = ramp.meet(&pose, &camera, pixel).unwrap();
            frame.enu_from_geodetic(&met).north
        };
        // Up 45 degrees: 100 - x = x / 2. Down 45 degrees: 100 + x / 2 = x.
        assert!(
            (north([500.0, 0.0]) - 66.67).abs() < 0.5,
            "{}",
            north([500.0, 0.0])
        );
        assert!(
            (north([500.0, 1000.0]) + 200.0).abs() < 1.5,
            "{}",
            north([500.0, 1000.0])
        );
        assert!(north([500.0, 500.0]).abs() < 0.1);
        let level = CameraPose::from_gimbal(
            place,
            Attitude {
                pitch_deg: 0.0,
                ..down
            },
            100.0,
        );
        assert_eq!(ramp.meet(&level, &camera, [500.0, 0.0]), None);
    }

    #[test]
    fn what_is_no_grid_is_refused_by_field() {
        let field = |south, step, columns, metres: Vec<f32>| {
            Relief::new(south, 8.0, step, 0.001, columns, metres)
                .unwrap_err()
                .field
        };
        assert_eq!(field(91.0, 0.001, 2, vec![0.0; 4]), "south_deg");
        assert_eq!(field(47.0, f64::NAN, 2, vec![0.0; 4]), "step_lat_deg");
        assert_eq!(field(47.0, 0.001, 1, vec![0.0; 4]), "columns");
        assert_eq!(field(47.0, 0.001, 2, vec![0.0; 5]), "metres");
        assert_eq!(field(47.0, 0.001, 2, vec![f32::NAN; 4]), "metres");
    }
}
