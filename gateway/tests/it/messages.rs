//! Published bytes, from node to node.

use std::collections::BTreeSet;

use mesh_gateway::{Config, MAP_TOPIC, Mode};
use sovereign_bus::Select;
use sovereign_proto::mesh::v1::{PublishRequest, SubscribeRequest};
use sovereign_proto::topics::MESH_MESSAGE;
use tonic::Code;

use crate::node::{Node, QUIC, ROUNDS, TCP, dirs, joining, listening, next, wait_until, within};

async fn a_message_crosses(on: &str, transport: &str) {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "north", listening(on)).await;
    let me = a.me().await;
    assert!(me.listen_addrs[0].ends_with(&format!("/p2p/{}", me.peer_id)));
    assert_eq!(me.network, "sovereign-testnet");
    assert_eq!(me.topics, [ROUNDS, MAP_TOPIC]);
    let b = Node::start(dirs[1].path(), "south", joining(on, &me)).await;
    a.wait_for_peers(1).await;
    b.wait_for_peers(1).await;
    wait_until("the name of the seed", async || {
        b.peers().await[0].agent == "north"
    })
    .await;
    let peer = b.peers().await.remove(0);
    assert_eq!(peer.peer_id, me.peer_id);
    assert_eq!(peer.transport, transport);
    assert_eq!(peer.topics, [ROUNDS, MAP_TOPIC]);

    let mut on_bus = b.bus.subscribe(&MESH_MESSAGE, Select::All).await.unwrap();
    let (mut at_a, mut at_b) = (a.subscribe().await, b.subscribe().await);
    let first = a.publish(b"one").await.unwrap();
    let second = a.publish(b"two").await.unwrap();
    for (id, payload) in [(first, b"one"), (second, b"two")] {
        let message = next(&mut at_b).await;
        assert_eq!(message.message_id, id);
        assert_eq!(message.origin_peer_id, me.peer_id);
        assert_eq!(message.topic, ROUNDS);
        assert_eq!(message.payload, payload.as_slice());
        assert!(message.published_unix_nanos > 0);
        let event = within(on_bus.recv()).await.unwrap();
        assert_eq!(event.key.unwrap().as_str(), me.peer_id);
        assert_eq!(event.message, message);
    }
    b.publish(b"back").await.unwrap();
    assert_eq!(next(&mut at_a).await.payload, b"back".as_slice());

    b.stop().await;
    assert!(within(at_b.message()).await.unwrap().is_none());
    a.stop().await;
}

#[tokio::test]
async fn a_message_reaches_the_other_node_once_over_quic() {
    a_message_crosses(QUIC, "quic").await;
}

#[tokio::test]
async fn a_message_reaches_the_other_node_once_over_tcp() {
    a_message_crosses(TCP, "tcp").await;
}

#[tokio::test]
async fn ten_nodes_that_know_one_seed_become_a_mesh_that_outlives_it() {
    let dirs = dirs(10);
    let seed = Config {
        listen: vec![QUIC.to_owned(), TCP.to_owned()],
        ..Config::default()
    };
    let seed = Node::start(dirs[0].path(), "seed", seed).await;
    let at = seed.me().await;
    let mut nodes = Vec::new();
    for (number, dir) in dirs.iter().enumerate().skip(1) {
        let on = if number % 2 == 0 { QUIC } else { TCP };
        let both = Config {
            listen: vec![QUIC.to_owned(), TCP.to_owned()],
            bootstrap: at
                .listen_addrs
                .iter()
                .filter(|addr| addr.contains("quic") == (on == QUIC))
                .cloned()
                .collect(),
            mode: Mode::Join,
            ..Config::default()
        };
        nodes.push(Node::start(dir.path(), &format!("node-{number}"), both).await);
    }
    seed.wait_for_peers(9).await;
    for node in &nodes {
        node.wait_for_peers(5).await;
    }
    let transports: BTreeSet<String> = seed
        .peers()
        .await
        .into_iter()
        .map(|p| p.transport)
        .collect();
    assert_eq!(transports.len(), 2, "both transports are in use");

    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(node.subscribe().await);
    }
    let mut at_seed = seed.subscribe().await;
    let ids = BTreeSet::from([
        nodes[4].publish(b"from a leaf").await.unwrap(),
        nodes[4].publish(b"and again").await.unwrap(),
    ]);
    // In any order, because two nodes that dialled each other have two connections.
    let listeners = streams.iter_mut().enumerate();
    let listeners = listeners.filter_map(|(number, stream)| (number != 4).then_some(stream));
    for stream in listeners.chain([&mut at_seed]) {
        let heard = [next(stream).await, next(stream).await];
        let heard = heard.into_iter().map(|message| message.message_id);
        assert_eq!(heard.collect::<BTreeSet<_>>(), ids);
    }

    seed.stop().await;
    let last = nodes[0].publish(b"without the seed").await.unwrap();
    for stream in &mut streams[1..] {
        // The next message, so none of the earlier ones came twice.
        assert_eq!(next(stream).await.message_id, last);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn messages_of_the_largest_size_pass_back_to_back() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(QUIC)).await;
    let b = Node::start(dirs[1].path(), "b", joining(QUIC, &a.me().await)).await;
    a.wait_for_peers(1).await;
    let mut at_b = b.subscribe().await;
    // 64 KiB less message id, time, the node's name and their framing.
    let payload = vec![7_u8; (64 << 10) - 60];
    for _ in 0..40 {
        a.publish(&payload).await.unwrap();
    }
    for _ in 0..40 {
        assert_eq!(next(&mut at_b).await.payload.len(), payload.len());
    }
    let status = a.publish(&vec![7_u8; 64 << 10]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("65536"), "{}", status.message());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn impossible_calls_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "alone", listening(QUIC)).await;
    let status = node.publish(b"anyone?").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let cases = [
        ("other", &b"x"[..], ROUNDS),
        (MAP_TOPIC, b"x", "tile changes"),
        (ROUNDS, b"", "empty"),
    ];
    for (topic, payload, reason) in cases {
        let request = PublishRequest {
            topic: topic.to_owned(),
            payload: payload.to_vec().into(),
        };
        let status = node.mesh.clone().publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{}", status.message());
    }
    let topic = "other".to_owned();
    let status = node
        .mesh
        .clone()
        .subscribe(SubscribeRequest { topic })
        .await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}
