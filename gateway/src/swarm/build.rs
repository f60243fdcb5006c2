//! How the swarm is put together: transports, behaviours, limits, scores.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{PeerId, SwarmBuilder, identify, mdns, noise, ping, tcp, yamux};
use sovereign_model::Digest;

use super::shared::Shared;
use crate::domain::envelope::{MAX_ENVELOPE_BYTES, Topic};
use crate::error::SwarmError;

/// Limit of a GossipSub RPC. Above [`MAX_ENVELOPE_BYTES`] by the signature and framing of a message
/// (under 512 bytes) and by one read of 8 KiB, because rust-libp2p holds its limit against all bytes
/// it has buffered, the beginning of the next message included, and drops the stream when over it.
const MAX_RPC_BYTES: usize = MAX_ENVELOPE_BYTES + (8 << 10) + 512;
/// Messages queued for one peer, 32 MiB at most; further ones are lost to that peer and counted.
const PEER_QUEUE: usize = 512;
const MESSAGE_ID_BYTES: usize = 20;
/// Message ids in one control message; of more a random choice is sent. A peer takes 16 KiB of control
/// messages at once and closes the stream over more, and after five streams GossipSub says nothing on
/// that connection any more, while it stays open.
const MAX_CONTROL_IDS: usize = 600;
// Tag and length before each id; beside them the topic and the framing around it all.
const _: () = assert!(MAX_CONTROL_IDS * (MESSAGE_ID_BYTES + 2) + (1 << 10) < 16 << 10);
/// An own message waits this long for a slow peer before it is lost to that peer and counted.
/// [`crate::domain::unconfirmed::CONFIRMATION`] builds on it.
const PUBLISH_QUEUE_TIME: Duration = Duration::from_secs(30);
/// A message of another peer waits this long for a slow peer.
const FORWARD_QUEUE_TIME: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections in handshake at a time, each way; more are refused.
const MAX_PENDING: u32 = 64;
/// Connections to one peer: two, because both sides may dial each other at the same time.
const MAX_PER_PEER: u32 = 2;
/// Invalid messages of a peer are forgotten over this time.
const INVALID_DECAY: Duration = Duration::from_secs(600);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) gossipsub: gossipsub::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

pub(super) fn build_swarm(shared: &Shared) -> Result<Swarm<Behaviour>, SwarmError> {
    let settings = &shared.settings;
    let keypair = shared.identity.keypair.clone();
    let local = keypair.public().to_peer_id();
    let (wanted, _) = &shared.book_seed;
    let limits = ConnectionLimits::default()
        .with_max_established_incoming(Some(max_incoming(settings.max_peers, wanted.peers)))
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(settings.max_peers))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let identify = identify::Config::new(identify_protocol(&settings.network), keypair.public())
        .with_agent_version(shared.identity.node_id.clone());
    let mdns = if settings.mdns {
        let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), local);
        Some(behaviour.map_err(SwarmError::Mdns)?)
    } else {
        None
    };
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        gossipsub: build_gossipsub(shared)?,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(PING_INTERVAL)
                .with_timeout(PING_TIMEOUT),
        ),
        mdns: mdns.into(),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(SwarmError::Tcp)?
        .with_quic()
        .with_dns()
        .map_err(SwarmError::Dns)?
        .with_behaviour(|_| behaviour);
    let swarm = match swarm {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    // Connections outside the GossipSub mesh are wanted too: own messages go to all peers.
    Ok(swarm
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(Duration::from_secs(u64::from(u32::MAX)))
        })
        .build())
}

/// Connections that others may open: the rest is kept for those that this node opens itself, to its
/// seeds above all, so that strangers cannot take every place. With few places half of them are kept,
/// because a seed is there to be connected to.
fn max_incoming(max_peers: u32, wanted_peers: usize) -> u32 {
    let kept = u32::try_from(wanted_peers).unwrap_or(u32::MAX);
    max_peers - kept.min(max_peers / 2)
}

fn build_gossipsub(shared: &Shared) -> Result<gossipsub::Behaviour, SwarmError> {
    let refused = |why: &str| SwarmError::Gossip(why.to_owned());
    let config = gossip_config(&shared.settings.network)
        .build()
        .map_err(|error| refused(&error.to_string()))?;
    let author = MessageAuthenticity::Signed(shared.identity.keypair.clone());
    let mut behaviour = gossipsub::Behaviour::new(author, config).map_err(refused)?;
    let topics = Topic::ALL.map(|topic| IdentTopic::new(shared.names.name(topic)));
    let per_topic = topics.iter().map(|topic| (topic.hash(), topic_score()));
    let score = gossipsub::PeerScoreParams {
        topics: per_topic.collect(),
        // Several nodes behind one address are normal: a site, a test.
        ip_colocation_factor_weight: 0.0,
        // A slow link is no offence, and a busy machine answers a request late now and then.
        slow_peer_weight: 0.0,
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        ..gossipsub::PeerScoreParams::default()
    };
    behaviour
        .with_peer_score(score, gossipsub::PeerScoreThresholds::default())
        .map_err(|error| refused(&error))?;
    for topic in &topics {
        behaviour.subscribe(topic).map_err(SwarmError::Subscribe)?;
    }
    Ok(behaviour)
}

pub(super) fn gossip_config(network: &str) -> gossipsub::ConfigBuilder {
    let mut config = gossipsub::ConfigBuilder::default();
    config
        .protocol_id_prefix(format!("/sovereign/{network}/meshsub"))
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(MAX_RPC_BYTES)
        .max_control_messages_sent(MAX_CONTROL_IDS)
        .connection_handler_queue_len(PEER_QUEUE)
        .publish_queue_duration(PUBLISH_QUEUE_TIME)
        .forward_queue_duration(FORWARD_QUEUE_TIME);
    config
}

/// Scores peers by the invalid messages they bring and by nothing else: these topics are quiet for
/// hours, so rates say nothing. Nine invalid messages within ten minutes silence a peer.
fn topic_score() -> gossipsub::TopicScoreParams {
    gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(INVALID_DECAY),
        ..gossipsub::TopicScoreParams::default()
    }
}

/// The author and its sequence number, which are signed, so nobody can claim the id of another's
/// message; and a message that was queued nowhere may be published again.
pub(super) fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let source = message.source.map(PeerId::to_bytes).unwrap_or_default();
    let sequence = message.sequence_number.unwrap_or_default().to_be_bytes();
    let digest = Digest::of_parts(&[&source, &sequence]);
    gossipsub::MessageId::new(&digest.as_bytes()[..MESSAGE_ID_BYTES])
}

/// What a node of the network calls its protocol family; the network name keeps networks apart.
pub(super) fn identify_protocol(network: &str) -> String {
    format!("/sovereign/{network}/1")
}
