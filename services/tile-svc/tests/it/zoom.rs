//! Zooms: what the map was begun with, and what is finer than its finest.

use std::collections::BTreeMap;

use sovereign_model::Intrinsics;
use tile_svc::Config;

use crate::rig::{Rig, Shot};
use crate::world::{World, camera, flight, pose};

#[tokio::test]
async fn a_map_keeps_the_coarsest_zoom_that_it_was_begun_with() {
    let mut rig = Rig::start().await;
    let with = |min_zoom| Config {
        min_zoom,
        ..Config::default()
    };
    rig.restart_with(with(12)).await.unwrap();
    let shot = Shot::take(&World::with_marks(), &flight(1)[0], &camera(), "d1", 1);
    rig.send(&shot).await;
    rig.painted(1).await;
    assert_eq!(rig.layer().await.min_zoom, 12);
    for other in [10, 14] {
        let error = rig.restart_with(with(other)).await.unwrap_err().to_string();
        let expected = format!("`min_zoom` is {other}, but the map was painted with 12");
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("set it to 12"), "{error}");
    }
    rig.restart_with(with(12)).await.unwrap();
    assert_eq!(rig.layer().await.last_change, 1, "the map is kept");
    rig.stop().await;
}

#[tokio::test]
async fn a_frame_without_a_pixel_of_the_map_is_refused_and_one_beneath_better_ones_is_painted() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let look = flight(1)[0];
    // 2.5 mm of ground, where a pixel of the map has 25.
    let tiny = Intrinsics::from_focal_px(32, 32, 640.0).unwrap();
    let below = pose(0.0, 0.0, 0.05, -90.0, 0.0);
    rig.send(&Shot::take(&world, &below, &tiny, "d1", 1)).await;
    rig.send(&Shot::take(&world, &look, &camera(), "d2", 2))
        .await;
    rig.painted(1).await;
    // The same look once more, as another frame: it changes nothing.
    rig.send(&Shot::take(&world, &look, &camera(), "d3", 3))
        .await;
    rig.painted(2).await;
    assert!(rig.changes().await[1].tiles.is_empty());
    let refused = BTreeMap::from([("no_pixel".to_owned(), 1)]);
    assert_eq!(rig.refused().await, refused);
    rig.stop().await;
}
