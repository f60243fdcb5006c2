//! A running slam-svc with a bus in memory and a client, and captures as a drone sends them.

use std::path::Path;
use std::time::Duration;

use slam_svc::{Calls, Config, SlamService};
use sovereign_bus::{Appended, Bus, Consumer, Key, Mailbox, Select};
use sovereign_model::{Digest, Intrinsics};
use sovereign_objects::ObjectClass;
use sovereign_objects::memory::MemoryStore;
use sovereign_proto::geo::v1::{self as geo, Capture, TelemetryFix};
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::slam::v1::{Keyframe, PoseEvent};
use sovereign_proto::tile::v1::FrameRefused;
use sovereign_proto::topics::{DRONE_CAPTURE, SLAM_KEYFRAME, SLAM_POSE, TILE_REFUSED};
use sovereign_service::{Channel, Context, RunError, Service, StopSource};
use tokio::task::JoinHandle;

/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The service under test, running, and both ends of its bus.
pub(crate) struct Running {
    pub(crate) bus: Bus,
    pub(crate) store: MemoryStore,
    pub(crate) keyframes: Consumer<Keyframe>,
    pub(crate) poses: Mailbox<PoseEvent>,
    pub(crate) client: SlamClient<Channel>,
    stop: StopSource,
    task: JoinHandle<Result<(), RunError>>,
}

pub(crate) async fn start(dir: &Path, config: Config) -> Running {
    start_with(dir, config, MemoryStore::new()).await
}

/// With a content store that was there before.
pub(crate) async fn start_with(dir: &Path, config: Config, store: MemoryStore) -> Running {
    let bus = Bus::memory(&dir.join("journal.redb"), "test-node").unwrap();
    let keyframes = bus.consume(&SLAM_KEYFRAME, "test").await.unwrap();
    let poses = bus.subscribe(&SLAM_POSE, Select::All).await.unwrap();
    let context = Context::for_tests(SlamService::NAME, bus.clone(), dir);
    let ready = context.ready.clone();
    let calls = Calls {
        checkpoint: store.channel(),
    };
    let service = SlamService::build(SlamService::settings(config).unwrap(), calls, context)
        .await
        .unwrap();
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
        store,
        keyframes,
        poses,
        client,
        stop,
        task,
    }
}

impl Running {
    /// As a door does it: the picture, then its record.
    pub(crate) async fn capture(&self, sent: &Sent) -> Appended {
        self.store.put(ObjectClass::Picture, sent.image.clone());
        self.append(&sent.capture).await
    }

    pub(crate) async fn append(&self, capture: &Capture) -> Appended {
        let key = Key::parse(&capture.sensor_id).unwrap();
        self.bus
            .append(&DRONE_CAPTURE, Some(&key), &capture.frame_id, capture)
            .await
            .unwrap()
    }

    /// The painter says that it refused a frame.
    pub(crate) async fn refuse(&self, id: &str, refusal: &FrameRefused) {
        let key = Key::parse(&refusal.sensor_id).unwrap();
        let told = self.bus.append(&TILE_REFUSED, Some(&key), id, refusal);
        told.await.unwrap();
    }

    /// The next keyframe, acknowledged.
    pub(crate) async fn keyframe(&mut self) -> Keyframe {
        let delivery = tokio::time::timeout(LIMIT, self.keyframes.next())
            .await
            .unwrap()
            .unwrap();
        let keyframe = delivery.message.clone();
        let id = match keyframe.revision {
            0 => keyframe.frame_id.clone(),
            revision => format!("{}.{revision}", keyframe.frame_id),
        };
        assert_eq!(delivery.headers.message_id, id);
        delivery.ack().await.unwrap();
        keyframe
    }

    pub(crate) async fn pose(&mut self) -> PoseEvent {
        tokio::time::timeout(LIMIT, self.poses.recv())
            .await
            .unwrap()
            .unwrap()
            .message
    }

    pub(crate) async fn end(self) {
        self.stop.request();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.bus.close().await;
    }
}

/// A 752 x 480 JPEG and some bytes that make it one of its own.
fn picture(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(&image::GrayImage::new(752, 480))
        .unwrap();
    bytes.extend(number.to_be_bytes());
    bytes
}

/// A capture and its picture.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) capture: Capture,
    pub(crate) image: Vec<u8>,
}

impl Sent {
    pub(crate) fn of(mut capture: Capture, image: Vec<u8>) -> Self {
        capture.image_digest = Digest::of(&image).as_bytes().to_vec().into();
        Self { capture, image }
    }
}

/// A capture with telemetry and a camera, as a drone in the air sends it.
pub(crate) fn capture(sensor: &str, number: u32) -> Sent {
    let image = picture(number);
    let captured = 1_700_000_000_000_000_000 + i64::from(number) * 50_000_000;
    let frame_id = Digest::of_parts(&[
        b"frame",
        sensor.as_bytes(),
        &captured.to_le_bytes(),
        Digest::of(&image).as_bytes(),
    ]);
    let capture = Capture {
        frame_id: frame_id.to_hex(),
        sensor_id: sensor.to_owned(),
        captured_unix_nanos: captured,
        received_unix_nanos: captured + 1_000,
        media_type: "image/jpeg".to_owned(),
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
        simulated: true,
        ..Capture::default()
    };
    Sent::of(capture, image)
}
