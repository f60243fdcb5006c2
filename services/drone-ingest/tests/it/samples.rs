//! JSON samples of `av-v1`.

use std::collections::HashMap;

use base64::Engine as _;
use drone_ingest::Config;
use serde_json::{Value, json};
use sovereign_bus::Select;
use sovereign_model::Digest;
use sovereign_proto::topics::{DRONE_CAPTURE, DRONE_STATE};

use crate::rig::{jpeg, now, rfc3339, sender, soon, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_brings_state_picture_and_scan() {
    let mut door = start(Config::default()).await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let drone = sender(door.udp).await;
    let image = jpeg(900);
    let observed = now();
    let sample = json!({
        "contract_version": "av-v1", "drone_id": "scout_1",
        "timestamp": rfc3339(observed),
        "latitude": 12.5, "longitude": 100.25, "altitude_meters": 60.0,
        "heading_degrees": 45.0, "ground_speed_ms": 7.5, "battery_percent": 55.5,
        "flight_mode": "\u{1b}SURVEY\r", "confidence": 0.1, "simulated": true,
        "image_data": base64::engine::general_purpose::STANDARD.encode(&image),
        "lidar_points": [1.0, 2.0, 3.0, -1.0, -2.0, -3.0],
    });
    drone.send(sample.to_string().as_bytes()).await.unwrap();
    let state = soon(states.recv()).await.unwrap().message;
    assert_eq!(state.vehicle_id, "scout_1");
    assert_eq!(state.observed_unix_nanos, observed);
    assert_eq!(state.source, "av-v1");
    assert_eq!(state.flight_mode, "SURVEY");
    assert_eq!(state.battery_percent, Some(55.5));
    assert_eq!(state.confidence, 1.0);
    assert!(state.simulated);
    let delivery = soon(captures.next()).await.unwrap();
    let queued = delivery.message.clone();
    delivery.ack().await.unwrap();
    assert_eq!(queued.sensor_id, "scout_1");
    assert_eq!(queued.captured_unix_nanos, observed);
    assert_eq!(queued.media_type, "image/jpeg");
    assert_eq!(door.store.bytes(Digest::of(&image)), Some(image));
    assert!(queued.simulated);
    let telemetry = queued.telemetry.unwrap();
    assert_eq!(telemetry.position, state.position);
    assert_eq!((telemetry.attitude, telemetry.time_offset_nanos), (None, 0));
    let scan = soon(captures.next()).await.unwrap().message;
    assert_eq!(
        (scan.media_type.as_str(), scan.picture),
        ("model/ply", None)
    );
    assert_eq!(scan.captured_unix_nanos, observed);
    assert_eq!(scan.telemetry.unwrap().position, state.position);
    assert!(scan.simulated);
    let digest = Digest::from_slice(&scan.image_digest).unwrap();
    let file = door.store.bytes(digest).unwrap();
    assert_eq!(scan.size_bytes, file.len() as u64);
    let returns: Vec<f32> = file[file.len() - 24..]
        .chunks_exact(4)
        .map(|metres| f32::from_le_bytes(metres.try_into().unwrap()))
        .collect();
    assert!(file.starts_with(b"ply\n") && returns == [1.0, 2.0, 3.0, -1.0, -2.0, -3.0]);
    assert_eq!(door.store.pins(digest), [], "no reader waits for a scan");

    // The same again, and what the contract forbids: counted by reason, and nothing else happens.
    let with = |field: &str, value: Value| {
        let mut sample = json!({"contract_version": "av-v1", "drone_id": "scout_1"});
        sample[field] = value;
        sample
    };
    for refused in [
        sample.clone(),
        with("timestamp", json!(rfc3339(observed - 1))),
        with("timestamp", json!(rfc3339(now() + 3_600_000_000_000))),
        with("timestamp", json!(rfc3339(now() - 3_600_000_000_000))),
        with("contract_version", json!("av-v9")),
        with("drone_id", json!("")),
        with("drone_id", json!("sys-1")),
        with("altitude_meters", json!(1.7e308)),
        with("ground_speed_ms", json!(1e9)),
        with("lidar_points", json!([1.0])),
        with("image_data", json!("AAAA")),
        json!({"contract_version": "av-v1", "drone_id": "x", "latitude": 99, "longitude": 0}),
    ] {
        drone.send(refused.to_string().as_bytes()).await.unwrap();
    }
    drone.send(b"{ not json").await.unwrap();
    let expected = HashMap::from(
        [
            ("DUPLICATE_SAMPLE", 1),
            ("OUT_OF_ORDER_SAMPLE", 1),
            ("FUTURE_TIMESTAMP", 1),
            ("STALE_TIMESTAMP", 1),
            ("UNSUPPORTED_CONTRACT_VERSION", 1),
            ("MISSING_DRONE_ID", 1),
            ("RESERVED_DRONE_ID", 1),
            ("INVALID_ALTITUDE", 1),
            ("INVALID_GROUND_SPEED", 1),
            ("INVALID_LIDAR_POINTS", 1),
            ("INVALID_IMAGE_DATA", 1),
            ("INVALID_LATITUDE", 1),
            ("INVALID_PAYLOAD", 1),
        ]
        .map(|(reason, count)| (reason.to_owned(), count)),
    );
    door.until(|stats| stats.rejected_by_reason == expected)
        .await;
    let stats = door.stats().await;
    for (name, count) in [("av-v1", 1), ("capture", 1), ("lidar", 1)] {
        assert_eq!(stats.accepted_by_type[name], count, "{name}");
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_whose_picture_was_not_queued_may_come_again() {
    let mut door = start(Config::default()).await;
    let drone = sender(door.udp).await;
    let sample = json!({
        "contract_version": "av-v1", "drone_id": "scout", "timestamp": rfc3339(now()),
        "image_data": base64::engine::general_purpose::STANDARD.encode(jpeg(10)),
    });
    door.bus.close().await;
    for sent in 1..=2 {
        drone.send(sample.to_string().as_bytes()).await.unwrap();
        door.until(|stats| stats.rejected_by_reason.get("QUEUE_FAILED") == Some(&sent))
            .await;
    }
    let stats = door.stats().await;
    assert_eq!(stats.accepted_by_type, HashMap::new());
    assert_eq!(stats.active_vehicles, 0);
    door.finish().await;
}
