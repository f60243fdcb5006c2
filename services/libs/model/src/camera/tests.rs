use proptest::prelude::*;

use super::*;
use crate::geo::horizontal_distance_m;

fn camera() -> Intrinsics {
    Intrinsics::new(4000, 2250, 2754.5, 2754.5, 2000.0, 1125.0, 0.0096, 0.0).unwrap()
}

fn position() -> Geodetic {
    Geodetic::new(46.842_656, -91.994_008, 198.5).unwrap()
}

fn attitude(roll_deg: f64, pitch_deg: f64, yaw_deg: f64) -> Attitude {
    Attitude {
        roll_deg,
        pitch_deg,
        yaw_deg,
    }
}

fn close(a: Vector3<f64>, b: Vector3<f64>) -> bool {
    (a - b).norm() < 1e-9
}

const EAST: Vector3<f64> = Vector3::new(1.0, 0.0, 0.0);
const NORTH: Vector3<f64> = Vector3::new(0.0, 1.0, 0.0);
const UP: Vector3<f64> = Vector3::new(0.0, 0.0, 1.0);
/// Camera axes.
const FORWARD: Vector3<f64> = Vector3::new(0.0, 0.0, 1.0);
const IMAGE_UP: Vector3<f64> = Vector3::new(0.0, -1.0, 0.0);
const IMAGE_RIGHT: Vector3<f64> = Vector3::new(1.0, 0.0, 0.0);

#[test]
fn a_gimbal_at_minus_90_looks_down_with_the_top_of_the_picture_towards_yaw() {
    for (yaw, top, right) in [
        (0.0, NORTH, EAST),
        (90.0, EAST, -NORTH),
        (180.0, -NORTH, -EAST),
        (-90.0, -EAST, NORTH),
    ] {
        let pose = CameraPose::from_gimbal(position(), attitude(0.0, -90.0, yaw), 40.0);
        assert!(close(pose.enu_from_camera * FORWARD, -UP));
        assert!(close(pose.enu_from_camera * IMAGE_UP, top), "yaw {yaw}");
        assert!(
            close(pose.enu_from_camera * IMAGE_RIGHT, right),
            "yaw {yaw}"
        );
    }
}

#[test]
fn a_level_gimbal_looks_to_the_horizon_at_yaw() {
    let pose = CameraPose::from_gimbal(position(), attitude(0.0, 0.0, 90.0), 40.0);
    assert!(close(pose.enu_from_camera * FORWARD, EAST));
    assert!(close(pose.enu_from_camera * IMAGE_UP, UP));
    assert!(close(pose.enu_from_camera * IMAGE_RIGHT, -NORTH));
    assert_eq!(pose.ground_point(&camera(), [2000.0, 1125.0]), None);
    assert_eq!(pose.footprint(&camera()), None);
    // Below the horizon there is ground, ahead.
    let ground = pose.ground_point(&camera(), [2000.0, 2250.0]).unwrap();
    assert!(ground.longitude_deg > position().longitude_deg);
}

#[test]
fn a_camera_mounted_straight_down_turns_with_the_body() {
    let down = CameraPose::from_body(position(), attitude(0.0, 0.0, 30.0), -90.0, 40.0);
    let gimbal = CameraPose::from_gimbal(position(), attitude(0.0, -90.0, 30.0), 40.0);
    assert!(down.enu_from_camera.angle_to(&gimbal.enu_from_camera) < 1e-9);
    // Right side down: a camera through the floor looks out to the left.
    let rolled = CameraPose::from_body(position(), attitude(10.0, 0.0, 0.0), -90.0, 40.0);
    let forward = rolled.enu_from_camera * FORWARD;
    assert!(
        forward.dot(&EAST) < -0.17 && forward.dot(&UP) < -0.98,
        "{forward}"
    );
    // Nose up: it looks ahead.
    let pitched = CameraPose::from_body(position(), attitude(0.0, 10.0, 0.0), -90.0, 40.0);
    assert!((pitched.enu_from_camera * FORWARD).dot(&NORTH) > 0.17);
    let ahead = CameraPose::from_body(position(), attitude(0.0, 0.0, 0.0), 0.0, 40.0);
    assert!(close(ahead.enu_from_camera * FORWARD, NORTH));
}

#[test]
fn the_footprint_of_a_nadir_picture_has_the_size_of_the_field_of_view() {
    let plain = Intrinsics::from_focal_px(4000, 2000, 2000.0).unwrap();
    let pose = CameraPose::from_gimbal(position(), attitude(0.0, -90.0, 0.0), 50.0);
    let [tl, tr, br, bl] = pose.footprint(&plain).unwrap();
    assert!((horizontal_distance_m(&tl, &tr) - 100.0).abs() < 0.01);
    assert!((horizontal_distance_m(&tr, &br) - 50.0).abs() < 0.01);
    assert!(tl.latitude_deg > bl.latitude_deg && tl.longitude_deg < tr.longitude_deg);
    assert!((tl.altitude_m - pose.ground_altitude_m()).abs() < 0.01);
    let centre = pose.ground_point(&plain, [2000.0, 1000.0]).unwrap();
    assert!(horizontal_distance_m(&centre, &position()) < 1e-6);
}

#[test]
fn a_camera_on_or_under_the_ground_sees_no_ground() {
    let pose = CameraPose::from_gimbal(position(), attitude(0.0, -90.0, 0.0), 0.0);
    assert_eq!(pose.ground_point(&camera(), [0.0, 0.0]), None);
}

#[test]
fn nothing_behind_the_camera_has_a_pixel() {
    assert_eq!(camera().project(&Vector3::new(0.0, 0.0, -1.0)), None);
    assert_eq!(camera().project(&Vector3::new(1.0, 1.0, 0.0)), None);
    assert_eq!(camera().project(&Vector3::new(f64::NAN, 0.0, 1.0)), None);
}

#[test]
fn barrel_distortion_does_not_repeat_the_picture_beyond_its_fold() {
    let barrel = Intrinsics::new(1000, 1000, 500.0, 500.0, 500.0, 500.0, -0.3, 0.0).unwrap();
    // The fold is at r^2 = 1 / 0.9.
    assert!(barrel.project(&Vector3::new(1.05, 0.0, 1.0)).is_some());
    assert_eq!(barrel.project(&Vector3::new(1.06, 0.0, 1.0)), None);
    // Unfolded, this point would land on the picture again.
    assert_eq!(barrel.project(&Vector3::new(1.8, 0.0, 1.0)), None);
    // A pixel that no ray reaches gets the outermost one.
    let ray = barrel.ray([5000.0, 500.0]);
    assert!((ray.x / ray.z - (1.0 / 0.9_f64).sqrt()).abs() < 1e-6);
}

#[test]
fn a_lens_folds_where_its_radius_stops_to_grow() {
    let fold = |k1, k2, k3| {
        let lens = Distortion {
            k1,
            k2,
            k3,
            ..Distortion::default()
        };
        camera().with_distortion(lens).unwrap().one_to_one_r2
    };
    assert_eq!(fold(0.1, 0.0, 0.0), f64::INFINITY);
    assert!((fold(-0.3, 0.0, 0.0) - 1.0 / 0.9).abs() < 1e-12);
    // The derivatives are 1 - 2 s + s^2 / 4, 1 - s^3, and one with the roots 2/3, 1 and 2.
    assert!((fold(-2.0 / 3.0, 0.05, 0.0) - (4.0 - 12_f64.sqrt())).abs() < 1e-12);
    assert!((fold(0.0, 0.0, -1.0 / 7.0) - 1.0).abs() < 1e-12);
    assert!((fold(-1.0, 0.55, -0.75 / 7.0) - 2.0 / 3.0).abs() < 1e-9);
}

#[test]
fn focal_length_follows_from_angle_film_and_sensor() {
    let by_angle = Intrinsics::from_fov(752, 480, 90.0).unwrap();
    assert!((by_angle.fx_px() - 376.0).abs() < 1e-9);
    assert!((by_angle.cx_px(), by_angle.cy_px()) == (376.0, 240.0));
    let by_film = Intrinsics::from_35mm(4000, 2250, 20.0).unwrap();
    assert!((by_film.fx_px() - 2222.222).abs() < 1e-3);
    let upright = Intrinsics::from_35mm(2250, 4000, 20.0).unwrap();
    assert_eq!(upright.fx_px(), by_film.fx_px());
    let by_sensor = Intrinsics::from_focal_and_sensor(4000, 2250, 3.61, 6.17).unwrap();
    assert!((by_sensor.fx_px() - 2340.356).abs() < 1e-3);
}

#[test]
fn numbers_that_no_camera_has_are_refused_by_field() {
    let field = |w, h, fx, cx, k1| {
        Intrinsics::new(w, h, fx, 500.0, cx, 100.0, k1, 0.0)
            .unwrap_err()
            .field
    };
    assert_eq!(field(0, 480, 500.0, 300.0, 0.0), "width_px");
    assert_eq!(field(752, 70_000, 5000.0, 300.0, 0.0), "height_px");
    assert_eq!(field(752, 480, 0.0, 300.0, 0.0), "fx_px");
    assert_eq!(field(752, 480, f64::NAN, 300.0, 0.0), "fx_px");
    assert_eq!(field(752, 480, 500.0, 800.0, 0.0), "cx_px");
    assert_eq!(field(752, 480, 500.0, 300.0, f64::INFINITY), "k1");
    let tilted = Distortion {
        p2: 0.2,
        ..Distortion::default()
    };
    assert_eq!(camera().with_distortion(tilted).unwrap_err().field, "p2");
    assert!(Intrinsics::from_fov(752, 480, 180.0).is_err());
    assert!(Intrinsics::from_fov(752, 480, f64::NAN).is_err());
    assert!(Intrinsics::from_focal_and_sensor(752, 480, 4.0, 0.0).is_err());
}

prop_compose! {
    fn any_camera()(
        focal in 400.0_f64..4000.0,
        k1 in -0.3_f64..0.3,
        k2 in -0.1_f64..0.1,
        k3 in -0.05_f64..0.05,
        p1 in -0.002_f64..0.002,
        p2 in -0.002_f64..0.002,
    ) -> Intrinsics {
        let camera = Intrinsics::new(1000, 800, focal, focal * 1.01, 490.0, 410.0, 0.0, 0.0).unwrap();
        camera.with_distortion(Distortion { k1, k2, k3, p1, p2 }).unwrap()
    }
}

proptest! {
    #[test]
    fn a_ray_projects_back_to_its_pixel(camera in any_camera(), x in 0.0_f64..1000.0, y in 0.0_f64..800.0) {
        let ray = camera.ray([x, y]);
        prop_assert!((ray.norm() - 1.0).abs() < 1e-12);
        // A pixel beyond the fold has the outermost ray, which comes back to another pixel.
        let radius = (ray.x / ray.z).hypot(ray.y / ray.z);
        prop_assume!(radius * radius < camera.one_to_one_r2 * 0.999);
        let [px, py] = camera.project(&ray).unwrap();
        prop_assert!((px - x).abs() < 1e-6 && (py - y).abs() < 1e-6, "{px} {py}");
    }

    #[test]
    fn a_ground_point_has_the_pixel_it_came_from(
        roll in -15.0_f64..15.0,
        pitch in -90.0_f64..-45.0,
        yaw in -180.0_f64..180.0,
        height in 5.0_f64..500.0,
        x in 0.0_f64..4000.0,
        y in 0.0_f64..2250.0,
    ) {
        let pose = CameraPose::from_gimbal(position(), attitude(roll, pitch, yaw), height);
        let Some(ground) = pose.ground_point(&camera(), [x, y]) else {
            return Ok(());
        };
        let [px, py] = pose.pixel_of(&camera(), &ground).unwrap();
        prop_assert!((px - x).abs() < 1e-3 && (py - y).abs() < 1e-3, "{px} {py}");
    }
}
