use prost::Message as _;
use sovereign_model::geo::{Attitude, Geodetic};
use sovereign_model::{CameraPose, Image, Intrinsics, Timestamp};
use sovereign_objects::Objects;
use sovereign_objects::memory::MemoryStore;
use sovereign_proto::tile::v1::TileChange;
use sovereign_service::{Context, StopSource};

use super::*;
use crate::arrival::Sighting;
use crate::config::Config;
use crate::metrics::Metrics;

/// A painter with a store and frames of its own.
struct Rig {
    dir: tempfile::TempDir,
    painter: Painter,
}

impl Rig {
    fn with(max_tiles: usize, clock: Clock) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::memory(&dir.path().join("journal.redb"), "test-node").unwrap();
        let context = Context::for_tests("tile-svc", bus.clone(), dir.path());
        let store = Store::open(&dir.path().join("tiles.redb"), 64 << 20).unwrap();
        let meter = Arc::new(Meter::new(
            Metrics::new(&context.metrics),
            context.clock.now(),
        ));
        let refusals = Refusals {
            meter: Arc::clone(&meter),
            bus: bus.clone(),
        };
        let painter = Painter {
            store: Arc::new(store),
            served: Arc::new(Served::new(1 << 20)),
            meter,
            refusals: Arc::new(refusals),
            darkroom: Darkroom {
                objects: Objects::new(MemoryStore::new().channel()),
                settings: Config::default().settings().unwrap(),
            },
            bus,
            clock,
            repaint: Arc::default(),
            max_tiles,
        };
        Rig { dir, painter }
    }

    /// A frame of 64 x 48 pixels above its own place, of a sensor of that number.
    fn ready(&self, number: u32) -> Ready {
        let camera = Intrinsics::from_focal_px(64, 48, 60.0).unwrap();
        let place = Geodetic::new(46.8 + f64::from(number) * 0.01, -92.0, 200.0).unwrap();
        let attitude = Attitude {
            roll_deg: 0.0,
            pitch_deg: -90.0,
            yaw_deg: 0.0,
        };
        let pose = CameraPose::from_gimbal(place, attitude, 50.0);
        let (sight, plan) = self
            .painter
            .darkroom
            .plan(&Sighting {
                pose,
                camera,
                relief: None,
            })
            .unwrap();
        let image = Image::new(64, 48, vec![90; 64 * 48 * 3]).unwrap();
        Ready {
            arrival: Arrival {
                frame_id: format!("f{number}"),
                sensor_id: format!("d{number}"),
                revision: 0,
                received: Timestamp::UNIX_EPOCH,
                simulated: false,
                digest: Digest::of(b""),
                keyframe: Vec::new(),
            },
            frame: Frame::new(sight, image, plan.halvings),
            plan,
            reply: oneshot::channel().0,
            _room: None,
        }
    }

    /// Paints frames that are all there from the beginning; the log of changes.
    async fn paint(&self, frames: u32) -> Vec<TileChange> {
        let (sender, receiver) = mpsc::channel(frames as usize);
        for number in 0..frames {
            sender.send(self.ready(number)).await.unwrap();
        }
        drop(sender);
        let stop = StopSource::new().stop();
        self.painter.clone().run(receiver, stop).await.unwrap();
        let map = self.painter.store.map();
        let page = map.changes(0, 100, usize::MAX).unwrap();
        page.messages
            .iter()
            .map(|message| TileChange::decode(message.as_slice()).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn frames_that_do_not_fit_into_a_commit_are_painted_by_the_next_before_more_are_taken_up() {
    const FRAMES: u32 = 7;
    let rig = Rig::with(1, Clock::system());
    let painted: Vec<(u64, String)> = rig
        .paint(FRAMES)
        .await
        .into_iter()
        .map(|mut change| (change.sequence, change.frames.remove(0).frame_id))
        .collect();
    let expected: Vec<(u64, String)> = (0..FRAMES)
        .map(|number| (u64::from(number) + 1, format!("f{number}")))
        .collect();
    assert_eq!(painted, expected);
    assert!(rig.dir.path().join("tiles.redb").exists());
}

#[tokio::test]
async fn frames_that_wait_are_one_commit_of_one_time() {
    let time = Timestamp::from_unix_nanos(5);
    let changes = Rig::with(MAX_TILES_A_COMMIT, Clock::manual(time))
        .paint(2)
        .await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].committed_unix_nanos, 5);
    let frames: Vec<&str> = changes[0]
        .frames
        .iter()
        .map(|f| f.frame_id.as_str())
        .collect();
    assert_eq!(frames, ["f0", "f1"]);
}

#[tokio::test]
async fn no_more_than_a_few_decoded_frames_are_taken_up_at_a_time() {
    let (sender, mut receiver) = mpsc::channel(10);
    for number in 0..10 {
        sender.send(number).await.unwrap();
    }
    let mut waiting = vec![100];
    fill(&mut waiting, &mut receiver);
    assert_eq!(waiting.len(), MAX_FRAMES);
    fill(&mut waiting, &mut receiver);
    assert_eq!(
        (waiting.len(), receiver.len()),
        (MAX_FRAMES, 10 + 1 - MAX_FRAMES)
    );
}
