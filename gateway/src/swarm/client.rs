//! How the rest of the gateway speaks to the swarm's event loop.

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::PublishRefused;
use crate::topics::Topic;

/// Largest envelope that travels, the size rust-libp2p has always used for a message.
pub(crate) const MAX_ENVELOPE_BYTES: usize = 64 << 10;

/// What others of the gateway may know about the swarm at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Addresses it listens on, each ending in `/p2p/<peer id>`.
    pub(crate) listen: Vec<Multiaddr>,
    /// Connected peers.
    pub(crate) peers: usize,
    pub(super) rounds_subscribers: usize,
    pub(super) map_subscribers: usize,
}

impl State {
    /// Connected peers that are subscribed to `topic`.
    pub(crate) fn subscribers(&self, topic: Topic) -> usize {
        match topic {
            Topic::Rounds => self.rounds_subscribers,
            Topic::Map => self.map_subscribers,
        }
    }
}

/// A connected peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerInfo {
    pub(crate) peer_id: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) topics: Vec<String>,
    pub(crate) agent: String,
}

/// What the event loop is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Publish {
        topic: Topic,
        data: Vec<u8>,
        reply: oneshot::Sender<Result<(), PublishRefused>>,
    },
    Peers {
        reply: oneshot::Sender<Vec<PeerInfo>>,
    },
    #[cfg(test)]
    Panic,
}

/// How the rest of the gateway speaks to the swarm; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) peer_id: PeerId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) state: watch::Receiver<State>,
}

impl Client {
    /// Identity of this node.
    pub(crate) fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// What the swarm is like now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Publishes an encoded envelope. Returns when GossipSub has queued it for at least one peer.
    ///
    /// # Errors
    ///
    /// [`PublishRefused`]; nothing was sent.
    pub(crate) async fn publish(&self, topic: Topic, data: Vec<u8>) -> Result<(), PublishRefused> {
        if data.len() > MAX_ENVELOPE_BYTES {
            return Err(PublishRefused::TooLarge {
                size: data.len(),
                limit: MAX_ENVELOPE_BYTES,
            });
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic, data, reply };
        // Both fail only while the loop is gone: stopped, or between an end and its restart.
        if self.commands.send(command).await.is_err() {
            return Err(PublishRefused::Restarting);
        }
        answer.await.unwrap_or(Err(PublishRefused::Restarting))
    }

    /// The peers connected now; absent while the swarm restarts.
    pub(crate) async fn peers(&self) -> Option<Vec<PeerInfo>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Peers { reply }).await.ok()?;
        answer.await.ok()
    }

    #[cfg(test)]
    pub(super) async fn panic(&self) {
        self.commands.send(Command::Panic).await.unwrap();
    }
}
