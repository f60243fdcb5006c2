//! Who is connected to whom.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use mesh_gateway::Config;
use tonic::Code;

use crate::node::{Node, QUIC, TCP, dirs, joining, listening, wait_until};

#[tokio::test]
async fn the_identity_outlives_the_process_and_belongs_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "same", listening(QUIC)).await;
    let first = node.me().await.peer_id;
    node.stop().await;
    let mode = std::fs::metadata(dir.path().join("peer.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let node = Node::start(dir.path(), "same", listening(QUIC)).await;
    assert_eq!(node.me().await.peer_id, first);
    node.stop().await;
}

#[tokio::test]
async fn a_seed_that_is_down_is_found_when_it_comes_back() {
    let dirs = dirs(2);
    // On an address of its own, where nobody takes the port meanwhile.
    let here = listening("/ip4/127.7.7.7/tcp/0");
    let seed = Node::start(dirs[0].path(), "seed", here).await;
    let at = seed.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &at)).await;
    b.wait_for_peers(1).await;
    seed.stop().await;
    wait_until("nobody left", async || b.peers().await.is_empty()).await;
    let (same, _) = at.listen_addrs[0].split_once("/p2p/").unwrap();
    let seed = Node::start(dirs[0].path(), "seed", listening(same)).await;
    b.wait_for_peers(1).await;
    seed.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn nodes_of_different_networks_do_not_mix() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let foreign = Config {
        network: "elsewhere".to_owned(),
        ..joining(QUIC, &a.me().await)
    };
    let b = Node::start(dirs[1].path(), "b", foreign).await;
    wait_until("somebody is sent away", async || {
        let name = "sovereign_mesh_gateway_foreign_peers_total";
        a.metric(name) + b.metric(name) > 0.0
    })
    .await;
    wait_until("they part", async || {
        a.peers().await.is_empty() && b.peers().await.is_empty()
    })
    .await;
    assert_eq!(a.publish(b"x").await.unwrap_err().code(), Code::Unavailable);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_refused() {
    let dirs = dirs(3);
    let seed = Config {
        max_peers: 1,
        ..listening(TCP)
    };
    let seed = Node::start(dirs[0].path(), "seed", seed).await;
    let at = seed.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(TCP, &at)).await;
    b.wait_for_peers(1).await;
    let c = Node::start(dirs[2].path(), "c", joining(TCP, &at)).await;
    wait_until("c is refused", async || {
        seed.metric("sovereign_mesh_gateway_incoming_failures_total") > 0.0
    })
    .await;
    let peers = seed.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].peer_id, b.me().await.peer_id);
    for node in [seed, b, c] {
        node.stop().await;
    }
}

#[tokio::test]
async fn strangers_leave_room_for_the_seed() {
    let dirs = dirs(4);
    // A seed that is down at first; its address is known from before.
    let here = listening("/ip4/127.7.7.8/tcp/0");
    let seed = Node::start(dirs[0].path(), "seed", here).await;
    let at = seed.me().await;
    seed.stop().await;
    let node = Config {
        max_peers: 2,
        ..joining(TCP, &at)
    };
    let node = Node::start(dirs[1].path(), "node", node).await;
    let to_node = node.me().await;
    let first = Node::start(dirs[2].path(), "first", joining(TCP, &to_node)).await;
    first.wait_for_peers(1).await;
    let second = Node::start(dirs[3].path(), "second", joining(TCP, &to_node)).await;
    wait_until("the second is refused", async || {
        node.metric("sovereign_mesh_gateway_incoming_failures_total") > 0.0
    })
    .await;

    let (same, _) = at.listen_addrs[0].split_once("/p2p/").unwrap();
    let seed = Node::start(dirs[0].path(), "seed", listening(same)).await;
    wait_until("the seed is connected", async || {
        let peers = node.peers().await;
        peers.iter().any(|peer| peer.peer_id == at.peer_id)
    })
    .await;
    for node in [seed, node, first, second] {
        node.stop().await;
    }
}

/// Whether multicast datagrams of this machine come back to it.
fn has_multicast() -> bool {
    let group = std::net::Ipv4Addr::new(224, 0, 0, 251);
    let probe = || -> std::io::Result<()> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.join_multicast_v4(&group, &std::net::Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"probe", (group, socket.local_addr()?.port()))?;
        socket.recv(&mut [0; 8]).map(|_| ())
    };
    probe().is_ok()
}

#[tokio::test]
async fn nodes_on_one_link_find_each_other_without_a_seed() {
    if !has_multicast() {
        // Not by `println`, which is not shown for a test that passes.
        let skipped = "skipped: this machine does not pass multicast";
        writeln!(std::io::stderr(), "{skipped}").unwrap();
        return;
    }
    let dirs = dirs(2);
    let on_the_link = || Config {
        // Of its own, so that nodes of other tests are not met.
        network: format!("mdns-{}", std::process::id()),
        mdns: true,
        ..listening("/ip4/0.0.0.0/tcp/0")
    };
    let a = Node::start(dirs[0].path(), "a", on_the_link()).await;
    let b = Node::start(dirs[1].path(), "b", on_the_link()).await;
    a.wait_for_peers(1).await;
    b.wait_for_peers(1).await;
    a.stop().await;
    b.stop().await;
}
