mod mutations;

use std::collections::BTreeMap;

use mavlink::MavlinkVersion;
use mavlink::Message as _;
use mavlink::dialects::ardupilotmega::MavMessage;
use serde_json::Value;
use sovereign_model::Timestamp;

use super::*;
use crate::domain::fixtures::{bytes_from_hex, data, items, json_lines};
use crate::domain::signing::{SignaturePolicy, Signatures, SigningKey};
use crate::domain::telemetry::{self, Telemetry};

const TEST_KEY: &str = "1bbe1b8695f8c5cb2e57ca0add86e8495376735c351f709980036e6798576eb0";
/// Shortly before the first signature of the vectors.
const SIGNED_AT: i64 = 1_420_070_400_000_000_000 + 47_000_000_000_000 * 10_000;

fn signatures(policy: fn(SigningKey) -> SignaturePolicy) -> Signatures {
    let key = bytes_from_hex(TEST_KEY).try_into().unwrap();
    Signatures::new(policy(SigningKey(key)))
}

fn vectors() -> Option<Vec<(Value, Vec<u8>)>> {
    let lines = json_lines(&data("mavlink-vectors/vectors.jsonl")?);
    let with_bytes = |v: Value| {
        let bytes = bytes_from_hex(v["hex"].as_str().unwrap());
        (v, bytes)
    };
    Some(lines.into_iter().map(with_bytes).collect())
}

#[test]
fn every_vector_is_one_frame_with_the_right_header_and_name() {
    let Some(vectors) = vectors() else { return };
    assert_eq!(vectors.len(), 721);
    for (expected, bytes) in &vectors {
        let (frames, refused) = items(bytes);
        let [frame] = frames.as_slice() else {
            panic!("{expected}: {refused:?}");
        };
        assert!(refused.is_empty(), "{expected}");
        assert_eq!(frame.definition.name, expected["name"]);
        assert_eq!(frame.definition.id, expected["msgid"]);
        assert_eq!(frame.definition.crc_extra, expected["crc_extra"]);
        assert_eq!(frame.sequence, expected["seq"]);
        assert_eq!(frame.system_id, expected["sysid"]);
        assert_eq!(frame.component_id, expected["compid"]);
        assert_eq!(frame.payload.len(), expected["payload_len"]);
        assert_eq!(frame.signature.is_some(), expected["signed"]);
        let (version, number) = match frame.version {
            Version::V1 => (MavlinkVersion::V1, 1),
            Version::V2 => (MavlinkVersion::V2, 2),
        };
        assert_eq!(expected["version"], number);
        let message = MavMessage::parse(version, frame.definition.id, frame.payload).unwrap();
        assert_eq!(message.message_name(), expected["name"]);
    }
}

#[test]
fn every_field_we_use_is_read_as_the_reference_reads_it() {
    let Some(vectors) = vectors() else { return };
    let mut checked = BTreeMap::new();
    for (expected, bytes) in &vectors {
        let (frames, _) = items(bytes);
        let fields = &expected["fields"];
        let number = |field: &str| fields[field].as_f64().unwrap();
        let near = |found: f64, field: &str, scale: f64| {
            let wanted = number(field) / scale;
            assert!((found - wanted).abs() < 1e-6, "{field} {found}: {expected}");
        };
        let on_earth = |lat: &str, lon: &str| number(lat).abs() <= 9e8 && number(lon).abs() <= 18e8;
        let telemetry = match telemetry::decode(&frames[0]) {
            Ok(Some(telemetry)) => telemetry,
            Ok(None) => continue,
            Err(Reject::OutOfRange) if expected["name"] == "ATTITUDE_QUATERNION" => {
                let q = ["q1", "q2", "q3", "q4"].map(|part| number(part).powi(2));
                assert!((q.iter().sum::<f64>() - 1.0).abs() > 0.1, "{expected}");
                continue;
            }
            Err(Reject::OutOfRange) => {
                // Random bits read as a float are hardly ever an angle or a speed.
                let numbers = fields.as_object().unwrap().values();
                let sizes = numbers.filter_map(|n| Some(n.as_f64()?.abs()));
                assert!(sizes.fold(0.0, f64::max) > 12.0, "{expected}");
                continue;
            }
            Err(reason) => {
                let places = [Reject::InvalidLatitude, Reject::InvalidLongitude];
                assert!(places.contains(&reason), "{reason:?}: {expected}");
                let (lat, lon) = match fields["lat"].is_null() {
                    true => ("latitude", "longitude"),
                    false => ("lat", "lon"),
                };
                assert!(!on_earth(lat, lon), "{expected}");
                continue;
            }
        };
        let name = expected["name"].as_str().unwrap();
        *checked.entry(name).or_insert(0) += 1;
        match telemetry {
            Telemetry::Heartbeat {
                is_vehicle,
                armed,
                simulated,
                ..
            } => {
                let base_mode = number("base_mode") as u8;
                assert_eq!(armed, base_mode & 128 != 0);
                assert_eq!(simulated, base_mode & 32 != 0);
                // Ground stations, cameras, gimbals and other parts.
                let parts = [
                    5, 6, 18, 26, 27, 30, 31, 32, 33, 34, 36, 37, 38, 39, 40, 41, 42,
                ];
                assert_eq!(
                    is_vehicle,
                    number("autopilot") != 8.0 && !parts.contains(&(number("type") as u32))
                );
            }
            Telemetry::HighLatency {
                ground_speed_mps,
                battery_percent,
                ..
            } => {
                assert_eq!(ground_speed_mps, number("groundspeed") / 5.0);
                let sent = number("battery");
                let known = (0.0..=100.0).contains(&sent).then_some(sent);
                assert_eq!(battery_percent, known, "{expected}");
            }
            Telemetry::SystemStatus { battery_percent }
            | Telemetry::Battery { battery_percent } => {
                let sent = number("battery_remaining");
                let known = (0.0..=100.0).contains(&sent).then_some(sent);
                assert_eq!(battery_percent, known, "{expected}");
            }
            Telemetry::SystemTime {
                unix_nanos,
                boot_ms,
            } => {
                let usec = fields["time_unix_usec"].as_u64().unwrap();
                let known = (usec >= 1_420_070_400_000_000)
                    .then(|| i64::try_from(usec).ok()?.checked_mul(1000))
                    .flatten();
                assert_eq!(unix_nanos, known);
                assert_eq!(boot_ms, fields["time_boot_ms"]);
            }
            Telemetry::Gps { fix, position, .. } => {
                assert_eq!(fix, number("fix_type") >= 2.0);
                if let Some(position) = position {
                    near(position.latitude_deg, "lat", 1e7);
                    near(position.longitude_deg, "lon", 1e7);
                }
            }
            Telemetry::GlobalPosition {
                boot_ms,
                position,
                relative_altitude_m,
                velocity,
                heading_deg,
            } => {
                assert_eq!(boot_ms, fields["time_boot_ms"]);
                if let Some(position) = position {
                    near(position.latitude_deg, "lat", 1e7);
                    near(position.longitude_deg, "lon", 1e7);
                    near(position.altitude_m.unwrap(), "alt", 1e3);
                }
                near(relative_altitude_m, "relative_alt", 1e3);
                near(velocity.north_mps, "vx", 100.0);
                near(velocity.east_mps, "vy", 100.0);
                near(velocity.down_mps, "vz", 100.0);
                if let Some(heading) = heading_deg {
                    near(heading, "hdg", 100.0);
                }
            }
            Telemetry::Attitude { boot_ms, attitude } => {
                assert_eq!(boot_ms, fields["time_boot_ms"]);
                if name == "ATTITUDE" {
                    let turn = |found: f64, field: &str| {
                        let error = telemetry::wrap_180(found - number(field).to_degrees());
                        assert!(error.abs() < 1e-6, "{field}: {expected}");
                    };
                    turn(attitude.roll_deg, "roll");
                    turn(attitude.pitch_deg, "pitch");
                    turn(attitude.yaw_deg, "yaw");
                }
            }
            Telemetry::Hud {
                ground_speed_mps,
                heading_deg,
                altitude_m,
            } => {
                near(ground_speed_mps, "groundspeed", 1.0);
                near(altitude_m, "alt", 1.0);
                match heading_deg {
                    Some(360.0) => panic!("{expected}"),
                    Some(heading) => near(heading, "heading", 1.0),
                    None => assert!(!(0.0..=360.0).contains(&number("heading"))),
                }
            }
            Telemetry::Gimbal { boot_ms, .. } | Telemetry::ImageCaptured { boot_ms, .. } => {
                assert_eq!(boot_ms.unwrap(), fields["time_boot_ms"]);
            }
        }
    }
    for name in [
        "HEARTBEAT",
        "SYS_STATUS",
        "VFR_HUD",
        "ATTITUDE",
        "GPS_RAW_INT",
        "SYSTEM_TIME",
    ] {
        assert!(checked.contains_key(name), "{checked:?}");
    }
}

#[test]
fn no_negative_is_taken_for_a_frame_and_each_is_refused_by_its_reason() {
    let Some(lines) = data("mavlink-vectors/negative.jsonl") else {
        return;
    };
    let negatives = json_lines(&lines);
    assert_eq!(negatives.len(), 54);
    let mut signature_only = 0;
    for negative in &negatives {
        let bytes = bytes_from_hex(negative["hex"].as_str().unwrap());
        let why = negative["why"].as_str().unwrap();
        let (frames, refused) = items(&bytes);
        if let [frame] = frames.as_slice() {
            // Only a signature tells that these are wrong: without a key they pass.
            assert!(frame.signature.is_some(), "{negative}");
            signature_only += 1;
            let at = Timestamp::from_unix_nanos(SIGNED_AT);
            for policy in [SignaturePolicy::Verified, SignaturePolicy::Required] {
                let refusal = signatures(policy).admit(frame, at);
                assert_eq!(refusal, Err(Reject::BadSignature), "{negative}");
            }
            let mut unchecked = Signatures::new(SignaturePolicy::Unchecked);
            assert_eq!(unchecked.admit(frame, at), Ok(false));
            continue;
        }
        assert!(frames.is_empty(), "{negative}");
        let reason = if why.contains("flipped") {
            Reject::BadChecksum
        } else if why.contains("truncated") {
            Reject::Truncated
        } else {
            assert!(why.contains("incompat"), "{why}");
            Reject::UnknownIncompatFlag
        };
        assert_eq!(refused, [(reason, bytes.len())], "{negative}");
    }
    let signature_negatives = negatives
        .iter()
        .filter(|n| n["why"].as_str().unwrap().contains("CRC passes"))
        .count();
    assert_eq!(signature_only, signature_negatives);
}

#[test]
fn signed_vectors_pass_once_and_never_again() {
    let Some(vectors) = vectors() else { return };
    let mut strict = signatures(SignaturePolicy::Required);
    let now = Timestamp::from_unix_nanos(SIGNED_AT);
    let mut signed = 0;
    for (expected, bytes) in &vectors {
        let (frames, _) = items(bytes);
        let verdict = strict.admit(&frames[0], now);
        if expected["signed"] == true {
            assert_eq!(verdict, Ok(true), "{expected}");
            assert_eq!(
                strict.admit(&frames[0], now),
                Err(Reject::ReplayedSignature)
            );
            signed += 1;
        } else {
            assert_eq!(verdict, Err(Reject::Unsigned), "{expected}");
        }
    }
    assert_eq!(signed, 17);
    // After a restart nothing is remembered, but a recording is too old by then.
    let later = Timestamp::from_unix_nanos(SIGNED_AT + 120_000_000_000);
    let mut restarted = signatures(SignaturePolicy::Verified);
    for (expected, bytes) in &vectors {
        let (frames, _) = items(bytes);
        let verdict = restarted.admit(&frames[0], later);
        if expected["signed"] == true {
            assert_eq!(verdict, Err(Reject::ReplayedSignature), "{expected}");
        } else {
            assert_eq!(verdict, Ok(false));
        }
    }
}

#[test]
fn the_stream_with_garbage_delivers_exactly_the_listed_frames() {
    let Some(bytes) = data("mavlink-vectors/stream_with_garbage.bin") else {
        return;
    };
    let Some(list) = data("mavlink-vectors/stream_with_garbage.json") else {
        return;
    };
    let expected: Vec<(String, u8, u8, u8)> = serde_json::from_slice(&list).unwrap();
    assert_eq!(expected.len(), 101);
    let (frames, refused) = items(&bytes);
    let found: Vec<(String, u8, u8, u8)> = frames
        .iter()
        .map(|f| {
            let version = match f.version {
                Version::V1 => 1,
                Version::V2 => 2,
            };
            (
                f.definition.name.to_owned(),
                version,
                f.sequence,
                f.system_id,
            )
        })
        .collect();
    assert_eq!(found, expected);
    let in_frames: usize = frames.iter().map(|f| f.bytes.len()).sum();
    let elsewhere: usize = refused.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(in_frames + elsewhere, bytes.len());
}

/// The frames of a recording with their times: eight big-endian bytes of microseconds stand before each.
fn recording(bytes: &[u8]) -> Vec<(f64, Frame<'_>)> {
    let (frames, _) = items(bytes);
    let time_before = |frame: &Frame<'_>| {
        let offset = frame.bytes.as_ptr().addr() - bytes.as_ptr().addr();
        let usec = u64::from_be_bytes(*bytes[..offset].last_chunk().unwrap());
        usec as f64 / 1e6
    };
    frames.into_iter().map(|f| (time_before(&f), f)).collect()
}

#[test]
fn recorded_flights_agree_with_the_reference_decoder() {
    for name in ["copter_flight_mavlink1", "sub_mavlink2", "short_mavlink2"] {
        let Some(bytes) = data(&format!("mavlink-tlog/{name}.tlog")) else {
            return;
        };
        let Some(expected) = data(&format!("mavlink-tlog/{name}.expected.json")) else {
            return;
        };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let frames = recording(&bytes);
        let mut by_type = BTreeMap::<&str, u64>::new();
        let mut by_source = BTreeMap::<String, u64>::new();
        let mut by_version = BTreeMap::<&str, u64>::new();
        let mut places = Vec::new();
        for (unix_s, frame) in &frames {
            *by_type.entry(frame.definition.name).or_default() += 1;
            let source = format!("{}/{}", frame.system_id, frame.component_id);
            *by_source.entry(source).or_default() += 1;
            let version = match frame.version {
                Version::V1 => "v1",
                Version::V2 => "v2",
            };
            *by_version.entry(version).or_default() += 1;
            if frame.definition.name == "GLOBAL_POSITION_INT" {
                let telemetry = telemetry::decode(frame).unwrap();
                places.push((*unix_s, telemetry));
            }
        }
        assert_eq!(frames.len(), expected["messages"], "{name}");
        assert_eq!(serde_json::json!(by_type), expected["by_type"], "{name}");
        assert_eq!(
            serde_json::json!(by_source),
            expected["by_source"],
            "{name}"
        );
        assert_eq!(
            serde_json::json!(by_version),
            expected["by_version"],
            "{name}"
        );
        for (which, found) in [("first", places.first()), ("last", places.last())] {
            let row: Vec<f64> =
                serde_json::from_value(expected["global_position_int"][which].clone()).unwrap();
            let Some((
                unix_s,
                Some(Telemetry::GlobalPosition {
                    position: Some(position),
                    relative_altitude_m,
                    velocity,
                    heading_deg: Some(heading_deg),
                    ..
                }),
            )) = found
            else {
                panic!("{name} {which}: {found:?}");
            };
            for (found, wanted) in [
                (*unix_s, row[0]),
                (position.latitude_deg, row[1] / 1e7),
                (position.longitude_deg, row[2] / 1e7),
                (position.altitude_m.unwrap(), row[3] / 1e3),
                (*relative_altitude_m, row[4] / 1e3),
                (velocity.north_mps, row[5] / 100.0),
                (velocity.east_mps, row[6] / 100.0),
                (velocity.down_mps, row[7] / 100.0),
                (*heading_deg, row[8] / 100.0),
            ] {
                assert!((found - wanted).abs() < 1e-6, "{name} {which}: {row:?}");
            }
        }
    }
}

#[test]
fn a_datagram_may_hold_frames_unknown_messages_and_garbage() {
    let heartbeat = bytes_from_hex("fd0900000091be0000009e16d5a623106907160919");
    // The id 0x00BEEF is not of the dialect; its checksum cannot be judged.
    let unknown = bytes_from_hex(
        "fd0300000101 01efbe00 010203 0000"
            .replace(' ', "")
            .as_str(),
    );
    let mut bytes = vec![1, 2, 3];
    bytes.extend(&heartbeat);
    bytes.extend(&unknown);
    bytes.extend(&unknown);
    bytes.extend(&heartbeat);
    bytes.extend(&heartbeat[..7]);
    let (frames, refused) = items(&bytes);
    assert_eq!(frames.len(), 2);
    assert_eq!(
        refused,
        [
            (Reject::Garbage, 3),
            (Reject::UnknownMessage, 15),
            (Reject::UnknownMessage, 15),
            (Reject::Truncated, 7),
        ]
    );
}

#[test]
fn input_made_to_be_expensive_ends_the_search() {
    // Every byte begins a candidate of a known message, each of which would cost a checksum.
    let hostile = vec![0xFE; 60_000];
    let mut frames = Frames::of(&hostile);
    let mut covered = 0;
    for item in frames.by_ref() {
        match item {
            Item::Frame(frame) => panic!("{frame:?}"),
            Item::Refused { bytes, .. } => covered += bytes,
        }
    }
    assert_eq!(covered, hostile.len());
    assert_eq!(frames.work_left, 0);
}

#[test]
fn our_checksum_is_the_one_of_the_protocol() {
    assert_eq!(checksum(&[], 0), mavlink::calculate_crc(&[], 0));
    let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
    for length in 0..bytes.len() {
        let ours = checksum(&bytes[..length], 124);
        assert_eq!(ours, mavlink::calculate_crc(&bytes[..length], 124));
    }
}
