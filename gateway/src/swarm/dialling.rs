//! Whom the event loop dials, and whom it sends away.

use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::dial::{Dial, TargetId};
use super::event_loop::EventLoop;
use crate::address::is_dial_addr;

impl EventLoop {
    /// Another network's node: it speaks no protocol of ours, so the connection is of no use.
    pub(super) fn send_away(&mut self, peer: PeerId) {
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

    pub(super) fn learn(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) {
        self.book
            .learn(peer, addrs.into_iter().filter(is_dial_addr));
    }

    pub(super) fn next_dial(&self) -> Option<Instant> {
        let swarm = &self.swarm;
        self.book
            .next_due(self.peers.len(), |peer| swarm.is_connected(peer))
            .map(|after| self.started + after)
    }

    pub(super) fn dial_due(&mut self) {
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

    pub(super) fn on_dial_failed(&mut self, target: TargetId, error: &DialError) {
        let now = self.started.elapsed();
        if let DialError::LocalPeerId { .. } = error {
            self.book.useless(target, now);
            return;
        }
        self.shared.metrics.dial_failures.inc();
        if let DialError::WrongPeerId { obtained, address } = error {
            match target {
                TargetId::Seed(_) => {
                    tracing::warn!(%obtained, %address, "another peer than expected answered");
                }
                // What strangers say about their addresses is nobody's mistake here.
                TargetId::Learned(_) => {
                    tracing::debug!(%obtained, %address, "another peer than learned answered");
                }
            }
            self.book.answers_for_another(target, address.clone());
        } else {
            tracing::debug!(error = %sovereign_service::chain(error), "a dial failed");
        }
        self.book.failed(target, now, self.peers.len());
    }
}
