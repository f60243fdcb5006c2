//! Server-sent events.

use reqwest::header;
use serde_json::Value;
use serde_json::json;
use sovereign_proto::drone::v1::VehicleState;
use sovereign_proto::geo::v1::{GeoPoint, TileCoord};
use sovereign_proto::mesh::v1::{MeshMessage, PeerTileChange};
use sovereign_proto::slam::v1::PoseEvent;
use sovereign_proto::tile::v1::{ChangedTile, PaintedFrame, TileChange, TileChanged};
use sovereign_proto::topics;

use crate::support::{self, Edge, Events};

#[tokio::test]
async fn events_arrive_as_they_happen() {
    let edge = Edge::start().await;
    let mut events = Events::open(&edge).await;
    assert_eq!(
        events.next().await,
        (
            "hello".to_owned(),
            json!({"node": "test-node", "resumed": false})
        )
    );

    let latency = events.until("latency").await;
    assert_eq!(latency["p50_ms"], 38.5);
    assert_eq!(latency["frames_painted"], 3);

    let key = |text| sovereign_bus::Key::parse(text).unwrap();
    let state = VehicleState {
        vehicle_id: "sys-1".to_owned(),
        observed_unix_nanos: 2_000_000,
        position: Some(GeoPoint {
            latitude_deg: 1.0,
            longitude_deg: 2.0,
            altitude_m: Some(3.0),
        }),
        ..VehicleState::default()
    };
    edge.bus
        .publish(&topics::DRONE_STATE, Some(&key("sys-1")), &state)
        .await
        .unwrap();
    let vehicle = events.until("vehicle").await;
    assert_eq!(vehicle["vehicle_id"], "sys-1");
    assert_eq!(
        (
            &vehicle["latitude"],
            &vehicle["longitude"],
            &vehicle["altitude_m"]
        ),
        (&json!(1.0), &json!(2.0), &json!(3.0))
    );

    let pose = PoseEvent {
        sensor_id: "sys-1".to_owned(),
        state: 3,
        ..PoseEvent::default()
    };
    edge.bus
        .publish(&topics::SLAM_POSE, Some(&key("sys-1")), &pose)
        .await
        .unwrap();
    let pose = events.until("pose").await;
    assert_eq!(
        (&pose["state"], &pose["latitude"]),
        (&json!("lost"), &Value::Null)
    );

    let change = TileChange {
        sequence: 7,
        layer: "imagery".to_owned(),
        tiles: vec![ChangedTile {
            coord: Some(TileCoord { z: 20, x: 5, y: 6 }),
            ..ChangedTile::default()
        }],
        committed_unix_nanos: 3_000_000,
        frames: vec![PaintedFrame {
            frame_id: "f".to_owned(),
            sensor_id: "sys-1".to_owned(),
            revision: 1,
        }],
        simulated: true,
    };
    let changed = TileChanged {
        change: Some(change.clone()),
        latency_nanos: 41_200_000,
    };
    edge.bus
        .publish(&topics::TILE_CHANGED, None, &changed)
        .await
        .unwrap();
    assert_eq!(
        events.until("tile").await,
        json!({
            "layer": "imagery", "sequence": 7, "tiles": [[20, 5, 6]], "committed_unix_ms": 3,
            "latency_ms": 41.2, "simulated": true,
            "frames": [{"frame_id": "f", "sensor_id": "sys-1", "revision": 1}],
        })
    );

    let peer = PeerTileChange {
        peer_id: "peer-b".to_owned(),
        change: Some(change),
    };
    edge.bus
        .publish(&topics::MESH_TILE, Some(&key("peer-b")), &peer)
        .await
        .unwrap();
    assert_eq!(
        events.until("mesh").await,
        json!({"kind": "tile", "peer_id": "peer-b", "layer": "imagery", "sequence": 7, "tiles": 1, "simulated": true})
    );
    let message = MeshMessage {
        origin_peer_id: "peer-b".to_owned(),
        topic: "fl.rounds".to_owned(),
        payload: vec![0; 5].into(),
        published_unix_nanos: 4_000_000,
        ..MeshMessage::default()
    };
    edge.bus
        .publish(&topics::MESH_MESSAGE, Some(&key("peer-b")), &message)
        .await
        .unwrap();
    assert_eq!(
        events.until("mesh").await,
        json!({"kind": "message", "peer_id": "peer-b", "topic": "fl.rounds", "bytes": 5, "published_unix_ms": 4})
    );

    edge.register("phone-1").await;
    assert_eq!(events.until("phone").await["client_id"], "phone-1");
    edge.stop().await;
}

#[tokio::test]
async fn states_of_one_vehicle_are_thinned_out_and_the_newest_is_shown() {
    let edge = Edge::start().await;
    let mut events = Events::open(&edge).await;
    events.until("hello").await;
    let key = sovereign_bus::Key::parse("sys-1").unwrap();
    for step in 1..=500_i64 {
        let state = VehicleState {
            vehicle_id: "sys-1".to_owned(),
            observed_unix_nanos: step * 1_000_000,
            ..VehicleState::default()
        };
        edge.bus
            .publish(&topics::DRONE_STATE, Some(&key), &state)
            .await
            .unwrap();
    }
    let mut shown = 0;
    loop {
        shown += 1;
        if events.until("vehicle").await["observed_unix_ms"] == 500 {
            break;
        }
    }
    assert!(shown < 100, "{shown} events for 500 states");
    edge.stop().await;
}

#[tokio::test]
async fn a_beat_of_many_sensors_reaches_a_reader_that_reads() {
    // As many as wait in one mailbox; states and poses of one beat are more than the ring has places.
    const SENSORS: usize = 1000;
    let edge = Edge::start().await;
    let mut events = Events::open(&edge).await;
    events.until("hello").await;
    for number in 0..SENSORS {
        let id = format!("drone-{number}");
        let key = sovereign_bus::Key::parse(&id).unwrap();
        let state = VehicleState {
            vehicle_id: id.clone(),
            ..VehicleState::default()
        };
        let pose = PoseEvent {
            sensor_id: id,
            ..PoseEvent::default()
        };
        let bus = &edge.bus;
        bus.publish(&topics::DRONE_STATE, Some(&key), &state)
            .await
            .unwrap();
        bus.publish(&topics::SLAM_POSE, Some(&key), &pose)
            .await
            .unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 * SENSORS {
        let (name, data) = events.next().await;
        assert_ne!(name, "missed", "{data}");
        if name == "vehicle" || name == "pose" {
            seen.insert(format!(
                "{name} {}{}",
                data["vehicle_id"], data["sensor_id"]
            ));
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_events_and_slows_nobody() {
    let edge = Edge::start().await;
    let mut stuck = Events::open(&edge).await;
    stuck.until("hello").await;
    let mut quick = Events::open(&edge).await;
    quick.until("hello").await;
    // More than what the sockets between us hold, while `stuck` reads nothing.
    let tiles: Vec<_> = (0..400)
        .map(|x| ChangedTile {
            coord: Some(TileCoord { z: 20, x, y: 0 }),
            ..ChangedTile::default()
        })
        .collect();
    let last = 2000;
    for sequence in 1..=last {
        let change = TileChange {
            sequence,
            layer: "imagery".to_owned(),
            tiles: tiles.clone(),
            ..TileChange::default()
        };
        let changed = TileChanged {
            change: Some(change),
            latency_nanos: 0,
        };
        edge.bus
            .publish(&topics::TILE_CHANGED, None, &changed)
            .await
            .unwrap();
        // The quick one keeps up.
        assert_eq!(quick.until("tile").await["sequence"], sequence);
    }
    let mut missed = 0;
    let mut seen = 0;
    while seen < last {
        let (name, data) = stuck.next().await;
        match name.as_str() {
            "missed" => missed += data["events"].as_u64().unwrap(),
            "tile" => seen = data["sequence"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert!(missed > 0, "it was told what it lost");
    let stats = edge.json("/api/v1/stats").await;
    assert_eq!(stats["events"]["missed"], missed);
    assert_eq!(stats["events"]["readers"], 2);
    edge.stop().await;
}

#[tokio::test]
async fn the_client_list_of_the_contract_is_streamed() {
    let edge = Edge::start().await;
    edge.register("phone-1").await;
    let mut answer = edge.get("/api/v1/stream").send().await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let line = support::soon(answer.chunk()).await.unwrap().unwrap();
    let line = String::from_utf8(line.to_vec()).unwrap();
    let list: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    let phone = &list["phone-1"];
    assert_eq!(
        (&phone["Registered"], &phone["ClientID"]),
        (&json!(true), &json!("phone-1"))
    );
    assert_eq!(phone["DataStreams"], json!(["gps", "camera"]));
    assert!(phone["LastSeen"].as_str().unwrap().ends_with('Z'));
    edge.stop().await;
}

#[tokio::test]
async fn verdicts_are_told_as_they_are_given_and_a_reader_that_comes_back_has_missed_none() {
    let edge = Edge::start().await;
    let judge = |frame: &str| edge.backend.verdicts.lock().unwrap().push(frame.to_owned());
    let ids = |event: &Value| -> Vec<String> {
        let keyframes = event["keyframes"].as_array().unwrap().iter();
        keyframes
            .map(|keyframe| keyframe["frame_id"].as_str().unwrap().to_owned())
            .collect()
    };
    judge("old");
    let mut events = Events::open(&edge).await;
    // Where the order of verdicts stands: what is before it is read as a list.
    let start = events.until("keyframes").await;
    assert_eq!(
        (&start["after"], &start["position"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(ids(&start), Vec::<String>::new());

    judge("a");
    judge("b");
    let hint = PoseEvent {
        sensor_id: "a".to_owned(),
        frame_id: "a 2".to_owned(),
        ..PoseEvent::default()
    };
    let key = sovereign_bus::Key::parse("a").unwrap();
    edge.bus
        .publish(&topics::SLAM_POSE, Some(&key), &hint)
        .await
        .unwrap();
    let told = events.until("keyframes").await;
    assert_eq!((&told["after"], &told["position"]), (&json!(1), &json!(3)));
    assert_eq!(ids(&told), ["a 2", "b 3"]);
    drop(events);

    judge("c");
    let mut events = Events::after(&edge, "3").await;
    assert_eq!(events.until("hello").await["resumed"], true);
    let missed = events.until("keyframes").await;
    assert_eq!(
        (&missed["after"], &missed["position"]),
        (&json!(3), &json!(4))
    );
    assert_eq!(ids(&missed), ["c 4"]);

    // The owner lost its verdicts, or the number is none: everything has to be read again.
    for last in ["5", "x", "-1"] {
        let mut events = Events::after(&edge, last).await;
        assert_eq!(events.until("hello").await["resumed"], false, "{last}");
    }
    for _ in 0..100 {
        judge("many");
    }
    let mut events = Events::after(&edge, "4").await;
    assert_eq!(events.until("hello").await["resumed"], false);
    edge.stop().await;
}
