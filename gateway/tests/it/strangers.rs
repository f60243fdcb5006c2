//! Peers that are not gateways.

use std::collections::BTreeSet;

use libp2p::futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, gossipsub, identify, noise, tcp, yamux};
use mesh_gateway::MAP_TOPIC;
use sovereign_proto::mesh::v1::GetNodeResponse;
use tokio::task::JoinSet;

use crate::node::{LIMIT, Node, ROUNDS, TCP, dirs, joining, listening, next, wait_until, within};

#[derive(NetworkBehaviour)]
struct Stranger {
    gossipsub: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

/// A peer that speaks the protocols of the network and says what it likes.
async fn say_garbage(to: &GetNodeResponse, sayings: &[(&str, Vec<u8>)]) {
    let behaviour = |key: &libp2p::identity::Keypair| {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id_prefix("/sovereign/sovereign-testnet/meshsub")
            .build()
            .unwrap();
        let author = gossipsub::MessageAuthenticity::Signed(key.clone());
        let identify = identify::Config::new("/sovereign/sovereign-testnet/1".into(), key.public());
        Stranger {
            gossipsub: gossipsub::Behaviour::new(author, config).unwrap(),
            identify: identify::Behaviour::new(identify),
        }
    };
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
        .build();
    let addr: Multiaddr = to.listen_addrs[0].parse().unwrap();
    swarm.dial(addr).unwrap();
    let mut topics = BTreeSet::new();
    while topics.len() < 2 {
        let event = within(swarm.select_next_some()).await;
        if let SwarmEvent::Behaviour(StrangerEvent::Gossipsub(gossipsub::Event::Subscribed {
            topic,
            ..
        })) = event
        {
            topics.insert(topic.into_string());
        }
    }
    for (topic, bytes) in sayings {
        let gossipsub = &mut swarm.behaviour_mut().gossipsub;
        gossipsub
            .publish(gossipsub::IdentTopic::new(*topic), bytes.clone())
            .unwrap();
    }
    loop {
        swarm.select_next_some().await;
    }
}

#[tokio::test]
async fn garbage_is_refused_counted_and_not_passed_on() {
    let dirs = dirs(2);
    let a = Node::start(dirs[0].path(), "a", listening(TCP)).await;
    let at = a.me().await;
    let b = Node::start(dirs[1].path(), "b", joining(TCP, &at)).await;
    a.wait_for_peers(1).await;
    let mut stranger = JoinSet::new();
    stranger.spawn({
        let at = at.clone();
        let sayings = vec![
            (
                ROUNDS,
                b"node=x mode=start ts=2026-01-01T00:00:00Z".to_vec(),
            ),
            (ROUNDS, vec![0xff; 1000]),
            (MAP_TOPIC, vec![0x0a, 0x01, b'x']),
        ];
        async move { say_garbage(&at, &sayings).await }
    });
    let refused = |node: &Node| {
        let name = |r| format!("sovereign_mesh_gateway_refused_total{{reason=\"{r}\"}}");
        node.metric(&name("undecodable")) + node.metric(&name("published_time"))
    };
    wait_until("three refusals", async || refused(&a) >= 3.0).await;
    // It keeps working, and b never saw the garbage.
    let mut at_b = b.subscribe().await;
    a.publish(b"still here").await.unwrap();
    assert_eq!(next(&mut at_b).await.payload, b"still here".as_slice());
    assert_eq!(refused(&b), 0.0);
    stranger.abort_all();
    a.stop().await;
    b.stop().await;
}
