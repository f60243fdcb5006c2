//! slam-svc at its boundary: captures and samples in over a memory bus, keyframes, poses and answers out.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slam_svc::{Config, SlamService};
use sovereign_bus::{Appended, Bus, Consumer, Key, Mailbox, Select};
use sovereign_model::geo::{Enu, Geodetic, LocalFrame, horizontal_distance_m};
use sovereign_model::{CameraPose, Digest, Intrinsics};
use sovereign_proto::geo::v1::{self as geo, Capture, TelemetryFix, TrackingState};
use sovereign_proto::mobile::v1::{Sample, SampleType};
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::slam::v1::{
    GetKeyframeRequest, Keyframe, ListKeyframesRequest, PoseEvent, PoseSource,
};
use sovereign_proto::topics::{
    DRONE_CAPTURE, MOBILE_CAPTURE, MOBILE_SAMPLE, SLAM_KEYFRAME, SLAM_POSE,
};
use sovereign_service::{Channel, Context, RunError, Service, StopSource};
use tokio::task::JoinHandle;

/// Nothing here takes long; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// The service under test, running, and both ends of its bus.
struct Running {
    bus: Bus,
    keyframes: Consumer<Keyframe>,
    poses: Mailbox<PoseEvent>,
    client: SlamClient<Channel>,
    stop: StopSource,
    task: JoinHandle<Result<(), RunError>>,
}

async fn start(dir: &Path, config: Config) -> Running {
    let bus = Bus::memory(&dir.join("journal.redb"), "test-node").unwrap();
    let keyframes = bus.consume(&SLAM_KEYFRAME, "test").await.unwrap();
    let poses = bus.subscribe(&SLAM_POSE, Select::All).await.unwrap();
    let context = Context::for_tests(SlamService::NAME, bus.clone(), dir);
    let ready = context.ready.clone();
    let service = SlamService::build(config, (), context).await.unwrap();
    let client = SlamClient::new(Channel::local(service.routes()));
    let stop = StopSource::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "the test owns the task: Running::end awaits it"
    )]
    let task = tokio::spawn(service.run(stop.stop()));
    tokio::time::timeout(LIMIT, ready.wait()).await.unwrap();
    Running {
        bus,
        keyframes,
        poses,
        client,
        stop,
        task,
    }
}

impl Running {
    async fn capture(&self, capture: &Capture) -> Appended {
        let key = Key::parse(&capture.sensor_id).unwrap();
        self.bus
            .append(&DRONE_CAPTURE, Some(&key), &capture.frame_id, capture)
            .await
            .unwrap()
    }

    /// The next keyframe, acknowledged.
    async fn keyframe(&mut self) -> Keyframe {
        let delivery = tokio::time::timeout(LIMIT, self.keyframes.next())
            .await
            .unwrap()
            .unwrap();
        let keyframe = delivery.message.clone();
        assert_eq!(delivery.headers.message_id, keyframe.frame_id);
        delivery.ack().await.unwrap();
        keyframe
    }

    async fn pose(&mut self) -> PoseEvent {
        tokio::time::timeout(LIMIT, self.poses.recv())
            .await
            .unwrap()
            .unwrap()
            .message
    }

    async fn end(self) {
        self.stop.request();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.bus.close().await;
    }
}

/// The headers of a 752 x 480 JPEG and some bytes that make it one of its own.
fn picture(number: u32) -> Vec<u8> {
    let mut bytes = vec![
        0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 1, 224, 2, 240, 1, 1, 0x11, 0,
    ];
    bytes.extend([0xFF, 0xDA, 0, 2]);
    bytes.extend(number.to_be_bytes());
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// A capture with telemetry and a camera, as a drone in the air sends it.
fn capture(sensor: &str, number: u32) -> Capture {
    let image = picture(number);
    let captured = 1_700_000_000_000_000_000 + i64::from(number) * 50_000_000;
    let digest = Digest::of(&image);
    Capture {
        frame_id: Digest::of_parts(&[
            b"frame",
            sensor.as_bytes(),
            &captured.to_le_bytes(),
            digest.as_bytes(),
        ])
        .to_hex(),
        sensor_id: sensor.to_owned(),
        captured_unix_nanos: captured,
        received_unix_nanos: captured + 1_000,
        image_digest: digest.as_bytes().to_vec().into(),
        media_type: "image/jpeg".to_owned(),
        image: image.into(),
        telemetry: Some(TelemetryFix {
            position: Some(geo::GeoPoint {
                latitude_deg: 47.0,
                longitude_deg: 8.0,
                altitude_m: Some(460.0),
            }),
            relative_altitude_m: Some(60.0),
            attitude: Some(geo::Attitude {
                roll_deg: 0.0,
                pitch_deg: 0.0,
                yaw_deg: 90.0,
            }),
            attitude_is_camera: false,
            time_offset_nanos: 0,
        }),
        intrinsics: Some(Intrinsics::from_focal_px(752, 480, 600.0).unwrap().into()),
        mount_pitch_deg: None,
        simulated: true,
    }
}

#[tokio::test]
async fn a_capture_with_telemetry_becomes_a_keyframe_and_a_pose() {
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let sent = capture("sys-1", 1);
    slam.capture(&sent).await;

    let keyframe = slam.keyframe().await;
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
                .push(sent.frame_id);
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

    let mut corrupt = capture("sys-1", 1);
    corrupt.image_digest = vec![7; 32].into();
    let mut not_a_picture = capture("sys-1", 2);
    not_a_picture.image = b"hello".to_vec().into();
    not_a_picture.image_digest = Digest::of(b"hello").as_bytes().to_vec().into();
    let mut silent = capture("sys-1", 3);
    silent.telemetry = None;
    let mut no_camera = capture("sys-1", 4);
    no_camera.intrinsics = None;
    let mut impossible = capture("sys-1", 5);
    impossible
        .telemetry
        .as_mut()
        .unwrap()
        .position
        .as_mut()
        .unwrap()
        .latitude_deg = 91.0;
    let mut absurd = capture("sys-1", 6);
    absurd.intrinsics.as_mut().unwrap().fx_px = f64::NAN;

    for (sent, reason, source) in [
        (
            corrupt,
            "the picture does not match its digest",
            PoseSource::Unspecified,
        ),
        (
            not_a_picture,
            "the picture cannot be read: not a JPEG",
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
        assert_eq!(keyframe.frame_id, sent.frame_id);
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
    let mut nameless = capture("sys-1", 1);
    nameless.frame_id = "frame one".to_owned();
    let key = Key::parse("sys-1").unwrap();
    slam.bus
        .append(&DRONE_CAPTURE, Some(&key), "nameless", &nameless)
        .await
        .unwrap();
    let stray = capture("sys-2", 1);
    slam.bus
        .append(&DRONE_CAPTURE, Some(&key), "stray", &stray)
        .await
        .unwrap();
    let good = capture("sys-1", 2);
    slam.capture(&good).await;
    assert_eq!(slam.keyframe().await.frame_id, good.frame_id);
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

    let mut street = capture("phone-1", 1);
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
            sent.push(capture);
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
        .append(&DRONE_CAPTURE, Some(&key), "the-same-once-more", &sent)
        .await
        .unwrap();
    let next = capture("sys-1", 2);
    slam.capture(&next).await;
    let keyframe = slam.keyframe().await;
    assert_eq!(
        keyframe.frame_id, next.frame_id,
        "no second keyframe of a frame"
    );
    assert_eq!(keyframe.pose.unwrap().height_above_ground_m, 160.0);
    let kept = slam
        .client
        .get_keyframe(GetKeyframeRequest {
            frame_id: sent.frame_id.clone(),
        })
        .await
        .unwrap()
        .into_inner()
        .keyframe
        .unwrap();
    assert_eq!(kept, first);
    slam.end().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal.redb"), "test-node").unwrap();
    let context = Context::for_tests(SlamService::NAME, bus, dir.path());
    let config = Config {
        ground_elevation_m: Some(1e6),
        ..Config::default()
    };
    let error = SlamService::build(config, (), context).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "`ground_elevation_m` must be -500 to 9000"
    );
}

/// A folder of real data, or a line that says why it is not there.
#[expect(
    clippy::print_stdout,
    reason = "a test that skips says so where its runner shows it"
)]
fn real_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SOVEREIGN_DATA")
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        )
        .join(name);
    if folder.join("images").is_dir() {
        Some(folder)
    } else {
        println!(
            "skipped: no real data in {} (set SOVEREIGN_DATA)",
            folder.display()
        );
        None
    }
}

/// A line of the reference: centre and rotation in a local frame.
struct Reference {
    name: String,
    centre: Enu,
    enu_from_camera: nalgebra::UnitQuaternion<f64>,
}

fn references(folder: &Path) -> Vec<Reference> {
    std::fs::read_to_string(folder.join("reference_poses_colmap.csv"))
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("DJI_"))
        .map(|line| {
            let mut fields = line.split(',');
            let name = fields.next().unwrap().to_owned();
            let n: Vec<f64> = fields.map(|field| field.parse().unwrap()).collect();
            Reference {
                name,
                centre: Enu {
                    east: n[0],
                    north: n[1],
                    up: n[2],
                },
                enu_from_camera: nalgebra::UnitQuaternion::from_quaternion(
                    nalgebra::Quaternion::new(n[3], n[4], n[5], n[6]),
                ),
            }
        })
        .collect()
}

#[tokio::test]
async fn the_real_survey_is_placed_as_its_reconstruction_says() {
    let Some(folder) = real_data("aerial-brighton-beach") else {
        return;
    };
    // Origin of the reference: latitude and longitude as its first line says, altitude zero.
    let frame = LocalFrame::at(Geodetic::new(46.842_656_667, -91.994_008_025, 0.0).unwrap());
    let references = references(&folder);
    assert_eq!(references.len(), 10);
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    for reference in &references {
        let image = std::fs::read(folder.join("images").join(&reference.name)).unwrap();
        let digest = Digest::of(&image);
        let sent = Capture {
            frame_id: Digest::of(reference.name.as_bytes()).to_hex(),
            sensor_id: "brighton".to_owned(),
            received_unix_nanos: 1,
            image_digest: digest.as_bytes().to_vec().into(),
            image: image.into(),
            ..Capture::default()
        };
        slam.capture(&sent).await;
        let keyframe = slam.keyframe().await;
        let name = &reference.name;
        assert_eq!(
            keyframe.state(),
            TrackingState::Tracking,
            "{name}: {}",
            keyframe.reason
        );
        assert_eq!(keyframe.source(), PoseSource::ImageMetadata);
        assert_eq!(keyframe.footprint.len(), 4);

        let pose = CameraPose::try_from(keyframe.pose.as_ref().unwrap()).unwrap();
        let centre = frame.enu_from_geodetic(&pose.position);
        let off_m =
            (centre.east - reference.centre.east).hypot(centre.north - reference.centre.north);
        assert!(off_m < 2.0, "{name}: {off_m:.2} m from the reference");
        assert!((centre.up - reference.centre.up).abs() < 2.0, "{name}");

        let image_up = -nalgebra::Vector3::y();
        let azimuth = |rotation: &nalgebra::UnitQuaternion<f64>| {
            let up = rotation * image_up;
            up.x.atan2(up.y).to_degrees()
        };
        let off_deg = (azimuth(&pose.enu_from_camera) - azimuth(&reference.enu_from_camera)
            + 540.0)
            .rem_euclid(360.0)
            - 180.0;
        assert!(
            off_deg.abs() < 5.0,
            "{name}: turned by {off_deg:.1} degrees"
        );

        // What neighbours agree on: 0.01663 m a pixel.
        let camera = Intrinsics::try_from(keyframe.intrinsics.as_ref().unwrap()).unwrap();
        let metres_per_pixel = pose.height_above_ground_m / camera.fx_px();
        assert!(
            (metres_per_pixel / 0.016_63 - 1.0).abs() < 0.02,
            "{name}: {metres_per_pixel}"
        );
        println!("{name}: {off_m:.2} m, {off_deg:.1} degrees, {metres_per_pixel:.5} m a pixel");
    }
    slam.end().await;
}

#[tokio::test]
async fn real_phone_pictures_are_positions() {
    let Some(folder) = real_data("phone-photos-lund") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut slam = start(dir.path(), Config::default()).await;
    let phone = Key::parse("phone-1").unwrap();
    let mut pictures: Vec<_> = std::fs::read_dir(folder.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pictures.sort();
    assert_eq!(pictures.len(), 15);
    for path in pictures {
        let image = std::fs::read(&path).unwrap();
        let digest = Digest::of(&image);
        let sent = Capture {
            frame_id: digest.to_hex(),
            sensor_id: "phone-1".to_owned(),
            image_digest: digest.as_bytes().to_vec().into(),
            image: image.into(),
            ..Capture::default()
        };
        slam.bus
            .append(&MOBILE_CAPTURE, Some(&phone), &sent.frame_id, &sent)
            .await
            .unwrap();
        let keyframe = slam.keyframe().await;
        assert!(
            keyframe.reason.starts_with("no attitude"),
            "{}",
            keyframe.reason
        );
        let pose = slam.pose().await.pose.unwrap();
        let position = pose.position.unwrap();
        // Lund, Sweden.
        assert!((position.latitude_deg - 55.7).abs() < 0.1, "{position:?}");
        assert!((position.longitude_deg - 13.2).abs() < 0.1, "{position:?}");
    }
    slam.end().await;
}
