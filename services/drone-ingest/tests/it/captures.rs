//! Pictures over gRPC.

use std::time::{Duration, Instant};

use drone_ingest::Config;
use mavlink::dialects::ardupilotmega as dialect;
use sovereign_bus::Key;
use sovereign_model::Digest;
use sovereign_objects::{PinStrength, UNREAD};
use sovereign_proto::drone::v1::submit_capture_request::Part;
use sovereign_proto::geo::v1::Intrinsics;
use sovereign_proto::topics::DRONE_CAPTURE;

use crate::rig::{
    LIMIT, attitude, capture, frame, global, heartbeat, jpeg, now, own, sender, soon, start, submit,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_queued_once_with_the_telemetry_of_its_exposure() {
    let mut door = start(Config {
        // However slow the disk is, what was heard before stays near enough.
        telemetry_match_ms: 10_000,
        ..Config::default()
    })
    .await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let vehicle = sender(door.udp).await;
    let send = async |sequence, lat, yaw: f32| {
        let mut datagram = frame(1, 1, sequence, &global(lat, 100_000_000));
        datagram.extend(frame(1, 1, sequence + 1, &attitude(yaw.to_radians())));
        vehicle.send(&datagram).await.unwrap();
    };
    send(0, 500_000_000, 350.0).await;
    door.until(|stats| stats.datagrams == 1).await;
    let exposure = now();
    send(2, 500_001_000, 10.0).await;
    door.until(|stats| stats.datagrams == 2).await;
    let mut request = capture("sys-1", jpeg(5_000), exposure);
    request.header.mount_pitch_deg = Some(-80.0);
    request.header.simulated = true;
    request.header.intrinsics = Some(Intrinsics {
        width_px: 64,
        height_px: 48,
        fx_px: 50.0,
        fy_px: 50.0,
        cx_px: 32.0,
        cy_px: 24.0,
        k1: 0.0,
        k2: 0.0,
        ..Intrinsics::default()
    });
    let answer = request.clone().submit(&door.client).await.unwrap();
    assert!(!answer.duplicate);
    let digest = Digest::of(&request.image);
    let unread = |strength| vec![(UNREAD.to_owned(), strength)];
    assert_eq!(door.store.bytes(digest), Some(request.image.clone()));
    assert_eq!(door.store.pins(digest), unread(PinStrength::Keep));

    let delivery = soon(captures.next()).await.unwrap();
    assert_eq!(delivery.key, Some(Key::parse("sys-1").unwrap()));
    let queued = delivery.message.clone();
    delivery.ack().await.unwrap();
    assert_eq!(queued.frame_id, answer.frame_id);
    let parts: [&[u8]; 4] = [
        b"frame",
        b"sys-1",
        &exposure.to_le_bytes(),
        digest.as_bytes(),
    ];
    assert_eq!(queued.frame_id, Digest::of_parts(&parts).to_hex());
    assert_eq!(queued.sensor_id, "sys-1");
    assert_eq!(queued.captured_unix_nanos, exposure);
    assert_eq!(queued.size_bytes, request.image.len() as u64);
    let facts = queued.picture.unwrap();
    assert_eq!((facts.width_px, facts.height_px), (64, 48));
    assert_eq!(queued.image_digest, digest.as_bytes().as_slice());
    assert_eq!(queued.media_type, "image/jpeg");
    assert_eq!(queued.mount_pitch_deg, Some(-80.0));
    assert_eq!(queued.intrinsics, request.header.intrinsics);
    assert!(queued.simulated);
    assert!(queued.received_unix_nanos > exposure);
    let telemetry = queued.telemetry.unwrap();
    let latitude = telemetry.position.unwrap().latitude_deg;
    assert!(
        50.0 < latitude && latitude < 50.0001,
        "not interpolated: {latitude}"
    );
    assert_eq!(telemetry.relative_altitude_m, Some(40.0));
    let yaw = telemetry.attitude.unwrap().yaw_deg;
    assert!(!(10.0..=350.0).contains(&yaw), "not the short way: {yaw}");
    assert!(!telemetry.attitude_is_camera);
    assert!(telemetry.time_offset_nanos > 0);

    let again = request.submit(&door.client).await.unwrap();
    assert_eq!((again.frame_id, again.duplicate), (queued.frame_id, true));
    // Nobody will take that pin off a second time.
    assert_eq!(door.store.pins(digest), unread(PinStrength::Prefer));
    // A vehicle that is not heard is not waited for, and its picture says nothing of a place.
    let unheard = capture("quiet-1", jpeg(10), now());
    unheard.submit(&door.client).await.unwrap();
    let quiet = soon(captures.next()).await.unwrap().message;
    assert_eq!(
        (quiet.sensor_id.as_str(), quiet.telemetry),
        ("quiet-1", None)
    );
    assert!(quiet.received_unix_nanos > queued.received_unix_nanos);
    // Without a time of its own a picture belongs to its arrival, and its time stays unknown.
    let untimed = capture("sys-1", jpeg(20), 0);
    untimed.submit(&door.client).await.unwrap();
    let untimed = soon(captures.next()).await.unwrap().message;
    assert_eq!(untimed.captured_unix_nanos, 0);
    assert!(untimed.telemetry.is_some());

    let stats = door.stats().await;
    assert_eq!(stats.accepted_by_type["capture"], 3);
    assert_eq!(stats.accepted_by_type["capture-duplicate"], 1);
    assert_eq!(door.vehicles().await[0].confidence, 1.0);
    let metrics = door.metrics();
    let matched = "sovereign_drone_ingest_captures_matched_total{telemetry=\"found\"} 2";
    assert!(metrics.contains(matched), "{metrics}");
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_waits_shortly_for_telemetry_from_after_its_exposure() {
    const AHEAD: i64 = 100_000_000;
    let mut door = start(Config::default()).await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let vehicle = sender(door.udp).await;
    let simulated = heartbeat(dialect::MavModeFlag::MAV_MODE_FLAG_HIL_ENABLED);
    vehicle.send(&frame(1, 1, 0, &simulated)).await.unwrap();
    let flight = own(async move {
        for n in 0.. {
            let message = frame(1, 1, 1, &global(500_000_000 + n, 1));
            vehicle.send(&message).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    door.until(|stats| stats.datagrams >= 3).await;
    let started = Instant::now();
    loop {
        // Not waited for, the nearest telemetry would be as old as the exposure is ahead.
        let picture = capture("sys-1", jpeg(1), now() + AHEAD);
        picture.submit(&door.client).await.unwrap();
        let delivery = soon(captures.next()).await.unwrap();
        let queued = delivery.message.clone();
        delivery.ack().await.unwrap();
        assert!(queued.simulated, "the vehicle said so");
        if queued
            .telemetry
            .is_some_and(|t| t.time_offset_nanos < AHEAD / 4)
        {
            break;
        }
        assert!(started.elapsed() < LIMIT);
    }
    flight.abort();
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_of_one_vehicle_arrive_in_the_order_of_the_queue() {
    let door = start(Config::default()).await;
    let mut captures = door.bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
    let mut submissions = tokio::task::JoinSet::new();
    for n in 0..24 {
        let client = door.client.clone();
        submissions.spawn(async move {
            let request = capture("alpha", jpeg(n), 1_700_000_000_000_000_000);
            request.submit(&client).await.unwrap();
        });
    }
    let mut last = 0;
    for _ in 0..24 {
        let delivery = soon(captures.next()).await.unwrap();
        assert!(delivery.message.received_unix_nanos > last);
        last = delivery.message.received_unix_nanos;
        delivery.ack().await.unwrap();
    }
    while let Some(ended) = submissions.join_next().await {
        ended.unwrap();
    }
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_cannot_be_used_is_refused_by_its_field() {
    let mut door = start(Config::default()).await;
    let mut bad_camera = capture("alpha", jpeg(10), 5);
    bad_camera.header.intrinsics = Some(Intrinsics::default());
    let mut bad_mount = capture("alpha", jpeg(10), 5);
    bad_mount.header.mount_pitch_deg = Some(f64::NAN);
    let whole = jpeg(0);
    for (request, says) in [
        (capture("a.b", jpeg(10), 5), "vehicle_id"),
        (capture("", jpeg(10), 5), "vehicle_id"),
        (capture("alpha", &b"\x89PNG"[..], 5), "is a PNG"),
        (capture("alpha", vec![], 5), "is empty"),
        (
            capture("alpha", whole.slice(..whole.len() - 1), 5),
            "is cut off",
        ),
        (capture("alpha", jpeg(10), -5), "captured_unix_nanos"),
        (
            capture("alpha", jpeg(10), now() + 3_600_000_000_000),
            "captured_unix_nanos",
        ),
        (bad_camera, "intrinsics."),
        (bad_mount, "mount_pitch_deg"),
    ] {
        let status = request.submit(&door.client).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    let header = Part::Header(capture("alpha", vec![], 5).header);
    for (parts, says) in [
        (vec![], "header"),
        (vec![Part::Chunk(jpeg(10))], "header"),
        (vec![header.clone(), Part::Chunk(jpeg(10)), header], "chunk"),
    ] {
        let status = submit(&door.client, parts).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    let too_large = capture("alpha", jpeg(64 << 20), 5);
    let status = too_large.submit(&door.client).await.unwrap_err();
    assert!(status.message().contains("64 MiB"), "{status:?}");
    assert_eq!(door.store.count(), 0);
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["INVALID_CAPTURE"], 12);
    assert_eq!(stats.rejected_by_reason["CAPTURE_TOO_LARGE"], 1);
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_forty_megabytes_is_taken() {
    let door = start(Config::default()).await;
    let large = jpeg(40 << 20);
    let digest = Digest::of(&large);
    let request = capture("alpha", large, 5);
    request.submit(&door.client).await.unwrap();
    assert!(door.store.contains(digest));
    door.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_or_away_is_said() {
    let mut door = start(Config::default()).await;
    let submit = async || capture("alpha", jpeg(10), 5).submit(&door.client).await;
    door.store.set_full(true);
    let full = submit().await.unwrap_err();
    assert_eq!(full.code(), tonic::Code::ResourceExhausted, "{full:?}");
    door.store.set_away(true);
    let away = submit().await.unwrap_err();
    assert_eq!(away.code(), tonic::Code::Unavailable, "{away:?}");
    door.store.set_away(false);
    door.store.set_full(false);
    assert!(!submit().await.unwrap().duplicate);
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["QUEUE_FAILED"], 2);
    door.finish().await;
}
