//! How the rest of the gateway speaks to the swarm's event loop.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::envelope::{MAX_ENVELOPE_BYTES, Topic};
use crate::error::PublishRefused;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Addresses it listens on, each ending in `/p2p/<peer id>`.
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) peers: usize,
    pub(super) rounds: Subscribers,
    pub(super) map: Subscribers,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Subscribers {
    count: usize,
    since: Option<Duration>,
}

impl Subscribers {
    pub(super) fn add(&mut self, since: Duration) {
        self.count += 1;
        self.since = Some(self.since.map_or(since, |earliest| earliest.min(since)));
    }
}

impl State {
    pub(crate) fn subscribers(&self, topic: Topic) -> usize {
        self.of(topic).count
    }

    /// Since when, by [`Client::now`], some peer has been connected and subscribed to `topic` without
    /// interruption; absent when nobody is. Of what was published before then nothing is known.
    pub(crate) fn linked_since(&self, topic: Topic) -> Option<Duration> {
        self.of(topic).since
    }

    fn of(&self, topic: Topic) -> Subscribers {
        match topic {
            Topic::Rounds => self.rounds,
            Topic::Map => self.map,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct PeerInfo {
    pub(crate) peer_id: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) topics: Vec<String>,
    pub(crate) agent: String,
}

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
    pub(super) started: Instant,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) state: watch::Receiver<State>,
}

impl Client {
    pub(crate) fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Time since the gateway started; a swarm that is built again changes nothing.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Publishes an encoded envelope. Returns when GossipSub has queued it for at least one peer, whose
    /// link may be dead already: see [`State::linked_since`]. When it is refused nothing was sent; after
    /// [`PublishRefused::Busy`] it may arrive all the same, because peers are told that there is such a
    /// message and may ask for it; whoever tries again does so with the same envelope, of which one is
    /// delivered.
    pub(crate) async fn publish(&self, topic: Topic, data: Vec<u8>) -> Result<(), PublishRefused> {
        if data.len() > MAX_ENVELOPE_BYTES {
            return Err(PublishRefused::TooLarge {
                size: data.len(),
                limit: MAX_ENVELOPE_BYTES,
            });
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic, data, reply };
        // One of both fails while the loop is gone: stopped, or between an end and its restart.
        if self.commands.send(command).await.is_err() {
            return Err(PublishRefused::Restarting);
        }
        answer.await.unwrap_or(Err(PublishRefused::Restarting))
    }

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
