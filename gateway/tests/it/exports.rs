//! What a node tells its peers by itself.

use std::collections::BTreeSet;

use sovereign_bus::{Key, Select};
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::CheckpointMeta;
use sovereign_proto::round::v1::{RoundPhase, RoundRecord};
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::topics::{MESH_CHECKPOINT, MESH_ROUND, MESH_TILE};

use crate::node::{
    Node, QUIC, TCP, bus, dirs, joining, listening, next_change, wait_until, within,
};
use crate::owners::Owners;

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

    let change = a.owners.commit(3);
    a.hint().await;
    for mailbox in [&mut at_b, &mut at_c] {
        let (peer, received) = next_change(mailbox).await;
        assert_eq!((peer, received), (at.peer_id.clone(), change.clone()));
    }
    // What came from the mesh does not go back: the next thing that a hears is of c itself.
    c.wait_for_peers(1).await;
    let own = c.owners.commit(1);
    c.hint().await;
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
    let changes: Vec<TileChange> = (0..130).map(|_| island.owners.commit(2)).collect();
    for id in ["r-1", "r-2"] {
        island.owners.record(&round(id));
    }
    let meta = checkpoint("v1");
    island.owners.store(&meta);

    let peer_bus = bus(dirs[1].path(), "peer");
    let mut tiles = peer_bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let mut checkpoints = peer_bus
        .subscribe(&MESH_CHECKPOINT, Select::All)
        .await
        .unwrap();
    let mut rounds = peer_bus.consume(&MESH_ROUND, "test").await.unwrap();
    let config = joining(TCP, &island.me().await);
    let peer = Node::start_with(dirs[1].path(), peer_bus, Owners::default(), "peer", config).await;
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
    let owners = island.owners.clone();
    wait_until("everything is published", async || {
        island.metric("sovereign_mesh_gateway_exported_sequence{log=\"tiles\"}") >= 130.0
    })
    .await;
    island.stop().await;
    let config = joining(TCP, &peer.me().await);
    let island_bus = bus(dirs[0].path(), "island");
    let island = Node::start_with(dirs[0].path(), island_bus, owners, "island", config).await;
    island.owners.record(&round("r-3"));
    let newest = island.owners.commit(1);
    island.hint().await;
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
    let change = a.owners.commit(4_000);
    a.hint().await;
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
        a.owners.begin_map_anew();
        let changes: Vec<TileChange> = (0..count).map(|_| a.owners.commit(1)).collect();
        a.hint().await;
        for change in changes {
            assert_eq!(next_change(&mut tiles).await.1, change);
        }
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_was_stored_before_the_gateway_ever_ran_is_exported() {
    let dirs = dirs(2);
    let owners = Owners::default();
    // More than a page.
    let stored: Vec<CheckpointMeta> = (0..130).map(|n| checkpoint(&format!("v{n}"))).collect();
    for meta in &stored {
        owners.store(meta);
    }
    let on_bus = bus(dirs[0].path(), "a");
    let a = Node::start_with(dirs[0].path(), on_bus, owners, "a", listening(QUIC)).await;
    let at = a.me().await;
    let on_bus = bus(dirs[1].path(), "b");
    let mut heard = on_bus
        .subscribe(&MESH_CHECKPOINT, Select::All)
        .await
        .unwrap();
    let (owners, config) = (Owners::default(), joining(QUIC, &at));
    let b = Node::start_with(dirs[1].path(), on_bus, owners, "b", config).await;
    for meta in stored {
        let event = within(heard.recv()).await.unwrap();
        assert_eq!(event.message.peer_id, at.peer_id);
        assert_eq!(event.message.checkpoint, Some(meta));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn each_phase_of_a_round_is_one_message() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let at = a.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &at)).await;
    let mut rounds = b.bus.consume(&MESH_ROUND, "test").await.unwrap();
    a.wait_for_peers(1).await;
    let phases = [
        ("r-1", RoundPhase::Open),
        ("r-1", RoundPhase::Closed),
        ("r-2", RoundPhase::Open),
    ];
    let records = phases.map(|(id, phase)| RoundRecord {
        phase: phase.into(),
        ..round(id)
    });
    for record in &records {
        a.owners.record(record);
        for _ in 0..2 {
            a.hint().await;
        }
    }
    for record in records {
        let delivery = within(rounds.next()).await.unwrap();
        assert_eq!(delivery.message.record.as_ref(), Some(&record));
        let id = format!("{}.{}.{}", at.peer_id, record.round_id, record.phase);
        assert_eq!(delivery.headers.message_id, id);
        delivery.ack().await.unwrap();
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_crash_before_the_cursor_is_kept_repeats_and_loses_nothing() {
    let dirs = dirs(4);
    let [home, left, left_again, late] = [0, 1, 2, 3].map(|n| dirs[n].path());
    let a = Node::start(home, "a", listening(TCP)).await;
    let b_dir = tempfile::tempdir().unwrap();
    let b = Node::start(b_dir.path(), "b", joining(TCP, &a.me().await)).await;
    let mut tiles = b.bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    a.wait_for_peers(1).await;
    let owners = a.owners.clone();
    let first = owners.commit(1);
    a.hint().await;
    assert_eq!(next_change(&mut tiles).await.1, first);
    a.crash(home, left).await;

    // Who heard it hears it once.
    let second = owners.commit(1);
    let config = joining(TCP, &b.me().await);
    let a = Node::start_with(left, bus(left, "a"), owners.clone(), "a", config).await;
    assert_eq!(next_change(&mut tiles).await.1, second);
    b.stop().await;
    a.crash(left, left_again).await;

    // Who did not hears all of it.
    let again = bus(left_again, "a");
    let a = Node::start_with(left_again, again, owners, "a", listening(TCP)).await;
    let on_bus = bus(late, "late");
    let mut tiles = on_bus.subscribe(&MESH_TILE, Select::All).await.unwrap();
    let config = joining(TCP, &a.me().await);
    let late = Node::start_with(late, on_bus, Owners::default(), "late", config).await;
    for change in [first, second] {
        assert_eq!(next_change(&mut tiles).await.1, change);
    }
    a.stop().await;
    late.stop().await;
}
