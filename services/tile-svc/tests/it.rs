//! tile-svc at its boundary: events in, tiles out.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/revisions.rs"]
mod revisions;
#[path = "it/rig.rs"]
mod rig;
#[path = "it/world.rs"]
mod world;
#[path = "it/zoom.rs"]
mod zoom;

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::bytes::Bytes;
use sovereign_model::geo::mercator::mercator_from_geodetic;
use sovereign_model::geo::{Geodetic, LocalFrame, TileCoord};
use sovereign_model::{CameraPose, Intrinsics, Timestamp};
use sovereign_objects::{MAP, PinStrength};
use sovereign_proto::geo::v1::TrackingState;
use sovereign_proto::slam::v1::PoseSource;
use sovereign_proto::tile::v1::{GetTileRequest, TileFormat};

use rig::{LIMIT, Rig, Shot, received_as};
use world::{GROUND_ALTITUDE_M, World, camera, flight, mark_places, pose};

#[tokio::test]
async fn marks_on_the_ground_are_where_they_should_be_in_the_tiles() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let camera = camera();
    for (i, pose) in [
        pose(0.0, 0.0, 60.0, -90.0, 25.0),
        pose(18.0, -9.0, 62.0, -75.0, 110.0),
        pose(-15.0, 12.0, 58.0, -82.0, 280.0),
    ]
    .iter()
    .enumerate()
    {
        rig.send(&Shot::take(&world, pose, &camera, "d1", i as i64 + 1))
            .await;
    }
    rig.painted(3).await;
    let zoom = rig.layer().await.max_zoom as u8;
    let mut found = 0;
    for mark in mark_places() {
        // A mark is looked for in a window of the mosaic around its tile.
        let exact = mercator_from_geodetic(&mark);
        let pixels = 256.0 * 2_f64.powi(i32::from(zoom));
        let (x, y) = (exact.x * pixels, exact.y * pixels);
        let Some((found_x, found_y)) = rig.bright_centre(zoom, x, y, 14).await else {
            continue;
        };
        let error = (found_x - x).hypot(found_y - y);
        assert!(error < 1.0, "mark {mark:?} is {error} pixels off");
        found += 1;
    }
    assert!(found >= 8, "{found} marks were seen");
    rig.stop().await;
}

#[tokio::test]
async fn any_order_of_frames_gives_the_same_tiles() {
    let world = World::with_marks();
    let camera = camera();
    let shots: Vec<Shot> = flight(6)
        .iter()
        .enumerate()
        .map(|(i, pose)| Shot::take(&world, pose, &camera, &format!("d{i}"), i as i64 + 1))
        .collect();
    let mut maps = Vec::new();
    for order in [[0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]] {
        let rig = Rig::start().await;
        for i in order {
            rig.send(&shots[i]).await;
        }
        rig.painted(6).await;
        maps.push(rig.map().await);
        rig.stop().await;
    }
    assert!(maps[0].len() > 20, "{} tiles", maps[0].len());
    assert_eq!(maps[0], maps[1]);
}

#[tokio::test]
async fn a_frame_is_painted_once_however_often_it_comes() {
    let rig = Rig::start().await;
    let shot = Shot::take(&World::with_marks(), &flight(1)[0], &camera(), "d1", 1);
    rig.send(&shot).await;
    rig.painted(1).await;
    let before = rig.map().await;
    for again in ["again-1", "again-2"] {
        rig.send_as(&shot, again).await;
    }
    let next = Shot::take(&World::with_marks(), &flight(2)[1], &camera(), "d1", 2);
    rig.send(&next).await;
    rig.painted(2).await;
    let changes = rig.changes().await;
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].frames[0].frame_id, shot.id());
    assert_eq!(changes[1].frames[0].frame_id, next.id());
    assert!(rig.map().await.len() >= before.len());
    rig.stop().await;
}

#[tokio::test]
async fn what_was_not_painted_before_a_stop_is_painted_after_it() {
    let mut rig = Rig::start().await;
    let world = World::with_marks();
    let poses = flight(2);
    let shot = |i: usize| Shot::take(&world, &poses[i], &camera(), "d1", i as i64 + 1);
    let (done, waits) = (shot(0), shot(1));
    rig.send(&done).await;
    rig.settled().await;
    // The content store is away: the frame waits, and so would those after it.
    rig.store_picture(&waits).await;
    rig.store.set_away(true);
    rig.send_under(&waits, "d1", "").await;
    rig::until(|| rig.metric("retries_total") > 0).await;
    rig.restart().await;
    assert_eq!(rig.layer().await.last_change, 1, "the map is kept");
    rig.store.set_away(false);
    rig.painted(1).await;
    assert_eq!(rig.changes().await[1].frames[0].frame_id, waits.id());
    rig.stop().await;
}

#[tokio::test]
async fn a_picture_is_kept_for_the_map_and_no_longer_for_being_unread() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let painted = Shot::take(&world, &flight(1)[0], &camera(), "d1", 1);
    let unplaced = Shot::take(&world, &flight(2)[1], &camera(), "d1", 2).revised(0, None);
    let mut broken = painted.clone();
    broken.replace_image(Bytes::from_static(b"\xff\xd8\xff not a picture"));
    broken.keyframe.frame_id = sovereign_model::Digest::of(b"another").to_hex();
    for shot in [&painted, &unplaced, &broken] {
        rig.send(shot).await;
    }
    rig.settled().await;
    let kept = [(MAP.to_owned(), PinStrength::Prefer)];
    assert_eq!(rig.store.pins(painted.digest()), kept);
    // A calibration may place it yet.
    assert_eq!(rig.store.pins(unplaced.digest()), kept);
    assert_eq!(rig.store.pins(broken.digest()), []);
    rig.stop().await;
}

#[tokio::test]
async fn a_verdict_on_the_subject_of_another_sensor_is_refused_and_holds_nobody_up() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let poses = flight(2);
    let stray = Shot::take(&world, &poses[0], &camera(), "d2", 1);
    let mut nameless = stray.clone();
    nameless.keyframe.frame_id = "frame-1".to_owned();
    let good = Shot::take(&world, &poses[1], &camera(), "d1", 2);
    rig.send_under(&stray, "d1", "").await;
    rig.send(&nameless).await;
    rig.send(&good).await;
    rig.painted(1).await;
    let refused = BTreeMap::from([("malformed".to_owned(), 2)]);
    assert_eq!(rig.refused().await, refused);
    rig.stop().await;
}

#[tokio::test]
async fn frames_that_cannot_be_painted_are_counted_by_reason_and_stop_nothing() {
    let rig = Rig::start().await;
    let world = World::with_marks();
    let pose = flight(1)[0];
    let image = world.photograph(&pose, &camera());
    let shot = |i: i64| Shot::of(image.clone(), &pose, &camera(), "d1", i);
    type Spoil = fn(&mut Shot);
    let cases: [(&str, Spoil); 8] = [
        ("no_pose", |s| {
            s.keyframe.set_state(TrackingState::Lost);
            s.keyframe.pose = None;
        }),
        ("position_only", |s| {
            s.keyframe.set_source(PoseSource::PositionOnly);
            s.keyframe.set_state(TrackingState::Lost);
        }),
        ("header", |s| {
            s.replace_image(Bytes::from_static(b"\xff\xd8\xff not a picture"));
        }),
        ("cut_off", |s| {
            let image = s.image.slice(..s.image.len() / 2);
            s.replace_image(image);
        }),
        ("size", |s| {
            let mut image = s.image.to_vec();
            let header = image.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
            image[header + 5..header + 9].fill(0xff);
            s.replace_image(image.into());
        }),
        ("size_mismatch", |s| {
            let other = Intrinsics::from_focal_px(640, 480, 400.0).unwrap();
            s.keyframe.intrinsics = Some(other.into());
        }),
        ("malformed", |s| {
            s.keyframe.pose.as_mut().unwrap().enu_from_camera = None;
        }),
        ("looks_away", |s| {
            let up = CameraPose::from_gimbal(
                Geodetic::new(46.84, -91.99, 200.0).unwrap(),
                sovereign_model::geo::Attitude {
                    roll_deg: 0.0,
                    pitch_deg: 45.0,
                    yaw_deg: 0.0,
                },
                50.0,
            );
            s.keyframe.pose = Some(up.into());
        }),
    ];
    for (i, (_, spoil)) in cases.iter().enumerate() {
        let mut shot = shot(i as i64 + 1);
        spoil(&mut shot);
        rig.send(&shot).await;
    }
    rig.send(&shot(100)).await;
    rig.painted(1).await;
    let mut expected = BTreeMap::from(cases.map(|(reason, _)| (reason.to_owned(), 1)));
    assert_eq!(rig.refused().await, expected);
    // One whose picture is gone.
    let mut gone = shot(101);
    gone.keyframe.image_digest = Bytes::copy_from_slice(&[7; 32]);
    rig.send_under(&gone, "d1", "").await;
    rig.settled().await;
    expected.insert("picture_missing".to_owned(), 1);
    assert_eq!(rig.refused().await, expected);
    rig.stop().await;
}

#[tokio::test]
async fn tiles_are_served_in_each_format_with_one_digest() {
    let rig = Rig::start().await;
    rig.send(&Shot::take(
        &World::with_marks(),
        &flight(1)[0],
        &camera(),
        "d1",
        1,
    ))
    .await;
    rig.painted(1).await;
    let change = rig.changes().await.remove(0);
    assert!(change.simulated && rig.layer().await.simulated);
    let changed = change.tiles.last().unwrap().clone();
    let coord = changed.coord.unwrap();
    for (format, media_type) in [
        (TileFormat::Png, "image/png"),
        (TileFormat::Jpeg, "image/jpeg"),
        (TileFormat::Webp, "image/webp"),
    ] {
        for _ in 0..2 {
            let tile = rig.tile(coord, format).await.unwrap();
            assert_eq!(tile.media_type, media_type);
            assert_eq!(
                tile.digest,
                sovereign_model::Digest::from_slice(&changed.digest)
                    .unwrap()
                    .to_hex()
            );
            let image = image::load_from_memory(&tile.data).unwrap();
            assert_eq!((image.width(), image.height()), (256, 256));
            assert!(tile.data.len() < 500 << 10);
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn tiles_that_are_empty_unknown_or_impossible_are_told_apart() {
    let rig = Rig::start().await;
    let ask = |layer: &str, z, x, y, format| GetTileRequest {
        layer: layer.to_owned(),
        coord: Some(sovereign_proto::geo::v1::TileCoord { z, x, y }),
        format,
        ..GetTileRequest::default()
    };
    let showing = |digest: &'static [u8]| GetTileRequest {
        digest: Bytes::from_static(digest),
        ..GetTileRequest::default()
    };
    for (request, code) in [
        (showing(&[7; 32]), tonic::Code::NotFound),
        (showing(&[7; 31]), tonic::Code::InvalidArgument),
        (ask("imagery", 10, 5, 5, 0), tonic::Code::NotFound),
        (ask("roads", 10, 5, 5, 0), tonic::Code::NotFound),
        (ask("imagery", 10, 1024, 5, 0), tonic::Code::InvalidArgument),
        (ask("imagery", 60, 5, 5, 0), tonic::Code::InvalidArgument),
        (ask("imagery", 10, 5, 5, 99), tonic::Code::InvalidArgument),
        (
            GetTileRequest {
                layer: "imagery".to_owned(),
                ..GetTileRequest::default()
            },
            tonic::Code::InvalidArgument,
        ),
    ] {
        let status = rig.try_tile(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{request:?}: {}", status.message());
    }
    let layer = rig.layer().await;
    assert_eq!((layer.tiles, layer.bounds), (0, None));
    assert!(rig.stats().await.latency.is_none(), "nothing was measured");
    rig.stop().await;
}

#[tokio::test]
async fn a_commit_is_hinted_and_its_latency_is_the_measured_one() {
    let rig = Rig::start().await;
    let mut hints = rig.hints().await;
    let mut shot = Shot::take(&World::with_marks(), &flight(1)[0], &camera(), "d1", 1);
    shot.received_now();
    rig.send(&shot).await;
    let hint = tokio::time::timeout(LIMIT, hints.recv());
    let hint = hint.await.unwrap().unwrap().message;
    let change = hint.change.unwrap();
    assert_eq!(change, rig.changes().await.remove(0));
    // From the arrival to the end of the commit, whose time is said as it begins.
    let received = shot.keyframe.received_unix_nanos;
    let now = Timestamp::from_system_time(SystemTime::now()).as_unix_nanos();
    let possible = change.committed_unix_nanos - received..=now - received;
    assert!(possible.contains(&hint.latency_nanos), "{change:?}");
    rig.painted(1).await;
    let latency = rig.stats().await.latency.unwrap();
    assert_eq!((latency.count, latency.p50_nanos), (1, hint.latency_nanos));
    // Parents are part of the commit, up to the coarsest zoom.
    let zooms: Vec<u32> = change.tiles.iter().map(|t| t.coord.unwrap().z).collect();
    assert_eq!(zooms.iter().min(), Some(&10));
    assert_eq!(rig.stats().await.tiles_written, change.tiles.len() as u64);
    rig.stop().await;
}

#[tokio::test]
async fn two_heights_over_one_place_meet_in_the_pyramid_in_either_order() {
    let world = World::with_marks();
    let low = pose(0.0, 0.0, 30.0, -90.0, 0.0);
    let high = pose(5.0, 5.0, 130.0, -90.0, 40.0);
    let mut maps = Vec::new();
    for order in [[low, high], [high, low]] {
        let rig = Rig::start().await;
        for (i, pose) in order.iter().enumerate() {
            // The frame is the same whichever comes first.
            let name = if *pose == low { "low" } else { "high" };
            let mut shot = Shot::take(&world, pose, &camera(), name, 1);
            shot.received_at(received_as(i as i64));
            rig.send(&shot).await;
            rig.painted(i as u64 + 1).await;
        }
        let layer = rig.layer().await;
        assert_eq!(layer.max_zoom, 21, "the low flight is finer");
        maps.push(rig.map().await);
        rig.stop().await;
    }
    assert_eq!(maps[0], maps[1]);
}

#[tokio::test]
async fn a_real_flight_becomes_a_mosaic() {
    let Some(folder) = world::brighton_beach() else {
        return;
    };
    let rig = Rig::start().await;
    let origin = LocalFrame::at(Geodetic::new(46.842_656_667, -91.994_008_025, 0.0).unwrap());
    let camera = Intrinsics::new(4000, 2250, 2754.5, 2754.5, 2000.0, 1125.0, 0.0096, 0.0).unwrap();
    let table = std::fs::read_to_string(folder.join("reference_poses_colmap.csv")).unwrap();
    let mut frames = 0;
    for line in table.lines().filter(|l| l.starts_with("DJI_")) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap();
        let v: Vec<f64> = fields.map(|f| f.parse().unwrap()).collect();
        let position = origin.geodetic_from_enu(&sovereign_model::geo::Enu {
            east: v[0],
            north: v[1],
            up: v[2],
        });
        let pose = CameraPose {
            position,
            enu_from_camera: nalgebra::UnitQuaternion::from_quaternion(nalgebra::Quaternion::new(
                v[3], v[4], v[5], v[6],
            )),
            height_above_ground_m: position.altitude_m - 154.5,
        };
        let image = std::fs::read(folder.join("images").join(name)).unwrap();
        frames += 1;
        let mut shot = Shot::of(image.into(), &pose, &camera, "phantom", frames);
        shot.keyframe.simulated = false;
        rig.send(&shot).await;
    }
    assert_eq!(frames, 10);
    rig.painted(10).await;
    let layer = rig.layer().await;
    assert!(!layer.simulated);
    let bounds = layer.bounds.unwrap();
    let size = |low: (f64, f64), high: (f64, f64)| {
        sovereign_model::geo::horizontal_distance_m(
            &Geodetic::new(low.0, low.1, 0.0).unwrap(),
            &Geodetic::new(high.0, high.1, 0.0).unwrap(),
        )
    };
    let corner = (bounds.south_deg, bounds.west_deg);
    let across = size(corner, (bounds.south_deg, bounds.east_deg));
    let along = size(corner, (bounds.north_deg, bounds.west_deg));
    assert!((90.0..160.0).contains(&across), "{across} m");
    assert!((80.0..160.0).contains(&along), "{along} m");
    let preview = rig.mosaic(20).await;
    let path = world::target_dir().join("tile-svc-brighton-beach.png");
    preview.save(&path).unwrap();
    let covered = preview.pixels().filter(|p| p.0[3] > 0).count();
    assert!(covered > 100_000, "{covered} pixels");
    // No hole inside: a pixel between two covered ones of its row is covered, but for the outline.
    let holes: usize = preview
        .rows()
        .map(|row| {
            let alpha: Vec<bool> = row.map(|p| p.0[3] > 0).collect();
            let first = alpha.iter().position(|&a| a).unwrap_or(0);
            let last = alpha.iter().rposition(|&a| a).unwrap_or(0);
            alpha[first..=last].iter().filter(|&&a| !a).count()
        })
        .sum();
    assert!(holes * 20 < covered, "{holes} of {covered}");
    rig.stop().await;
}

#[test]
fn the_ground_of_the_test_world_is_where_poses_say() {
    let pose = pose(0.0, 0.0, 60.0, -90.0, 0.0);
    assert!((pose.ground_altitude_m() - GROUND_ALTITUDE_M).abs() < 1e-9);
    let tile = TileCoord::containing(pose.position.latitude_deg, pose.position.longitude_deg, 20);
    assert!(tile.bounds().contains(&pose.position));
}
