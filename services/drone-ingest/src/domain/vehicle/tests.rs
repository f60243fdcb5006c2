use super::*;
use crate::domain::fixtures::ms;
use crate::domain::telemetry::Velocity;

const SKEW: Duration = Duration::from_secs(5);

fn vehicle() -> Vehicle {
    let id = SensorId::parse("sys-1").unwrap();
    Vehicle::new(id, Source::Mavlink2, ms(0), SKEW)
}

fn position(latitude_deg: f64, longitude_deg: f64) -> Option<Position> {
    Some(Position {
        latitude_deg,
        longitude_deg,
        altitude_m: Some(80.0),
    })
}

fn global(boot_ms: u32, position: Option<Position>, vx: f64, vy: f64) -> Telemetry {
    Telemetry::GlobalPosition {
        boot_ms,
        position,
        relative_altitude_m: 12.5,
        velocity: Velocity {
            north_mps: vx,
            east_mps: vy,
            down_mps: 0.0,
        },
        heading_deg: Some(90.0),
    }
}

fn gps(fix: bool, position: Option<Position>) -> Telemetry {
    Telemetry::Gps {
        fix,
        position,
        ground_speed_mps: None,
    }
}

fn heartbeat(simulated: bool) -> Telemetry {
    Telemetry::Heartbeat {
        is_vehicle: true,
        flight_mode: Cow::Borrowed("LOITER"),
        armed: true,
        simulated,
    }
}

fn attitude(yaw_deg: f64) -> Attitude {
    Attitude {
        roll_deg: 0.0,
        pitch_deg: 0.0,
        yaw_deg,
    }
}

#[test]
fn a_heartbeat_alone_is_never_a_place() {
    let mut vehicle = vehicle();
    vehicle.merge(heartbeat(false), ms(1));
    let state = vehicle.snapshot();
    assert_eq!(state.position, None);
    assert_eq!(state.velocity, None);
    assert_eq!(state.heading_deg, None);
    assert_eq!(state.battery_percent, None);
    assert_eq!(state.flight_mode, "LOITER");
    assert_eq!(state.armed, Some(true));
    assert_eq!(state.confidence, 0.4);
    assert!(!state.simulated);
    vehicle.merge(heartbeat(true), ms(2));
    assert!(vehicle.snapshot().simulated);
}

#[test]
fn zero_on_both_axes_is_a_place_only_with_a_fix() {
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(0.0, 0.0), 0.0, 0.0), ms(1));
    assert_eq!(vehicle.snapshot().position, None);
    assert_eq!(vehicle.history().at(ms(1), SKEW), None);
    vehicle.merge(gps(true, position(0.0, 0.0)), ms(2));
    vehicle.merge(global(0, position(0.0, 0.0), 0.0, 0.0), ms(3));
    assert_eq!(vehicle.snapshot().position, position(0.0, 0.0));
}

#[test]
fn a_vehicle_that_loses_its_place_has_none() {
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(1.0, 2.0), 0.0, 0.0), ms(1));
    assert_eq!(vehicle.snapshot().position, position(1.0, 2.0));
    vehicle.merge(global(0, position(0.0, 0.0), 0.0, 0.0), ms(2));
    assert_eq!(vehicle.snapshot().position, None);
}

#[test]
fn speed_is_right_and_finite_at_every_velocity() {
    for (vx, vy, speed) in [
        (3.0, 4.0, 5.0),
        (-300.0, 400.0, 500.0),
        (327.67, -327.68, 463.40),
        (0.0, 0.0, 0.0),
    ] {
        let mut vehicle = vehicle();
        vehicle.merge(global(0, position(1.0, 1.0), vx, vy), ms(1));
        let found = vehicle.snapshot().ground_speed_mps.unwrap();
        assert!(found.is_finite());
        assert!((found - speed).abs() < 0.01, "{found} for {vx} {vy}");
    }
}

#[test]
fn gps_is_the_place_only_while_the_better_source_is_silent() {
    let mut vehicle = vehicle();
    vehicle.merge(gps(true, position(1.0, 1.0)), ms(0));
    assert_eq!(vehicle.snapshot().position, position(1.0, 1.0));
    vehicle.merge(global(0, position(2.0, 2.0), 0.0, 0.0), ms(100));
    vehicle.merge(gps(true, position(1.0, 1.0)), ms(200));
    assert_eq!(vehicle.snapshot().position, position(2.0, 2.0));
    vehicle.merge(gps(true, position(3.0, 3.0)), ms(3_000));
    assert_eq!(vehicle.snapshot().position, position(3.0, 3.0));
}

#[test]
fn height_and_velocity_are_unknown_once_only_gps_is_heard() {
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(1.0, 1.0), 3.0, 4.0), ms(0));
    vehicle.merge(gps(true, position(1.0, 1.0)), ms(500));
    assert_eq!(vehicle.snapshot().relative_altitude_m, Some(12.5));
    assert!(vehicle.snapshot().velocity.is_some());
    vehicle.merge(gps(true, position(2.0, 2.0)), ms(3_000));
    let state = vehicle.snapshot();
    assert_eq!(state.position, position(2.0, 2.0));
    assert_eq!((state.relative_altitude_m, state.velocity), (None, None));
    let height = |vehicle: &Vehicle, t| {
        let fix = vehicle.history().at(ms(t), Duration::ZERO).unwrap();
        fix.place.relative_altitude_m
    };
    assert_eq!(height(&vehicle, 3_000), None);
    vehicle.merge(global(0, position(3.0, 3.0), 3.0, 4.0), ms(3_100));
    assert_eq!(height(&vehicle, 3_100), Some(12.5));
    // Nor is the last height that of a picture long after it.
    let captured = Telemetry::ImageCaptured {
        unix_nanos: Some(ms(6_000).as_unix_nanos()),
        boot_ms: None,
        position: position(4.0, 4.0),
        relative_altitude_m: 9.0,
        attitude: None,
    };
    vehicle.merge(captured, ms(6_100));
    assert_eq!(height(&vehicle, 6_000), None);
}

#[test]
fn an_unknown_battery_is_absent_and_the_better_source_is_shown() {
    let mut vehicle = vehicle();
    let system = |battery_percent| Telemetry::SystemStatus { battery_percent };
    let battery = |battery_percent| Telemetry::Battery { battery_percent };
    vehicle.merge(system(None), ms(0));
    assert_eq!(vehicle.snapshot().battery_percent, None);
    vehicle.merge(system(Some(70.0)), ms(1));
    assert_eq!(vehicle.snapshot().battery_percent, Some(70.0));
    vehicle.merge(battery(Some(72.0)), ms(2));
    assert_eq!(vehicle.snapshot().battery_percent, Some(72.0));
    vehicle.merge(battery(None), ms(3));
    vehicle.merge(system(None), ms(4));
    assert_eq!(vehicle.snapshot().battery_percent, None);
}

#[test]
fn confidence_grows_with_what_was_heard() {
    let mut vehicle = vehicle();
    let hud = Telemetry::Hud {
        ground_speed_mps: 3.0,
        heading_deg: None,
        altitude_m: 55.0,
    };
    vehicle.merge(hud, ms(0));
    assert_eq!(vehicle.snapshot().confidence, 0.5);
    let flat = Position {
        latitude_deg: 1.0,
        longitude_deg: 2.0,
        altitude_m: None,
    };
    vehicle.merge(gps(true, Some(flat)), ms(1));
    let state = vehicle.snapshot();
    // The altitude of the display completes a place that has none.
    assert_eq!(state.position.unwrap().altitude_m, Some(55.0));
    vehicle.merge(global(0, position(1.0, 2.0), 1.0, 1.0), ms(2));
    assert_eq!(vehicle.snapshot().confidence, 0.9);
    vehicle.carry_payload();
    assert_eq!(vehicle.snapshot().confidence, 1.0);
}

#[test]
fn lost_messages_are_counted_for_each_component_by_itself() {
    let mut vehicle = vehicle();
    let mut count = |component, sequences: &[u8]| {
        for &sequence in sequences {
            vehicle.follow_sequence(component, sequence);
        }
        vehicle.state.link.lost
    };
    assert_eq!(count(1, &[250, 251, 255, 0, 1]), 3);
    assert_eq!(count(154, &[7, 8, 9]), 3);
    // Sent twice, or overtaken on the way: nothing is missing.
    assert_eq!(count(1, &[1, 3, 2, 4]), 3);
    // From 200 on the sender is ahead again after a restart: one gap, not one for each message.
    assert_eq!(count(154, &[100, 101]), 3 + 90);
}

#[test]
fn the_vehicles_own_clock_is_used_once_it_is_known_and_near() {
    let boot = 1_000;
    let mut vehicle = vehicle();
    let place_at = |vehicle: &Vehicle, t| {
        let fix = vehicle.history().at(ms(t), Duration::from_millis(1))?;
        Some(fix.place.position.latitude_deg)
    };
    vehicle.merge(global(boot, position(1.0, 1.0), 0.0, 0.0), ms(10_000));
    assert_eq!(place_at(&vehicle, 10_000), Some(1.0));
    // 80 ms passed on the way here.
    let at_boot = ms(10_020).as_unix_nanos();
    let time = Telemetry::SystemTime {
        unix_nanos: Some(at_boot),
        boot_ms: boot + 100,
    };
    vehicle.merge(time, ms(10_100));
    vehicle.merge(global(boot + 180, position(2.0, 2.0), 0.0, 0.0), ms(10_190));
    assert_eq!(place_at(&vehicle, 10_100), Some(2.0));
    assert_eq!(
        place_at(&vehicle, 10_000),
        None,
        "times of two kinds were mixed"
    );
    // A clock that is wrong by more than the skew is not used.
    let wrong = Telemetry::SystemTime {
        unix_nanos: Some(ms(60_000).as_unix_nanos()),
        boot_ms: boot + 200,
    };
    vehicle.merge(wrong, ms(10_200));
    vehicle.merge(global(boot + 210, position(3.0, 3.0), 0.0, 0.0), ms(10_290));
    assert_eq!(place_at(&vehicle, 10_290), Some(3.0));
}

#[test]
fn a_gimbal_that_turns_with_the_body_needs_the_bodys_heading() {
    let gimbal = |yaw_frame| Telemetry::Gimbal {
        component_id: 154,
        boot_ms: Some(0),
        attitude: Attitude {
            roll_deg: 0.0,
            pitch_deg: -90.0,
            yaw_deg: 20.0,
        },
        yaw_frame,
    };
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(1.0, 1.0), 0.0, 0.0), ms(0));
    let looking = |vehicle: &Vehicle, t| vehicle.history().at(ms(t), SKEW).unwrap().looking;
    vehicle.merge(gimbal(YawFrame::Vehicle), ms(0));
    assert_eq!(looking(&vehicle, 0), None);
    let body = Telemetry::Attitude {
        boot_ms: 0,
        attitude: attitude(350.0),
    };
    vehicle.merge(body, ms(0));
    vehicle.merge(gimbal(YawFrame::Vehicle), ms(100));
    let camera = |yaw_deg| {
        Some(crate::domain::history::Looking::Camera(Attitude {
            roll_deg: 0.0,
            pitch_deg: -90.0,
            yaw_deg,
        }))
    };
    assert_eq!(looking(&vehicle, 100), camera(10.0));
    vehicle.merge(gimbal(YawFrame::Earth), ms(200));
    assert_eq!(looking(&vehicle, 200), camera(20.0));
}

#[test]
fn an_exposure_reported_after_the_fact_is_matched_exactly() {
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(1.0, 1.0), 0.0, 0.0), ms(0));
    vehicle.merge(global(0, position(3.0, 1.0), 0.0, 0.0), ms(400));
    let captured = Telemetry::ImageCaptured {
        unix_nanos: Some(ms(100).as_unix_nanos()),
        boot_ms: Some(0),
        position: position(1.2, 1.0),
        relative_altitude_m: 9.0,
        attitude: Some(attitude(45.0)),
    };
    vehicle.merge(captured, ms(450));
    let fix = vehicle.history().at(ms(100), SKEW).unwrap();
    assert_eq!(fix.offset, Duration::ZERO);
    assert_eq!(fix.place.position.latitude_deg, 1.2);
    assert_eq!(fix.place.relative_altitude_m, Some(12.5));
    // The picture's place is not where the vehicle is now.
    assert_eq!(vehicle.snapshot().position, position(3.0, 1.0));
}

#[test]
fn history_from_before_a_clock_step_is_dropped() {
    let mut vehicle = vehicle();
    vehicle.merge(global(0, position(1.0, 1.0), 0.0, 0.0), ms(0));
    vehicle.hear(ms(0));
    vehicle.hear(ms(-60_000));
    vehicle.merge(global(0, position(2.0, 1.0), 0.0, 0.0), ms(-60_000));
    assert_eq!(vehicle.history().newest_place(), Some(ms(-60_000)));
}
