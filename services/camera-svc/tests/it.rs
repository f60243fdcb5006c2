//! The camera service at its boundary: files in, frames on the bus and over gRPC out.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use camera_svc::{CameraConfig, CameraService, Config, SourceKind};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use sovereign_bus::{Bus, Select};
use sovereign_proto::camera::v1::cameras_client::CamerasClient;
use sovereign_proto::camera::v1::{
    CameraState, CameraStatus, GetSnapshotRequest, ListCamerasRequest,
};
use sovereign_proto::topics::CAMERA_FRAME;
use sovereign_service::{Channel, Context, RunError, Service, StopSource};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);

/// A raw MJPEG stream of `frames` frames of 160 x 120; ffmpeg reads it at 25 frames per second.
fn video(folder: &Path, frames: u8) -> PathBuf {
    let mut stream = Vec::new();
    for shade in 0..frames {
        let pixels = vec![shade.wrapping_mul(16); 160 * 120 * 3];
        JpegEncoder::new_with_quality(&mut stream, 90)
            .write_image(&pixels, 160, 120, ExtendedColorType::Rgb8)
            .unwrap();
    }
    let path = folder.join("frames.mjpeg");
    std::fs::write(&path, stream).unwrap();
    path
}

fn file_camera(id: &str, path: PathBuf) -> CameraConfig {
    CameraConfig {
        id: id.to_owned(),
        source: SourceKind::File,
        device_id: None,
        rtsp_url: None,
        file_path: Some(path),
        fps: 30.0,
        width: 1280,
        height: 720,
        quality: 85,
    }
}

struct Running {
    bus: Bus,
    client: CamerasClient<Channel>,
    stop: StopSource,
    service: JoinSet<Result<(), RunError>>,
}

async fn build(folder: &Path, cameras: Vec<CameraConfig>) -> (Bus, CameraService) {
    let bus = Bus::memory(&folder.join("bus.redb"), "test-node").unwrap();
    let context = Context::for_tests(CameraService::NAME, bus.clone(), folder);
    let service = CameraService::build(
        CameraService::settings(Config { cameras }).unwrap(),
        (),
        context,
    )
    .await
    .unwrap();
    (bus, service)
}

fn run(bus: Bus, service: CameraService) -> Running {
    let client = CamerasClient::new(Channel::local(service.routes()));
    let stop = StopSource::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(service.run(stop.stop()));
    Running {
        bus,
        client,
        stop,
        service: tasks,
    }
}

impl Running {
    async fn wait_for(&mut self, wanted: impl Fn(&CameraStatus) -> bool) -> CameraStatus {
        let look = async {
            loop {
                let reply = self
                    .client
                    .list_cameras(ListCamerasRequest {})
                    .await
                    .unwrap();
                let status = reply.into_inner().cameras.remove(0);
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, look)
            .await
            .expect("the camera never got there")
    }

    async fn end(mut self) {
        self.stop.request();
        let ended = tokio::time::timeout(LIMIT, self.service.join_next())
            .await
            .expect("the service did not drain");
        ended.unwrap().unwrap().unwrap();
        self.bus.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_of_a_file_is_published_once_and_then_the_camera_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let camera = file_camera("gate", video(folder.path(), 10));
    let (bus, service) = build(folder.path(), vec![camera]).await;
    let mut frames = bus.subscribe(&CAMERA_FRAME, Select::All).await.unwrap();
    let mut running = run(bus, service);
    let mut last = 0;
    while last < 10 {
        let event = tokio::time::timeout(LIMIT, frames.recv())
            .await
            .expect("no frame")
            .unwrap();
        assert_eq!(event.key.unwrap().as_str(), "gate");
        assert!(event.message.sequence > last);
        assert_eq!(
            (event.message.width_px, event.message.height_px),
            (160, 120)
        );
        last = event.message.sequence;
    }
    let status = running
        .wait_for(|status| status.state() == CameraState::Ended && status.frames == 10)
        .await;
    assert_eq!(status.reconnects, 0);
    let snapshot = running
        .client
        .get_snapshot(GetSnapshotRequest {
            camera_id: "gate".to_owned(),
        })
        .await
        .unwrap()
        .into_inner()
        .frame
        .unwrap();
    assert_eq!(snapshot.sequence, 10);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_is_tried_again_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let camera = file_camera("gate", folder.path().join("absent.mp4"));
    let (bus, service) = build(folder.path(), vec![camera]).await;
    let mut running = run(bus, service);
    let status = running.wait_for(|status| status.reconnects >= 2).await;
    assert_eq!(status.state(), CameraState::Connecting);
    assert!(status.last_error.contains("open the source"), "{status:?}");
    let missing = running
        .client
        .get_snapshot(GetSnapshotRequest {
            camera_id: "gate".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(missing.code(), tonic::Code::Unavailable);
    let unknown = running
        .client
        .get_snapshot(GetSnapshotRequest {
            camera_id: "nobody".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    running.end().await;
}
