//! Pictures over gRPC.

use std::time::{Duration, Instant};

use drone_ingest::Config;
use mavlink::dialects::ardupilotmega as dialect;
use sovereign_bus::Key;
use sovereign_model::Digest;
use sovereign_proto::geo::v1::Intrinsics;
use sovereign_proto::topics::DRONE_CAPTURE;

use crate::rig::{
    LIMIT, attitude, capture, frame, global, heartbeat, jpeg, now, own, sender, soon, start,
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
    request.mount_pitch_deg = Some(-80.0);
    request.simulated = true;
    request.intrinsics = Some(Intrinsics {
        width_px: 64,
        height_px: 48,
        fx_px: 50.0,
        fy_px: 50.0,
        cx_px: 32.0,
        cy_px: 24.0,
        k1: 0.0,
        k2: 0.0,
    });
    let answer = door.client.submit_capture(request.clone()).await;
    let answer = answer.unwrap().into_inner();
    assert!(!answer.duplicate);

    let delivery = soon(captures.next()).await.unwrap();
    assert_eq!(delivery.key, Some(Key::parse("sys-1").unwrap()));
    let queued = delivery.message.clone();
    delivery.ack().await.unwrap();
    assert_eq!(queued.frame_id, answer.frame_id);
    let digest = Digest::of(&request.image);
    let parts: [&[u8]; 4] = [
        b"frame",
        b"sys-1",
        &exposure.to_le_bytes(),
        digest.as_bytes(),
    ];
    assert_eq!(queued.frame_id, Digest::of_parts(&parts).to_hex());
    assert_eq!(queued.sensor_id, "sys-1");
    assert_eq!(queued.captured_unix_nanos, exposure);
    assert_eq!(queued.image, request.image);
    assert_eq!(queued.image_digest, digest.as_bytes().as_slice());
    assert_eq!(queued.media_type, "image/jpeg");
    assert_eq!(queued.mount_pitch_deg, Some(-80.0));
    assert_eq!(queued.intrinsics, request.intrinsics);
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

    let again = door.client.submit_capture(request).await.unwrap();
    let again = again.into_inner();
    assert_eq!((again.frame_id, again.duplicate), (queued.frame_id, true));
    // A vehicle that is not heard is not waited for, and its picture says nothing of a place.
    let unheard = capture("quiet-1", jpeg(10), now());
    door.client.submit_capture(unheard).await.unwrap();
    let quiet = soon(captures.next()).await.unwrap().message;
    assert_eq!(
        (quiet.sensor_id.as_str(), quiet.telemetry),
        ("quiet-1", None)
    );
    assert!(quiet.received_unix_nanos > queued.received_unix_nanos);
    // Without a time of its own a picture belongs to its arrival, and its time stays unknown.
    let untimed = capture("sys-1", jpeg(20), 0);
    door.client.submit_capture(untimed).await.unwrap();
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
        door.client.submit_capture(picture).await.unwrap();
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
        let mut client = door.client.clone();
        submissions.spawn(async move {
            let request = capture("alpha", jpeg(n), 1_700_000_000_000_000_000);
            client.submit_capture(request).await.unwrap();
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
    let limit = door.bus.payload_limit() - (64 << 10);
    let mut bad_camera = capture("alpha", jpeg(10), 5);
    bad_camera.intrinsics = Some(Intrinsics::default());
    let mut bad_mount = capture("alpha", jpeg(10), 5);
    bad_mount.mount_pitch_deg = Some(f64::NAN);
    let mut no_size = jpeg(10);
    no_size[8] = 0;
    for (request, code, names) in [
        (
            capture("a.b", jpeg(10), 5),
            tonic::Code::InvalidArgument,
            "vehicle_id",
        ),
        (
            capture("", jpeg(10), 5),
            tonic::Code::InvalidArgument,
            "vehicle_id",
        ),
        (
            capture("alpha", b"\x89PNG".to_vec(), 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", vec![], 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", no_size, 5),
            tonic::Code::InvalidArgument,
            "image",
        ),
        (
            capture("alpha", jpeg(10), -5),
            tonic::Code::InvalidArgument,
            "captured_unix_nanos",
        ),
        (
            capture("alpha", jpeg(10), now() + 3_600_000_000_000),
            tonic::Code::InvalidArgument,
            "captured_unix_nanos",
        ),
        (bad_camera, tonic::Code::InvalidArgument, "intrinsics."),
        (bad_mount, tonic::Code::InvalidArgument, "mount_pitch_deg"),
        (
            capture("alpha", jpeg(limit), 5),
            tonic::Code::ResourceExhausted,
            &limit.to_string(),
        ),
    ] {
        let status = door.client.submit_capture(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(names), "{names}: {status:?}");
    }
    let largest = jpeg(limit - jpeg(0).len());
    door.client
        .submit_capture(capture("alpha", largest, 5))
        .await
        .unwrap();
    let stats = door.stats().await;
    assert_eq!(stats.rejected_by_reason["INVALID_CAPTURE"], 9);
    assert_eq!(stats.rejected_by_reason["CAPTURE_TOO_LARGE"], 1);
    assert_eq!(stats.accepted_by_type["capture"], 1);
    door.finish().await;
}
