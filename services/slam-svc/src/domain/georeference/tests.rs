use sovereign_model::geo::horizontal_distance_m;

use super::*;
use sovereign_picture::Attitude as MakerAttitude;

fn attitude(pitch_deg: f64, yaw_deg: f64) -> Attitude {
    Attitude {
        roll_deg: 0.0,
        pitch_deg,
        yaw_deg,
    }
}

/// A drone picture that says everything.
fn picture() -> Header {
    Header {
        width_px: 4000,
        height_px: 3000,
        model: Some("FC330".to_owned()),
        focal_mm: Some(3.61),
        gps: Some((47.0, 8.0)),
        altitude_m: Some(440.0),
        relative_altitude_m: Some(40.0),
        gimbal: MakerAttitude {
            roll_deg: Some(0.0),
            pitch_deg: Some(-90.0),
            yaw_deg: Some(90.0),
        },
        flight: MakerAttitude {
            yaw_deg: Some(80.0),
            ..MakerAttitude::default()
        },
        ..Header::default()
    }
}

/// A picture that says nothing but its size.
fn mute() -> Header {
    Header {
        width_px: 752,
        height_px: 480,
        ..Header::default()
    }
}

fn telemetry() -> Telemetry {
    Telemetry {
        position: Some(Position {
            latitude_deg: 47.001,
            longitude_deg: 8.0,
            altitude_m: Some(450.0),
        }),
        relative_altitude_m: Some(50.0),
        attitude: Some(TelemetryAttitude::Body {
            attitude: attitude(0.0, 180.0),
            mount_pitch_deg: -90.0,
        }),
        course_deg: None,
    }
}

fn given() -> Option<Intrinsics> {
    Some(Intrinsics::from_focal_px(752, 480, 500.0).unwrap())
}

fn tracking(verdict: Verdict) -> (CameraPose, Intrinsics, Source) {
    match verdict {
        Verdict::Tracking {
            pose,
            intrinsics,
            source,
            ..
        } => (pose, intrinsics, source),
        other @ (Verdict::PositionOnly { .. } | Verdict::Lost { .. }) => panic!("{other:?}"),
    }
}

fn reason(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::PositionOnly { reason, .. } | Verdict::Lost { reason } => reason,
        tracking @ Verdict::Tracking { .. } => panic!("{tracking:?}"),
    }
}

fn azimuth_of_image_up(pose: &CameraPose) -> f64 {
    let up = pose.enu_from_camera * -nalgebra::Vector3::y();
    up.x.atan2(up.y).to_degrees()
}

#[test]
fn a_picture_that_says_everything_is_placed_by_itself() {
    let (pose, camera, source) = tracking(georeference(
        &picture(),
        &telemetry(),
        None,
        &Site::default(),
    ));
    assert_eq!(source, Source::ImageMetadata);
    assert_eq!(pose.position.latitude_deg, 47.0);
    assert_eq!(pose.height_above_ground_m, 40.0);
    assert!((azimuth_of_image_up(&pose) - 90.0).abs() < 1e-6);
    assert!((camera.fx_px() - 2340.356).abs() < 1e-3);
    let [tl, tr, _, _] = pose.footprint(&camera).unwrap();
    assert!((horizontal_distance_m(&tl, &tr) - 40.0 * 4000.0 / 2340.356).abs() < 0.01);
}

#[test]
fn a_mute_picture_is_placed_by_telemetry() {
    let (pose, _, source) = tracking(georeference(
        &mute(),
        &telemetry(),
        given(),
        &Site::default(),
    ));
    assert_eq!(source, Source::Telemetry);
    assert_eq!(pose.position.latitude_deg, 47.001);
    assert_eq!(pose.height_above_ground_m, 50.0);
    assert!((azimuth_of_image_up(&pose).abs() - 180.0).abs() < 1e-6);
    let by_gimbal = Telemetry {
        attitude: Some(TelemetryAttitude::Camera(attitude(-90.0, 10.0))),
        ..telemetry()
    };
    let (pose, _, _) = tracking(georeference(&mute(), &by_gimbal, given(), &Site::default()));
    assert!((azimuth_of_image_up(&pose) - 10.0).abs() < 1e-6);
}

#[test]
fn attitude_and_position_come_from_the_same_side_where_both_have_one() {
    let mut gps_only = picture();
    gps_only.gimbal = MakerAttitude::default();
    let (pose, _, source) = tracking(georeference(
        &gps_only,
        &telemetry(),
        None,
        &Site::default(),
    ));
    assert_eq!(source, Source::Telemetry);
    assert_eq!(pose.position.latitude_deg, 47.001);
    let no_fix = Telemetry {
        position: None,
        ..telemetry()
    };
    let (pose, _, _) = tracking(georeference(&gps_only, &no_fix, None, &Site::default()));
    assert_eq!(pose.position.latitude_deg, 47.0);
}

#[test]
fn only_a_picture_that_says_everything_counts_as_placed_by_itself() {
    let placed = |spoil: fn(&mut Header), site: &Site| {
        let mut picture = picture();
        spoil(&mut picture);
        let verdict = georeference(&picture, &telemetry(), None, site);
        let Verdict::Tracking { attitude_from, .. } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(attitude_from, Source::ImageMetadata);
        tracking(verdict)
    };
    let flat = Site::default();
    let measured = Site {
        ground_elevation_m: Some(400.0),
        ..Site::default()
    };
    let (pose, _, source) = placed(|p| p.gps = None, &flat);
    assert_eq!(source, Source::Telemetry);
    assert_eq!(pose.position.latitude_deg, 47.001);
    let (pose, _, source) = placed(|p| p.altitude_m = None, &flat);
    assert_eq!(source, Source::Telemetry);
    assert_eq!(
        (pose.position.latitude_deg, pose.position.altitude_m),
        (47.0, 450.0)
    );
    let (pose, _, source) = placed(|p| p.relative_altitude_m = None, &flat);
    assert_eq!(source, Source::Telemetry);
    assert_eq!(pose.height_above_ground_m, 50.0);
    let (pose, _, source) = placed(|p| p.relative_altitude_m = None, &measured);
    assert_eq!(
        source,
        Source::ImageMetadata,
        "the height is the altitude's"
    );
    assert_eq!(pose.height_above_ground_m, 40.0);
    let (_, _, source) = placed(|p| p.altitude_m = None, &measured);
    assert_eq!(source, Source::Telemetry);
}

#[test]
fn a_configured_ground_elevation_wins_over_relative_altitude() {
    let site = Site {
        ground_elevation_m: Some(395.0),
        ..Site::default()
    };
    let (pose, _, _) = tracking(georeference(&picture(), &Telemetry::default(), None, &site));
    assert_eq!(pose.height_above_ground_m, 45.0);
    assert_eq!(pose.ground_altitude_m(), 395.0);
}

#[test]
fn the_airframe_is_believed_for_cameras_whose_gimbal_drifts() {
    let mut site = Site {
        cameras: camera::built_in(),
        readings: attitude::built_in(),
        ..Site::default()
    };
    site.cameras[0].model = "FC330".to_owned();
    site.readings[0].model = "FC330".to_owned();
    let (pose, camera, _) = tracking(georeference(&picture(), &Telemetry::default(), None, &site));
    assert!((azimuth_of_image_up(&pose) - 80.0).abs() < 1e-6);
    assert!((camera.fx_px() - 2411.0).abs() < 1e-9);
}

#[test]
fn what_is_missing_is_named_and_nothing_is_made_up() {
    let none = Telemetry::default();
    let site = Site::default();
    let verdict = |metadata: &Header, telemetry: &Telemetry| {
        reason(georeference(metadata, telemetry, given(), &site))
    };
    assert_eq!(verdict(&mute(), &none), Reason::NoPosition);
    let mut phone = mute();
    phone.gps = Some((55.7, 13.2));
    assert_eq!(verdict(&phone, &none), Reason::NoAttitude);
    let mut no_altitude = telemetry();
    no_altitude.position.as_mut().unwrap().altitude_m = None;
    assert_eq!(verdict(&mute(), &no_altitude), Reason::NoAltitude);
    let no_height = Telemetry {
        relative_altitude_m: None,
        ..telemetry()
    };
    assert_eq!(verdict(&mute(), &no_height), Reason::NoHeight);
    let on_the_ground = Telemetry {
        relative_altitude_m: Some(0.2),
        ..telemetry()
    };
    assert_eq!(
        verdict(&mute(), &on_the_ground),
        Reason::TooLow { height_m: 0.2 }
    );
    for impossible in [1e300, 1.1e6, -1.1e6, f64::NAN, f64::INFINITY] {
        let telemetry = Telemetry {
            relative_altitude_m: Some(impossible),
            ..telemetry()
        };
        let field = "height above ground";
        assert_eq!(verdict(&mute(), &telemetry), Reason::OutOfRange { field });
    }
    let mut far_out = telemetry();
    far_out.position.as_mut().unwrap().latitude_deg = 95.0;
    assert_eq!(
        verdict(&mute(), &far_out),
        Reason::OutOfRange {
            field: "latitude_deg"
        }
    );
    assert_eq!(
        reason(georeference(&mute(), &telemetry(), None, &site)),
        Reason::Camera(NoCamera::Unknown)
    );
}

#[test]
fn a_picture_says_why_it_cannot_be_placed() {
    let verdict = |spoil: fn(&mut Header)| {
        let mut picture = picture();
        spoil(&mut picture);
        let reason = reason(georeference(
            &picture,
            &Telemetry::default(),
            None,
            &Site::default(),
        ));
        reason.to_string()
    };
    let half = verdict(|p| (p.gps, p.gps_fault) = (None, Some("has no GPSLatitudeRef")));
    assert!(half.contains("GPSLatitudeRef"), "{half}");
    let unsure = verdict(|p| {
        (p.gimbal, p.camera) = (MakerAttitude::default(), p.gimbal);
        p.model = Some("ANAFI".to_owned());
    });
    assert!(unsure.contains("camera_pitch"), "{unsure}");
    // Zero is what cameras write that do not know it.
    let grounded = verdict(|p| p.relative_altitude_m = Some(0.0));
    assert!(grounded.contains("ground_elevation_m"), "{grounded}");
    let sphere = verdict(|p| p.projection = sovereign_picture::Projection::Panorama);
    assert!(sphere.contains("panorama"), "{sphere}");
}

/// Rises by a metre in ten to the north; above the ellipsoid.
#[derive(Debug)]
struct Ramp;

impl Elevation for Ramp {
    fn ellipsoidal_m(&self, latitude_deg: f64, _longitude_deg: f64) -> Option<f64> {
        Some(400.0 + (latitude_deg - 47.0) * 11_100.0)
    }

    fn step_deg(&self) -> f64 {
        1e-5
    }
}

#[test]
fn with_a_terrain_model_height_and_footprint_are_over_the_terrain() {
    let site = Site {
        terrain: Some(Arc::new(Ramp)),
        // Not where the model has ground.
        ground_elevation_m: Some(0.0),
        ..Site::default()
    };
    let sea_m = site.geoid.height(47.0, 8.0);
    let mut mapping = picture();
    mapping.relative_altitude_m = None;
    for (is_ellipsoidal, altitude_m) in [(false, 500.0 - sea_m), (true, 500.0)] {
        mapping.altitude_m = Some(altitude_m);
        mapping.altitude_is_ellipsoidal = is_ellipsoidal;
        let verdict = georeference(&mapping, &Telemetry::default(), None, &site);
        let Verdict::Tracking {
            pose,
            intrinsics,
            relief: Some(relief),
            ..
        } = verdict
        else {
            panic!("{verdict:?}");
        };
        assert!((pose.height_above_ground_m - 100.0).abs() < 1e-6);
        assert!(
            (pose.position.altitude_m - (500.0 - sea_m)).abs() < 1e-6,
            "above the sea"
        );
        // The top of the picture is in the east: its left side lies in the north, on higher ground.
        let [tl, tr, _, _] = relief.footprint(&pose, &intrinsics).unwrap();
        let half = f64::from(intrinsics.width_px()) / 2.0 / intrinsics.fx_px();
        let north = |place: &Geodetic| (place.latitude_deg - 47.0) * 111_170.0;
        assert!(
            (north(&tl) - 100.0 * half / (1.0 + half / 10.0)).abs() < 0.3,
            "{}",
            north(&tl)
        );
        assert!(
            (north(&tr) + 100.0 * half / (1.0 - half / 10.0)).abs() < 0.3,
            "{}",
            north(&tr)
        );
    }
}

#[test]
fn a_nadir_is_assumed_only_when_asked_for_and_with_a_course() {
    let mut mapping = picture();
    mapping.gimbal = MakerAttitude::default();
    let verdict = |assume_nadir, track_deg, course_deg| {
        let mut mapping = mapping.clone();
        mapping.track_deg = track_deg;
        let telemetry = Telemetry {
            course_deg,
            ..Telemetry::default()
        };
        let site = Site {
            assume_nadir,
            ..Site::default()
        };
        georeference(&mapping, &telemetry, None, &site)
    };
    assert_eq!(
        reason(verdict(false, Some(10.0), Some(20.0))),
        Reason::NoAttitude
    );
    assert_eq!(reason(verdict(true, None, None)), Reason::NoAttitude);
    for (track, course, expected) in [(Some(10.0), Some(20.0), 10.0), (None, Some(20.0), 20.0)] {
        let (pose, _, source) = tracking(verdict(true, track, course));
        assert_eq!(source, Source::Assumed);
        assert!((azimuth_of_image_up(&pose) - expected).abs() < 1e-6);
        assert_eq!(pose.position.latitude_deg, 47.0);
    }
}

#[test]
fn a_height_above_the_ground_stands_in_for_one_above_the_take_off() {
    let mut parrot = picture();
    (parrot.relative_altitude_m, parrot.above_ground_m) = (None, Some(31.0));
    let verdict = georeference(&parrot, &Telemetry::default(), None, &Site::default());
    assert_eq!(tracking(verdict).0.height_above_ground_m, 31.0);
}

#[test]
fn a_place_that_cannot_be_is_no_position() {
    let mut phone = mute();
    phone.gps = Some((55.7, 13.2));
    phone.altitude_m = Some(1e300);
    let verdict = georeference(&phone, &Telemetry::default(), None, &Site::default());
    let field = "altitude_m";
    assert_eq!(
        verdict,
        Verdict::Lost {
            reason: Reason::OutOfRange { field }
        }
    );
}

#[test]
fn a_position_without_attitude_is_kept_as_a_position() {
    let mut phone = mute();
    phone.gps = Some((55.7, 13.2));
    let Verdict::PositionOnly { position, .. } =
        georeference(&phone, &Telemetry::default(), None, &Site::default())
    else {
        panic!("expected a position");
    };
    assert_eq!(position.latitude_deg, 55.7);
    assert_eq!(position.altitude_m, None);
}
