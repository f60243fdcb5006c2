//! Poses that are found better, taken back or sent twice, and what the map is then.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use sovereign_model::CameraPose;
use sovereign_model::Digest;
use sovereign_proto::tile::v1::GetTileRequest;

use crate::rig::{Rig, Shot};
use crate::world::{World, camera, flight, pose};

/// Three frames, each with poses that it may have.
struct Script {
    shots: Vec<Shot>,
    poses: Vec<CameraPose>,
}

/// What is sent of a frame: its revision, and one of the poses or none.
type Step = (usize, u32, Option<usize>);

impl Script {
    fn new() -> Self {
        let world = World::with_marks();
        let poses = vec![
            pose(0.0, 0.0, 40.0, -90.0, 10.0),
            pose(9.0, -4.0, 42.0, -86.0, 60.0),
            // Coarser: its pixels meet the others in the pyramid.
            pose(4.0, 4.0, 90.0, -90.0, 200.0),
        ];
        let shots = (0..3).map(|frame| {
            let sensor = format!("d{frame}");
            Shot::take(&world, &poses[frame], &camera(), &sensor, 1)
        });
        Self {
            shots: shots.collect(),
            poses,
        }
    }

    fn shot(&self, (frame, revision, pose): Step) -> Shot {
        let pose = pose.map(|pose| &self.poses[pose]);
        self.shots[frame].revised(revision, pose)
    }

    async fn map_after(&self, steps: &[Step]) -> BTreeMap<(u32, u32, u32), prost::bytes::Bytes> {
        let rig = Rig::start().await;
        for (number, &step) in steps.iter().enumerate() {
            rig.send_as(&self.shot(step), &format!("-{number}")).await;
        }
        rig.settled().await;
        let map = rig.map().await;
        assert_eq!(
            rig.listed().await,
            map,
            "what is listed is what the log says"
        );
        let layer = rig.layer().await;
        assert_eq!(layer.tiles, map.len() as u64);
        let zooms = map.keys().map(|key| key.0);
        let (finest, coarsest) = (zooms.clone().max().unwrap_or(0), zooms.min().unwrap_or(0));
        assert_eq!((layer.min_zoom, layer.max_zoom), (coarsest, finest));
        assert_eq!(layer.bounds.is_some(), !map.is_empty());
        rig.stop().await;
        map
    }
}

/// The newest revision of each frame, alone.
fn last(steps: &[Step]) -> Vec<Step> {
    let mut newest = BTreeMap::<usize, Step>::new();
    for &step in steps {
        let known = newest.entry(step.0).or_insert(step);
        if step.1 > known.1 {
            *known = step;
        }
    }
    newest.into_values().collect()
}

#[test]
fn the_map_is_that_of_the_newest_poses_in_whatever_order_they_come() {
    let script = Script::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A revision is one verdict, whenever and however often it comes.
    let verdicts = prop::collection::vec(prop::option::weighted(0.8, 0..3_usize), 9);
    let order = prop::collection::vec((0..3_usize, 0..3_u32), 3..10);
    let mut runner = TestRunner::new(Cases::with_cases(12));
    runner
        .run(&(verdicts, order), |(verdicts, order)| {
            let step = |(frame, revision): (usize, u32)| {
                (frame, revision, verdicts[frame * 3 + revision as usize])
            };
            let steps: Vec<Step> = order.into_iter().map(step).collect();
            let (mixed, plain) = runtime.block_on(async {
                let mixed = script.map_after(&steps).await;
                (mixed, script.map_after(&last(&steps)).await)
            });
            prop_assert_eq!(mixed, plain);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_frame_that_is_withdrawn_leaves_the_map_and_one_that_moves_is_where_it_moved() {
    let rig = Rig::start().await;
    let script = Script::new();
    rig.send(&script.shot((0, 0, Some(0)))).await;
    rig.settled().await;
    let first = rig.map().await;
    let mut hints = rig.hints().await;
    rig.send(&script.shot((0, 1, Some(1)))).await;
    rig.settled().await;
    let moved = rig.map().await;
    assert_ne!(moved, first);
    let hint = hints.recv().await.unwrap().message;
    assert_eq!(hint.latency_nanos, 0, "no picture arrived");
    let frame = &hint.change.unwrap().frames[0];
    assert_eq!(
        (frame.frame_id.as_str(), frame.revision),
        (script.shots[0].id(), 1)
    );
    assert_eq!(moved, script.map_after(&[(0, 0, Some(1))]).await);

    rig.send(&script.shot((0, 2, None))).await;
    rig.settled().await;
    assert_eq!(rig.map().await, BTreeMap::new());
    let layer = rig.layer().await;
    assert_eq!(
        (layer.tiles, layer.bounds, layer.simulated),
        (0, None, false)
    );
    let gone = rig.changes().await.pop().unwrap();
    assert!(gone.tiles.iter().all(|tile| tile.digest.is_empty()));
    assert_eq!(rig.metric("frames_revised_total"), 2);
    rig.stop().await;
}

#[tokio::test]
async fn ground_that_waits_is_painted_after_a_stop_and_once_its_pictures_can_be_had() {
    let mut rig = Rig::start().await;
    let script = Script::new();
    for frame in 0..2 {
        rig.send(&script.shot((frame, 0, Some(frame)))).await;
    }
    rig.settled().await;
    let before = rig.map().await;
    let revised = script.shot((0, 1, Some(2)));
    rig.store_picture(&revised).await;
    rig.store.set_away(true);
    rig.send_under(&revised, "d0", "").await;
    crate::rig::until(|| rig.metric("retries_total") > 1).await;
    assert_eq!(
        rig.map().await,
        before,
        "what is there stays until it is better"
    );
    rig.restart().await;
    rig.store.set_away(false);
    crate::rig::until(|| rig.metric("frames_settled_total") == 1).await;
    rig.settled().await;
    let expected = [(0, 1, Some(2)), (1, 0, Some(1))];
    assert_eq!(rig.map().await, script.map_after(&expected).await);
    rig.stop().await;
}

#[tokio::test]
async fn a_frame_whose_picture_is_gone_leaves_only_ground_that_is_painted_again() {
    let rig = Rig::start().await;
    let script = Script::new();
    for frame in 0..2 {
        rig.send(&script.shot((frame, 0, Some(frame)))).await;
    }
    rig.settled().await;
    rig.store.remove(script.shots[1].digest());
    rig.send(&script.shot((0, 1, None))).await;
    rig.settled().await;
    assert!(rig.refused().await["picture_missing"] > 0);
    let left = rig.map().await;
    let alone = script.map_after(&[(1, 0, Some(1))]).await;
    let is_part = left.keys().all(|place| alone.contains_key(place));
    assert!(
        is_part && left.len() < alone.len(),
        "{} of {}",
        left.len(),
        alone.len()
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_tile_is_found_by_what_it_shows() {
    let rig = Rig::start().await;
    let shot = Shot::take(&World::with_marks(), &flight(1)[0], &camera(), "d1", 1);
    rig.send(&shot).await;
    rig.settled().await;
    for digest in rig.listed().await.into_values().take(3) {
        let showing = GetTileRequest {
            digest: digest.clone(),
            ..GetTileRequest::default()
        };
        let tile = rig.try_tile(showing).await.unwrap();
        let expected = Digest::from_slice(&digest).unwrap();
        assert_eq!(tile.digest, expected.to_hex());
    }
    rig.stop().await;
}
