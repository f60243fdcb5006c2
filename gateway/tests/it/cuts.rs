//! Links that die unnoticed.

use sovereign_bus::{Consumer, Mailbox, Select};
use sovereign_proto::mesh::v1::{PeerCheckpoint, PeerRound, PeerTileChange};
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::topics::{MESH_CHECKPOINT, MESH_ROUND, MESH_TILE};

use crate::exports::{checkpoint, round};
use crate::link::Link;
use crate::node::{
    Node, QUIC, TCP, bus, dirs, joining, listening, next_change, wait_until, within,
};

/// A round, a checkpoint and a change of the map.
struct Said {
    id: &'static str,
    change: TileChange,
}

/// Says one of each kind.
async fn say(node: &Node, id: &'static str) -> Said {
    node.owners.record(&round(id));
    node.owners.store(&checkpoint(id));
    let change = node.owners.commit(1);
    node.hint().await;
    Said { id, change }
}

/// Waits until the node takes everything that it said for published.
async fn wait_for_published(node: &Node, count: u32) {
    wait_until("everything is published", async || {
        ["round", "checkpoint", "tile_change"].iter().all(|kind| {
            let name = format!("sovereign_mesh_gateway_published_total{{kind=\"{kind}\"}}");
            node.metric(&name) >= f64::from(count)
        })
    })
    .await;
}

/// What a peer hears.
struct Heard {
    tiles: Mailbox<PeerTileChange>,
    checkpoints: Mailbox<PeerCheckpoint>,
    rounds: Consumer<PeerRound>,
}

impl Heard {
    async fn by(node: &Node) -> Heard {
        Heard {
            tiles: node.bus.subscribe(&MESH_TILE, Select::All).await.unwrap(),
            checkpoints: (node.bus.subscribe(&MESH_CHECKPOINT, Select::All).await).unwrap(),
            rounds: node.bus.consume(&MESH_ROUND, "test").await.unwrap(),
        }
    }

    /// The next of each kind are these, so they came, and nothing came twice before. In any order,
    /// because two nodes that lost each other may find each other over two connections.
    async fn expect(&mut self, said: &[Said]) {
        let mut heard = Vec::new();
        for _ in said {
            let delivery = within(self.rounds.next()).await.unwrap();
            let record = delivery.message.record.clone().unwrap();
            delivery.ack().await.unwrap();
            heard.push(record.round_id);
        }
        heard.sort();
        assert_eq!(heard, said.iter().map(|s| s.id).collect::<Vec<_>>());
        heard.clear();
        for _ in said {
            let event = within(self.checkpoints.recv()).await.unwrap();
            heard.push(event.message.checkpoint.unwrap().version);
        }
        heard.sort();
        assert_eq!(heard, said.iter().map(|s| s.id).collect::<Vec<_>>());
        let mut changes = Vec::new();
        for _ in said {
            changes.push(next_change(&mut self.tiles).await.1);
        }
        changes.sort_by_key(|change| change.sequence);
        assert_eq!(
            changes,
            said.iter().map(|s| s.change.clone()).collect::<Vec<_>>()
        );
    }
}

async fn what_a_dead_link_took_arrives(on: &str) {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(on)).await;
    let at = a.me().await;
    let link = Link::to(&at).await;
    let b = Node::start(dirs[1].path(), "b", joining(on, &link.seen(&at))).await;
    a.wait_for_peers(1).await;
    let mut heard = Heard::by(&b).await;
    let first = say(&a, "r-1").await;
    heard.expect(&[first]).await;

    link.cut();
    let said = [say(&a, "r-2").await, say(&a, "r-3").await];
    wait_for_published(&a, 3).await;
    wait_until("the loss is noticed", async || {
        a.metric("sovereign_mesh_gateway_export_rewinds_total") > 0.0
    })
    .await;
    link.mend();
    heard.expect(&said).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_a_dead_quic_link_took_arrives_after_it_is_mended() {
    what_a_dead_link_took_arrives(QUIC).await;
}

#[tokio::test]
async fn what_a_dead_tcp_link_took_arrives_after_it_is_mended() {
    what_a_dead_link_took_arrives(TCP).await;
}

#[tokio::test]
async fn what_a_dead_link_took_before_a_stop_arrives_after_the_start() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(TCP)).await;
    let at = a.me().await;
    let link = Link::to(&at).await;
    let b = Node::start(dirs[1].path(), "b", joining(TCP, &link.seen(&at))).await;
    a.wait_for_peers(1).await;
    let mut heard = Heard::by(&b).await;

    link.cut();
    let said = say(&a, "r-1").await;
    wait_for_published(&a, 1).await;
    let owners = a.owners.clone();
    a.stop().await;
    // The other side does not know yet that the first connection is dead.
    let again = bus(dirs[0].path(), "a");
    let config = joining(TCP, &b.me().await);
    let a = Node::start_with(dirs[0].path(), again, owners, "a", config).await;
    heard.expect(&[said]).await;
    a.stop().await;
    b.stop().await;
}
