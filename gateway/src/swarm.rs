//! The one owner of the libp2p swarm.
//!
//! [`start`] binds the listeners and returns a [`Client`] for the rest of the gateway, the stream of
//! accepted messages, and a [`Supervisor`] to run. Every peer message is held against the contract
//! ([`Inspector`]) before GossipSub may forward it. While the receiver of messages is behind, the swarm
//! is not polled, so a slow import slows its peers instead of losing messages; commands are still
//! answered.
//!
//! The event loop is supervised: when it panics or loses its listeners a new swarm is built with the
//! same identity and seeds; what was delivered already and who waits for messages is kept.

mod build;
mod client;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, PublishError};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns, ping};
use sovereign_service::Stop;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Settings, is_dial_addr};
use crate::domain::dial::{Dial, DialBook, TargetId, Wanted};
use crate::error::{PublishRefused, SwarmError};
use crate::import::{Inspector, Received, Verdict};
use crate::metrics::Metrics;
use crate::topics::{Topic, TopicNames};
use build::{Behaviour, BehaviourEvent, build_swarm, identify_protocol};
use client::Command;
pub(crate) use client::{Client, MAX_ENVELOPE_BYTES, PeerInfo, State};

/// Commands waiting for the event loop; senders wait when it is full.
const COMMANDS: usize = 64;
/// Accepted messages waiting for import; the swarm is not polled when it is full.
const MESSAGES: usize = 256;
/// Peers a node connects to by itself when it knows that many: enough for GossipSub to choose its
/// mesh of six from, and for the network to hold when the seed is gone.
const WANTED_PEERS: usize = 10;
/// A listener must have an address within this time.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// After a stop the swarm is polled this much longer, so that what was accepted is sent.
const LINGER: Duration = Duration::from_millis(250);
/// Wait before a swarm that ended is built again.
const RESTART_WAIT: Duration = Duration::from_millis(500);

/// What a swarm is made from.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) keypair: Keypair,
    pub(crate) node_id: String,
}

/// Binds every listener of the settings and waits until each has an address.
///
/// # Errors
///
/// [`SwarmError`] when a listener cannot be had.
pub(crate) async fn start(
    settings: Settings,
    identity: Identity,
    inspector: Inspector,
    metrics: Metrics,
) -> Result<(Client, mpsc::Receiver<Box<Received>>, Supervisor), SwarmError> {
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (messages, received) = mpsc::channel(MESSAGES);
    let (state, state_receiver) = watch::channel(State::default());
    let peer_id = identity.keypair.public().to_peer_id();
    let wanted = Wanted {
        min_peers: settings.min_peers as usize,
        peers: WANTED_PEERS
            .max(settings.min_peers as usize)
            .min(settings.max_peers as usize),
    };
    let shared = Arc::new(Shared {
        names: TopicNames::new(settings.topic.clone()),
        book_seed: (wanted, settings.bootstrap.clone()),
        settings,
        identity,
        metrics,
        state,
    });
    let event_loop = EventLoop::start(shared.clone()).await?;
    let supervisor = Supervisor {
        event_loop: Some(event_loop),
        shared,
        inspector,
        commands,
        messages,
    };
    let client = Client {
        peer_id,
        commands: command_sender,
        state: state_receiver,
    };
    Ok((client, received, supervisor))
}

/// Runs the event loop and builds a new one when it ends.
#[derive(Debug)]
pub(crate) struct Supervisor {
    event_loop: Option<EventLoop>,
    shared: Arc<Shared>,
    inspector: Inspector,
    commands: mpsc::Receiver<Command>,
    messages: mpsc::Sender<Box<Received>>,
}

impl Supervisor {
    /// Works until `stop` is requested, then a moment longer for what is on its way out. The end
    /// closes the stream of accepted messages.
    pub(crate) async fn run(mut self, stop: Stop) {
        loop {
            if let Some(mut event_loop) = self.event_loop.take() {
                let running = event_loop.run(
                    &mut self.inspector,
                    &mut self.commands,
                    &self.messages,
                    &stop,
                );
                match AssertUnwindSafe(running).catch_unwind().await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(error = %sovereign_service::chain(&error), "the swarm ended, building it again");
                    }
                    Err(_panic) => tracing::error!("the swarm panicked, building it again"),
                }
                self.shared.metrics.swarm_restarts.inc();
            }
            // What is known about peers died with the swarm.
            self.shared.state.send_replace(State::default());
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(RESTART_WAIT) => {}
            }
            match EventLoop::start(self.shared.clone()).await {
                Ok(event_loop) => self.event_loop = Some(event_loop),
                Err(error) => {
                    tracing::error!(error = %sovereign_service::chain(&error), "the swarm cannot be built, trying again");
                }
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    identity: Identity,
    names: TopicNames,
    book_seed: (Wanted, Vec<Multiaddr>),
    metrics: Metrics,
    state: watch::Sender<State>,
}

/// A peer with its connections; bounded by `max_peers` through the connection limits.
#[derive(Debug, Default)]
struct Connected {
    connections: Vec<(ConnectionId, Multiaddr)>,
    agent: String,
}

struct EventLoop {
    shared: Arc<Shared>,
    swarm: Swarm<Behaviour>,
    started: Instant,
    book: DialBook,
    dials: HashMap<ConnectionId, TargetId>,
    peers: HashMap<PeerId, Connected>,
    listeners: usize,
    island: bool,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl EventLoop {
    async fn start(shared: Arc<Shared>) -> Result<Self, SwarmError> {
        let mut swarm = build_swarm(&shared)?;
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for addr in &shared.settings.listen {
            let listen = |cause| SwarmError::Listen {
                addr: addr.clone(),
                cause,
            };
            let id = swarm.listen_on(addr.clone()).map_err(listen)?;
            waiting.insert(id, addr.clone());
        }
        let (wanted, seeds) = shared.book_seed.clone();
        let mut event_loop = Self {
            book: DialBook::new(*swarm.local_peer_id(), wanted, seeds),
            listeners: waiting.len(),
            island: false,
            started: Instant::now(),
            dials: HashMap::new(),
            peers: HashMap::new(),
            swarm,
            shared,
        };
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        while let Some(addr) = waiting.values().next() {
            let event = tokio::time::timeout_at(deadline, event_loop.swarm.select_next_some());
            let Ok(event) = event.await else {
                return Err(SwarmError::NotListening {
                    addr: addr.clone(),
                    seconds: LISTEN_TIMEOUT.as_secs(),
                });
            };
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                waiting.remove(listener_id);
            }
            event_loop.on_transport_event(event)?;
        }
        Ok(event_loop)
    }

    async fn run(
        &mut self,
        inspector: &mut Inspector,
        commands: &mut mpsc::Receiver<Command>,
        messages: &mpsc::Sender<Box<Received>>,
        stop: &Stop,
    ) -> Result<(), SwarmError> {
        self.publish_state();
        let mut room = None;
        let linger = async {
            stop.requested().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::pin!(linger);
        loop {
            let next_dial = self.next_dial();
            tokio::select! {
                () = &mut linger => return Ok(()),
                Some(command) = commands.recv() => self.on_command(command),
                permit = messages.reserve(), if room.is_none() => match permit {
                    Ok(permit) => room = Some(permit),
                    // The importer failed, which stops the gateway.
                    Err(_closed) => return Ok(()),
                },
                event = self.swarm.select_next_some(), if room.is_some() => {
                    if let Some(received) = self.on_event(event, inspector)?
                        && let Some(permit) = room.take()
                    {
                        permit.send(received);
                    }
                }
                () = tokio::time::sleep_until(next_dial.unwrap_or(self.started)), if next_dial.is_some() => self.dial_due(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, data, reply } => {
                // The caller may have given up; the message counts as sent all the same.
                let _ = reply.send(self.publish(topic, data));
            }
            Command::Peers { reply } => {
                let _ = reply.send(self.peer_infos());
            }
            #[cfg(test)]
            Command::Panic => panic!("asked to by a test"),
        }
    }

    fn publish(&mut self, topic: Topic, data: Vec<u8>) -> Result<(), PublishRefused> {
        let name = self.shared.names.name(topic);
        let size = data.len();
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        match gossipsub.publish(IdentTopic::new(name), data) {
            Ok(_) | Err(PublishError::Duplicate) => Ok(()),
            Err(PublishError::NoPeersSubscribedToTopic) => Err(PublishRefused::NoSubscriber {
                topic: name.to_owned(),
            }),
            Err(PublishError::AllQueuesFull(_)) => Err(PublishRefused::Busy),
            Err(PublishError::MessageTooLarge) => Err(PublishRefused::TooLarge {
                size,
                limit: MAX_ENVELOPE_BYTES,
            }),
            Err(error @ (PublishError::SigningError(_) | PublishError::TransformFailed(_))) => {
                Err(PublishRefused::Sign(error))
            }
        }
    }

    fn peer_infos(&self) -> Vec<PeerInfo> {
        let topics: HashMap<_, _> = self.swarm.behaviour().gossipsub.all_peers().collect();
        let info = |(peer_id, connected): (&PeerId, &Connected)| {
            let (_, address) = connected.connections.first()?;
            let topics = topics.get(peer_id).into_iter().flatten();
            let mut topics: Vec<String> = topics.map(|t| t.as_str().to_owned()).collect();
            topics.sort();
            Some(PeerInfo {
                peer_id: *peer_id,
                address: address.clone(),
                topics,
                agent: connected.agent.clone(),
            })
        };
        let mut infos: Vec<PeerInfo> = self.peers.iter().filter_map(info).collect();
        infos.sort_by_key(|info| info.peer_id);
        infos
    }

    /// Events of a running swarm; an accepted message is returned.
    fn on_event(
        &mut self,
        event: SwarmEvent<BehaviourEvent>,
        inspector: &mut Inspector,
    ) -> Result<Option<Box<Received>>, SwarmError> {
        if let SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(gossipsub::Event::Message {
            propagation_source,
            message_id,
            message,
        })) = event
        {
            return Ok(self.on_message(&propagation_source, &message_id, &message, inspector));
        }
        self.on_transport_event(event)?;
        Ok(None)
    }

    fn on_message(
        &mut self,
        forwarder: &PeerId,
        message_id: &gossipsub::MessageId,
        message: &gossipsub::Message,
        inspector: &mut Inspector,
    ) -> Option<Box<Received>> {
        let topic = self.shared.names.named(message.topic.as_str());
        let verdict = match (message.source, topic) {
            (Some(origin), Some(topic)) => inspector.inspect(origin, topic, &message.data),
            // Strict validation lets no unsigned message through, and no other topic is joined.
            (None, _) | (_, None) => Verdict::Refused,
        };
        let (acceptance, received) = match verdict {
            Verdict::Accepted(received) => (MessageAcceptance::Accept, Some(received)),
            Verdict::Duplicate => (MessageAcceptance::Ignore, None),
            Verdict::Refused => (MessageAcceptance::Reject, None),
        };
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        gossipsub.report_message_validation_result(message_id, forwarder, acceptance);
        if let Some(received) = &received
            && let Some(addrs) = received.hello_addrs()
        {
            self.learn(received.origin, addrs);
        }
        received
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is non-exhaustive outside libp2p"
    )]
    fn on_transport_event(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), SwarmError> {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::debug!(%address, "listening");
                self.publish_state();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "no longer listening");
                self.publish_state();
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                self.listeners -= 1;
                if let Err(error) = reason {
                    tracing::warn!(%error, "a listener closed");
                }
                self.publish_state();
                if self.listeners == 0 {
                    return Err(SwarmError::ListenersClosed);
                }
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                if let Some(target) = self.dials.remove(&connection_id) {
                    self.book.answered(target, peer_id);
                }
                let address = endpoint.get_remote_address().clone();
                let connected = self.peers.entry(peer_id).or_default();
                if connected.connections.is_empty() {
                    tracing::info!(peer = %peer_id, "peer connected");
                }
                connected.connections.push((connection_id, address));
                self.publish_state();
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => {
                if let Some(connected) = self.peers.get_mut(&peer_id) {
                    connected.connections.retain(|(id, _)| *id != connection_id);
                    if connected.connections.is_empty() {
                        self.peers.remove(&peer_id);
                        self.book.lost(&peer_id, self.started.elapsed());
                        tracing::info!(peer = %peer_id, "peer disconnected");
                    }
                }
                self.publish_state();
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(target) = self.dials.remove(&connection_id) {
                    self.on_dial_failed(target, &error);
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "a listener failed"),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.shared.metrics.incoming_failures.inc();
                tracing::debug!(%error, "an incoming connection failed");
            }
            // Progress of dials and what others say about our addresses: nothing to decide on.
            _ => {}
        }
        Ok(())
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossipsub(event) => match event {
                gossipsub::Event::Subscribed { .. } | gossipsub::Event::Unsubscribed { .. } => {
                    self.publish_state();
                }
                gossipsub::Event::GossipsubNotSupported { peer_id } => self.send_away(peer_id),
                gossipsub::Event::SlowPeer {
                    peer_id,
                    failed_messages,
                } => {
                    let lost = failed_messages.priority + failed_messages.non_priority;
                    self.shared.metrics.lost_to_slow_peers.inc_by(lost as u64);
                    tracing::debug!(peer = %peer_id, lost, "a slow peer loses messages");
                }
                // Messages are taken out before; while the listeners are bound nobody is connected.
                gossipsub::Event::Message { .. } => {}
            },
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if info.protocol_version != identify_protocol(&self.shared.settings.network) {
                    self.send_away(peer_id);
                    return;
                }
                if let Some(connected) = self.peers.get_mut(&peer_id) {
                    connected.agent = info.agent_version;
                }
                self.learn(peer_id, info.listen_addrs);
            }
            BehaviourEvent::Identify(
                identify::Event::Sent { .. }
                | identify::Event::Pushed { .. }
                | identify::Event::Error { .. },
            ) => {}
            BehaviourEvent::Ping(ping::Event {
                connection, result, ..
            }) => {
                // A TCP connection to a peer that vanished stays open for ever unless it is closed.
                if let Err(ping::Failure::Timeout) = result {
                    self.swarm.close_connection(connection);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut by_peer: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
                for (peer, addr) in found {
                    by_peer.entry(peer).or_default().push(addr);
                }
                for (peer, addrs) in by_peer {
                    self.learn(peer, addrs);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    /// Another network's node: it speaks no protocol of ours, so the connection is of no use.
    fn send_away(&mut self, peer: PeerId) {
        self.shared.metrics.foreign_peers.inc();
        tracing::info!(%peer, "peer is of another network, disconnecting");
        self.book.forget(&peer);
        let now = self.started.elapsed();
        for seed in self.book.seeds_of(&peer) {
            self.book.useless(seed, now);
        }
        // It fails only when the peer is gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn learn(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) {
        self.book
            .learn(peer, addrs.into_iter().filter(is_dial_addr));
    }

    fn next_dial(&self) -> Option<Instant> {
        let swarm = &self.swarm;
        self.book
            .next_due(self.peers.len(), |peer| swarm.is_connected(peer))
            .map(|after| self.started + after)
    }

    fn dial_due(&mut self) {
        let (now, swarm) = (self.started.elapsed(), &self.swarm);
        let due = self
            .book
            .due(now, self.peers.len(), |peer| swarm.is_connected(peer));
        for Dial {
            target,
            peer,
            addrs,
        } in due
        {
            let options = match (peer, addrs.first()) {
                (Some(peer), _) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addrs)
                    .build(),
                (None, Some(addr)) => DialOpts::unknown_peer_id().address(addr.clone()).build(),
                (None, None) => continue,
            };
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => {
                    self.dials.insert(connection, target);
                }
                Err(error) => self.on_dial_failed(target, &error),
            }
        }
    }

    fn on_dial_failed(&mut self, target: TargetId, error: &DialError) {
        let now = self.started.elapsed();
        if let DialError::LocalPeerId { .. } = error {
            self.book.useless(target, now);
            return;
        }
        self.shared.metrics.dial_failures.inc();
        if let DialError::WrongPeerId { obtained, address } = error {
            tracing::warn!(%obtained, %address, "another peer than expected answered");
        } else {
            tracing::debug!(error = %sovereign_service::chain(error), "a dial failed");
        }
        self.book.failed(target, now, self.peers.len());
    }

    /// Tells the gateway what the swarm is like now, and says so when the node becomes an island or
    /// stops being one.
    fn publish_state(&mut self) {
        let local = *self.swarm.local_peer_id();
        let listeners = self.swarm.listeners().cloned();
        let mut state = State {
            listen: listeners
                .map(|addr| addr.with(Protocol::P2p(local)))
                .collect(),
            peers: self.peers.len(),
            rounds_subscribers: 0,
            map_subscribers: 0,
        };
        for (_, topics) in self.swarm.behaviour().gossipsub.all_peers() {
            for topic in topics {
                match self.shared.names.named(topic.as_str()) {
                    Some(Topic::Rounds) => state.rounds_subscribers += 1,
                    Some(Topic::Map) => state.map_subscribers += 1,
                    None => {}
                }
            }
        }
        self.shared
            .metrics
            .peers
            .set(i64::try_from(state.peers).unwrap_or(i64::MAX));
        let (wanted, _) = &self.shared.book_seed;
        let island = state.peers < wanted.min_peers;
        if island != self.island {
            self.island = island;
            let (peers, min_peers) = (state.peers, wanted.min_peers);
            if island {
                tracing::info!(
                    peers,
                    min_peers,
                    "island: fewer peers than wanted, exports wait"
                );
            } else {
                tracing::info!(peers, min_peers, "enough peers");
            }
        }
        self.shared.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
