use super::*;
use serde_json::{Value, json};

fn parsed(value: &Value) -> Result<Sample, Reject> {
    parse(value.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut sample = json!({"contract_version": "av-v1", "drone_id": "alpha"});
    sample[field] = value;
    sample
}

#[test]
fn a_full_sample_is_read_field_by_field() {
    let sample = parsed(&json!({
        "contract_version": "av-v1", "drone_id": "alpha-1", "source": "json",
        "timestamp": "2026-02-03T04:05:06.123456789Z", "confidence": 0.99,
        "latitude": 55.5, "longitude": -13.25, "altitude_meters": 82.5,
        "heading_degrees": -90.0, "ground_speed_ms": 4.5, "battery_percent": 76,
        "flight_mode": "AUTO", "sensor_health": "degraded", "lidar_points": [1, 2, 3.5],
        "simulated": true, "from_the_future": {"x": 1}
    }))
    .unwrap();
    assert_eq!(sample.drone_id.as_str(), "alpha-1");
    assert_eq!(
        sample.timestamp,
        Some(Timestamp::from_unix_nanos(1_770_091_506_123_456_789))
    );
    assert_eq!(
        sample.position,
        Some(Position {
            latitude_deg: 55.5,
            longitude_deg: -13.25,
            altitude_m: Some(82.5)
        })
    );
    assert_eq!(sample.heading_deg, Some(270.0));
    assert_eq!(sample.ground_speed_mps, Some(4.5));
    assert_eq!(sample.battery_percent, Some(76.0));
    assert_eq!(sample.flight_mode.as_deref(), Some("AUTO"));
    assert_eq!(sample.sensor_health.as_deref(), Some("degraded"));
    assert_eq!(sample.lidar_points, Some(vec![1.0, 2.0, 3.5]));
    assert_eq!(sample.image, None);
    assert!(sample.simulated);
}

#[test]
fn what_the_contract_forbids_is_refused_by_its_code() {
    for (value, reason) in [
        (json!([1, 2]), Reject::InvalidPayload),
        (json!({"drone_id": "a"}), Reject::UnsupportedContractVersion),
        (
            json!({"contract_version": "av-v2", "drone_id": "a"}),
            Reject::UnsupportedContractVersion,
        ),
        (json!({"contract_version": "av-v1"}), Reject::MissingDroneId),
        (with("drone_id", json!("")), Reject::MissingDroneId),
        (with("drone_id", json!("a.b")), Reject::InvalidDroneId),
        (with("drone_id", json!("sys-1")), Reject::ReservedDroneId),
        (
            with("timestamp", json!("yesterday")),
            Reject::InvalidPayload,
        ),
        (with("timestamp", json!(17)), Reject::InvalidPayload),
        (with("latitude", json!(1.0)), Reject::InvalidLongitude),
        (with("longitude", json!(1.0)), Reject::InvalidLatitude),
        (
            with("altitude_meters", json!(1.7e308)),
            Reject::InvalidAltitude,
        ),
        (
            with("altitude_meters", json!(-1_000_000.1)),
            Reject::InvalidAltitude,
        ),
        (
            with("ground_speed_ms", json!(10_000.1)),
            Reject::InvalidGroundSpeed,
        ),
        (with("image_data", json!("%%%")), Reject::InvalidImageData),
        (
            with("lidar_points", json!([1, 2])),
            Reject::InvalidLidarPoints,
        ),
        (
            with("lidar_points", json!([1, 2, 1e300])),
            Reject::InvalidLidarPoints,
        ),
    ] {
        assert_eq!(parsed(&value), Err(reason), "{value}");
    }
    for (latitude, longitude, reason) in [
        (90.1, 0.0, Reject::InvalidLatitude),
        (-91.0, 0.0, Reject::InvalidLatitude),
        (0.0, 180.5, Reject::InvalidLongitude),
    ] {
        let mut sample = with("latitude", json!(latitude));
        sample["longitude"] = json!(longitude);
        assert_eq!(parsed(&sample), Err(reason));
    }
    assert_eq!(parse(b"{"), Err(Reject::InvalidPayload));
    assert_eq!(parse(&[b'{', 0xFF, b'}']), Err(Reject::InvalidPayload));
}

#[test]
fn what_cannot_be_counts_as_not_sent() {
    for (field, value) in [
        ("battery_percent", json!(-1)),
        ("battery_percent", json!(130)),
        ("ground_speed_ms", json!(-4.0)),
        ("flight_mode", json!("")),
        ("flight_mode", json!("\u{1b}\u{7}\r\n")),
        ("latitude", Value::Null),
        ("lidar_points", json!([])),
        ("image_data", json!("")),
    ] {
        let sample = parsed(&with(field, value)).unwrap();
        assert_eq!(sample, parsed(&with("drone_id", json!("alpha"))).unwrap());
    }
}

#[test]
fn what_a_sender_in_go_never_set_counts_as_not_sent() {
    let unset = json!({
        "contract_version": "av-v1", "drone_id": "alpha", "timestamp": "0001-01-01T00:00:00Z",
        "latitude": 0, "longitude": 0.0, "altitude_meters": 0, "flight_mode": "",
        "image_data": null, "lidar_points": null
    });
    let sample = parsed(&unset).unwrap();
    assert_eq!(sample, parsed(&with("drone_id", json!("alpha"))).unwrap());
    // Zero on one axis is a place.
    for (latitude, longitude) in [(0.0, 1e-7), (-1e-7, 0.0)] {
        let mut sample = unset.clone();
        sample["latitude"] = json!(latitude);
        sample["longitude"] = json!(longitude);
        let position = parsed(&sample).unwrap().position.unwrap();
        assert_eq!(position.latitude_deg, latitude);
        assert_eq!(position.longitude_deg, longitude);
    }
    let other = with("timestamp", json!("0001-01-01T00:00:01Z"));
    assert_eq!(parsed(&other), Err(Reject::InvalidPayload));
}

#[test]
fn texts_keep_no_control_character_and_end_somewhere() {
    let mode = format!("\u{1b}[2J\u{9b}31mAUTO\r\n{}", "x".repeat(100));
    let sample = parsed(&with("flight_mode", json!(mode))).unwrap();
    let kept = sample.flight_mode.unwrap();
    assert!(kept.starts_with("[2J31mAUTOxx"), "{kept}");
    assert_eq!(kept.chars().count(), MAX_TEXT_CHARS);
    let sample = parsed(&with("sensor_health", json!("o\u{8}k"))).unwrap();
    assert_eq!(sample.sensor_health.as_deref(), Some("ok"));
}

#[test]
fn json_is_told_from_mavlink_by_its_first_byte() {
    assert!(looks_like_json(b"{}"));
    assert!(looks_like_json(b" \n{"));
    assert!(!looks_like_json(&[0xFD, 9, b'{']));
    assert!(!looks_like_json(b""));
}
