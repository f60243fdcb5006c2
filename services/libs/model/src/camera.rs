//! A camera, where it was, and what it sees of a flat ground.
//!
//! Pipeline of a pixel: picture -> (undistort) -> ray in camera axes (x right, y down, z forward) ->
//! ray in east, north, up -> intersection with the horizontal plane `height_above_ground_m` below the
//! camera -> geodetic. And back.
//!
//! Degenerate cases: rays at or above the horizon meet no ground; points behind the camera have no
//! pixel; barrel distortion folds back beyond a radius, and points out there have no pixel either
//! (otherwise the picture would repeat itself, mirrored, around its edge).

use nalgebra::{Matrix3, Rotation3, UnitQuaternion, Vector3};

use crate::geo::{Attitude, Enu, Geodetic, LocalFrame};

/// Brown's distortion, as OpenCV has it: radial `k1`, `k2`, `k3`, tangential `p1`, `p2`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Radial, of the second power of the radius.
    pub k1: f64,
    /// Radial, of the fourth power.
    pub k2: f64,
    /// Radial, of the sixth power.
    pub k3: f64,
    /// Tangential, of a lens that is tilted up or down.
    pub p1: f64,
    /// Tangential, of a lens that is tilted sideways.
    pub p2: f64,
}

impl Distortion {
    /// How much farther out a point at a squared radius is seen.
    #[inline]
    fn radial(&self, r2: f64) -> f64 {
        1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
    }

    /// What the tangential part adds to a point, in focal lengths.
    #[inline]
    fn tangential(&self, x: f64, y: f64) -> [f64; 2] {
        let (r2, xy) = (x * x + y * y, 2.0 * x * y);
        [
            self.p1 * xy + self.p2 * (r2 + 2.0 * x * x),
            self.p2 * xy + self.p1 * (r2 + 2.0 * y * y),
        ]
    }
}

/// Pinhole camera with Brown's distortion (OpenCV convention).
///
/// Pixel coordinates are measured from the outer edge of the picture: the top left corner is (0, 0),
/// the centre of the first pixel (0.5, 0.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intrinsics {
    width_px: u32,
    height_px: u32,
    fx_px: f64,
    fy_px: f64,
    cx_px: f64,
    cy_px: f64,
    distortion: Distortion,
    /// Squared radius (in units of focal length) up to which distortion is one-to-one.
    one_to_one_r2: f64,
}

/// A number that no camera has.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}, which no camera has")]
pub struct InvalidIntrinsics {
    /// Name of the field.
    pub field: &'static str,
    /// What it was.
    pub value: f64,
}

impl Intrinsics {
    /// Largest side, pixels; larger pictures are refused.
    pub const MAX_SIDE_PX: u32 = 65_535;

    /// A camera whose numbers have been checked: sides of 1 to [`Intrinsics::MAX_SIDE_PX`], focal
    /// lengths from a hundredth to a hundred times the longer side, principal point inside the
    /// picture, distortion of magnitude at most 10.
    ///
    /// # Errors
    /// Names the field that no camera has.
    #[expect(
        clippy::too_many_arguments,
        reason = "these are the eight numbers of the model, named at every call by the wire type"
    )]
    pub fn new(
        width_px: u32,
        height_px: u32,
        fx_px: f64,
        fy_px: f64,
        cx_px: f64,
        cy_px: f64,
        k1: f64,
        k2: f64,
    ) -> Result<Intrinsics, InvalidIntrinsics> {
        let check = |field, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(InvalidIntrinsics { field, value })
            }
        };
        let (width, height) = (f64::from(width_px), f64::from(height_px));
        let side = width.max(height);
        let max_side = f64::from(Intrinsics::MAX_SIDE_PX);
        check("width_px", width, 1.0, max_side)?;
        check("height_px", height, 1.0, max_side)?;
        check("fx_px", fx_px, side / 100.0, side * 100.0)?;
        check("fy_px", fy_px, side / 100.0, side * 100.0)?;
        check("cx_px", cx_px, 0.0, width)?;
        check("cy_px", cy_px, 0.0, height)?;
        Intrinsics {
            width_px,
            height_px,
            fx_px,
            fy_px,
            cx_px,
            cy_px,
            distortion: Distortion::default(),
            one_to_one_r2: f64::INFINITY,
        }
        .with_distortion(Distortion {
            k1,
            k2,
            ..Distortion::default()
        })
    }

    /// The same camera with another distortion: radial coefficients of magnitude at most 10, tangential
    /// ones of at most 0.1.
    ///
    /// # Errors
    /// Names the coefficient that no camera has.
    pub fn with_distortion(self, distortion: Distortion) -> Result<Intrinsics, InvalidIntrinsics> {
        let Distortion { k1, k2, k3, p1, p2 } = distortion;
        for (field, value, limit) in [
            ("k1", k1, 10.0),
            ("k2", k2, 10.0),
            ("k3", k3, 10.0),
            ("p1", p1, 0.1),
            ("p2", p2, 0.1),
        ] {
            if !(-limit..=limit).contains(&value) {
                return Err(InvalidIntrinsics { field, value });
            }
        }
        Ok(Intrinsics {
            distortion,
            one_to_one_r2: one_to_one_r2(&distortion),
            ..self
        })
    }

    /// A camera without distortion, square pixels, principal point in the middle.
    ///
    /// # Errors
    /// As [`Intrinsics::new`].
    pub fn from_focal_px(
        width_px: u32,
        height_px: u32,
        focal_px: f64,
    ) -> Result<Intrinsics, InvalidIntrinsics> {
        Intrinsics::new(
            width_px,
            height_px,
            focal_px,
            focal_px,
            f64::from(width_px) / 2.0,
            f64::from(height_px) / 2.0,
            0.0,
            0.0,
        )
    }

    /// From the horizontal field of view, degrees.
    ///
    /// # Errors
    /// As [`Intrinsics::new`].
    pub fn from_fov(
        width_px: u32,
        height_px: u32,
        horizontal_fov_deg: f64,
    ) -> Result<Intrinsics, InvalidIntrinsics> {
        if !(horizontal_fov_deg > 0.0 && horizontal_fov_deg < 180.0) {
            return Err(InvalidIntrinsics {
                field: "horizontal_fov_deg",
                value: horizontal_fov_deg,
            });
        }
        let half = (horizontal_fov_deg / 2.0).to_radians();
        Intrinsics::from_focal_px(width_px, height_px, f64::from(width_px) / 2.0 / half.tan())
    }

    /// From the 35 mm equivalent focal length, taken as equal angle across the longer side (36 mm).
    ///
    /// # Errors
    /// As [`Intrinsics::new`].
    pub fn from_35mm(
        width_px: u32,
        height_px: u32,
        focal_35mm: f64,
    ) -> Result<Intrinsics, InvalidIntrinsics> {
        Intrinsics::from_focal_and_sensor(width_px, height_px, focal_35mm, 36.0)
    }

    /// From focal length and the length of the sensor's longer side, both millimetres.
    ///
    /// # Errors
    /// As [`Intrinsics::new`].
    pub fn from_focal_and_sensor(
        width_px: u32,
        height_px: u32,
        focal_mm: f64,
        sensor_width_mm: f64,
    ) -> Result<Intrinsics, InvalidIntrinsics> {
        let side = f64::from(width_px.max(height_px));
        Intrinsics::from_focal_px(width_px, height_px, focal_mm / sensor_width_mm * side)
    }

    /// Pixels across.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }

    /// Pixels down.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }

    /// Focal length along x, pixels.
    pub fn fx_px(&self) -> f64 {
        self.fx_px
    }

    /// Focal length along y, pixels.
    pub fn fy_px(&self) -> f64 {
        self.fy_px
    }

    /// Principal point, pixels from the left edge.
    pub fn cx_px(&self) -> f64 {
        self.cx_px
    }

    /// Principal point, pixels from the top edge.
    pub fn cy_px(&self) -> f64 {
        self.cy_px
    }

    /// Distortion of the lens.
    pub fn distortion(&self) -> &Distortion {
        &self.distortion
    }

    /// Whether a pixel position lies on the picture, edges included.
    #[inline]
    pub fn contains(&self, pixel: [f64; 2]) -> bool {
        let [x, y] = pixel;
        x >= 0.0 && y >= 0.0 && x <= f64::from(self.width_px) && y <= f64::from(self.height_px)
    }

    /// Pixel of a point in camera axes; `None` behind the camera or beyond the fold of the distortion.
    ///
    /// The pixel may lie off the picture: see [`Intrinsics::contains`].
    #[inline]
    pub fn project(&self, camera: &Vector3<f64>) -> Option<[f64; 2]> {
        if camera.z <= 0.0 {
            return None;
        }
        let (x, y) = (camera.x / camera.z, camera.y / camera.z);
        let r2 = x * x + y * y;
        // NaN fails the first comparison, overflow the second.
        if r2 <= self.one_to_one_r2 && r2 < f64::INFINITY {
            let scale = self.distortion.radial(r2);
            let [dx, dy] = self.distortion.tangential(x, y);
            Some([
                self.fx_px * (x * scale + dx) + self.cx_px,
                self.fy_px * (y * scale + dy) + self.cy_px,
            ])
        } else {
            None
        }
    }

    /// Unit ray in camera axes through a pixel. A pixel outside everything that the distortion can
    /// reach is given the outermost ray in its direction.
    pub fn ray(&self, pixel: [f64; 2]) -> Vector3<f64> {
        /// The tangential part is small and hardly changes with the point: each step takes away a
        /// hundredth of the error at least.
        const MAX_STEPS: usize = 12;
        let seen = [
            (pixel[0] - self.cx_px) / self.fx_px,
            (pixel[1] - self.cy_px) / self.fy_px,
        ];
        let [mut x, mut y] = self.without_radial(seen);
        if self.distortion.p1 != 0.0 || self.distortion.p2 != 0.0 {
            for _ in 0..MAX_STEPS {
                let [dx, dy] = self.distortion.tangential(x, y);
                [x, y] = self.without_radial([seen[0] - dx, seen[1] - dy]);
            }
        }
        Vector3::new(x, y, 1.0).normalize()
    }

    fn without_radial(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let distorted = x.hypot(y);
        if distorted > 0.0 {
            let scale = self.undistorted_radius(distorted) / distorted;
            [x * scale, y * scale]
        } else {
            [x, y]
        }
    }

    /// Solves `r (1 + k1 r^2 + k2 r^4 + k3 r^6) = distorted` by Newton's method, held inside the bracket
    /// where the left side grows.
    fn undistorted_radius(&self, distorted: f64) -> f64 {
        /// Newton doubles its digits each step; the bracket halves when it would leave. 60 halvings
        /// exhaust a double, so the loop ends by precision.
        const MAX_STEPS: usize = 60;
        let lens = &self.distortion;
        if lens.k1 == 0.0 && lens.k2 == 0.0 && lens.k3 == 0.0 {
            return distorted;
        }
        let value = |r: f64| r * lens.radial(r * r) - distorted;
        let fold = self.one_to_one_r2.sqrt();
        let mut low = 0.0;
        let mut high = if fold.is_finite() {
            if value(fold) <= 0.0 {
                return fold;
            }
            fold
        } else {
            // Without a fold the function grows without bound: double until it is passed.
            let mut high = distorted;
            while value(high) < 0.0 {
                high *= 2.0;
            }
            high
        };
        let mut r = distorted.min(high);
        for _ in 0..MAX_STEPS {
            let error = value(r);
            if error > 0.0 {
                high = r;
            } else {
                low = r;
            }
            let newton = r - error / slope(lens, r * r);
            let next = if newton > low && newton < high {
                newton
            } else {
                (low + high) / 2.0
            };
            let step = (next - r).abs();
            r = next;
            if step <= 1e-15 * (1.0 + r) {
                break;
            }
        }
        r
    }
}

/// Derivative of `r (1 + k1 r^2 + k2 r^4 + k3 r^6)`, of the squared radius.
fn slope(lens: &Distortion, s: f64) -> f64 {
    1.0 + s * (3.0 * lens.k1 + s * (5.0 * lens.k2 + s * 7.0 * lens.k3))
}

/// Smallest positive root of the derivative of the radial distortion: there it folds back.
///
/// The derivative is 1 at the middle. It can reach zero before its first turning point, between two of
/// them, or beyond the last: the first of these stretches at whose end it is negative has the root.
fn one_to_one_r2(lens: &Distortion) -> f64 {
    /// Halvings of a bracket until a double has no more digits.
    const HALVINGS: usize = 200;
    /// Squared radius, in focal lengths, beyond which no camera sees.
    const FARTHEST: f64 = 1e6;
    // Turning points: roots of 3 k1 + 10 k2 s + 21 k3 s^2.
    let (a, b, c) = (21.0 * lens.k3, 10.0 * lens.k2, 3.0 * lens.k1);
    let turning = if a == 0.0 {
        [-c / b, f64::NAN]
    } else {
        let root = (b * b - 4.0 * a * c).sqrt();
        [(-b - root) / (2.0 * a), (-b + root) / (2.0 * a)]
    };
    let mut ends: Vec<f64> = turning
        .into_iter()
        .filter(|s| *s > 0.0 && *s < FARTHEST)
        .collect();
    ends.push(FARTHEST);
    ends.sort_by(f64::total_cmp);
    let mut low = 0.0;
    for end in ends {
        if slope(lens, end) > 0.0 {
            low = end;
            continue;
        }
        let mut high = end;
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if slope(lens, middle) > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        return high;
    }
    f64::INFINITY
}

/// Where a camera was and how it looked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CameraPose {
    /// Camera centre.
    pub position: Geodetic,
    /// Rotates camera axes (x right, y down, z forward) into east, north, up at `position`.
    pub enu_from_camera: UnitQuaternion<f64>,
    /// Metres above the ground plane that the picture shows.
    pub height_above_ground_m: f64,
}

impl CameraPose {
    /// From the attitude of the camera itself, as a gimbal reports it: pitch 0 looks to the horizon
    /// towards yaw, pitch -90 straight down with the top of the picture towards yaw.
    pub fn from_gimbal(
        position: Geodetic,
        camera: Attitude,
        height_above_ground_m: f64,
    ) -> CameraPose {
        CameraPose {
            position,
            enu_from_camera: enu_from_ned() * camera.ned_from_body() * body_from_camera(),
            height_above_ground_m,
        }
    }

    /// From the attitude of the body that the camera is fixed to. `mount_pitch_deg` turns the camera
    /// up from the body's forward axis: 0 looks along the nose, -90 straight down through the floor
    /// with the top of the picture towards the nose.
    pub fn from_body(
        position: Geodetic,
        body: Attitude,
        mount_pitch_deg: f64,
        height_above_ground_m: f64,
    ) -> CameraPose {
        let body_from_mount =
            UnitQuaternion::from_axis_angle(&Vector3::y_axis(), mount_pitch_deg.to_radians());
        CameraPose {
            position,
            enu_from_camera: enu_from_ned()
                * body.ned_from_body()
                * body_from_mount
                * body_from_camera(),
            height_above_ground_m,
        }
    }

    /// Altitude of the ground plane, metres.
    pub fn ground_altitude_m(&self) -> f64 {
        self.position.altitude_m - self.height_above_ground_m
    }

    /// Pose and camera made ready for many pixels.
    pub fn view(&self, intrinsics: &Intrinsics) -> View {
        let enu_from_camera = self.enu_from_camera.to_rotation_matrix().into_inner();
        View {
            intrinsics: *intrinsics,
            frame: LocalFrame::at(self.position),
            enu_from_camera,
            camera_from_enu: enu_from_camera.transpose(),
            height_above_ground_m: self.height_above_ground_m,
        }
    }

    /// Where the ray through a pixel meets the ground; `None` at or above the horizon.
    pub fn ground_point(&self, intrinsics: &Intrinsics, pixel: [f64; 2]) -> Option<Geodetic> {
        self.view(intrinsics).ground_point(pixel)
    }

    /// Pixel of a place (its altitude counts); `None` behind the camera. May lie off the picture.
    pub fn pixel_of(&self, intrinsics: &Intrinsics, point: &Geodetic) -> Option<[f64; 2]> {
        self.view(intrinsics).pixel_of(point)
    }

    /// Ground under the four corners in picture order (top left, top right, bottom right, bottom
    /// left); `None` when one of them looks at or above the horizon.
    pub fn footprint(&self, intrinsics: &Intrinsics) -> Option<[Geodetic; 4]> {
        self.view(intrinsics).footprint()
    }
}

/// A camera at a pose, with everything that does not depend on the pixel worked out.
#[derive(Clone, Copy, Debug)]
pub struct View {
    intrinsics: Intrinsics,
    frame: LocalFrame,
    enu_from_camera: Matrix3<f64>,
    camera_from_enu: Matrix3<f64>,
    height_above_ground_m: f64,
}

/// Rays this close to the horizon (sine of the angle below it) are not intersected with the ground:
/// they meet it thousands of heights away, where neither flat ground nor the pose is that good.
const HORIZON_SIN: f64 = 1e-4;

impl View {
    /// The camera.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.intrinsics
    }

    /// East, north, up around the camera centre.
    pub fn frame(&self) -> &LocalFrame {
        &self.frame
    }

    /// Where the ray through a pixel meets the ground plane; `None` at or above the horizon.
    pub fn ground_enu(&self, pixel: [f64; 2]) -> Option<Enu> {
        let direction = self.enu_from_camera * self.intrinsics.ray(pixel);
        if direction.z < -HORIZON_SIN && self.height_above_ground_m > 0.0 {
            let distance = self.height_above_ground_m / -direction.z;
            Some(Enu::from_vector(direction * distance))
        } else {
            None
        }
    }

    /// As [`View::ground_enu`], geodetic.
    pub fn ground_point(&self, pixel: [f64; 2]) -> Option<Geodetic> {
        self.ground_enu(pixel)
            .map(|enu| self.frame.geodetic_from_enu(&enu))
    }

    /// Pixel of a point given relative to the camera centre; `None` behind the camera.
    #[inline]
    pub fn pixel_of_enu(&self, point: &Enu) -> Option<[f64; 2]> {
        self.intrinsics
            .project(&(self.camera_from_enu * point.to_vector()))
    }

    /// Pixel of a place (its altitude counts); `None` behind the camera.
    #[inline]
    pub fn pixel_of(&self, point: &Geodetic) -> Option<[f64; 2]> {
        self.pixel_of_enu(&self.frame.enu_from_geodetic(point))
    }

    /// See [`CameraPose::footprint`].
    pub fn footprint(&self) -> Option<[Geodetic; 4]> {
        let (w, h) = (
            f64::from(self.intrinsics.width_px),
            f64::from(self.intrinsics.height_px),
        );
        Some([
            self.ground_point([0.0, 0.0])?,
            self.ground_point([w, 0.0])?,
            self.ground_point([w, h])?,
            self.ground_point([0.0, h])?,
        ])
    }
}

fn enu_from_ned() -> UnitQuaternion<f64> {
    quaternion(Matrix3::new(
        0.0, 1.0, 0.0, //
        1.0, 0.0, 0.0, //
        0.0, 0.0, -1.0,
    ))
}

/// A camera looking along the body's nose: right is right, down is down, forward is forward.
fn body_from_camera() -> UnitQuaternion<f64> {
    quaternion(Matrix3::new(
        0.0, 0.0, 1.0, //
        1.0, 0.0, 0.0, //
        0.0, 1.0, 0.0,
    ))
}

fn quaternion(rotation: Matrix3<f64>) -> UnitQuaternion<f64> {
    UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(rotation))
}

#[cfg(test)]
mod tests;
