use super::*;

fn quaternion(roll: f64, pitch: f64, yaw: f64) -> [f32; 4] {
    let attitude = Attitude {
        roll_deg: roll,
        pitch_deg: pitch,
        yaw_deg: yaw,
    };
    let q = attitude.ned_from_body();
    [q.w as f32, q.i as f32, q.j as f32, q.k as f32]
}

#[test]
fn a_quaternion_reads_as_the_angles_it_was_made_from() {
    for (roll, pitch, yaw) in [
        (0.0, 0.0, 0.0),
        (10.0, -20.0, 350.0),
        (-170.0, 45.0, 181.0),
        (0.0, -90.0, 37.0),
        (0.0, 90.0, 300.0),
        (0.0, -89.0, 123.0),
    ] {
        let attitude = attitude_from_quaternion(quaternion(roll, pitch, yaw)).unwrap();
        // Straight down, the angle about the vertical is only as good as single precision.
        for (found, expected) in [
            (attitude.roll_deg, roll),
            (attitude.pitch_deg, pitch),
            (attitude.yaw_deg, yaw),
        ] {
            assert!(
                wrap_180(found - expected).abs() < 0.1,
                "{attitude:?} for {roll} {pitch} {yaw}"
            );
        }
    }
    assert_eq!(attitude_from_quaternion([0.0; 4]), None);
    assert_eq!(attitude_from_quaternion([f32::NAN; 4]), None);
}

#[test]
fn angles_wrap_and_never_reach_the_open_end() {
    assert_eq!(wrap_360(-1e-20), 0.0);
    assert_eq!(wrap_360(-90.0), 270.0);
    assert_eq!(wrap_180(270.0), -90.0);
    assert_eq!(wrap_180(180.0), -180.0);
}
