//! slam-svc at its boundary: captures and samples in over a memory bus, keyframes, poses and answers out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

#[path = "it/calibrations.rs"]
mod calibrations;
#[path = "it/real.rs"]
mod real;
#[path = "it/rig.rs"]
mod rig;

use std::collections::HashMap;

use slam_svc::{Config, SlamService};
use sovereign_bus::{Appended, Key};
use sovereign_model::geo::{Geodetic, horizontal_distance_m};
use sovereign_objects::ObjectClass;
use sovereign_proto::geo::v1::{self as geo, TrackingState};
use sovereign_proto::mobile::v1::{Sample, SampleType};
use sovereign_proto::slam::v1::{
    GetKeyframeRequest, Keyframe, KeyframeCause, ListKeyframesRequest, PoseSource,
};
use sovereign_proto::tile::v1::FrameRefused;
use sovereign_proto::topics::{DRONE_CAPTURE, MOBILE_CAPTURE, MOBILE_SAMPLE};
use sovereign_service::Service;

use rig::{Sent, capture, start};

#[tokio::test]
async fn a_capture_with_telemetry_becomes_a_keyframe_and_a_pose() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let sent = capture("sys-1", 1);
    slam.capture(&sent).await;

    let keyframe = slam.keyframe().await;
    let sent = sent.capture;
    assert_eq!(keyframe.frame_id, sent.frame_id);
    assert_eq!(keyframe.state(), TrackingState::Tracking);
    assert_eq!(keyframe.source(), PoseSource::Telemetry);
    assert_eq!(keyframe.image_digest, sent.image_digest);
    assert_eq!(keyframe.received_unix_nanos, sent.received_unix_nanos);
    assert_eq!(keyframe.reason, "");
    assert!(keyframe.simulated);
    // Nose to the east, camera through the floor: the top of the picture is east.
    let corners: Vec<_> = keyframe
        .footprint
        .iter()
        .map(|corner| Geodetic::try_from(corner).unwrap())
        .collect();
    assert!((horizontal_distance_m(&corners[0], &corners[1]) - 75.2).abs() < 0.01);
    assert!(corners[0].longitude_deg > corners[3].longitude_deg);
    assert!((corners[0].altitude_m - 400.0).abs() < 0.01);

    let pose = slam.pose().await;
    assert_eq!(pose.frame_id, sent.frame_id);
    assert_eq!(pose.state(), TrackingState::Tracking);
    assert_eq!(pose.observed_unix_nanos, sent.captured_unix_nanos);
    assert_eq!(pose.pose, keyframe.pose);
    slam.end().await;
}

#[tokio::test]
async fn every_capture_has_one_keyframe_in_the_order_of_its_sensor() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let (sensors, frames) = (["sys-1", "sys-2", "sys-3", "av_7"], 12);
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..frames {
        for sensor in sensors {
            let sent = capture(sensor, number);
            assert_eq!(slam.capture(&sent).await, Appended::Stored);
            // The same picture sent twice is one frame.
            assert_eq!(slam.capture(&sent).await, Appended::Duplicate);
            expected
                .entry(sensor.to_owned())
                .or_default()
                .push(sent.capture.frame_id);
        }
    }
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..sensors.len() * frames as usize {
        let keyframe = slam.keyframe().await;
        seen.entry(keyframe.sensor_id)
            .or_default()
            .push(keyframe.frame_id);
    }
    assert_eq!(seen, expected);
    slam.end().await;
}

#[tokio::test]
async fn what_cannot_be_placed_is_lost_with_a_reason_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;

    let mut gone = capture("sys-1", 1);
    gone.capture.image_digest = vec![7; 32].into();
    let not_a_picture = Sent::of(capture("sys-1", 2).capture, b"hello".to_vec());
    let mut silent = capture("sys-1", 3);
    silent.capture.telemetry = None;
    let mut no_camera = capture("sys-1", 4);
    no_camera.capture.intrinsics = None;
    let mut impossible = capture("sys-1", 5);
    let fix = impossible.capture.telemetry.as_mut().unwrap();
    fix.position.as_mut().unwrap().latitude_deg = 91.0;
    let mut absurd = capture("sys-1", 6);
    absurd.capture.intrinsics.as_mut().unwrap().fx_px = f64::NAN;

    for (sent, reason, source) in [
        (
            gone,
            "the picture is not in the content store any more",
            PoseSource::Unspecified,
        ),
        (
            not_a_picture,
            "the picture is no picture, and only JPEG is read",
            PoseSource::Unspecified,
        ),
        (silent, "no position", PoseSource::Unspecified),
        (
            no_camera,
            "the focal length of the camera is unknown",
            PoseSource::PositionOnly,
        ),
        (
            impossible,
            "telemetry.position.latitude_deg is 91, which is out of range",
            PoseSource::Unspecified,
        ),
        (absurd, "intrinsics.fx_px is NaN", PoseSource::Unspecified),
    ] {
        slam.capture(&sent).await;
        let keyframe = slam.keyframe().await;
        assert_eq!(keyframe.frame_id, sent.capture.frame_id);
        assert_eq!(keyframe.state(), TrackingState::Lost);
        assert_eq!(keyframe.pose, None);
        assert_eq!(keyframe.source(), source);
        assert!(keyframe.reason.starts_with(reason), "{}", keyframe.reason);
    }

    let good = capture("sys-1", 7);
    slam.capture(&good).await;
    assert_eq!(slam.keyframe().await.state(), TrackingState::Tracking);
    slam.end().await;
}

#[tokio::test]
async fn a_capture_that_cannot_be_named_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let mut nameless = capture("sys-1", 1).capture;
    nameless.frame_id = "frame one".to_owned();
    let key = Key::parse("sys-1").unwrap();
    slam.bus
        .append(&DRONE_CAPTURE, Some(&key), "nameless", &nameless)
        .await
        .unwrap();
    let stray = capture("sys-2", 1).capture;
    slam.bus
        .append(&DRONE_CAPTURE, Some(&key), "stray", &stray)
        .await
        .unwrap();
    let good = capture("sys-1", 2);
    slam.capture(&good).await;
    assert_eq!(slam.keyframe().await.frame_id, good.capture.frame_id);
    slam.end().await;
}

#[tokio::test]
async fn a_phone_is_a_position_by_picture_and_by_sample() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let phone = Key::parse("phone-1").unwrap();
    let sample = |kind: SampleType, position| Sample {
        client_id: "phone-1".to_owned(),
        r#type: kind.into(),
        observed_unix_nanos: 5,
        received_unix_nanos: 6,
        position,
        values: HashMap::new(),
        simulated: false,
    };
    let here = geo::GeoPoint {
        latitude_deg: 55.7,
        longitude_deg: 13.2,
        altitude_m: None,
    };
    let nowhere = geo::GeoPoint {
        latitude_deg: f64::NAN,
        ..here
    };
    for (id, sample) in [
        ("a", sample(SampleType::Accelerometer, None)),
        ("b", sample(SampleType::Gps, Some(nowhere))),
        ("c", sample(SampleType::Gps, None)),
        ("d", sample(SampleType::Gps, Some(here))),
    ] {
        slam.bus
            .append(&MOBILE_SAMPLE, Some(&phone), id, &sample)
            .await
            .unwrap();
    }
    let event = slam.pose().await;
    assert_eq!(
        (event.sensor_id.as_str(), event.observed_unix_nanos),
        ("phone-1", 5)
    );
    assert_eq!(event.source(), PoseSource::PositionOnly);
    let pose = event.pose.unwrap();
    assert_eq!((pose.position, pose.enu_from_camera), (Some(here), None));
    assert_eq!(pose.height_above_ground_m, None, "unknown is not zero");

    let street = capture("phone-1", 1);
    slam.store.put(ObjectClass::Picture, street.image);
    let mut street = street.capture;
    street.telemetry.as_mut().unwrap().attitude = None;
    slam.bus
        .append(&MOBILE_CAPTURE, Some(&phone), &street.frame_id, &street)
        .await
        .unwrap();
    let keyframe = slam.keyframe().await;
    assert_eq!(keyframe.state(), TrackingState::Lost);
    assert!(
        keyframe.reason.starts_with("no attitude"),
        "{}",
        keyframe.reason
    );
    let event = slam.pose().await;
    assert_eq!(event.state(), TrackingState::Tracking);
    assert_eq!(event.source(), PoseSource::PositionOnly);
    slam.end().await;
}

#[tokio::test]
async fn keyframes_are_answered_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let mut sent = Vec::new();
    for number in 0..3 {
        for sensor in ["sys-1", "sys-2"] {
            let capture = capture(sensor, number);
            slam.capture(&capture).await;
            slam.keyframe().await;
            sent.push(capture.capture);
        }
    }
    slam.end().await;

    let mut slam = start(dir.path(), Config::default()).await;
    let get = |frame_id: &str| GetKeyframeRequest {
        frame_id: frame_id.to_owned(),
    };
    let answer = slam
        .client
        .get_keyframe(get(&sent[0].frame_id))
        .await
        .unwrap();
    let keyframe = answer.into_inner().keyframe.unwrap();
    assert_eq!(keyframe.frame_id, sent[0].frame_id);
    assert_eq!(keyframe.state(), TrackingState::Tracking);
    let unknown = slam.client.get_keyframe(get("unknown")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let empty = slam.client.get_keyframe(get("")).await.unwrap_err();
    assert_eq!(empty.code(), tonic::Code::InvalidArgument);

    let list = |sensor_id: &str, limit| ListKeyframesRequest {
        sensor_id: sensor_id.to_owned(),
        limit,
        after: None,
    };
    let ids = |keyframes: Vec<Keyframe>| -> Vec<String> {
        keyframes.into_iter().map(|k| k.frame_id).collect()
    };
    let all = slam.client.list_keyframes(list("", 0)).await.unwrap();
    assert_eq!(
        ids(all.into_inner().keyframes),
        sent.iter().map(|c| c.frame_id.clone()).collect::<Vec<_>>()
    );
    let newest = slam.client.list_keyframes(list("sys-2", 2)).await.unwrap();
    assert_eq!(
        ids(newest.into_inner().keyframes),
        [sent[3].frame_id.clone(), sent[5].frame_id.clone()]
    );
    let after = |after| ListKeyframesRequest {
        after: Some(after),
        ..list("", 0)
    };
    let first = slam.client.list_keyframes(list("", 1)).await.unwrap();
    let position = first.into_inner().position;
    let next = slam.client.list_keyframes(after(position - 2)).await;
    let next = next.unwrap().into_inner();
    assert_eq!(next.position, position);
    assert_eq!(
        ids(next.keyframes),
        [sent[4].frame_id.clone(), sent[5].frame_id.clone()]
    );
    let ahead = slam.client.list_keyframes(after(position + 1)).await;
    let ahead = ahead.unwrap_err();
    assert_eq!(ahead.code(), tonic::Code::FailedPrecondition);
    assert!(ahead.message().starts_with("`after` is "), "{ahead}");
    slam.end().await;
}

#[tokio::test]
async fn a_frame_that_the_painter_refuses_is_not_tracked_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let sent = capture("sys-1", 1);
    slam.capture(&sent).await;
    let first = slam.keyframe().await;
    assert_eq!(first.state(), TrackingState::Tracking);
    let refusal = |revision| FrameRefused {
        frame_id: first.frame_id.clone(),
        sensor_id: first.sensor_id.clone(),
        revision,
        reason: "the picture is of the sky".to_owned(),
    };
    slam.refuse("1", &refusal(0)).await;
    let second = slam.keyframe().await;
    assert_eq!(
        (second.revision, second.cause()),
        (1, KeyframeCause::Refused)
    );
    assert_eq!(second.state(), TrackingState::Lost);
    assert_eq!(second.reason, "the picture is of the sky");
    assert_eq!(
        second.pose, first.pose,
        "where it was taken is known all the same"
    );
    assert!(second.footprint.is_empty());

    // Late news of an older verdict, and of a frame that nobody knows, say nothing.
    slam.refuse("2", &refusal(0)).await;
    slam.refuse(
        "3",
        &FrameRefused {
            frame_id: "unknown".to_owned(),
            ..refusal(0)
        },
    )
    .await;
    slam.capture(&capture("sys-1", 2)).await;
    let next = slam.keyframe().await;
    assert_eq!((next.revision, next.state()), (0, TrackingState::Tracking));
    let get = GetKeyframeRequest {
        frame_id: first.frame_id.clone(),
    };
    let known = slam.client.get_keyframe(get).await.unwrap().into_inner();
    assert_eq!(known.keyframe, Some(second));
    assert_eq!(known.earlier, [first]);
    slam.end().await;
}

#[tokio::test]
async fn a_capture_delivered_again_keeps_its_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let sent = capture("sys-1", 1);
    let mut slam = start(dir.path(), Config::default()).await;
    slam.capture(&sent).await;
    let first = slam.keyframe().await;
    slam.end().await;

    // Another ground elevation would give another pose; the frame has its verdict already.
    let moved = Config {
        ground_elevation_m: Some(300.0),
        ..Config::default()
    };
    let mut slam = start(dir.path(), moved).await;
    let key = Key::parse("sys-1").unwrap();
    slam.bus
        .append(
            &DRONE_CAPTURE,
            Some(&key),
            "the-same-once-more",
            &sent.capture,
        )
        .await
        .unwrap();
    let next = capture("sys-1", 2);
    slam.capture(&next).await;
    let keyframe = slam.keyframe().await;
    assert_eq!(
        keyframe.frame_id, next.capture.frame_id,
        "no second keyframe of a frame"
    );
    assert_eq!(keyframe.pose.unwrap().height_above_ground_m, Some(160.0));
    // A pose is published before its keyframe, so one of the first frame would be here by now.
    assert_eq!(slam.poses.received(), 1, "no second pose of a frame");
    let kept = slam
        .client
        .get_keyframe(GetKeyframeRequest {
            frame_id: sent.capture.frame_id.clone(),
        })
        .await
        .unwrap()
        .into_inner()
        .keyframe
        .unwrap();
    assert_eq!(kept, first);
    slam.end().await;
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_its_key() {
    let config = Config {
        ground_elevation_m: Some(1e6),
        ..Config::default()
    };
    let error = SlamService::settings(config).err().unwrap();
    assert_eq!(
        error.to_string(),
        "`ground_elevation_m` must be -500 to 9000"
    );
}

#[tokio::test]
async fn a_scan_gets_no_keyframe_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let mut scan = capture("sys-1", 1);
    scan.capture.media_type = "model/ply".to_owned();
    slam.capture(&scan).await;
    let next = capture("sys-1", 2);
    slam.capture(&next).await;
    assert_eq!(slam.keyframe().await.frame_id, next.capture.frame_id);
    slam.end().await;
}

#[tokio::test]
async fn a_capture_waits_for_the_content_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let sent = capture("sys-1", 1);
    slam.store.set_away(true);
    slam.capture(&sent).await;
    slam.store.set_away(false);
    assert_eq!(slam.keyframe().await.state(), TrackingState::Tracking);
    slam.end().await;
}
