use std::sync::atomic::{AtomicI64, Ordering};

use sovereign_bus::{Consumer, Key};
use sovereign_model::geo::{Attitude, Geodetic};
use sovereign_proto::geo::v1::Capture;
use sovereign_proto::topics::{DRONE_CAPTURE, SLAM_KEYFRAME};
use sovereign_service::Context;

use super::*;
use crate::config::Config;
use crate::service::feed::Verdict;

/// A picture of 64 x 48 pixels and a pose above its own place, of a sensor of that number.
fn shot(number: u32) -> (Capture, Keyframe) {
    let camera = Intrinsics::from_focal_px(64, 48, 60.0).unwrap();
    let place = Geodetic::new(46.8 + f64::from(number) * 0.01, -92.0, 200.0).unwrap();
    let attitude = Attitude {
        roll_deg: 0.0,
        pitch_deg: -90.0,
        yaw_deg: 0.0,
    };
    let mut image = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut image)
        .encode_image(&image::RgbImage::from_pixel(
            64,
            48,
            image::Rgb([9, 90, 190]),
        ))
        .unwrap();
    let image_digest = Bytes::copy_from_slice(Digest::of(&image).as_bytes());
    let (frame_id, sensor_id) = (format!("f{number}"), format!("d{number}"));
    let capture = Capture {
        frame_id: frame_id.clone(),
        sensor_id: sensor_id.clone(),
        image: image.into(),
        image_digest: image_digest.clone(),
        ..Capture::default()
    };
    let keyframe = Keyframe {
        frame_id,
        sensor_id,
        image_digest,
        state: TrackingState::Tracking.into(),
        pose: Some(CameraPose::from_gimbal(place, attitude, 50.0).into()),
        intrinsics: Some(camera.into()),
        ..Keyframe::default()
    };
    (capture, keyframe)
}

/// A frame as it comes out of decoding.
async fn prepared(
    bus: &Bus,
    captures: &mut Consumer<Capture>,
    keyframes: &mut Consumer<Keyframe>,
    number: u32,
) -> Prepared {
    let (capture, keyframe) = shot(number);
    let key = Key::parse(&capture.sensor_id).unwrap();
    let id = &capture.frame_id;
    bus.append(&DRONE_CAPTURE, Some(&key), id, &capture)
        .await
        .unwrap();
    bus.append(&SLAM_KEYFRAME, Some(&key), id, &keyframe)
        .await
        .unwrap();
    let settings = Config::default().settings().unwrap();
    let (frame, plan) =
        prepare(&settings, &capture.image, &capture.image_digest, &keyframe).unwrap();
    let job = Job {
        capture: captures.next().await.unwrap(),
        verdict: Verdict::Delivered(Box::new(keyframes.next().await.unwrap())),
    };
    Prepared { job, frame, plan }
}

/// A painter with a store and frames of its own.
struct Rig {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
    painter: Painter,
    frames: mpsc::Receiver<Prepared>,
}

impl Rig {
    async fn with(frames: u32, max_tiles: usize, clock: Clock) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::memory(&dir.path().join("journal.redb"), "test-node").unwrap();
        let context = Context::for_tests("tile-svc", bus.clone(), dir.path());
        let mut captures = bus.consume(&DRONE_CAPTURE, "test").await.unwrap();
        let mut keyframes = bus.consume(&SLAM_KEYFRAME, "test").await.unwrap();
        let store = Arc::new(Store::open(&dir.path().join("tiles.redb"), 64 << 20).unwrap());
        let painter = Painter {
            store: Arc::clone(&store),
            served: Arc::new(Served::new(1 << 20)),
            metrics: Arc::new(TileMetrics::register(&context)),
            bus: bus.clone(),
            min_zoom: 10,
            max_tiles,
            clock,
        };
        let (sender, receiver) = mpsc::channel(frames as usize);
        for number in 0..frames {
            let prepared = prepared(&bus, &mut captures, &mut keyframes, number).await;
            sender.send(prepared).await.unwrap();
        }
        Rig {
            _dir: dir,
            store,
            painter,
            frames: receiver,
        }
    }

    /// Paints all frames; the log of changes.
    async fn paint(self) -> Vec<TileChange> {
        self.painter.run(self.frames).await.unwrap();
        let page = self.store.changes(0, 100, usize::MAX).unwrap();
        page.messages
            .iter()
            .map(|message| TileChange::decode(message.as_slice()).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn frames_that_do_not_fit_into_a_commit_are_painted_by_the_next_before_more_are_taken_up() {
    const FRAMES: u32 = 7;
    let rig = Rig::with(FRAMES, 1, || Timestamp::from_unix_nanos(5)).await;
    let painted: Vec<(u64, String)> = rig
        .paint()
        .await
        .into_iter()
        .map(|change| (change.sequence, change.frame_id))
        .collect();
    let expected: Vec<(u64, String)> = (0..FRAMES)
        .map(|number| (u64::from(number) + 1, format!("f{number}")))
        .collect();
    assert_eq!(painted, expected);
}

#[tokio::test]
async fn a_commit_has_one_time_however_long_it_takes() {
    /// A second passes between any two looks.
    fn clock() -> Timestamp {
        static SECONDS: AtomicI64 = AtomicI64::new(0);
        let seconds = SECONDS.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }
    let changes = Rig::with(2, 1, clock).await.paint().await;
    let times: Vec<(i64, i64)> = changes
        .iter()
        .map(|change| (change.committed_unix_nanos, change.latency_nanos))
        .map(|(committed, latency)| (committed / 1_000_000_000, latency / 1_000_000_000))
        .collect();
    // How long it took is not a part of what happened.
    assert_eq!(times, [(0, 0), (2, 0)]);
}

#[tokio::test]
async fn no_more_than_a_few_decoded_frames_are_taken_up_at_a_time() {
    let (sender, mut receiver) = mpsc::channel(10);
    for number in 0..10 {
        sender.send(number).await.unwrap();
    }
    let mut waiting = vec![100];
    fill(&mut waiting, &mut receiver);
    assert_eq!(waiting.len(), PREPARED);
    fill(&mut waiting, &mut receiver);
    assert_eq!(
        (waiting.len(), receiver.len()),
        (PREPARED, 10 + 1 - PREPARED)
    );
}
