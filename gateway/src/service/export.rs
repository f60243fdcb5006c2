//! What this node tells its peers: map changes, stored checkpoints, rounds, and hello.
//!
//! Only these four, and only of this node: the topics read here are written by the node's own
//! services, never by [`crate::service::import`]. Nothing is skipped while the node is an island: rounds and
//! checkpoints wait in their durable topics, map changes in the tile store. What GossipSub took is not
//! done yet, because the link may be dead: records then wait in an [`Outbox`] and the map's position on
//! disk stays where it was until [`crate::domain::unconfirmed`] calls it confirmed, and it is published
//! again when the link or the process ends before. It carries the same message id then, and peers that
//! have it drop it.

use std::time::Duration;

use futures::FutureExt as _;
use prost::Message as _;
use sovereign_bus::{Consumer, Mailbox};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::mesh::v1::envelope::Body;
use sovereign_proto::mesh::v1::{Envelope, Hello};
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{ListChangesRequest, ListChangesResponse, TileChange};
use sovereign_service::{Channel, RunError, Stop, chain};
use uuid::Uuid;

use crate::domain::envelope::{Kind, MAX_HELLO_ADDRS};
use crate::domain::split::ranges_within;
use crate::domain::unconfirmed::{CONFIRMATION, Unconfirmed};
use crate::error::PublishRefused;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::service::import::kind_of;
use crate::service::now;
use crate::store::{Position, Store};
use crate::swarm::{Client, MAX_ENVELOPE_BYTES};
use crate::topics::Topic;

/// New changes asked for at a time.
const PAGE: u32 = 100;
/// Without a hint the tile store is asked this often, so that a lost hint costs a minute at most.
const UNHINTED: Duration = Duration::from_secs(60);
/// Wait after the first refusal or failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait between tries.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A hello is repeated this often, so that nodes find each other again after the network was split.
const HELLO_INTERVAL: Duration = Duration::from_secs(60);
/// Room for everything of an envelope with a tile change but the tiles: message id, node name, layer,
/// frame, sensor, numbers, and three bytes of framing.
const CHANGE_OVERHEAD_BYTES: usize = 1024;

/// The gateway is stopping; what was being exported is exported after the next start.
#[derive(Debug)]
struct Stopping;

/// Publishes what this node says.
#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    pub(crate) client: Client,
    pub(crate) node_id: String,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
}

impl Exporter {
    /// Exports map changes from where the store says, now and whenever a hint says that there are more.
    ///
    /// # Errors
    ///
    /// When the position cannot be kept.
    pub(crate) async fn map(
        self,
        mut tiles: TilesClient<Channel>,
        mut hints: Mailbox<TileChange>,
        store: Store,
    ) -> Result<(), RunError> {
        let position = store.position();
        let mut confirmed = position.map_err(|error| RunError::new("export the map", error))?;
        let mut at = confirmed;
        let mut unconfirmed = Unconfirmed::new();
        let mut state = self.client.watch();
        loop {
            // An island asks for nothing: the changes are safe in the tile store.
            if self.wait_for_subscriber(Topic::Map).await.is_err() {
                return Ok(());
            }
            let linked_since = state.borrow_and_update().linked_since(Topic::Map);
            let settled = unconfirmed.settle(self.client.now(), linked_since);
            if let Some(through) = settled.confirmed {
                self.keep_position(&store, through).await?;
                confirmed = through;
            }
            if settled.lost {
                self.metrics.export_rewinds.inc();
                at = confirmed;
            }
            // From the last one on, to see that it is still the same store.
            let after = at.sequence.saturating_sub(1);
            let Ok(page) = self.changes_after(&mut tiles, after).await else {
                return Ok(());
            };
            let changes = match Resumed::of(page, at) {
                Resumed::At { changes, missed } => {
                    if missed > 0 {
                        // Nothing before them can be exported any more, lost on its way or not.
                        at = Position {
                            sequence: at.sequence + missed,
                            ..Position::default()
                        };
                        confirmed = at;
                        self.metrics.changes_missed.inc_by(missed);
                        tracing::warn!(
                            missed,
                            "map changes were gone before they could be exported"
                        );
                    }
                    changes
                }
                Resumed::Anew => {
                    tracing::warn!(
                        exported = at.sequence,
                        "the tile store began anew, exporting it from its start"
                    );
                    unconfirmed.clear();
                    at = Position::default();
                    confirmed = at;
                    self.keep_position(&store, confirmed).await?;
                    continue;
                }
            };
            if changes.is_empty() {
                let wait = unconfirmed.next().map_or(UNHINTED, |next| {
                    next.saturating_sub(self.client.now()).min(UNHINTED)
                });
                tokio::select! {
                    open = hinted(&mut hints) => if !open { return Ok(()) },
                    changed = state.changed() => if changed.is_err() { return Ok(()) },
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.requested() => return Ok(()),
                }
                continue;
            }
            for change in changes {
                let next = position_of(&change);
                let Ok(published) = self.publish_change(change).await else {
                    return Ok(());
                };
                unconfirmed.published(published, next);
                at = next;
                self.metrics.exported_sequence.set(at.sequence);
                // Perhaps the link is lost, and what went over it comes first.
                if state.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }

    /// Exports records: the rounds that this node opens, or what the checkpoint store announces.
    ///
    /// # Errors
    ///
    /// When a record cannot be kept or acknowledged.
    pub(crate) async fn records<M: prost::Message + Default>(
        self,
        mut records: Consumer<M>,
        mut outbox: Outbox,
        body_of: fn(M) -> Body,
    ) -> Result<(), RunError> {
        let kind = kind_of(&body_of(M::default()));
        let mut state = self.client.watch();
        let mut wait = FIRST_WAIT;
        while !self.stop.is_requested() {
            let linked_since = state.borrow_and_update().linked_since(Topic::Rounds);
            let now = self.client.now();
            if outbox.settle(now, linked_since).await? {
                self.metrics.export_rewinds.inc();
            }
            let linked = linked_since.is_some();
            if linked && let Some(record) = outbox.unsent().await? {
                if let Some(published) = self.attempt(Topic::Rounds, kind, record).await {
                    outbox.published(published);
                    wait = FIRST_WAIT;
                } else if self.wait(&mut wait).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let next = outbox.next().unwrap_or(now + CONFIRMATION);
            tokio::select! {
                delivery = records.next(), if linked && outbox.has_room() => {
                    let Some(mut delivery) = delivery else { return Ok(()) };
                    let record = self.seal_content(body_of(std::mem::take(&mut delivery.message)));
                    outbox.push(record).await?;
                    let acknowledged = delivery.ack().await;
                    acknowledged.map_err(|error| RunError::new("acknowledge a record", error))?;
                }
                changed = state.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(next.saturating_sub(now)) => {}
                () = self.stop.requested() => {}
            }
        }
        Ok(())
    }

    /// Says hello to the first peer and repeats it.
    pub(crate) async fn hello(self, mode: &'static str) {
        loop {
            if self.wait_for_subscriber(Topic::Rounds).await.is_err() {
                return;
            }
            let listen = self.client.state().listen;
            let listen = listen.iter().take(MAX_HELLO_ADDRS);
            let body = Body::Hello(Hello {
                mode: mode.to_owned(),
                listen_addrs: listen.map(ToString::to_string).collect(),
            });
            let data = seal(&self.node_id, Uuid::new_v4().to_string(), body, now());
            let published = self.publish(Topic::Rounds, Kind::Hello, data).await;
            if published.is_err() {
                return;
            }
            // Alone again means new peers later, who have not heard it.
            let mut state = self.client.watch();
            tokio::select! {
                () = tokio::time::sleep(HELLO_INTERVAL) => {}
                _ = state.wait_for(|state| state.subscribers(Topic::Rounds) == 0) => {}
                () = self.stop.requested() => return,
            }
        }
    }

    /// Publishes a change, in parts when it is large. When the first part was, or later.
    async fn publish_change(&self, change: TileChange) -> Result<Duration, Stopping> {
        let sizes: Vec<usize> = change.tiles.iter().map(framed_len).collect();
        let mut first = None;
        for range in ranges_within(&sizes, MAX_ENVELOPE_BYTES - CHANGE_OVERHEAD_BYTES) {
            let part = TileChange {
                tiles: change.tiles[range].to_vec(),
                layer: change.layer.clone(),
                frame_id: change.frame_id.clone(),
                sensor_id: change.sensor_id.clone(),
                ..change
            };
            let data = self.seal_content(Body::TileChange(part));
            let published = self.publish(Topic::Map, Kind::TileChange, data).await?;
            first.get_or_insert(published);
        }
        Ok(first.unwrap_or_else(|| self.client.now()))
    }

    /// An envelope under an id made from its content, the same when it is made again.
    fn seal_content(&self, body: Body) -> Vec<u8> {
        let message_id = content_id(body.clone());
        seal(&self.node_id, message_id, body, now())
    }

    /// Publishes until GossipSub took it. When that was, or later.
    async fn publish(&self, topic: Topic, kind: Kind, data: Vec<u8>) -> Result<Duration, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            self.wait_for_subscriber(topic).await?;
            if let Some(published) = self.attempt(topic, kind, data.clone()).await {
                return Ok(published);
            }
            self.wait(&mut wait).await?;
        }
    }

    /// Publishes once. When GossipSub took it, or later; absent when it is to be tried again.
    async fn attempt(&self, topic: Topic, kind: Kind, data: Vec<u8>) -> Option<Duration> {
        // Before it is sent: whoever subscribes in between may not get it.
        let at = self.client.now();
        let Err(refused) = self.client.publish(topic, data).await else {
            self.metrics.count_published(kind);
            return Some(at);
        };
        match refused {
            // Trying again cannot help; counted and said, so that it does not block what follows.
            PublishRefused::TooLarge { size, limit } => {
                self.metrics.export_too_large.inc();
                tracing::error!(
                    kind = kind.label(),
                    size,
                    limit,
                    "an export fits no message"
                );
                Some(at)
            }
            PublishRefused::NoSubscriber { .. }
            | PublishRefused::Busy
            | PublishRefused::TooFast { .. }
            | PublishRefused::Sign(_)
            | PublishRefused::Restarting => {
                self.metrics.export_retries.inc();
                tracing::debug!(reason = %chain(&refused), "an export waits");
                None
            }
        }
    }

    async fn wait_for_subscriber(&self, topic: Topic) -> Result<(), Stopping> {
        let mut state = self.client.watch();
        tokio::select! {
            found = state.wait_for(|state| state.subscribers(topic) > 0) => {
                found.map(|_| ()).map_err(|_| Stopping)
            }
            () = self.stop.requested() => Err(Stopping),
        }
    }

    async fn changes_after(
        &self,
        tiles: &mut TilesClient<Channel>,
        after: u64,
    ) -> Result<ListChangesResponse, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            let request = ListChangesRequest {
                after,
                limit: PAGE + 1,
            };
            match tiles.list_changes(request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => self.tiles_failed(&status, &mut wait).await?,
            }
        }
    }

    async fn tiles_failed(
        &self,
        status: &tonic::Status,
        wait: &mut Duration,
    ) -> Result<(), Stopping> {
        self.metrics.export_retries.inc();
        tracing::warn!(code = ?status.code(), message = status.message(), "the tile store did not answer, map changes wait");
        self.wait(wait).await
    }

    async fn wait(&self, wait: &mut Duration) -> Result<(), Stopping> {
        let this = *wait;
        *wait = (this * 2).min(LONGEST_WAIT);
        tokio::select! {
            () = tokio::time::sleep(this) => Ok(()),
            () = self.stop.requested() => Err(Stopping),
        }
    }

    async fn keep_position(&self, store: &Store, position: Position) -> Result<(), RunError> {
        let store = store.clone();
        let kept = tokio::task::spawn_blocking(move || store.keep_position(position));
        kept.await
            .map_err(|error| RunError::new("use the export store", error))?
            .map_err(|error| RunError::new("export the map", error))
    }
}

/// Where to go on in the tile store.
#[derive(Debug, PartialEq)]
enum Resumed {
    /// After the last exported change.
    At {
        changes: Vec<TileChange>,
        /// Changes that were not exported and are no longer kept.
        missed: u64,
    },
    /// It is not the store that was exported: what was is gone, or another change has its sequence.
    Anew,
}

impl Resumed {
    /// Judges a page that begins with the change `at`, if there is such a change.
    fn of(page: ListChangesResponse, at: Position) -> Self {
        let mut changes = page.changes;
        if changes.first().map(|change| change.sequence) == Some(at.sequence) {
            if position_of(&changes.remove(0)) != at {
                return Resumed::Anew;
            }
        } else if at.sequence > 0 && page.oldest_kept <= at.sequence {
            return Resumed::Anew;
        }
        let missed = page.oldest_kept.saturating_sub(1 + at.sequence);
        Resumed::At { changes, missed }
    }
}

/// The id of what is said. How long a commit took is no part of it: the tile store knows that only after
/// the commit, and a store that is killed in between has forgotten it.
fn content_id(mut body: Body) -> String {
    if let Body::TileChange(change) = &mut body {
        change.latency_nanos = 0;
    }
    let content = Envelope {
        body: Some(body),
        ..Envelope::default()
    };
    let mut id = Digest::of(&content.encode_to_vec()).to_hex();
    id.truncate(32);
    id
}

/// The position after a change.
fn position_of(change: &TileChange) -> Position {
    let committed = change.committed_unix_nanos.to_le_bytes();
    let fingerprint = Digest::of_parts(&[&committed, change.frame_id.as_bytes()]);
    Position {
        sequence: change.sequence,
        fingerprint: *fingerprint.as_bytes(),
    }
}

/// Waits for a hint and passes over those that wait behind it. False when the bus is closed.
async fn hinted(hints: &mut Mailbox<TileChange>) -> bool {
    let mut open = hints.recv().await.is_some();
    while open && let Some(next) = hints.recv().now_or_never() {
        open = next.is_some();
    }
    open
}

/// Length of a tile within its change: itself, its tag, and its length.
fn framed_len(tile: &sovereign_proto::tile::v1::ChangedTile) -> usize {
    tile.encoded_len() + 1 + 5
}

/// An encoded envelope.
pub(crate) fn seal(node_id: &str, message_id: String, body: Body, at: Timestamp) -> Vec<u8> {
    Envelope {
        message_id,
        published_unix_nanos: at.as_unix_nanos(),
        node_id: node_id.to_owned(),
        body: Some(body),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_its_id_and_its_position_when_its_latency_becomes_known() {
        let committed = TileChange {
            sequence: 7,
            frame_id: "f".to_owned(),
            committed_unix_nanos: 1_000,
            latency_nanos: 10,
            ..TileChange::default()
        };
        let amended = TileChange {
            latency_nanos: 20,
            ..committed.clone()
        };
        let id = |change: &TileChange| content_id(Body::TileChange(change.clone()));
        assert_eq!(id(&amended), id(&committed));
        assert_eq!(position_of(&amended), position_of(&committed));
        let anew = TileChange {
            committed_unix_nanos: 2_000,
            ..committed.clone()
        };
        assert_ne!(id(&anew), id(&committed));
        assert_ne!(position_of(&anew), position_of(&committed));
    }
}
