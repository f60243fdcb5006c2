//! Two doors, drone and phone, and one name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::rig::{LIMIT, Rig, Shot};
use crate::world::{World, camera, flight};

#[tokio::test]
async fn a_picture_is_not_given_up_because_the_other_door_has_a_newer_verdict() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let poses = flight(2);
    let shot = |i: usize| Shot::take(&world, &poses[i], &camera(), "x", i as i64 + 1);
    let (drone, phone) = (shot(0), shot(1));
    // slam-svc has judged the newer picture, of the phone, and not yet the older one, of the drone.
    rig.send_capture(&drone).await;
    rig.send_keyframe(&phone).await;
    let started = Instant::now();
    while rig.asked(&drone) < 2 && rig.refused().await.is_empty() {
        assert!(started.elapsed() < LIMIT, "nobody asks");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.send_phone_capture(&phone).await;
    rig.painted(1).await;
    rig.send_keyframe(&drone).await;
    rig.painted(2).await;
    assert_eq!(rig.refused().await, BTreeMap::new());
    rig.stop().await;
}

#[tokio::test]
async fn a_picture_on_the_subject_of_another_sensor_is_refused_and_holds_nobody_up() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let poses = flight(2);
    let stray = Shot::take(&world, &poses[0], &camera(), "d2", 1);
    let good = Shot::take(&world, &poses[1], &camera(), "d1", 2);
    rig.send_stray_capture(&stray, "d1").await;
    rig.send(&good).await;
    rig.painted(1).await;
    let refused = BTreeMap::from([("malformed".to_owned(), 1)]);
    assert_eq!(rig.refused().await, refused);
    rig.stop().await;
}

#[tokio::test]
async fn a_picture_that_no_verdict_can_name_is_refused_and_holds_nobody_up() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let poses = flight(2);
    let mut nameless = Shot::take(&world, &poses[0], &camera(), "d1", 1);
    nameless.capture.frame_id = "frame-1".to_owned();
    let good = Shot::take(&world, &poses[1], &camera(), "d1", 2);
    rig.send_capture(&nameless).await;
    rig.send(&good).await;
    rig.painted(1).await;
    let refused = BTreeMap::from([("malformed".to_owned(), 1)]);
    assert_eq!(rig.refused().await, refused);
    assert_eq!(rig.asked(&nameless), 0);
    rig.stop().await;
}
