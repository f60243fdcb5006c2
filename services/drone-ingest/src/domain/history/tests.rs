use super::*;

const MAX: Duration = Duration::from_millis(500);

fn ms(ms: i64) -> Timestamp {
    Timestamp::from_unix_nanos(1_700_000_000_000_000_000 + ms * 1_000_000)
}

fn place(latitude_deg: f64, longitude_deg: f64, altitude_m: f64) -> Place {
    Place {
        position: Position {
            latitude_deg,
            longitude_deg,
            altitude_m: Some(altitude_m),
        },
        relative_altitude_m: None,
    }
}

fn yaw(yaw_deg: f64) -> Attitude {
    Attitude {
        roll_deg: 0.0,
        pitch_deg: 0.0,
        yaw_deg,
    }
}

#[test]
fn a_moment_between_two_samples_is_interpolated() {
    let mut history = History::default();
    history.add_place(ms(0), place(10.0, 179.9, 100.0));
    history.add_place(ms(100), place(11.0, -179.9, 200.0));
    history.add_body(ms(0), yaw(350.0));
    history.add_body(ms(100), yaw(20.0));
    let fix = history.at(ms(25), MAX).unwrap();
    let position = fix.place.position;
    assert!((position.latitude_deg - 10.25).abs() < 1e-9);
    assert!(
        (position.longitude_deg - 179.95).abs() < 1e-9,
        "{position:?}"
    );
    assert_eq!(position.altitude_m, Some(125.0));
    assert_eq!(fix.offset, Duration::from_millis(25));
    let Some(Looking::Body(attitude)) = fix.looking else {
        panic!("{fix:?}");
    };
    assert!((attitude.yaw_deg - 357.5).abs() < 1e-9, "{attitude:?}");
}

#[test]
fn a_moment_outside_takes_the_nearest_sample_within_the_limit_only() {
    let mut history = History::default();
    assert_eq!(history.at(ms(0), MAX), None);
    history.add_place(ms(0), place(1.0, 2.0, 3.0));
    assert_eq!(history.at(ms(500), MAX).unwrap().offset, MAX);
    assert_eq!(history.at(ms(-500), MAX).unwrap().offset, MAX);
    assert_eq!(history.at(ms(501), MAX), None);
    assert_eq!(history.at(ms(-501), MAX), None);
}

#[test]
fn the_camera_speaks_before_the_body_and_a_far_attitude_not_at_all() {
    let mut history = History::default();
    history.add_place(ms(1000), place(1.0, 2.0, 3.0));
    history.add_body(ms(1000), yaw(10.0));
    history.add_gimbal(154, ms(0), yaw(20.0));
    let looking = history.at(ms(1000), MAX).unwrap().looking;
    assert_eq!(looking, Some(Looking::Body(yaw(10.0))));
    history.add_gimbal(154, ms(1000), yaw(30.0));
    let looking = history.at(ms(1000), MAX).unwrap().looking;
    assert_eq!(looking, Some(Looking::Camera(yaw(30.0))));
}

#[test]
fn a_late_sample_is_put_in_its_place() {
    let mut history = History::default();
    history.add_place(ms(0), place(0.0, 0.0, 0.0));
    history.add_place(ms(200), place(2.0, 0.0, 0.0));
    history.add_place(ms(100), place(5.0, 0.0, 0.0));
    let latitude = |t| history.at(ms(t), MAX).unwrap().place.position.latitude_deg;
    assert!((latitude(50) - 2.5).abs() < 1e-9);
    assert!((latitude(150) - 3.5).abs() < 1e-9);
}

#[test]
fn a_track_is_bounded_in_time_and_length_and_keeps_the_newest() {
    let mut history = History::default();
    for step in [100, 31, 1] {
        history.clear();
        for t in (0..60_000).step_by(step) {
            history.add_place(ms(t), place(0.0, 0.0, t as f64));
        }
        let samples = &history.places.samples;
        assert!(samples.len() <= 1_001, "{} for {step}", samples.len());
        let (first, last) = (samples.front().unwrap().0, samples.back().unwrap().0);
        assert!(last.since(first) > DEPTH - SPACING - SPACING);
        assert!(ms(60_000).since(last) <= Duration::from_millis(100));
    }
    for t in (30_000..59_000).rev() {
        history.add_place(ms(t), place(0.0, 0.0, 0.0));
    }
    assert_eq!(history.places.samples.len(), MAX_SAMPLES);
    let times: Vec<_> = history.places.samples.iter().map(|s| s.0).collect();
    assert!(times.is_sorted());
}
