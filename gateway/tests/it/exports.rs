//! What a node tells its peers by itself.

use std::collections::BTreeSet;

use sovereign_bus::{Key, Select};
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::CheckpointMeta;
use sovereign_proto::round::v1::{RoundPhase, RoundRecord};
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::topics::{
    CHECKPOINT_STORED, MESH_CHECKPOINT, MESH_ROUND, MESH_TILE, ROUND_RECORD, TILE_CHANGED,
};

use crate::node::{
    Node, QUIC, TCP, bus, dirs, joining, listening, next_change, wait_until, within,
};
use crate::tiles::TileStore;

#[tokio::test]
async fn a_tile_change_appears_on_the_bus_of_the_others_under_the_peer() {
    let dirs = dirs(3);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let at = a.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &at)).await;
    let c = Node::start(dirs[2].path(), "c", joining(QUIC, &at)).await;
    a.wait_for_peers(2).await;
    let mut at_b = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let key = Key::parse(&at.peer_id).unwrap();
    let mut at_c = c.bus.subscribe(&MESH_TILE, Select::Key(key)).await.unwrap();
    let mut back = a.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();

    let change = a.tiles.commit(3);
    a.bus.publish(&TILE_CHANGED, None, &change).await.unwrap();
    for mailbox in [&mut at_b, &mut at_c] {
        let (peer, received) = next_change(mailbox).await;
        assert_eq!((peer, received), (at.peer_id.clone(), change.clone()));
    }
    // What came from the mesh does not go back: the next thing that a hears is of c itself.
    c.wait_for_peers(1).await;
    let own = c.tiles.commit(1);
    c.bus.publish(&TILE_CHANGED, None, &own).await.unwrap();
    let (peer, received) = next_change(&mut back).await;
    assert_eq!((peer, received), (c.me().await.peer_id, own));
    for node in [a, b, c] {
        node.stop().await;
    }
}

pub(crate) fn round(id: &str) -> RoundRecord {
    RoundRecord {
        round_id: id.to_owned(),
        phase: RoundPhase::Open.into(),
        model_digest: Digest::of(b"model").to_hex(),
        min_participants: 2,
        opened_unix_nanos: 1_000,
        closes_unix_nanos: 2_000,
        node_id: "island".to_owned(),
    }
}

pub(crate) fn checkpoint(version: &str) -> CheckpointMeta {
    let digest = Digest::of(version.as_bytes());
    CheckpointMeta {
        version: version.to_owned(),
        digest: digest.to_hex(),
        cid: digest.cid(),
        size_bytes: 5,
        created_unix_nanos: 1_000,
        backend: "filesystem".to_owned(),
    }
}

#[tokio::test]
async fn what_an_island_does_arrives_after_a_peer_connects_and_only_once() {
    let dirs = dirs(2);
    let island = Node::start(dirs[0].path(), "island", listening(TCP)).await;
    // More than a page of changes, and no hint: the cursor alone finds them.
    let changes: Vec<TileChange> = (0..130).map(|_| island.tiles.commit(2)).collect();
    for id in ["r-1", "r-2"] {
        let key = Key::parse(id).unwrap();
        let record = round(id);
        let appended = island.bus.append(&ROUND_RECORD, Some(&key), id, &record);
        appended.await.unwrap();
    }
    let meta = checkpoint("v1");
    let appended = island.bus.append(&CHECKPOINT_STORED, None, "v1", &meta);
    appended.await.unwrap();

    let peer_bus = bus(dirs[1].path(), "peer");
    let mut tiles = peer_bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let mut checkpoints = peer_bus
        .subscribe(&MESH_CHECKPOINT, Select::All)
        .await
        .unwrap();
    let mut rounds = peer_bus.consume(&MESH_ROUND, "test").await.unwrap();
    let config = joining(TCP, &island.me().await);
    let peer = Node::start_with(
        dirs[1].path(),
        peer_bus,
        TileStore::default(),
        "peer",
        config,
    )
    .await;
    for change in &changes {
        assert_eq!(next_change(&mut tiles).await.1, *change);
    }
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let delivery = within(rounds.next()).await.unwrap();
        assert_eq!(delivery.message.peer_id, island.me().await.peer_id);
        ids.insert(delivery.message.record.clone().unwrap().round_id);
        delivery.ack().await.unwrap();
    }
    assert_eq!(ids, ["r-1".to_owned(), "r-2".to_owned()].into());
    let event = within(checkpoints.recv()).await.unwrap();
    assert_eq!(event.message.checkpoint, Some(meta));

    // After a restart of the island only what is new is exported.
    let store = island.tiles.clone();
    wait_until("the cursor on disk", async || {
        island.metric("sovereign_mesh_gateway_exported_sequence") >= 130.0
    })
    .await;
    island.stop().await;
    let config = joining(TCP, &peer.me().await);
    let island_bus = bus(dirs[0].path(), "island");
    let island = Node::start_with(dirs[0].path(), island_bus, store, "island", config).await;
    let (key, record) = (Key::parse("r-3").unwrap(), round("r-3"));
    let appended = island.bus.append(&ROUND_RECORD, Some(&key), "r-3", &record);
    appended.await.unwrap();
    let newest = island.tiles.commit(1);
    island
        .bus
        .publish(&TILE_CHANGED, None, &newest)
        .await
        .unwrap();
    assert_eq!(next_change(&mut tiles).await.1, newest);
    let delivery = within(rounds.next()).await.unwrap();
    assert_eq!(delivery.message.record.clone().unwrap().round_id, "r-3");
    delivery.ack().await.unwrap();
    island.stop().await;
    peer.stop().await;
}

#[tokio::test]
async fn a_change_too_large_for_one_message_arrives_in_several() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &a.me().await)).await;
    let mut tiles = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    a.wait_for_peers(1).await;
    let change = a.tiles.commit(4_000);
    a.bus.publish(&TILE_CHANGED, None, &change).await.unwrap();
    let (mut parts, mut received) = (0, Vec::new());
    while received.len() < change.tiles.len() {
        let (_, part) = next_change(&mut tiles).await;
        assert_eq!(part.sequence, change.sequence);
        parts += 1;
        received.extend(part.tiles);
    }
    assert!(parts > 1);
    assert_eq!(received, change.tiles);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_map_that_began_anew_is_exported_from_its_start() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &a.me().await)).await;
    let mut tiles = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    a.wait_for_peers(1).await;
    // The second map is past the end of the first when the gateway hears of it, the third is not.
    for count in [5, 7, 3] {
        a.tiles.begin_anew();
        let changes: Vec<TileChange> = (0..count).map(|_| a.tiles.commit(1)).collect();
        let hint = changes.last().unwrap();
        a.bus.publish(&TILE_CHANGED, None, hint).await.unwrap();
        for change in changes {
            assert_eq!(next_change(&mut tiles).await.1, change);
        }
    }
    a.stop().await;
    b.stop().await;
}
