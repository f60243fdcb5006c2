//! Who is connected, and what the rest of the gateway is told about it.

use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::client::{State, Subscribers};
use super::event_loop::EventLoop;
use crate::domain::envelope::Topic;

/// A peer that has not named its topics for this long after it connected never will.
const SILENCE: Duration = Duration::from_secs(10);

impl EventLoop {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, address: Multiaddr) {
        let connected = self.peers.entry(peer).or_default();
        if connected.connections.is_empty() {
            connected.at = self.shared.started.elapsed();
            tracing::info!(%peer, "peer connected");
        }
        connected.connections.push((id, address));
        self.publish_state();
    }

    /// A connection was closed, or is as good as closed: nothing answers on it. What was on its way
    /// over it is lost, even when the peer has another one.
    pub(super) fn on_connection_lost(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(connected) = self.peers.get_mut(&peer) else {
            return;
        };
        connected.connections.retain(|(known, _)| *known != id);
        connected.subscribed.clear();
        if connected.connections.is_empty() {
            self.peers.remove(&peer);
            self.book.lost(&peer, self.started.elapsed());
            tracing::info!(%peer, "peer disconnected");
        }
        self.publish_state();
    }

    /// Disconnects a peer that does not name its topics. GossipSub names them on the first connection
    /// only, so one that came back before the other side noticed that it was gone never hears them.
    pub(super) fn drop_if_silent(&mut self, peer: PeerId) {
        let now = self.shared.started.elapsed();
        let silent = self.peers.get(&peer).is_some_and(|connected| {
            connected.subscribed.is_empty() && now.saturating_sub(connected.at) >= SILENCE
        });
        if silent {
            tracing::info!(%peer, "peer names no topics, disconnecting");
            // It fails only when the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Tells the gateway what the swarm is like now, and says so when the node becomes an island or
    /// stops being one.
    pub(super) fn publish_state(&mut self) {
        let local = *self.swarm.local_peer_id();
        let listeners = self.swarm.listeners().cloned();
        let mut state = State {
            listen: listeners
                .map(|addr| addr.with(Protocol::P2p(local)))
                .collect(),
            peers: self.peers.len(),
            rounds: Subscribers::default(),
            map: Subscribers::default(),
        };
        let now = self.shared.started.elapsed();
        for (peer, topics) in self.swarm.behaviour().gossipsub.all_peers() {
            // One whose connection is dead stays in GossipSub until the connection is closed.
            let Some(connected) = self.peers.get_mut(peer) else {
                continue;
            };
            let names = &self.shared.names;
            let topics: Vec<Topic> = topics
                .into_iter()
                .filter_map(|topic| names.named(topic.as_str()))
                .collect();
            connected
                .subscribed
                .retain(|topic, _| topics.contains(topic));
            for topic in topics {
                let since = *connected.subscribed.entry(topic).or_insert(now);
                match topic {
                    Topic::Rounds => state.rounds.add(since),
                    Topic::Map => state.map.add(since),
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
