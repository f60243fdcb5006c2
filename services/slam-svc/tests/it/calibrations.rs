//! Somebody says what a camera really is.

use std::path::Path;

use slam_svc::Config;
use sovereign_objects::memory::MemoryStore;
use sovereign_proto::geo::v1::{PictureFacts, TrackingState};
use sovereign_proto::slam::v1::{
    Calibration, GetKeyframeRequest, GetKeyframeResponse, Keyframe, KeyframeCause,
    ListCalibrationsRequest, RemoveCalibrationRequest, SetCalibrationRequest,
};

use crate::rig::{LIMIT, Running, Sent, capture, start_with};

/// A picture that names its camera, and nothing else about it.
fn of_camera(sensor: &str, number: u32, model: &str) -> Sent {
    use exif::experimental::Writer;
    use exif::{Field, In, Tag, Value};

    let Sent { mut capture, image } = capture(sensor, number);
    let field = Field {
        tag: Tag::Model,
        ifd_num: In::PRIMARY,
        value: Value::Ascii(vec![model.as_bytes().to_vec()]),
    };
    let mut writer = Writer::new();
    writer.push_field(&field);
    let mut tiff = std::io::Cursor::new(Vec::new());
    writer.write(&mut tiff, true).unwrap();
    let payload = [b"Exif\0\0".to_vec(), tiff.into_inner()].concat();
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1];
    bytes.extend(u16::try_from(payload.len() + 2).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes.extend(&image[2..]);
    capture.intrinsics = None;
    capture.picture = Some(PictureFacts {
        width_px: 752,
        height_px: 480,
        camera_model: model.to_owned(),
    });
    Sent::of(capture, bytes)
}

fn calibration(model: &str, sensor: &str, focal: f64) -> Calibration {
    Calibration {
        camera_model: model.to_owned(),
        sensor_id: sensor.to_owned(),
        focal_px_per_width: focal,
        k1: -0.01,
        k2: 0.002,
        set_unix_nanos: 0,
    }
}

impl Running {
    async fn set(&mut self, calibration: Calibration) -> u64 {
        let request = SetCalibrationRequest {
            calibration: Some(calibration),
        };
        let answer = self.client.set_calibration(request).await.unwrap();
        answer.into_inner().frames
    }

    async fn remove(&mut self, model: &str, sensor: &str) -> Result<u64, tonic::Status> {
        let request = RemoveCalibrationRequest {
            camera_model: model.to_owned(),
            sensor_id: sensor.to_owned(),
        };
        let answer = self.client.remove_calibration(request).await?;
        Ok(answer.into_inner().frames)
    }

    async fn get(&mut self, frame_id: &str) -> GetKeyframeResponse {
        let request = GetKeyframeRequest {
            frame_id: frame_id.to_owned(),
        };
        self.client
            .get_keyframe(request)
            .await
            .unwrap()
            .into_inner()
    }

    async fn nobody_waits(&mut self) {
        let started = std::time::Instant::now();
        loop {
            let request = ListCalibrationsRequest {};
            let answer = self.client.list_calibrations(request).await.unwrap();
            if answer.into_inner().frames_waiting == 0 {
                return;
            }
            assert!(started.elapsed() < LIMIT);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

fn focal_px(keyframe: &Keyframe) -> f64 {
    keyframe.intrinsics.unwrap().fx_px
}

async fn started(dir: &Path, store: &MemoryStore) -> Running {
    start_with(dir, Config::default(), store.clone()).await
}

#[tokio::test]
async fn a_calibration_judges_the_frames_of_its_camera_again_and_nobody_elses() {
    let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let mut slam = started(dir.path(), &store).await;
    let unknown = of_camera("sys-1", 1, "X100");
    let other = of_camera("sys-2", 2, "Y200");
    for sent in [&unknown, &other] {
        slam.capture(sent).await;
        let first = slam.keyframe().await;
        assert_eq!(first.state(), TrackingState::Lost, "{}", first.reason);
        assert_eq!((first.revision, first.cause()), (0, KeyframeCause::Direct));
        slam.pose().await;
    }
    assert_eq!(slam.set(calibration(" X100 ", "", 0.8)).await, 1);
    let revised = slam.keyframe().await;
    assert_eq!(revised.frame_id, unknown.capture.frame_id);
    assert_eq!(revised.state(), TrackingState::Tracking);
    assert_eq!(
        (revised.revision, revised.cause()),
        (1, KeyframeCause::Calibration)
    );
    assert!((focal_px(&revised) - 0.8 * 752.0).abs() < 1e-9);
    let camera = revised.intrinsics.unwrap();
    assert_eq!((camera.k1, camera.k2), (-0.01, 0.002));

    // The sensor's own comes before that of its model, and what comes after it is judged by it.
    assert_eq!(slam.set(calibration("X100", "sys-1", 0.9)).await, 1);
    let own = slam.keyframe().await;
    assert!((focal_px(&own) - 0.9 * 752.0).abs() < 1e-9);
    let next = of_camera("sys-1", 3, "X100");
    slam.capture(&next).await;
    let next = slam.keyframe().await;
    assert_eq!((next.revision, focal_px(&next)), (0, focal_px(&own)));

    // History, the newest first; another process knows it too.
    slam.nobody_waits().await;
    slam.end().await;
    let mut slam = started(dir.path(), &store).await;
    let kept = slam.get(&unknown.capture.frame_id).await;
    assert_eq!(kept.keyframe.as_ref(), Some(&own));
    let revisions: Vec<u32> = kept.earlier.iter().map(|k| k.revision).collect();
    assert_eq!(revisions, [1, 0]);

    // Without them it is as it was, as one more revision.
    assert_eq!(slam.remove("X100", "sys-1").await.unwrap(), 2);
    let back: Vec<f64> = [slam.keyframe().await, slam.keyframe().await]
        .iter()
        .map(focal_px)
        .collect();
    assert!(back.iter().all(|focal| (focal - 0.8 * 752.0).abs() < 1e-9));
    slam.nobody_waits().await;
    slam.remove("X100", "").await.unwrap();
    let lost = slam.keyframe().await;
    assert_eq!((lost.state(), lost.revision), (TrackingState::Lost, 4));
    let gone = slam.remove("X100", "").await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound);
    slam.end().await;
}

#[tokio::test]
async fn frames_that_wait_are_judged_after_a_stop_and_one_without_its_picture_stays_as_it_is() {
    let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let mut slam = started(dir.path(), &store).await;
    let sent: Vec<Sent> = (0..3).map(|n| of_camera("sys-1", n, "X100")).collect();
    for sent in &sent {
        slam.capture(sent).await;
        slam.keyframe().await;
    }
    store.remove(sovereign_model::Digest::of(&sent[1].image));
    store.set_away(true);
    assert_eq!(slam.set(calibration("X100", "", 0.8)).await, 3);
    slam.end().await;
    store.set_away(false);
    let mut slam = started(dir.path(), &store).await;
    for expected in [&sent[0], &sent[2]] {
        let revised = slam.keyframe().await;
        assert_eq!(revised.frame_id, expected.capture.frame_id);
        assert_eq!(revised.revision, 1);
    }
    slam.nobody_waits().await;
    let left = slam.get(&sent[1].capture.frame_id).await;
    assert_eq!(left.keyframe.unwrap().revision, 0);
    slam.end().await;
}

#[tokio::test]
async fn a_calibration_that_changes_nothing_gives_no_verdict() {
    let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let mut slam = started(dir.path(), &store).await;
    // The sender's own calibration is the better word.
    let mut given = of_camera("sys-1", 1, "X100");
    given.capture.intrinsics = capture("sys-1", 1).capture.intrinsics;
    slam.capture(&given).await;
    let first = slam.keyframe().await;
    assert_eq!(slam.set(calibration("X100", "", 0.8)).await, 1);
    slam.nobody_waits().await;
    assert_eq!(
        slam.get(&given.capture.frame_id).await.keyframe,
        Some(first)
    );
    slam.end().await;
}

#[tokio::test]
async fn a_calibration_that_no_camera_has_is_refused_by_its_field() {
    let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let mut slam = started(dir.path(), &store).await;
    let mut absurd = calibration("X100", "", 0.8);
    absurd.k2 = f64::NAN;
    for (calibration, field) in [
        (None, "calibration is missing"),
        (Some(calibration(" ", "", 0.8)), "calibration.camera_model"),
        (
            Some(calibration("X100", "a.b", 0.8)),
            "calibration.sensor_id",
        ),
        (
            Some(calibration("X100", "", 0.0)),
            "calibration.focal_px_per_width",
        ),
        (Some(absurd), "calibration.k2"),
    ] {
        let request = SetCalibrationRequest { calibration };
        let refused = slam.client.set_calibration(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(field), "{}", refused.message());
    }
    slam.end().await;
}
