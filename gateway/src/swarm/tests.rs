use std::time::Duration;

use futures::StreamExt as _;
use libp2p::gossipsub::{self, IdentTopic, PublishError};
use libp2p::identity::Keypair;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use sovereign_service::StopSource;
use tokio::task::JoinSet;

use super::build::{gossip_config, message_id};
use super::*;
use crate::config::Config;
use crate::domain::envelope::Topic;
use crate::domain::rate::{OWN, Rate};
use crate::error::PublishRefused;
use crate::wire::tests::envelope;

const LIMIT: Duration = Duration::from_secs(60);

struct Running {
    client: Client,
    received: mpsc::Receiver<Box<Received>>,
    metrics: Metrics,
}

async fn run(bootstrap: &[Multiaddr], stop: &StopSource, tasks: &mut JoinSet<()>) -> Running {
    run_at(OWN, bootstrap, stop, tasks).await
}

async fn run_at(
    pace: Rate,
    bootstrap: &[Multiaddr],
    stop: &StopSource,
    tasks: &mut JoinSet<()>,
) -> Running {
    let settings = Config {
        bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
        ..Config::default()
    };
    let identity = Identity {
        keypair: Keypair::generate_ed25519(),
        node_id: "node".to_owned(),
    };
    let metrics = Metrics::for_tests();
    let inspector = Inspector::new(metrics.clone());
    let settings = settings.settings().unwrap();
    let (client, received, supervisor) =
        start(settings, identity, pace, inspector, metrics.clone())
            .await
            .unwrap();
    tasks.spawn(supervisor.run(stop.stop()));
    Running {
        client,
        received,
        metrics,
    }
}

async fn until(client: &Client, holds: impl FnMut(&State) -> bool) {
    let mut state = client.watch();
    let waited = tokio::time::timeout(LIMIT, state.wait_for(holds)).await;
    drop(waited.expect("within the limit").unwrap());
}

async fn send_and_receive(from: &Client, to: &mut Running, message_id: &str) {
    until(from, |state| state.subscribers(Topic::Rounds) > 0).await;
    let published = from.publish(Topic::Rounds, envelope(message_id));
    published.await.unwrap();
    let received = tokio::time::timeout(LIMIT, to.received.recv()).await;
    let received = received.expect("within the limit").unwrap();
    assert_eq!(received.origin, from.peer_id());
}

#[tokio::test]
async fn a_swarm_that_panics_is_built_again_and_finds_its_peers() {
    let (stop, mut tasks) = (StopSource::new(), JoinSet::new());
    let seed = run(&[], &stop, &mut tasks).await;
    let listen = seed.client.state().listen;
    let mut other = run(&listen, &stop, &mut tasks).await;
    send_and_receive(&seed.client, &mut other, "before").await;

    other.client.panic().await;
    until(&other.client, |state| state.listen.is_empty()).await;
    let restarting = other.client.publish(Topic::Rounds, envelope("lost")).await;
    assert!(
        matches!(restarting, Err(PublishRefused::Restarting)),
        "{restarting:?}"
    );
    assert!(other.client.peers().await.is_none());
    until(&other.client, |state| !state.listen.is_empty()).await;
    until(&other.client, |state| state.peers > 0).await;
    assert_eq!(other.metrics.swarm_restarts.get(), 1);
    until(&seed.client, |state| state.peers > 0).await;
    send_and_receive(&seed.client, &mut other, "after").await;

    stop.request();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_node_publishes_no_more_than_its_pace() {
    let (stop, mut tasks) = (StopSource::new(), JoinSet::new());
    let pace = Rate {
        per_second: 0,
        burst: 2,
    };
    let slow = run_at(pace, &[], &stop, &mut tasks).await;
    let listen = slow.client.state().listen;
    let mut other = run(&listen, &stop, &mut tasks).await;
    for message_id in ["1", "2"] {
        send_and_receive(&slow.client, &mut other, message_id).await;
    }
    let refused = slow.client.publish(Topic::Rounds, b"third".to_vec()).await;
    assert!(
        matches!(refused, Err(PublishRefused::TooFast { .. })),
        "{refused:?}"
    );
    stop.request();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// How often the nodes of the next test tell others what there is.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// GossipSub as of this node, but fast and without signatures, which would take most of the time.
fn gossip(change: impl FnOnce(&mut gossipsub::ConfigBuilder)) -> Swarm<gossipsub::Behaviour> {
    let mut config = gossip_config("test");
    config
        .validation_mode(gossipsub::ValidationMode::Permissive)
        .heartbeat_initial_delay(HEARTBEAT)
        .heartbeat_interval(HEARTBEAT)
        .history_length(1000)
        .history_gossip(1000);
    change(&mut config);
    let config = config.build().unwrap();
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            let author = gossipsub::MessageAuthenticity::Author(key.public().to_peer_id());
            gossipsub::Behaviour::new(author, config).unwrap()
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
        .build();
    let topic = IdentTopic::new("topic");
    swarm.behaviour_mut().subscribe(&topic).unwrap();
    swarm
}

/// Runs both until an event of one is what is waited for.
async fn run_until<T>(
    swarms: [&mut Swarm<gossipsub::Behaviour>; 2],
    mut wanted: impl FnMut(SwarmEvent<gossipsub::Event>) -> Option<T>,
) -> T {
    let [a, b] = swarms;
    let running = async {
        loop {
            let event = tokio::select! {
                event = a.select_next_some() => event,
                event = b.select_next_some() => event,
            };
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(LIMIT, running).await;
    found.expect("within the limit")
}

#[tokio::test]
async fn a_peer_outside_the_mesh_is_heard_from_after_a_burst_of_messages() {
    let mut node = gossip(|_| {});
    // It takes nobody into its mesh, so it is told what there is.
    let mut outside = gossip(|config| {
        config.mesh_outbound_min(0).mesh_n_low(0).mesh_n(0);
        config.mesh_n_high(0);
    });
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    outside.listen_on(any).unwrap();
    let address = run_until([&mut node, &mut outside], |event| {
        if let SwarmEvent::NewListenAddr { address, .. } = event {
            Some(address)
        } else {
            None
        }
    })
    .await;
    node.dial(address).unwrap();
    let (topic, peer) = (IdentTopic::new("topic"), *outside.local_peer_id());
    run_until([&mut node, &mut outside], |event| {
        let subscribed = matches!(
            event,
            SwarmEvent::Behaviour(gossipsub::Event::Subscribed { peer_id, .. }) if peer_id == peer
        );
        subscribed.then_some(())
    })
    .await;

    let say = |node: &mut Swarm<gossipsub::Behaviour>, what: &[u8]| match node
        .behaviour_mut()
        .publish(topic.clone(), what)
    {
        // What has no place in the queue is told about, and asked for.
        Ok(_) | Err(PublishError::AllQueuesFull(_)) => {}
        Err(error) => panic!("{error}"),
    };
    for number in 0..2000_u32 {
        say(&mut node, &number.to_be_bytes());
    }
    // For as many heartbeats as no stream would survive.
    let passed = tokio::time::sleep(20 * HEARTBEAT);
    tokio::select! {
        () = passed => {}
        () = run_until([&mut node, &mut outside], |_| None) => {}
    }
    say(&mut node, b"last");
    run_until([&mut node, &mut outside], |event| {
        let heard = matches!(
            event,
            SwarmEvent::Behaviour(gossipsub::Event::Message { message, .. }) if message.data == b"last"
        );
        heard.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_had_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let settings = Config {
        listen: vec![addr.clone()],
        ..Config::default()
    };
    let identity = Identity {
        keypair: Keypair::generate_ed25519(),
        node_id: "node".to_owned(),
    };
    let inspector = Inspector::new(Metrics::for_tests());
    let settings = settings.settings().unwrap();
    let started = start(settings, identity, OWN, inspector, Metrics::for_tests()).await;
    let error = started
        .map(|_| ())
        .expect_err("the port is taken")
        .to_string();
    assert!(error.contains(&addr), "{error}");
}

#[test]
fn message_ids_differ_by_author_and_by_sequence() {
    let message = |source, sequence| gossipsub::Message {
        source: Some(source),
        data: b"same".to_vec(),
        sequence_number: Some(sequence),
        topic: IdentTopic::new("t").hash(),
    };
    let (a, b) = (PeerId::random(), PeerId::random());
    assert_eq!(message_id(&message(a, 1)), message_id(&message(a, 1)));
    assert_ne!(message_id(&message(a, 1)), message_id(&message(a, 2)));
    assert_ne!(message_id(&message(a, 1)), message_id(&message(b, 1)));
}
