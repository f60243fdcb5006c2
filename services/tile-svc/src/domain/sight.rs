//! What a camera sees of the ground well enough to paint it.
//!
//! Pipeline: pose and camera -> the cone around straight down within which rays count -> the part of
//! the ground plane inside cone and picture, as a convex polygon. Over ground with a relief the polygon is
//! drawn around all that may be seen of it.
//!
//! Degenerate cases: a camera at or below its ground, or beyond the edge of Web Mercator, sees nothing
//! that can be painted; rays towards the horizon are cut off by the cone, so the polygon is always
//! bounded; with barrel distortion the edges of the picture bend, and the polygon is drawn around them.

use nalgebra::{Matrix3, Vector3};
use sovereign_model::geo::mercator::MAX_LATITUDE_DEG;
use sovereign_model::geo::{Enu, Geodetic};
use sovereign_model::{CameraPose, Intrinsics, Relief, View};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SightLimits {
    /// Largest angle from straight down, degrees, above 0 and below 90.
    pub(crate) max_view_angle_deg: f64,
    /// Largest distance over ground from below the camera, metres, above 0.
    pub(crate) max_distance_m: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Unpaintable {
    #[error("the camera is not above its ground")]
    NotAboveGround,
    #[error("no ray meets the ground within the limits of view")]
    LooksAway,
    #[error("no pixel of the map is within the picture")]
    NoPixel,
    #[error("the place is beyond the edge of the map")]
    OffTheMap,
}

#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pose: CameraPose,
    view: View,
    camera_from_enu: Matrix3<f64>,
    min_cos: f64,
    /// Squared undistorted radius, in focal lengths, beyond which nothing is on the picture.
    max_r2: f64,
    region: Vec<[f64; 2]>,
    relief: Option<Relief>,
}

/// Points along each edge of the picture that are undistorted to find how far its edges bend.
const EDGE_POINTS: u32 = 16;

impl Sight {
    /// The ground that `intrinsics` at `pose` sees within `limits`.
    pub(crate) fn new(
        pose: &CameraPose,
        intrinsics: &Intrinsics,
        limits: SightLimits,
    ) -> Result<Self, Unpaintable> {
        let height = pose.height_above_ground_m;
        let rotation = pose.enu_from_camera.to_rotation_matrix().into_inner();
        let is_usable =
            height > 0.0 && height.is_finite() && rotation.iter().all(|v| v.is_finite());
        if !is_usable {
            return Err(Unpaintable::NotAboveGround);
        }
        if pose.position.latitude_deg.abs() >= MAX_LATITUDE_DEG {
            return Err(Unpaintable::OffTheMap);
        }
        let reach =
            (limits.max_view_angle_deg.to_radians().tan() * height).min(limits.max_distance_m);
        let camera_from_enu = rotation.transpose();
        let edges = Edges::of(intrinsics);
        let region = clip(reach, height, &camera_from_enu, &edges);
        if region.len() < 3 {
            return Err(Unpaintable::LooksAway);
        }
        Ok(Self {
            pose: *pose,
            view: pose.view(intrinsics),
            camera_from_enu,
            min_cos: height / height.hypot(reach),
            max_r2: edges.max_r2,
            region,
            relief: None,
        })
    }

    /// The same over ground that is not a plane: what is seen of it lies between what is seen of planes
    /// through its lowest and its highest point.
    pub(crate) fn over(self, relief: Relief) -> Result<Self, Unpaintable> {
        /// The highest plane, in heights of the camera: a hill beside it may be higher than that.
        const NEAREST: f64 = 0.05;
        let height = self.pose.height_above_ground_m;
        let reach = height * (1.0 / (self.min_cos * self.min_cos) - 1.0).sqrt();
        let edges = Edges::of(self.view.intrinsics());
        let (low, high) = relief.range();
        let mut points = Vec::new();
        for below in [height - low, (height - high).max(height * NEAREST)] {
            let reach = reach * (below / height).max(1.0);
            points.extend(clip(reach, below, &self.camera_from_enu, &edges));
        }
        let region = hull(points);
        if region.len() < 3 {
            return Err(Unpaintable::LooksAway);
        }
        Ok(Self {
            region,
            relief: Some(relief),
            ..self
        })
    }

    /// Shape of the ground; a plane without it.
    #[must_use]
    pub(super) fn relief(&self) -> Option<&Relief> {
        self.relief.as_ref()
    }

    #[must_use]
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    #[must_use]
    pub(crate) fn pose(&self) -> &CameraPose {
        &self.pose
    }

    /// Convex polygon around the ground that can be painted: metres east and north of the camera.
    #[must_use]
    pub(crate) fn region(&self) -> &[[f64; 2]] {
        &self.region
    }

    /// Cosine of the largest angle from straight down that counts.
    #[must_use]
    pub(crate) fn min_cos(&self) -> f64 {
        self.min_cos
    }

    #[must_use]
    pub(super) fn max_r2(&self) -> f64 {
        self.max_r2
    }

    pub(super) fn camera_from_enu(&self) -> &Matrix3<f64> {
        &self.camera_from_enu
    }

    /// Place of a point of the ground plane, metres east and north of the camera.
    #[must_use]
    pub(crate) fn ground_from_enu(&self, [east, north]: [f64; 2]) -> Geodetic {
        self.view.frame().geodetic_from_enu(&Enu {
            east,
            north,
            up: -self.pose.height_above_ground_m,
        })
    }

    /// Metres of ground that a pixel covers where the middle of the picture looks: the geometric mean
    /// of along and across. Beyond the limits of view, that of the limit.
    #[must_use]
    pub(crate) fn ground_sample_m(&self) -> f64 {
        let intrinsics = self.view.intrinsics();
        let middle = [
            f64::from(intrinsics.width_px()) / 2.0,
            f64::from(intrinsics.height_px()) / 2.0,
        ];
        let ray = intrinsics.ray(middle);
        let cos = (-(self.camera_from_enu.tr_mul(&ray)).z).max(self.min_cos);
        let focal = (intrinsics.fx_px() * intrinsics.fy_px()).sqrt();
        // Across a pixel covers d / f; along it is stretched by 1 / cos; d is h / cos.
        self.pose.height_above_ground_m / (focal * cos * cos.sqrt())
    }
}

struct Edges {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    max_r2: f64,
}

impl Edges {
    fn of(intrinsics: &Intrinsics) -> Self {
        let (w, h) = (
            f64::from(intrinsics.width_px()),
            f64::from(intrinsics.height_px()),
        );
        let mut edges = Self {
            left: 0.0,
            right: 0.0,
            top: 0.0,
            bottom: 0.0,
            max_r2: 0.0,
        };
        for step in 0..=EDGE_POINTS {
            let t = f64::from(step) / f64::from(EDGE_POINTS);
            for pixel in [[0.0, t * h], [w, t * h], [t * w, 0.0], [t * w, h]] {
                let ray: Vector3<f64> = intrinsics.ray(pixel);
                let (x, y) = (ray.x / ray.z, ray.y / ray.z);
                edges.left = edges.left.min(x);
                edges.right = edges.right.max(x);
                edges.top = edges.top.min(y);
                edges.bottom = edges.bottom.max(y);
                edges.max_r2 = edges.max_r2.max(x * x + y * y);
            }
        }
        edges
    }
}

/// The square of half side `reach` around the point below the camera, cut by the four sides of the
/// pyramid that the picture spans: Sutherland and Hodgman's algorithm, half plane by half plane.
fn clip(reach: f64, height: f64, camera_from_enu: &Matrix3<f64>, edges: &Edges) -> Vec<[f64; 2]> {
    let (x, y, z) = (
        camera_from_enu.row(0),
        camera_from_enu.row(1),
        camera_from_enu.row(2),
    );
    let half_spaces = [
        z.into_owned(),
        x - z * edges.left,
        z * edges.right - x,
        y - z * edges.top,
        z * edges.bottom - y,
    ];
    let mut polygon = vec![
        [-reach, -reach],
        [reach, -reach],
        [reach, reach],
        [-reach, reach],
    ];
    for half_space in half_spaces {
        let side =
            |[e, n]: [f64; 2]| half_space[0] * e + half_space[1] * n - half_space[2] * height;
        let mut kept = Vec::with_capacity(polygon.len() + 1);
        for (i, &here) in polygon.iter().enumerate() {
            let next = polygon[(i + 1) % polygon.len()];
            let (inside, next_inside) = (side(here), side(next));
            if inside >= 0.0 {
                kept.push(here);
            }
            if (inside >= 0.0) != (next_inside >= 0.0) {
                let t = inside / (inside - next_inside);
                kept.push([
                    here[0] + t * (next[0] - here[0]),
                    here[1] + t * (next[1] - here[1]),
                ]);
            }
        }
        polygon = kept;
        if polygon.is_empty() {
            break;
        }
    }
    polygon
}

/// The convex polygon around points: Andrew's monotone chain, from the western end along the south and back
/// along the north.
fn hull(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    let turns_left = |a: [f64; 2], b: [f64; 2], c: [f64; 2]| {
        (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0.0
    };
    let chain = |points: &mut dyn Iterator<Item = [f64; 2]>| {
        let mut chain: Vec<[f64; 2]> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && !turns_left(a, b, point)
            {
                chain.pop();
            }
            chain.push(point);
        }
        // Its last point begins the other chain.
        chain.pop();
        chain
    };
    let mut hull = chain(&mut points.iter().copied());
    hull.extend(chain(&mut points.iter().rev().copied()));
    hull
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use sovereign_model::geo::Attitude;

    pub(in super::super) const LIMITS: SightLimits = SightLimits {
        max_view_angle_deg: 60.0,
        max_distance_m: 2_000.0,
    };

    pub(in super::super) fn pose(pitch_deg: f64, yaw_deg: f64, height_m: f64) -> CameraPose {
        CameraPose::from_gimbal(
            Geodetic::new(46.842_656, -91.994_008, 200.0).unwrap(),
            Attitude {
                roll_deg: 0.0,
                pitch_deg,
                yaw_deg,
            },
            height_m,
        )
    }

    pub(in super::super) fn camera() -> Intrinsics {
        Intrinsics::new(752, 480, 460.0, 460.0, 370.0, 245.0, -0.05, 0.01).unwrap()
    }

    #[test]
    fn straight_down_the_region_is_the_footprint() {
        let camera = Intrinsics::from_focal_px(800, 600, 400.0).unwrap();
        let sight = Sight::new(&pose(-90.0, 0.0, 100.0), &camera, LIMITS).unwrap();
        let reach = |i: usize| {
            sight
                .region()
                .iter()
                .map(|p| p[i].abs())
                .fold(0.0, f64::max)
        };
        assert!((reach(0) - 100.0).abs() < 1e-6 && (reach(1) - 75.0).abs() < 1e-6);
        assert!((sight.ground_sample_m() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_view_to_the_horizon_is_cut_off_by_the_cone() {
        let sight = Sight::new(&pose(-30.0, 0.0, 100.0), &camera(), LIMITS).unwrap();
        let furthest = sight.region().iter().map(|p| p[1]).fold(0.0, f64::max);
        assert!((furthest - 100.0 * 60_f64.to_radians().tan()).abs() < 1e-6);
        assert_eq!(
            Sight::new(&pose(30.0, 0.0, 100.0), &camera(), LIMITS).unwrap_err(),
            Unpaintable::LooksAway
        );
    }

    #[test]
    fn over_a_relief_the_region_holds_what_is_seen_of_hills_and_valleys() {
        let camera = Intrinsics::from_focal_px(800, 600, 400.0).unwrap();
        let sight = Sight::new(&pose(-90.0, 0.0, 100.0), &camera, LIMITS).unwrap();
        let valley = Relief::new(46.8, -92.0, 0.1, 0.1, 2, vec![-50.0, 0.0, 20.0, 0.0]).unwrap();
        let sight = sight.over(valley).unwrap();
        let reach = |i: usize| {
            sight
                .region()
                .iter()
                .map(|p| p[i].abs())
                .fold(0.0, f64::max)
        };
        assert!((reach(0) - 150.0).abs() < 1e-6 && (reach(1) - 112.5).abs() < 1e-6);
        assert_eq!(sight.region().len(), 4);
    }

    #[test]
    fn a_camera_that_is_not_above_its_ground_is_refused() {
        for height in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                Sight::new(&pose(-90.0, 0.0, height), &camera(), LIMITS).unwrap_err(),
                Unpaintable::NotAboveGround
            );
        }
        let mut at_the_pole = pose(-90.0, 0.0, 100.0);
        at_the_pole.position.latitude_deg = 89.0;
        assert_eq!(
            Sight::new(&at_the_pole, &camera(), LIMITS).unwrap_err(),
            Unpaintable::OffTheMap
        );
    }
}
