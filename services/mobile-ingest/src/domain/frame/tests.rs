use serde_json::{Value, json};

use super::*;

const LIMITS: Limits = Limits {
    max_clock_skew: Duration::from_secs(5),
    max_frame_age: Duration::from_secs(30),
    max_picture: 1 << 20,
};

fn now() -> Timestamp {
    timestamp_from_rfc3339("2026-01-02T03:04:05Z").unwrap()
}

/// A valid frame of `stream` with `changes` put over it; a null removes the field.
fn frame(stream: &str, changes: &Value) -> Value {
    let mut frame = json!({
        "contract_version": "av-v1",
        "client_id": "phone-1",
        "type": stream,
        "timestamp": "2026-01-02T03:04:04.5Z",
        "latitude": 51.5,
        "longitude": -0.25,
        "altitude": 35.0,
    });
    let object = frame.as_object_mut().unwrap();
    match stream {
        "camera" => {
            object.insert(
                "image_data".to_owned(),
                json!(BASE64.encode(b"bytes of a picture")),
            );
        }
        "gps" => {}
        _ => {
            object.insert("imu_data".to_owned(), json!({"x": 1, "y": -2.5, "z": 9.81}));
        }
    }
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    frame
}

fn judge(frame: &Value) -> Result<Frame, Reject> {
    judge_text(&frame.to_string())
}

fn judge_text(text: &str) -> Result<Frame, Reject> {
    parse(text.as_bytes())?.check(now(), &LIMITS)
}

#[test]
fn each_stream_of_the_contract_is_accepted() {
    for stream in Stream::ALL {
        let frame = judge(&frame(stream.as_str(), &json!({}))).unwrap();
        assert_eq!(frame.stream, stream);
        assert_eq!(frame.client.as_str(), "phone-1");
        assert_eq!(now().nanos_since(frame.observed.unwrap()), 500_000_000);
        let position = frame.place.position.unwrap();
        assert_eq!(
            (position.latitude_deg, position.longitude_deg),
            (51.5, -0.25)
        );
        assert_eq!(position.altitude_m, Some(35.0));
        assert!(!frame.simulated);
    }
}

#[test]
fn each_fault_has_its_code_and_names_its_field() {
    use RejectCode::*;
    let cases = [
        (
            "gps",
            json!({"contract_version": null}),
            UnsupportedContractVersion,
            "contract_version",
        ),
        (
            "gps",
            json!({"contract_version": "av-v2"}),
            UnsupportedContractVersion,
            "contract_version",
        ),
        (
            "gps",
            json!({"contract_version": 1}),
            InvalidPayload,
            "contract_version",
        ),
        (
            "gps",
            json!({"client_id": null}),
            MissingClientId,
            "client_id",
        ),
        (
            "gps",
            json!({"client_id": ""}),
            MissingClientId,
            "client_id",
        ),
        (
            "gps",
            json!({"client_id": "a.b"}),
            InvalidClientId,
            "client_id",
        ),
        (
            "gps",
            json!({"client_id": "a/../b"}),
            InvalidClientId,
            "client_id",
        ),
        (
            "gps",
            json!({"client_id": "x".repeat(65)}),
            InvalidClientId,
            "client_id",
        ),
        ("gps", json!({"type": null}), UnsupportedSensorType, "type"),
        (
            "gps",
            json!({"type": "lidar"}),
            UnsupportedSensorType,
            "type",
        ),
        (
            "gps",
            json!({"timestamp": "2026-01-02T03:04:10.001Z"}),
            FutureTimestamp,
            "timestamp",
        ),
        (
            "gps",
            json!({"timestamp": "2026-01-02T03:03:34.999Z"}),
            StaleTimestamp,
            "timestamp",
        ),
        (
            "gps",
            json!({"timestamp": "yesterday"}),
            InvalidPayload,
            "timestamp",
        ),
        (
            "gps",
            json!({"timestamp": "2026-01-02T03:04:05"}),
            InvalidPayload,
            "timestamp",
        ),
        (
            "gps",
            json!({"timestamp": "9999-01-02T03:04:05Z"}),
            InvalidPayload,
            "timestamp",
        ),
        ("gps", json!({"timestamp": 5}), InvalidPayload, "timestamp"),
        (
            "gps",
            json!({"latitude": 90.1}),
            InvalidLatitude,
            "latitude",
        ),
        (
            "gps",
            json!({"latitude": null}),
            InvalidLatitude,
            "latitude",
        ),
        (
            "gps",
            json!({"latitude": null, "longitude": null}),
            InvalidLatitude,
            "latitude",
        ),
        ("gps", json!({"latitude": "51"}), InvalidPayload, "latitude"),
        (
            "gps",
            json!({"longitude": -180.1}),
            InvalidLongitude,
            "longitude",
        ),
        (
            "gps",
            json!({"longitude": null}),
            InvalidLongitude,
            "longitude",
        ),
        (
            "gps",
            json!({"accuracy_m": -1}),
            InvalidPayload,
            "accuracy_m",
        ),
        (
            "gps",
            json!({"simulated": "yes"}),
            InvalidPayload,
            "simulated",
        ),
        (
            "camera",
            json!({"image_data": null}),
            MissingImageData,
            "image_data",
        ),
        (
            "camera",
            json!({"image_data": ""}),
            MissingImageData,
            "image_data",
        ),
        (
            "camera",
            json!({"image_data": "%%%%"}),
            InvalidPayload,
            "image_data",
        ),
        (
            "camera",
            json!({"image_data": "A".repeat(2 << 20)}),
            InvalidPayload,
            "image_data",
        ),
        (
            "accelerometer",
            json!({"imu_data": null}),
            MissingImuData,
            "imu_data",
        ),
        (
            "gyroscope",
            json!({"imu_data": {}}),
            MissingImuData,
            "imu_data",
        ),
        (
            "magnetometer",
            json!({"imu_data": {"unit": "uT"}}),
            MissingImuData,
            "imu_data",
        ),
        (
            "barometer",
            json!({"imu_data": [1]}),
            InvalidPayload,
            "imu_data",
        ),
    ];
    for (stream, changes, code, field) in cases {
        let reject = judge(&frame(stream, &changes)).unwrap_err();
        assert_eq!(reject.code, code, "{stream} {changes}: {reject}");
        assert!(
            reject.message.contains(field),
            "{stream} {changes}: {reject}"
        );
    }
}

#[test]
fn what_is_no_json_object_is_an_invalid_payload() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"a\"",
        "{}{}",
        "{\"a\":1}x",
        "\0",
    ] {
        let reject = judge_text(text).unwrap_err();
        assert_eq!(reject.code, RejectCode::InvalidPayload, "{text:?}");
    }
    let reject = parse(&[0xFF, 0xFE]).unwrap_err();
    assert_eq!(reject.code, RejectCode::InvalidPayload);
}

#[test]
fn the_edges_of_the_ranges_are_inside() {
    for changes in [
        json!({"latitude": 90, "longitude": 180}),
        json!({"latitude": -90, "longitude": -180}),
        json!({"timestamp": "2026-01-02T03:04:10Z"}),
        json!({"timestamp": "2026-01-02T03:03:35Z"}),
        json!({"timestamp": "2026-01-02T05:04:05+02:00"}),
        json!({"heading_deg": 0, "accuracy_m": 0}),
    ] {
        judge(&frame("gps", &changes)).unwrap();
    }
    for unknown in [-1.0, 360.5, 511.0, 655.35] {
        let somewhere = judge(&frame("gps", &json!({"heading_deg": unknown}))).unwrap();
        assert_eq!(somewhere.place.heading_deg, None);
        assert!(somewhere.place.position.is_some());
    }
    let north = judge(&frame("gps", &json!({"heading_deg": 360}))).unwrap();
    assert_eq!(north.place.heading_deg, Some(0.0));
}

#[test]
fn an_unset_time_is_left_to_the_arrival() {
    for changes in [
        json!({"timestamp": null}),
        json!({"timestamp": "0001-01-01T00:00:00Z"}),
    ] {
        assert_eq!(judge(&frame("gps", &changes)).unwrap().observed, None);
    }
}

#[test]
fn zero_and_zero_is_no_position_unless_a_gps_says_so() {
    let zero = json!({"latitude": 0, "longitude": 0});
    assert_eq!(judge(&frame("camera", &zero)).unwrap().place.position, None);
    assert_eq!(
        judge(&frame("barometer", &zero)).unwrap().place.position,
        None
    );
    let position = judge(&frame("gps", &zero)).unwrap().place.position.unwrap();
    assert_eq!((position.latitude_deg, position.longitude_deg), (0.0, 0.0));
}

#[test]
fn a_picture_survives_line_breaks_and_missing_padding() {
    let picture = b"bytes of a picture".to_vec();
    let text = BASE64.encode(&picture);
    let broken = format!("{}\n{}\r\n", &text[..10], &text[10..]);
    let unpadded = text.trim_end_matches('=').to_owned();
    for image_data in [text, broken, unpadded] {
        let frame = judge(&frame("camera", &json!({"image_data": image_data}))).unwrap();
        assert_eq!(frame.payload, Payload::Picture(picture.clone()));
    }
}

#[test]
fn nested_numbers_are_flattened_and_the_rest_is_left_out() {
    let imu_data = json!({"accel": {"x": 1, "y": 2.5}, "mag": [3, {"z": -4}], "unit": "g", "ok": true, "t": null});
    let frame = judge(&frame("accelerometer", &json!({"imu_data": imu_data}))).unwrap();
    let expected = [
        ("accel.x", 1.0),
        ("accel.y", 2.5),
        ("mag.0", 3.0),
        ("mag.1.z", -4.0),
    ];
    assert_eq!(
        frame.payload,
        Payload::Values(
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        )
    );
}

#[test]
fn numbers_of_a_sample_are_bounded() {
    let many: serde_json::Map<String, Value> = (0..33)
        .map(|index| (format!("v{index}"), json!(index)))
        .collect();
    for imu_data in [
        Value::Object(many),
        json!({"x": {"x": {"x": {"x": {"x": 1}}}}}),
        json!({"x".repeat(65): 1}),
    ] {
        let reject = judge(&frame("gyroscope", &json!({"imu_data": imu_data}))).unwrap_err();
        assert_eq!(reject.code, RejectCode::InvalidPayload);
        assert!(reject.message.contains("imu_data"), "{reject}");
    }
}

#[test]
fn codes_are_listed_once_each() {
    let names: std::collections::BTreeSet<_> =
        RejectCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.len(), RejectCode::ALL.len());
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body: Vec<u8>) {
        let _ = parse(&body).and_then(|written| written.check(now(), &LIMITS));
    }
}
