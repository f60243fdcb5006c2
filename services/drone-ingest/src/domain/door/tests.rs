use mavlink::dialects::ardupilotmega as dialect;
use mavlink::dialects::ardupilotmega::MavMessage;
use serde_json::json;

use super::*;
use crate::domain::fixtures::{
    address, bytes_from_hex, data, frame_v1, frame_v2, items, json_lines, ms,
};
use crate::domain::history::Looking;
use crate::domain::sample;
use crate::domain::signing::{self, SigningKey};
use sovereign_model::geo::Position;

fn rules() -> Rules {
    Rules {
        publish_period: Duration::from_millis(100),
        idle_timeout: Duration::from_secs(30),
        max_clock_skew: Duration::from_secs(5),
        max_sample_age: Duration::from_secs(30),
        max_match_offset: Duration::from_millis(500),
        signatures: SignaturePolicy::Unchecked,
    }
}

fn heartbeat(mavtype: dialect::MavType, autopilot: dialect::MavAutopilot) -> MavMessage {
    MavMessage::HEARTBEAT(dialect::HEARTBEAT_DATA {
        mavtype,
        autopilot,
        ..Default::default()
    })
}

fn copter() -> MavMessage {
    heartbeat(
        dialect::MavType::MAV_TYPE_QUADROTOR,
        dialect::MavAutopilot::MAV_AUTOPILOT_ARDUPILOTMEGA,
    )
}

fn global(lat: i32, lon: i32) -> MavMessage {
    MavMessage::GLOBAL_POSITION_INT(dialect::GLOBAL_POSITION_INT_DATA {
        lat,
        lon,
        alt: 100_000,
        relative_alt: 20_000,
        hdg: u16::MAX,
        ..Default::default()
    })
}

fn ids(door: &Door) -> Vec<String> {
    let all = door.vehicles().into_iter();
    all.map(|(v, _)| v.vehicle_id.to_string()).collect()
}

fn rejected(door: &Door, reason: Reject) -> u64 {
    let mut all = door.stats().rejected_by_reason();
    all.find(|(r, _)| *r == reason)
        .map_or(0, |(_, count)| count)
}

fn sample(drone_id: &str, offset_ms: Option<i64>) -> Sample {
    let mut wire = json!({
        "contract_version": "av-v1", "drone_id": drone_id,
        "latitude": 10.0, "longitude": 20.0, "altitude_meters": 30.0
    });
    if let Some(offset) = offset_ms {
        let time = jiff::Timestamp::from_nanosecond(ms(offset).as_unix_nanos().into()).unwrap();
        wire["timestamp"] = json!(time.to_string());
    }
    sample::parse(wire.to_string().as_bytes()).unwrap()
}

fn offer(door: &mut Door, sample: &Sample, arrived: Timestamp) -> Result<(), Reject> {
    door.check_sample(sample, arrived)?;
    door.accept_sample(sample, arrived).map(|_| ())
}

#[test]
fn only_autopilots_make_a_vehicle() {
    let mut door = Door::new(rules());
    let from = address(1);
    let ground_station = heartbeat(
        dialect::MavType::MAV_TYPE_GCS,
        dialect::MavAutopilot::MAV_AUTOPILOT_INVALID,
    );
    let camera = heartbeat(
        dialect::MavType::MAV_TYPE_CAMERA,
        dialect::MavAutopilot::MAV_AUTOPILOT_INVALID,
    );
    let radio = MavMessage::RADIO_STATUS(Default::default());
    let hears = [
        frame_v1(255, 190, 0, &ground_station),
        frame_v1(1, 100, 0, &camera),
        frame_v1(51, 68, 0, &radio),
        // A ground station that moves about is not a drone either.
        frame_v1(255, 190, 1, &global(10, 10)),
    ];
    for bytes in hears {
        assert_eq!(door.hear_mavlink(ms(0), from, &bytes), Heard::default());
    }
    assert!(door.by_id.is_empty());
    let messages: u64 = door.stats().messages_by_version().iter().map(|v| v.1).sum();
    assert_eq!(messages, 4);
    // Telemetry of the autopilot's component, before its first heartbeat.
    let heard = door.hear_mavlink(ms(0), from, &frame_v1(1, 1, 0, &global(10, 10)));
    assert!(heard.telemetry && heard.newly_due);
    // An autopilot of an unusual component number.
    door.hear_mavlink(ms(0), from, &frame_v2(9, 42, 0, &copter()));
    assert_eq!(ids(&door), ["sys-1", "sys-9"]);
}

#[test]
fn other_components_do_not_speak_for_the_autopilot() {
    let mut door = Door::new(rules());
    let from = address(1);
    door.hear_mavlink(ms(0), from, &frame_v2(1, 1, 0, &global(10, 10)));
    door.hear_mavlink(ms(1), from, &frame_v2(1, 220, 0, &global(500_000_000, 10)));
    let (state, _) = door.vehicles().remove(0);
    assert_eq!(state.position.unwrap().latitude_deg, 1e-6);
    assert_eq!(state.link.messages, 2);
}

#[test]
fn two_senders_of_one_system_id_stay_two_vehicles_and_names_come_back() {
    let mut door = Door::new(rules());
    let hear = |door: &mut Door, t, port, lat| {
        door.hear_mavlink(ms(t), address(port), &frame_v2(7, 1, 0, &global(lat, 1)));
    };
    hear(&mut door, 0, 1, 10_000_000);
    hear(&mut door, 1, 2, 20_000_000);
    hear(&mut door, 2, 3, 30_000_000);
    assert_eq!(ids(&door), ["sys-7", "sys-7-2", "sys-7-3"]);
    hear(&mut door, 20_000, 1, 11_000_000);
    hear(&mut door, 20_000, 3, 31_000_000);
    hear(&mut door, 30_000, 1, 11_000_000);
    hear(&mut door, 30_000, 3, 31_000_000);
    let gone = door.expire(ms(31_000));
    assert_eq!(gone, [SensorId::parse("sys-7-2").unwrap()]);
    assert_eq!(ids(&door), ["sys-7", "sys-7-3"]);
    hear(&mut door, 31_000, 4, 40_000_000);
    assert_eq!(ids(&door), ["sys-7", "sys-7-2", "sys-7-3"]);
    let places: Vec<f64> = door
        .vehicles()
        .iter()
        .map(|(v, _)| v.position.unwrap().latitude_deg)
        .collect();
    assert_eq!(places, [1.1, 4.0, 3.1]);
}

#[test]
fn a_sender_whose_port_changed_goes_on_as_the_vehicle_it_was() {
    let mut door = Door::new(rules());
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], 9));
    let mut sequence = 0;
    let mut hear = |door: &mut Door, t, from, component| {
        let frame = frame_v2(7, component, sequence, &copter());
        sequence += 1;
        door.hear_mavlink(ms(t), from, &frame);
    };
    hear(&mut door, 0, address(1), 1);
    hear(&mut door, 3_001, address(2), 1);
    assert_eq!(ids(&door), ["sys-7"]);
    let (state, heard) = door.vehicles().remove(0);
    assert_eq!((state.link.messages, state.link.lost), (2, 0));
    assert_eq!(heard, ms(3_001));
    // Again, and the first port has not kept a claim to it.
    hear(&mut door, 7_000, address(3), 1);
    hear(&mut door, 7_001, address(1), 1);
    assert_eq!(ids(&door), ["sys-7", "sys-7-2"]);
    assert_eq!(door.by_sender.len(), 2);
    // Another host and another autopilot are others, however long the first are silent.
    hear(&mut door, 20_000, elsewhere, 1);
    hear(&mut door, 20_000, address(4), 42);
    assert_eq!(ids(&door), ["sys-7", "sys-7-2", "sys-7-3", "sys-7-4"]);
    // Of two that are silent, the one that was heard last.
    hear(&mut door, 20_001, address(5), 1);
    assert_eq!(door.by_id.len(), 4);
    let heard: Vec<Timestamp> = door.vehicles().iter().map(|(_, heard)| *heard).collect();
    assert_eq!(heard, [7_000, 20_001, 20_000, 20_000].map(ms));
    assert_eq!(door.expire(ms(60_000)).len(), 4);
    assert!(door.by_sender.is_empty());
}

#[test]
fn the_table_is_bounded_and_a_refusal_is_counted() {
    let mut door = Door::new(rules());
    for n in 0..=MAX_VEHICLES {
        let (system, port) = ((n % 200) as u8, (n / 200) as u16);
        door.hear_mavlink(ms(0), address(port), &frame_v1(system, 1, 0, &copter()));
    }
    assert_eq!(door.by_id.len(), MAX_VEHICLES);
    assert_eq!(rejected(&door, Reject::TooManyVehicles), 1);
    let refusal = door.check_sample(&sample("one-more", None), ms(0));
    assert_eq!(refusal, Err(Reject::TooManyVehicles));
    assert_eq!(door.expire(ms(40_000)).len(), MAX_VEHICLES);
    assert!(offer(&mut door, &sample("one-more", None), ms(40_000)).is_ok());
}

#[test]
fn a_refused_message_leaves_the_others_of_its_datagram() {
    let mut door = Door::new(rules());
    let mut datagram = frame_v2(1, 1, 0, &copter());
    datagram.extend(frame_v2(1, 1, 1, &global(i32::MIN, 0)));
    datagram.extend([0xFD, 1, 2, 3]);
    datagram.extend(frame_v2(1, 1, 2, &global(10_000_000, 20_000_000)));
    door.hear_mavlink(ms(0), address(1), &datagram);
    let (state, _) = door.vehicles().remove(0);
    assert_eq!(
        state.position,
        Some(Position {
            latitude_deg: 1.0,
            longitude_deg: 2.0,
            altitude_m: Some(100.0)
        })
    );
    assert_eq!(rejected(&door, Reject::InvalidLatitude), 1);
    // It said nothing that can be used, but it did arrive.
    assert_eq!((state.link.messages, state.link.lost), (2, 0));
    let accepted: Vec<_> = door.stats().accepted_by_type().collect();
    assert_eq!(accepted, [("HEARTBEAT", 1), ("GLOBAL_POSITION_INT", 1)]);
}

#[test]
fn a_vehicle_is_published_at_most_once_a_period_and_its_last_state_always() {
    let mut door = Door::new(rules());
    let hear = |door: &mut Door, t, lat| {
        let frame = frame_v2(1, 1, 0, &global(lat, 1));
        door.hear_mavlink(ms(t), address(1), &frame).newly_due
    };
    let mut published = Vec::new();
    for t in 0..=1_005 {
        let newly_due = hear(&mut door, t, 10_000_000 + t as i32);
        assert_eq!(
            newly_due,
            door.next_due().is_some() && (t == 0 || t % 100 == 1)
        );
        for publication in door.take_due(ms(t)) {
            assert_eq!(publication.first, t == 0);
            published.push((t, publication.state.position.unwrap().latitude_deg));
        }
    }
    assert_eq!(published.len(), 11, "{published:?}");
    let next = door.next_due().unwrap();
    assert_eq!(next, ms(1_100));
    let last = door.take_due(next);
    assert_eq!(last[0].state.position.unwrap().latitude_deg, 1.0001005);
    assert_eq!(door.next_due(), None);
    hear(&mut door, 1_101, 1);
    assert!(door.take_due(ms(1_101)).is_empty());
    assert_eq!(door.take_all(ms(1_102)).len(), 1);
    // Nothing changed: nothing to say.
    assert!(door.take_due(ms(5_000)).is_empty());
}

#[test]
fn a_clock_that_steps_back_does_not_silence_publishing() {
    let mut door = Door::new(rules());
    let hear = |door: &mut Door, t| {
        door.hear_mavlink(ms(t), address(1), &frame_v2(1, 1, 0, &global(1, 1)))
    };
    hear(&mut door, 3_600_000);
    assert_eq!(door.take_due(ms(3_600_000)).len(), 1);
    hear(&mut door, 3_600_001);
    hear(&mut door, 0);
    assert_eq!(door.take_due(ms(1)).len(), 1);
    hear(&mut door, 2);
    assert_eq!(door.take_due(ms(102)).len(), 1);
}

#[test]
fn samples_are_ordered_for_each_drone_by_itself() {
    let mut door = Door::new(rules());
    let now = ms(0);
    assert_eq!(offer(&mut door, &sample("a", Some(0)), now), Ok(()));
    assert_eq!(offer(&mut door, &sample("b", Some(-9)), now), Ok(()));
    let duplicate = offer(&mut door, &sample("a", Some(0)), now);
    assert_eq!(duplicate, Err(Reject::DuplicateSample));
    let early = offer(&mut door, &sample("a", Some(-1)), now);
    assert_eq!(early, Err(Reject::OutOfOrderSample));
    let future = offer(&mut door, &sample("a", Some(5_001)), now);
    assert_eq!(future, Err(Reject::FutureTimestamp));
    let stale = offer(&mut door, &sample("a", Some(-30_001)), now);
    assert_eq!(stale, Err(Reject::StaleTimestamp));
    assert_eq!(offer(&mut door, &sample("a", Some(1)), now), Ok(()));
    let (state, _) = door.vehicles().remove(0);
    assert_eq!(state.observed, ms(1));
    assert_eq!(state.source.as_str(), "av-v1");
    assert_eq!(state.sensor_health, "healthy");
    assert_eq!(state.confidence, 0.7);
}

#[test]
fn the_state_advances_only_after_a_sample_is_accepted() {
    let mut door = Door::new(rules());
    let one = sample("a", Some(0));
    for _ in 0..3 {
        // Checked again after whatever it carries could not be queued.
        assert_eq!(door.check_sample(&one, ms(0)), Ok(()));
        assert!(door.by_id.is_empty());
    }
    assert_eq!(offer(&mut door, &one, ms(0)), Ok(()));
    assert_eq!(door.check_sample(&one, ms(0)), Err(Reject::DuplicateSample));
}

#[test]
fn a_drone_whose_clock_steps_back_is_heard_again() {
    let mut door = Door::new(rules());
    assert_eq!(offer(&mut door, &sample("a", Some(4_900)), ms(0)), Ok(()));
    // Its clock is set right: for a while its samples are before the last one.
    let early = offer(&mut door, &sample("a", Some(100)), ms(100));
    assert_eq!(early, Err(Reject::OutOfOrderSample));
    assert_eq!(
        offer(&mut door, &sample("a", Some(5_000)), ms(5_000)),
        Ok(())
    );
    // One that lags by a constant is heard at the latest when the last sample is forgotten.
    let lagging = |door: &mut Door, t| offer(door, &sample("a", Some(t - 29_000)), ms(t));
    assert_eq!(lagging(&mut door, 10_000), Err(Reject::OutOfOrderSample));
    assert_eq!(lagging(&mut door, 35_001), Ok(()));
    assert_eq!(lagging(&mut door, 35_002), Ok(()));
}

#[test]
fn when_our_clock_steps_back_samples_are_taken_and_vehicles_expire() {
    let mut door = Door::new(rules());
    let heard = |door: &mut Door, t| offer(door, &sample("a", None), ms(t));
    assert_eq!(heard(&mut door, 3_600_000), Ok(()));
    // By less than a step can be, arrivals still order what has no time of its own.
    assert_eq!(heard(&mut door, 3_599_000), Err(Reject::OutOfOrderSample));
    assert_eq!(heard(&mut door, 0), Ok(()));
    assert_eq!(heard(&mut door, 1), Ok(()));
    // One that is never heard again after the step is silent from when that is noticed.
    assert_eq!(
        offer(&mut door, &sample("gone", None), ms(3_600_000)),
        Ok(())
    );
    let frame = frame_v2(1, 1, 0, &copter());
    door.hear_mavlink(ms(3_600_000), address(1), &frame);
    assert_eq!(door.expire(ms(1_000)), []);
    assert_eq!(
        door.by_id.len(),
        3,
        "the step is not the silence of a vehicle"
    );
    assert_eq!(door.expire(ms(30_000)), []);
    assert_eq!(heard(&mut door, 30_500), Ok(()));
    let gone = ["gone", "sys-1"].map(|id| SensorId::parse(id).unwrap());
    assert_eq!(door.expire(ms(31_001)), gone);
}

#[test]
fn a_sample_without_a_time_is_observed_at_its_arrival() {
    let mut door = Door::new(rules());
    assert_eq!(offer(&mut door, &sample("a", None), ms(77)), Ok(()));
    assert_eq!(door.vehicles()[0].0.observed, ms(77));
    let id = SensorId::parse("a").unwrap();
    let fix = door.fix_at(&id, ms(80)).unwrap();
    assert_eq!(fix.place.position.latitude_deg, 10.0);
    assert_eq!(fix.looking, None);
}

#[test]
fn telemetry_of_a_moment_says_whether_waiting_helps() {
    let mut door = Door::new(rules());
    let id = SensorId::parse("sys-1").unwrap();
    assert_eq!(door.newest(&id, ms(0), ms(0)), Newest::Silent);
    door.hear_mavlink(ms(0), address(1), &frame_v2(1, 1, 0, &copter()));
    assert_eq!(
        door.newest(&id, ms(0), ms(0)),
        Newest::Silent,
        "no place yet"
    );
    door.hear_mavlink(ms(0), address(1), &frame_v2(1, 1, 0, &global(1, 1)));
    assert_eq!(door.newest(&id, ms(0), ms(0)), Newest::Reached);
    assert_eq!(door.newest(&id, ms(900), ms(950)), Newest::Before);
    assert_eq!(door.newest(&id, ms(900), ms(2_001)), Newest::Silent, "gone");
}

#[test]
fn what_booted_by_itself_is_put_among_the_times_of_its_autopilot() {
    /// From the moment of a measurement to its arrival.
    const ON_THE_WAY: i64 = 40;
    let unix_usec = |t| u64::try_from(ms(t).as_unix_nanos() / 1_000).unwrap();
    let autopilot_ms = |arrives: i64| u32::try_from(100_000 + arrives - ON_THE_WAY).unwrap();
    let place = |arrives, lat| {
        MavMessage::GLOBAL_POSITION_INT(dialect::GLOBAL_POSITION_INT_DATA {
            time_boot_ms: autopilot_ms(arrives),
            lat,
            lon: 1,
            ..Default::default()
        })
    };
    // Far from the autopilot's start, and so near that the difference looks like a clock's skew.
    for booted_ms in [0, 97_000, 103_000, 90_000_000] {
        let gimbal = |arrives: i64, pitch_deg: f32| {
            let half = pitch_deg.to_radians() / 2.0;
            MavMessage::GIMBAL_DEVICE_ATTITUDE_STATUS(dialect::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA {
                time_boot_ms: booted_ms + u32::try_from(arrives).unwrap(),
                flags: dialect::GimbalDeviceFlags::GIMBAL_DEVICE_FLAGS_YAW_IN_EARTH_FRAME,
                q: [half.cos(), 0.0, half.sin(), 0.0],
                ..Default::default()
            })
        };
        let picture = MavMessage::CAMERA_IMAGE_CAPTURED(dialect::CAMERA_IMAGE_CAPTURED_DATA {
            time_boot_ms: booted_ms + 150,
            lat: 25_000_000,
            lon: 1,
            capture_result: dialect::MavBool::MAV_BOOL_TRUE,
            ..Default::default()
        });
        let clock = MavMessage::SYSTEM_TIME(dialect::SYSTEM_TIME_DATA {
            time_unix_usec: unix_usec(-ON_THE_WAY),
            time_boot_ms: autopilot_ms(0),
        });
        let mut door = Door::new(rules());
        for (arrives, component, message) in [
            (0, 1, clock),
            (100, 1, place(100, 10_000_000)),
            (100, 154, gimbal(100, -10.0)),
            (150, 100, picture),
            (200, 154, gimbal(200, -20.0)),
            (200, 1, place(200, 30_000_000)),
        ] {
            let frame = frame_v2(1, component, 0, &message);
            door.hear_mavlink(ms(arrives), address(1), &frame);
        }
        let id = SensorId::parse("sys-1").unwrap();
        let at = |arrives| door.fix_at(&id, ms(arrives - ON_THE_WAY)).unwrap();
        for (arrives, latitude_deg) in [(100, 1.0), (150, 2.5), (200, 3.0)] {
            let fix = at(arrives);
            assert_eq!(fix.place.position.latitude_deg, latitude_deg, "{booted_ms}");
            assert_eq!(fix.offset, Duration::ZERO, "{booted_ms}");
        }
        let Some(Looking::Camera(attitude)) = at(150).looking else {
            panic!("{booted_ms}: {:?}", at(150).looking);
        };
        assert!((attitude.pitch_deg + 15.0).abs() < 0.01, "{attitude:?}");
    }
}

#[test]
fn a_key_admits_what_it_signed_and_counts_it() {
    let key = SigningKey([7; 32]);
    let now = ms(0);
    let sign = |time_offset: u64, frame: &[u8]| {
        // Set the flag, make the checksum anew, then sign.
        let mut bytes = frame.to_vec();
        bytes[2] = 1;
        let end = bytes.len() - 2;
        let (parsed, _) = items(frame);
        let crc = crate::domain::framing::checksum(&bytes[1..end], parsed[0].definition.crc_extra);
        bytes.truncate(end);
        bytes.extend(crc.to_le_bytes());
        bytes.push(3);
        bytes.extend(&(signing::signature_time(now) + time_offset).to_le_bytes()[..6]);
        let signature = signing::expected(&key, &bytes);
        bytes.extend(signature);
        bytes
    };
    let mut door = Door::new(Rules {
        signatures: SignaturePolicy::Required(key.clone()),
        ..rules()
    });
    let plain = frame_v2(1, 1, 0, &copter());
    door.hear_mavlink(now, address(1), &plain);
    door.hear_mavlink(now, address(1), &frame_v1(1, 1, 0, &copter()));
    assert!(door.by_id.is_empty());
    assert_eq!(rejected(&door, Reject::Unsigned), 2);
    let signed = sign(0, &plain);
    door.hear_mavlink(now, address(1), &signed);
    door.hear_mavlink(now, address(1), &signed);
    assert_eq!(rejected(&door, Reject::ReplayedSignature), 1);
    let mut wrong = sign(1, &plain);
    *wrong.last_mut().unwrap() ^= 1;
    door.hear_mavlink(now, address(1), &wrong);
    assert_eq!(rejected(&door, Reject::BadSignature), 1);
    assert_eq!(door.vehicles()[0].0.link.signed, 1);
    assert_eq!(door.stats().signed, 1);
    assert!(!door.admits_unsigned());
}

#[test]
fn unknown_messages_are_counted_as_such() {
    let mut door = Door::new(rules());
    let unknown = bytes_from_hex("fd030000010101efbe000102030000");
    door.hear_mavlink(ms(0), address(1), &unknown);
    assert_eq!(rejected(&door, Reject::UnknownMessage), 1);
    assert_eq!(door.stats().refused_bytes, 15);
}

#[test]
fn recorded_flights_become_one_vehicle_each_with_the_recorded_end() {
    for (name, lat, lon) in [
        ("copter_flight_mavlink1", -35.3623295, 149.1657436),
        ("sub_mavlink2", 48.3861419, -124.6305723),
    ] {
        let Some(bytes) = data(&format!("mavlink-tlog/{name}.tlog")) else {
            return;
        };
        let mut door = Door::new(rules());
        let (frames, _) = items(&bytes);
        for (n, frame) in frames.iter().enumerate() {
            door.hear_mavlink(ms(n as i64), address(1), frame.bytes);
        }
        assert_eq!(ids(&door), ["sys-1"], "{name}");
        let (state, _) = door.vehicles().remove(0);
        let position = state.position.unwrap();
        assert!((position.latitude_deg - lat).abs() < 1e-9, "{position:?}");
        assert!((position.longitude_deg - lon).abs() < 1e-9, "{position:?}");
        let refused: u64 = door.stats().rejected_by_reason().map(|(_, n)| n).sum();
        assert_eq!(refused, 0, "{name}");
        let accepted: u64 = door.stats().accepted_by_type().map(|(_, n)| n).sum();
        assert_eq!(accepted, frames.len() as u64);
        for number in [
            state.ground_speed_mps,
            state.heading_deg,
            state.relative_altitude_m,
        ] {
            assert!(number.unwrap().is_finite());
        }
    }
}

#[test]
fn whatever_a_vehicle_says_its_state_holds_only_numbers_that_can_be() {
    let Some(lines) = data("mavlink-vectors/vectors.jsonl") else {
        return;
    };
    let mut door = Door::new(rules());
    for (n, vector) in json_lines(&lines).iter().enumerate() {
        // All from one autopilot, so that extreme, zero and random values follow each other.
        let bytes = bytes_from_hex(vector["hex"].as_str().unwrap());
        let (frames, _) = items(&bytes);
        let mut frame = frames[0];
        (frame.system_id, frame.component_id) = (1, 1);
        let now = ms(n as i64 * 10);
        if let Ok(Some(slot)) = door.hear_frame(now, address(1), &frame) {
            door.changed(slot, now);
        }
        for (state, _) in door.vehicles() {
            for number in [
                state.position.map(|p| p.latitude_deg / 90.0),
                state.position.map(|p| p.longitude_deg / 180.0),
                state.battery_percent.map(|b| b / 100.0),
                state.heading_deg.map(|h| h / 360.0),
                state.attitude.map(|a| a.roll_deg / 180.0),
                state.attitude.map(|a| a.yaw_deg / 360.0),
                Some(state.confidence),
            ] {
                assert!(
                    number.is_none_or(|n| (-1.0..=1.0).contains(&n)),
                    "{state:?}"
                );
            }
            let speeds = state
                .velocity
                .map(|v| [v.north_mps, v.east_mps, v.down_mps]);
            let finite = |n: &f64| n.is_finite();
            assert!(speeds.is_none_or(|v| v.iter().all(finite)));
            assert!(state.ground_speed_mps.as_ref().is_none_or(finite));
            let fix = door.fix_at(&state.vehicle_id, now);
            let altitude = fix.and_then(|f| f.place.position.altitude_m);
            assert!(altitude.as_ref().is_none_or(finite));
        }
    }
    assert_eq!(door.by_id.len(), 1);
    assert!(door.vehicles()[0].0.link.messages > 600);
}

fn gimbal_down(yaw_deg: f32) -> MavMessage {
    // Pitch -90 after a yaw: w, x, y, z.
    let half = (yaw_deg.to_radians() / 2.0, std::f32::consts::FRAC_PI_4);
    let (cy, sy, cp, sp) = (half.0.cos(), half.0.sin(), half.1.cos(), -half.1.sin());
    MavMessage::GIMBAL_DEVICE_ATTITUDE_STATUS(dialect::GIMBAL_DEVICE_ATTITUDE_STATUS_DATA {
        q: [cy * cp, -sy * sp, cy * sp, sy * cp],
        flags: dialect::GimbalDeviceFlags::GIMBAL_DEVICE_FLAGS_YAW_IN_EARTH_FRAME,
        ..Default::default()
    })
}

fn yaw_at(door: &Door, id: &str, time: Timestamp) -> Option<f64> {
    let fix = door.fix_at(&SensorId::parse(id).unwrap(), time)?;
    match fix.looking? {
        Looking::Camera(attitude) => Some(attitude.yaw_deg.round()),
        Looking::Body(_) => None,
    }
}

#[test]
fn a_gimbal_belongs_to_the_vehicle_of_its_system_wherever_it_sends_from() {
    let mut door = Door::new(rules());
    door.hear_mavlink(ms(0), address(1), &frame_v2(1, 1, 0, &global(10, 10)));
    // Of two gimbals the first carries the camera, whichever is heard last.
    door.hear_mavlink(ms(1), address(2), &frame_v2(1, 154, 0, &gimbal_down(40.0)));
    door.hear_mavlink(ms(2), address(3), &frame_v2(1, 171, 0, &gimbal_down(250.0)));
    assert_eq!(ids(&door), ["sys-1"]);
    assert_eq!(yaw_at(&door, "sys-1", ms(2)), Some(40.0));
    // With two vehicles of one system nobody knows whose it is.
    door.hear_mavlink(ms(3), address(4), &frame_v2(1, 1, 0, &global(20, 20)));
    door.hear_mavlink(ms(4), address(5), &frame_v2(1, 154, 0, &gimbal_down(90.0)));
    assert_eq!(yaw_at(&door, "sys-1", ms(4)), Some(40.0));
    assert_eq!(yaw_at(&door, "sys-1-2", ms(4)), None);
}

#[test]
fn component_1_is_the_autopilot_once_it_is_heard() {
    let mut door = Door::new(rules());
    let from = address(1);
    door.hear_mavlink(ms(0), from, &frame_v2(3, 42, 0, &copter()));
    door.hear_mavlink(ms(1), from, &frame_v2(3, 42, 1, &global(20_000_000, 10)));
    door.hear_mavlink(ms(2), from, &frame_v2(3, 1, 0, &copter()));
    door.hear_mavlink(ms(3), from, &frame_v2(3, 1, 1, &global(10_000_000, 10)));
    door.hear_mavlink(ms(4), from, &frame_v2(3, 42, 2, &global(20_000_000, 10)));
    assert_eq!(ids(&door), ["sys-3"]);
    let (state, _) = door.vehicles().remove(0);
    assert_eq!(state.position.unwrap().latitude_deg, 1.0);
}

#[test]
fn unfinished_frames_are_bounded_and_given_up_in_time() {
    let mut door = Door::new(rules());
    let whole = frame_v2(1, 1, 0, &global(10, 10));
    let many = u16::try_from(tails::MAX_TAILS).unwrap() + 10;
    for port in 0..many {
        door.hear_mavlink(ms(i64::from(port)), address(port + 1), &whole[..20]);
    }
    assert_eq!(rejected(&door, Reject::Truncated), 10);
    assert!(!door.is_amid_frame(address(1)) && door.is_amid_frame(address(many)));
    door.hear_mavlink(ms(2_000), address(many), &whole[20..]);
    assert_eq!(ids(&door), ["sys-1"]);
    door.expire(ms(10_000));
    assert_eq!(rejected(&door, Reject::Truncated), u64::from(many) - 1);
    // A tail that is not continued costs itself, and not the frame behind it.
    door.hear_mavlink(ms(10_001), address(9), &whole[..20]);
    let heard = door.hear_mavlink(ms(10_002), address(9), &whole);
    assert!(heard.telemetry);
    assert_eq!(rejected(&door, Reject::BadChecksum), 1);
}
