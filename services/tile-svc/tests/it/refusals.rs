//! Frames with a pose that cannot be painted: told, so that nobody waits for them.

use prost::bytes::Bytes;
use sovereign_proto::geo::v1::TrackingState;

use crate::rig::{Rig, Shot};
use crate::world::{World, camera, flight, pose};

/// The same picture with `percent` of its pixels, and an end.
fn ended_early(image: &Bytes, percent: usize) -> Bytes {
    let scan = image.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap() + 2;
    let kept = scan + (image.len() - scan) * percent / 100;
    [&image[..kept], &[0xFF, 0xD9]].concat().into()
}

#[tokio::test]
async fn what_is_refused_is_told_with_its_reason_and_leaves_the_map_as_it_is() {
    let rig = Rig::start().await;
    let mut told = rig.refusals().await;
    let world = World::with_marks();
    let look = flight(1)[0];
    let good = Shot::take(&world, &look, &camera(), "d1", 1);
    rig.send(&good).await;
    rig.settled().await;
    let before = rig.map().await;
    assert!(!before.is_empty());

    let early = ended_early(&good.image, 50);
    let early = Shot::of(early, &look, &camera(), "d2", 2);
    let sky = pose(0.0, 0.0, 60.0, 40.0, 0.0);
    let sky = Shot::take(&world, &sky, &camera(), "d3", 3);
    for (shot, words) in [
        (&early, "the picture cannot be decoded"),
        (&sky, "no ray meets the ground"),
    ] {
        rig.send(shot).await;
        let refused = Rig::next(&mut told).await;
        assert_eq!(refused.frame_id, shot.keyframe.frame_id);
        assert_eq!(
            (refused.sensor_id, refused.revision),
            (shot.keyframe.sensor_id.clone(), 0)
        );
        assert!(refused.reason.contains(words), "{}", refused.reason);
    }

    // What the verdict says itself is no news.
    let mut lost = Shot::take(&world, &look, &camera(), "d4", 4);
    lost.keyframe.set_state(TrackingState::Lost);
    rig.send(&lost).await;
    // A better verdict that cannot be painted takes the frame from the map.
    let mut away = good.clone();
    away.keyframe.revision = 1;
    away.keyframe.pose.clone_from(&sky.keyframe.pose);
    rig.send(&away).await;
    let refused = Rig::next(&mut told).await;
    assert_eq!(
        (refused.frame_id, refused.revision),
        (good.keyframe.frame_id.clone(), 1)
    );
    rig.settled().await;
    assert!(rig.map().await.is_empty());
    rig.stop().await;
}
