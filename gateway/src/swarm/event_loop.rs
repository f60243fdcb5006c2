//! The loop over what peers, timers and the rest of the gateway want of the swarm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, PublishError};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns, ping};
use sovereign_service::Stop;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::build::{Behaviour, BehaviourEvent, build_swarm, identify_protocol};
use super::client::{Command, PeerInfo};
use super::dial::{DialBook, TargetId};
use super::shared::Shared;
use crate::domain::envelope::{MAX_ENVELOPE_BYTES, Topic};
use crate::domain::rate::Bucket;
use crate::error::{PublishRefused, SwarmError};
use crate::import::{Inspector, Received, Verdict};

const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// After a stop the swarm is polled this much longer, so that what was accepted is sent.
const LINGER: Duration = Duration::from_millis(250);

pub(super) struct EventLoop {
    pub(super) shared: Arc<Shared>,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) started: Instant,
    pub(super) book: DialBook,
    pub(super) dials: HashMap<ConnectionId, TargetId>,
    pub(super) peers: HashMap<PeerId, Connected>,
    listeners: usize,
    pace: Bucket,
    pub(super) island: bool,
}

/// A peer with its connections; bounded by `max_peers` through the connection limits.
#[derive(Debug, Default)]
pub(super) struct Connected {
    pub(super) connections: Vec<(ConnectionId, Multiaddr)>,
    pub(super) agent: String,
    /// When the first connection was made, in time since the gateway started.
    pub(super) at: Duration,
    /// Since when it has been subscribed, in the same time, over connections none of which was lost.
    pub(super) subscribed: HashMap<Topic, Duration>,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl EventLoop {
    pub(super) async fn start(shared: Arc<Shared>) -> Result<Self, SwarmError> {
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
            pace: Bucket::new(shared.pace, shared.started.elapsed()),
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

    pub(super) async fn run(
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
        if !self.pace.has_one(self.shared.started.elapsed()) {
            return Err(PublishRefused::TooFast {
                per_second: self.shared.pace.per_second,
            });
        }
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        match gossipsub.publish(IdentTopic::new(name), data) {
            Ok(_) | Err(PublishError::Duplicate) => {
                self.pace.take_one();
                Ok(())
            }
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
            (Some(origin), Some(topic)) => {
                let now = self.shared.started.elapsed();
                inspector.inspect(*forwarder, origin, topic, &message.data, now)
            }
            // Strict validation lets no unsigned message through, and no other topic is joined.
            (None, _) | (_, None) => Verdict::Refused,
        };
        let (acceptance, received) = match verdict {
            Verdict::Accepted(received) => (MessageAcceptance::Accept, Some(received)),
            Verdict::Duplicate | Verdict::Excess | Verdict::Unknown => {
                (MessageAcceptance::Ignore, None)
            }
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
                self.on_connected(peer_id, connection_id, address);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => {
                self.on_connection_lost(peer_id, connection_id);
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
                peer,
                connection,
                result,
            }) => match result {
                // The second in a row, of which the last may be a failure to open a stream. A TCP
                // connection to a peer that vanished stays open for ever unless it is closed.
                Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                    self.swarm.close_connection(connection);
                    self.on_connection_lost(peer, connection);
                }
                Ok(_) => self.drop_if_silent(peer),
                Err(ping::Failure::Unsupported) => {}
            },
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
}
