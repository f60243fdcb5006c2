use std::time::Duration;

use libp2p::gossipsub::{self, IdentTopic};
use libp2p::{Multiaddr, PeerId};
use sovereign_service::StopSource;
use tokio::task::JoinSet;

use super::build::message_id;
use super::*;
use crate::config::Config;
use crate::domain::rate::{OWN, Rate};
use crate::error::PublishRefused;
use crate::service::import::tests::envelope;
use crate::topics::Topic;

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
    let metrics = Metrics::default();
    let inspector = Inspector::new(metrics.clone());
    let settings = settings.validate().unwrap();
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
    let inspector = Inspector::new(Metrics::default());
    let settings = settings.validate().unwrap();
    let started = start(settings, identity, OWN, inspector, Metrics::default()).await;
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
