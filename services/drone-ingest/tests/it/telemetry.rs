//! MAVLink in, states out.

use std::collections::HashMap;

use drone_ingest::Config;
use mavlink::dialects::ardupilotmega as dialect;
use mavlink::dialects::ardupilotmega::MavMessage;
use mavlink::{MavHeader, MessageData as _};
use serde_json::{Value, json};
use sovereign_bus::{Key, Select};
use sovereign_model::Digest;
use sovereign_proto::drone::v1::{GetIngestStatsResponse, VehicleState};
use sovereign_proto::topics::DRONE_STATE;

use crate::rig::{
    LIMIT, attitude, data, frame, global, heartbeat, now, secret, sender, soon, start, start_in,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vehicle_says_is_on_the_bus_and_in_the_list() {
    let mut door = start(Config::default()).await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let vehicle = sender(door.udp).await;
    let mode = dialect::MavModeFlag::MAV_MODE_FLAG_CUSTOM_MODE_ENABLED
        | dialect::MavModeFlag::MAV_MODE_FLAG_SAFETY_ARMED
        | dialect::MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED;
    let battery = MavMessage::SYS_STATUS(dialect::SYS_STATUS_DATA {
        battery_remaining: -1,
        ..Default::default()
    });
    // Several frames and garbage in one datagram; message 3 was lost on the way.
    let mut datagram = vec![0, 0xFE, 1];
    for (sequence, message) in [
        (0, heartbeat(mode)),
        (1, battery),
        (2, global(555_000_000, -131_000_000)),
        (4, attitude(std::f32::consts::FRAC_PI_2)),
    ] {
        datagram.extend(frame(7, 1, sequence, &message));
    }
    vehicle.send(&datagram).await.unwrap();

    let event = soon(states.recv()).await.unwrap();
    assert_eq!(event.key, Some(Key::parse("sys-7").unwrap()));
    let state = event.message;
    assert_eq!(state.vehicle_id, "sys-7");
    assert_eq!(state.flight_mode, "LOITER");
    assert_eq!(state.armed, Some(true));
    assert!(state.simulated);
    assert_eq!(state.source, "mavlink2");
    assert_eq!(state.sensor_health, "healthy");
    assert_eq!(state.battery_percent, None);
    assert_eq!(state.ground_speed_mps, Some(5.0));
    assert_eq!(state.heading_deg, Some(90.0));
    assert_eq!(state.relative_altitude_m, Some(40.0));
    assert_eq!(state.confidence, 0.9);
    let position = state.position.as_ref().unwrap();
    assert_eq!(position.latitude_deg, 55.5);
    assert_eq!(position.longitude_deg, -13.1);
    assert_eq!(position.altitude_m, Some(120.0));
    assert!((state.attitude.unwrap().yaw_deg - 90.0).abs() < 1e-4);
    let link = state.link.unwrap();
    assert_eq!((link.messages, link.lost, link.signed), (4, 1, 0));
    assert!((now() - state.observed_unix_nanos).abs() < LIMIT.as_nanos() as i64);
    assert_eq!(door.vehicles().await, [state]);

    let stats = door.stats().await;
    assert_eq!((stats.datagrams, stats.active_vehicles), (1, 1));
    assert_eq!(stats.bytes, datagram.len() as u64);
    assert_eq!(stats.accepted_by_type["HEARTBEAT"], 1);
    assert_eq!(
        stats.messages_by_source,
        HashMap::from([("7/1".to_owned(), 4)])
    );
    assert_eq!(stats.messages_by_version["v2"], 4);
    let refused = [("GARBAGE".to_owned(), 1), ("BAD_CHECKSUM".to_owned(), 1)];
    assert_eq!(stats.rejected_by_reason, HashMap::from(refused));
    assert!(stats.last_accepted_unix_by_vehicle["sys-7"] > 1.7e9);
    let metrics = door.metrics();
    for line in [
        "sovereign_drone_ingest_datagrams_total 1",
        "sovereign_drone_ingest_accepted_total{type=\"GLOBAL_POSITION_INT\"} 1",
        "sovereign_drone_ingest_rejected_total{reason=\"GARBAGE\"} 1",
        "sovereign_drone_ingest_messages_total{version=\"v2\"} 4",
        "sovereign_drone_ingest_link_lost 1",
        "sovereign_drone_ingest_vehicles 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_paced_for_each_vehicle_and_the_last_one_is_flushed() {
    let mut door = start(Config {
        publish_hz: 0.1,
        ..Config::default()
    })
    .await;
    let mut states = door.bus.subscribe(&DRONE_STATE, Select::All).await.unwrap();
    let (one, two) = (sender(door.udp).await, sender(door.udp).await);
    // Two senders with the same system id.
    one.send(&frame(3, 1, 0, &global(10_000_000, 1)))
        .await
        .unwrap();
    two.send(&frame(3, 1, 0, &global(20_000_000, 1)))
        .await
        .unwrap();
    let first = soon(states.recv()).await.unwrap().message;
    assert_eq!(first.vehicle_id, "sys-3");
    let second = soon(states.recv()).await.unwrap().message;
    assert_eq!(second.vehicle_id, "sys-3-2");
    for n in 1..=50 {
        let message = frame(3, 1, n, &global(10_000_000 + i32::from(n), 1));
        one.send(&message).await.unwrap();
    }
    door.until(|stats| stats.datagrams == 52).await;
    assert_eq!(states.received(), 2, "more often than every ten seconds");
    door.stop.request();
    let last = soon(states.recv()).await.unwrap().message;
    assert_eq!(last.vehicle_id, "sys-3");
    assert_eq!(last.position.unwrap().latitude_deg, 1.000005);
    assert_eq!(states.received(), 3);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_what_is_signed_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}\n", Digest::of(b"door").to_hex());
    let file = secret(dir.path(), "key", &text);
    let mut door = start(Config {
        signing_key_file: Some(file),
        ..Config::default()
    })
    .await;
    let vehicle = sender(door.udp).await;
    let key = *Digest::of(b"door").as_bytes();
    let signing =
        mavlink::SigningData::from_config(mavlink::SigningConfig::new(key, 1, true, false));
    let mut signed = Vec::new();
    let header = MavHeader {
        system_id: 4,
        component_id: 1,
        sequence: 0,
    };
    mavlink::write_v2_msg_signed(&mut signed, header, &global(1, 1), Some(&signing)).unwrap();
    vehicle.send(&frame(4, 1, 0, &global(1, 1))).await.unwrap();
    vehicle
        .send(br#"{"contract_version": "av-v1", "drone_id": "x"}"#)
        .await
        .unwrap();
    vehicle.send(&signed).await.unwrap();
    vehicle.send(&signed).await.unwrap();
    door.until(|stats| stats.datagrams == 4).await;
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["UNSIGNED"], 2);
    assert_eq!(stats.rejected_by_reason["REPLAYED_SIGNATURE"], 1);
    let vehicles = door.vehicles().await;
    assert_eq!(vehicles.len(), 1);
    assert_eq!(vehicles[0].link.unwrap().signed, 1);
    door.finish().await;
}

/// Signed frames of system 4, each with a later time than the one before.
struct Signer(mavlink::SigningData, u8);

impl Signer {
    fn next(&mut self) -> Vec<u8> {
        self.1 += 1;
        let header = MavHeader {
            system_id: 4,
            component_id: 1,
            sequence: self.1,
        };
        let mut signed = Vec::new();
        mavlink::write_v2_msg_signed(&mut signed, header, &global(1, 1), Some(&self.0)).unwrap();
        signed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_and_heard_does_not_pass_again_after_a_restart() {
    let keys = tempfile::tempdir().unwrap();
    let text = format!("{}\n", Digest::of(b"door").to_hex());
    let file = secret(keys.path(), "key", &text);
    let config = || Config {
        signing_key_file: Some(file.clone()),
        ..Config::default()
    };
    let key = *Digest::of(b"door").as_bytes();
    let config_of_key = mavlink::SigningConfig::new(key, 1, true, false);
    let mut signer = Signer(mavlink::SigningData::from_config(config_of_key), 0);
    let heard: Vec<Vec<u8>> = (0..100).map(|_| signer.next()).collect();

    let mut door = start(config()).await;
    let vehicle = sender(door.udp).await;
    for frame in &heard {
        vehicle.send(frame).await.unwrap();
    }
    door.until(|stats| stats.datagrams == 100).await;
    assert!(door.stats().await.rejected_by_reason.is_empty());
    let folder = door.end().await;
    let times = folder.path().join("signing-times");
    let before = std::fs::read(&times).unwrap();

    let mut door = start_in(folder, config()).await;
    let vehicle = sender(door.udp).await;
    for frame in &heard {
        vehicle.send(frame).await.unwrap();
    }
    door.until(|stats| stats.datagrams == 100).await;
    assert_eq!(
        door.stats().await.rejected_by_reason["REPLAYED_SIGNATURE"],
        100
    );
    assert!(door.vehicles().await.is_empty());
    // After an ordinary end the vehicle itself is heard at once.
    vehicle.send(&signer.next()).await.unwrap();
    door.until(|stats| stats.datagrams == 101).await;
    assert_eq!(door.vehicles().await.len(), 1);

    // Times are kept while the door is open, and a kill right after a frame that was not kept yet is no way round.
    let started = std::time::Instant::now();
    while std::fs::read(&times).unwrap() == before {
        assert!(started.elapsed() < LIMIT, "the times are not kept");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let last = signer.next();
    vehicle.send(&last).await.unwrap();
    door.until(|stats| stats.datagrams == 102).await;
    let folder = door.kill().await;
    let mut door = start_in(folder, config()).await;
    let vehicle = sender(door.udp).await;
    for frame in heard.iter().chain([&last]) {
        vehicle.send(frame).await.unwrap();
    }
    door.until(|stats| stats.datagrams == 101).await;
    assert_eq!(
        door.stats().await.rejected_by_reason["REPLAYED_SIGNATURE"],
        101
    );
    assert!(door.vehicles().await.is_empty());
    door.finish().await;
}

/// Frames of MAVLink 1 and 2, each behind its time of eight bytes.
fn frames_of_tlog(mut tlog: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let [_, _, _, _, _, _, _, _, magic, payload, flags, ..] = *tlog {
        let signature = if flags & 1 == 1 { 13 } else { 0 };
        let length = usize::from(payload) + if magic == 0xFD { 12 + signature } else { 8 };
        let (record, rest) = tlog.split_at(8 + length);
        frames.push(&record[8..]);
        tlog = rest;
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_flight_sent_over_udp_is_counted_as_the_reference_counts_it() {
    for name in ["short_mavlink2", "sub_mavlink2"] {
        let Some(bytes) = data(&format!("mavlink-tlog/{name}.tlog")) else {
            return;
        };
        let Some(expected) = data(&format!("mavlink-tlog/{name}.expected.json")) else {
            return;
        };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let mut door = start(Config::default()).await;
        let replay = sender(door.udp).await;
        let mut sent = 0;
        for frame in frames_of_tlog(&bytes) {
            replay.send(frame).await.unwrap();
            sent += 1;
            // No more on the way than the smallest receive buffer holds.
            if sent % 100 == 0 {
                door.until(|stats| stats.datagrams == sent).await;
            }
        }
        door.until(|stats| stats.datagrams == sent).await;
        let stats = door.stats().await;
        assert_eq!(json!(stats.accepted_by_type), expected["by_type"]);
        assert_eq!(json!(stats.messages_by_source), expected["by_source"]);
        assert_eq!(stats.messages_by_version["v2"], expected["messages"]);
        // The recorder wrote a few damaged frames, and the reference calls them bad too.
        assert_eq!(
            json!(stats.rejected_by_reason.values().sum::<u64>()),
            expected["bad_bytes_or_unknown"]
        );
        let vehicles = door.vehicles().await;
        assert_eq!(vehicles.len(), 1, "{vehicles:?}");
        assert_eq!(vehicles[0].vehicle_id, "sys-1");
        // Nothing was lost between us; the recording itself has gaps.
        assert_eq!(vehicles[0].position.is_some(), name == "sub_mavlink2");
        door.finish().await;
    }
}

/// The packets of a field report: each a line with `hex`.
fn report(name: &str) -> Vec<Vec<u8>> {
    let path = format!(
        "{}/../../tests/field-reports/{name}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let hex = line["hex"].as_str().unwrap().as_bytes();
            hex.chunks(2)
                .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
                .collect()
        })
        .collect()
}

/// The only vehicle after the packets of a report, and what the door counted.
async fn heard(name: &str) -> (VehicleState, GetIngestStatsResponse) {
    let mut door = start(Config::default()).await;
    let sender = sender(door.udp).await;
    let packets = report(name);
    for packet in &packets {
        sender.send(packet).await.unwrap();
    }
    door.until(|stats| stats.datagrams == packets.len() as u64)
        .await;
    let vehicles = door.vehicles().await;
    let stats = door.stats().await;
    assert_eq!(vehicles.len(), 1, "{name}: {vehicles:?}");
    door.finish().await;
    (vehicles.into_iter().next().unwrap(), stats)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_heard_first_is_part_of_its_vehicle() {
    let (vehicle, _) = heard("c04_camera_heartbeat_first").await;
    assert_eq!(vehicle.vehicle_id, "sys-11");
    assert_eq!(vehicle.flight_mode, "LOITER");
    let place = vehicle.position.unwrap();
    assert!((place.latitude_deg - 47.1).abs() < 1e-6 && (place.longitude_deg - 8.5).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_a_bridge_cut_across_datagrams_are_whole_again() {
    for size in [100, 32, 16] {
        let (vehicle, stats) = heard(&format!("c05_stream_cut_{size}")).await;
        let link = vehicle.link.unwrap();
        assert_eq!(
            (link.messages, link.lost),
            (60, 0),
            "cut every {size} bytes"
        );
        assert_eq!(stats.rejected_by_reason, HashMap::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_newer_than_the_dialect_costs_its_field_alone() {
    let (vehicle, stats) = heard("c06_unknown_mav_type").await;
    assert_eq!(vehicle.vehicle_id, "sys-17");
    assert_eq!(vehicle.armed, Some(true));
    assert!(vehicle.position.is_some());
    assert_eq!(stats.rejected_by_reason, HashMap::new());
    let mut door = start(Config::default()).await;
    let sender = sender(door.udp).await;
    let battery = MavMessage::BATTERY_STATUS(dialect::BATTERY_STATUS_DATA {
        battery_remaining: 42,
        ..Default::default()
    });
    let mut bytes = frame(7, 1, 0, &battery);
    let header = if bytes[0] == 0xFD { 10 } else { 6 };
    bytes[header + 34] = 9;
    let end = bytes.len() - 2;
    let checksum = mavlink::calculate_crc(&bytes[1..end], dialect::BATTERY_STATUS_DATA::EXTRA_CRC);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    sender.send(&bytes).await.unwrap();
    door.until(|stats| stats.datagrams == 1).await;
    assert_eq!(door.vehicles().await[0].battery_percent, Some(42.0));
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heading_that_is_unknown_costs_the_heading_alone() {
    let mut door = start(Config::default()).await;
    let sender = sender(door.udp).await;
    for packet in report("c07_heading_unknown") {
        sender.send(&packet).await.unwrap();
    }
    door.until(|stats| stats.accepted_by_type.get("av-v1") == Some(&4))
        .await;
    for vehicle in door.vehicles().await {
        assert_eq!(vehicle.heading_deg, None, "{}", vehicle.vehicle_id);
        assert_eq!(vehicle.position.unwrap().latitude_deg, 51.4);
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_a_byte_order_mark_or_a_zero_byte_is_json() {
    let mut door = start(Config::default()).await;
    let sender = sender(door.udp).await;
    for packet in report("c08_json_bom_nul") {
        sender.send(&packet).await.unwrap();
    }
    door.until(|stats| stats.accepted_by_type.get("av-v1") == Some(&2))
        .await;
    let vehicles = door.vehicles().await;
    let ids: Vec<&str> = vehicles.iter().map(|v| v.vehicle_id.as_str()).collect();
    assert_eq!(ids, ["d-bom", "d-nul"]);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_latency_alone_makes_a_vehicle() {
    let (vehicle, _) = heard("c16_high_latency2").await;
    let place = vehicle.position.unwrap();
    assert!((place.latitude_deg - 15.0).abs() < 1e-6 && (place.longitude_deg - 12.0).abs() < 1e-6);
    assert_eq!(vehicle.vehicle_id, "sys-25");
    assert!(vehicle.heading_deg.is_some() && vehicle.battery_percent.is_some());
}
