//! What peers say: held against the contract, then put on the bus under `mesh.<peer>`.
//!
//! [`Inspector`] decides within the swarm's event loop, before a message is forwarded; [`Importer`]
//! writes what was accepted. It writes to `mesh.` topics only, and [`crate::export`] reads none of
//! them, so nothing that came from the mesh goes back to it.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use sovereign_bus::{Bus, Key, PublishError};
use sovereign_proto::topics::{MESH_CHECKPOINT, MESH_MESSAGE, MESH_ROUND, MESH_TILE};
use sovereign_service::{RunError, Stop, chain};
use tokio::sync::{broadcast, mpsc};

use crate::domain::envelope::{Refusal, Topic};
use crate::domain::rate::{AUTHOR, Buckets, FORWARDER};
use crate::domain::seen::{REMEMBERED, Seen};
use crate::metrics::Metrics;
use crate::topics::TopicNames;
use crate::wire::{
    Body, MeshMessage, PeerCheckpoint, PeerRound, PeerTileChange, kind_of, open, round_message_id,
};

const RETRY: Duration = Duration::from_secs(1);

/// Authors whose rate is known; a new identity is in its first burst in any case.
const AUTHORS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Forwarders whose rate is known; with more peers connected, the one heard longest ago begins anew.
const FORWARDERS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) origin: PeerId,
    topic: Topic,
    message_id: String,
    published_unix_nanos: i64,
    body: Body,
}

impl Received {
    /// Where a peer that says hello can be dialled; absent for any other message.
    pub(crate) fn hello_addrs(&self) -> Option<Vec<Multiaddr>> {
        let Body::Hello(hello) = &self.body else {
            return None;
        };
        let addrs = hello.listen_addrs.iter();
        Some(addrs.filter_map(|addr| addr.parse().ok()).collect())
    }
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Accepted(Box<Received>),
    /// It was delivered before: neither, and nobody is to blame.
    Duplicate,
    /// It is more than its author or forwarder may say: neither, and the forwarder may not know.
    Excess,
    /// It is of a kind that this version does not know: neither, and nobody is to blame.
    Unknown,
    /// It breaks the contract: neither, and the forwarder is to blame.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Inspector {
    seen: Seen,
    authors: Buckets<PeerId>,
    forwarders: Buckets<PeerId>,
    metrics: Metrics,
}

impl Inspector {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            seen: Seen::new(REMEMBERED),
            authors: Buckets::new(AUTHOR, AUTHORS),
            forwarders: Buckets::new(FORWARDER, FORWARDERS),
            metrics,
        }
    }

    /// Decides on bytes that `origin` signed and `forwarder` brought at `now`, in time since the
    /// gateway started.
    pub(crate) fn inspect(
        &mut self,
        forwarder: PeerId,
        origin: PeerId,
        topic: Topic,
        data: &[u8],
        now: Duration,
    ) -> Verdict {
        if !self.forwarders.admit(forwarder, now) {
            self.metrics.count_refused(Refusal::ForwarderRate);
            return Verdict::Excess;
        }
        let envelope = match open(topic, data) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                self.metrics.count_refused(refusal);
                tracing::debug!(%origin, reason = refusal.label(), "message refused");
                return if refusal.is_unknown() {
                    Verdict::Unknown
                } else {
                    Verdict::Refused
                };
            }
        };
        let author = origin.to_bytes();
        if self.seen.is_known(&author, &envelope.message_id) {
            self.metrics.duplicates.inc();
            return Verdict::Duplicate;
        }
        // Only for what is new: others can bring what the author said before as often as they like.
        if !self.authors.admit(origin, now) {
            self.metrics.count_refused(Refusal::AuthorRate);
            return Verdict::Excess;
        }
        self.seen.remember(&author, &envelope.message_id);
        let Some(body) = envelope.body else {
            return Verdict::Unknown;
        };
        self.metrics.count_received(kind_of(&body));
        Verdict::Accepted(Box::new(Received {
            origin,
            topic,
            message_id: envelope.message_id,
            published_unix_nanos: envelope.published_unix_nanos,
            body,
        }))
    }
}

#[derive(Debug)]
pub(crate) struct Importer {
    pub(crate) bus: Bus,
    pub(crate) names: TopicNames,
    pub(crate) metrics: Metrics,
    /// To the subscribers of the gRPC service; they end when this does.
    pub(crate) subscribers: broadcast::Sender<MeshMessage>,
    pub(crate) received: mpsc::Receiver<Box<Received>>,
}

impl Importer {
    /// Works until the swarm has ended, on everything that was accepted. After `stop` was requested
    /// a round that the bus does not take is not tried again.
    pub(crate) async fn run(mut self, stop: Stop) -> Result<(), RunError> {
        while let Some(received) = self.received.recv().await {
            self.import(*received, &stop).await?;
        }
        Ok(())
    }

    async fn import(&self, received: Received, stop: &Stop) -> Result<(), RunError> {
        let peer_id = received.origin.to_base58();
        let peer = Key::parse(&peer_id)
            .map_err(|error| RunError::new("name the subject of a peer", error))?;
        let published = match received.body {
            Body::Payload(payload) => {
                let message = MeshMessage {
                    message_id: received.message_id,
                    origin_peer_id: peer_id,
                    topic: self.names.name(received.topic).to_owned(),
                    payload,
                    published_unix_nanos: received.published_unix_nanos,
                };
                let published = self.bus.publish(&MESH_MESSAGE, Some(&peer), &message).await;
                // It fails when nobody is subscribed.
                let _ = self.subscribers.send(message);
                published
            }
            Body::TileChange(change) => {
                let change = Some(change);
                let message = PeerTileChange { peer_id, change };
                self.bus.publish(&MESH_TILE, Some(&peer), &message).await
            }
            Body::Checkpoint(checkpoint) => {
                tracing::debug!(peer = %peer_id, version = checkpoint.version, "peer stored a checkpoint");
                let checkpoint = Some(checkpoint);
                let message = PeerCheckpoint {
                    peer_id,
                    checkpoint,
                };
                self.bus
                    .publish(&MESH_CHECKPOINT, Some(&peer), &message)
                    .await
            }
            Body::Round(record) => {
                let message_id = round_message_id(&peer_id, &record);
                let record = Some(record);
                let message = PeerRound { peer_id, record };
                return self.append(&peer, &message_id, &message, stop).await;
            }
            Body::Hello(hello) => {
                tracing::debug!(peer = %peer_id, mode = hello.mode, "hello");
                return Ok(());
            }
        };
        if let Err(error) = published {
            self.metrics.import_failures.inc();
            tracing::warn!(peer = %peer, error = %chain(&error), "the bus did not take a message of a peer");
        }
        Ok(())
    }

    /// A round that was accepted is not lost while the gateway runs: it is tried until it is on disk.
    async fn append(
        &self,
        peer: &Key,
        message_id: &str,
        message: &PeerRound,
        stop: &Stop,
    ) -> Result<(), RunError> {
        loop {
            let error = match self
                .bus
                .append(&MESH_ROUND, Some(peer), message_id, message)
                .await
            {
                Ok(_stored_or_known) => return Ok(()),
                Err(error) => error,
            };
            self.metrics.import_failures.inc();
            match error {
                PublishError::Transport(_) | PublishError::Full(_) if !stop.is_requested() => {
                    tracing::warn!(error = %chain(&error), "a round of a peer is not on disk yet");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = stop.requested() => {}
                    }
                }
                PublishError::Transport(_)
                | PublishError::Full(_)
                | PublishError::TooLarge { .. }
                | PublishError::InvalidMessageId
                | PublishError::Subject(_)
                | PublishError::Closed => {
                    return Err(RunError::new("store the round of a peer", error));
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
