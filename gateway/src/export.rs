//! What this node tells its peers: map changes, stored checkpoints, rounds, and hello.
//!
//! Only these four, and only of this node: the topics read here are written by the node's own
//! services, never by [`crate::import`]. Nothing is skipped while the node is an island. Rounds and
//! checkpoints wait in their durable topics and are acknowledged after GossipSub took them; map changes
//! wait in the tile store and a cursor on disk moves after GossipSub took them. What is published twice
//! because the process ended in between carries the same message id, and peers drop it.

use std::time::Duration;

use prost::Message as _;
use sovereign_bus::{Consumer, Mailbox};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::checkpoint::v1::CheckpointMeta;
use sovereign_proto::mesh::v1::envelope::Body;
use sovereign_proto::mesh::v1::{Envelope, Hello};
use sovereign_proto::round::v1::RoundRecord;
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{
    ListChangesRequest, ListChangesResponse, ListLayersRequest, TileChange,
};
use sovereign_service::{Channel, RunError, Stop, chain};
use uuid::Uuid;

use crate::cursor::Cursor;
use crate::domain::envelope::MAX_HELLO_ADDRS;
use crate::domain::split::ranges_within;
use crate::error::PublishRefused;
use crate::import::kind_of;
use crate::metrics::Metrics;
use crate::service::now;
use crate::swarm::{Client, MAX_ENVELOPE_BYTES};
use crate::topics::Topic;

/// Changes asked for at a time; the cursor is written after each page.
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
    /// Exports map changes after the cursor, now and whenever a hint says that there are more.
    ///
    /// # Errors
    ///
    /// When the cursor cannot be kept.
    pub(crate) async fn map(
        self,
        mut tiles: TilesClient<Channel>,
        mut hints: Mailbox<TileChange>,
        cursor: Cursor,
    ) -> Result<(), RunError> {
        let mut sequence = cursor
            .read()
            .map_err(|error| RunError::new("export the map", error))?;
        let mut started = false;
        loop {
            // An island asks for nothing: the changes are safe in the tile store.
            if self.wait_for_subscriber(Topic::Map).await.is_err() {
                return Ok(());
            }
            if !started {
                let Ok(newest) = self.newest_change(&mut tiles).await else {
                    return Ok(());
                };
                if newest < sequence {
                    tracing::warn!(
                        newest,
                        cursor = sequence,
                        "the tile store began anew, exporting it from its start"
                    );
                    sequence = 0;
                }
                started = true;
            }
            let Ok(page) = self.changes_after(&mut tiles, sequence).await else {
                return Ok(());
            };
            let oldest_missed = page.oldest_kept.saturating_sub(1);
            if oldest_missed > sequence {
                let missed = oldest_missed - sequence;
                self.metrics.changes_missed.inc_by(missed);
                tracing::warn!(
                    missed,
                    "map changes were gone before they could be exported"
                );
                sequence = oldest_missed;
            }
            if page.changes.is_empty() {
                tokio::select! {
                    open = newer_hint(&mut hints, sequence) => if !open { return Ok(()) },
                    () = tokio::time::sleep(UNHINTED) => {}
                    () = self.stop.requested() => return Ok(()),
                }
                continue;
            }
            let mut stopping = false;
            for change in page.changes {
                let last = change.sequence;
                if self.publish_change(change).await.is_err() {
                    stopping = true;
                    break;
                }
                sequence = last;
            }
            self.keep_cursor(&cursor, sequence).await?;
            if stopping {
                return Ok(());
            }
        }
    }

    /// Exports the rounds that this node opens.
    ///
    /// # Errors
    ///
    /// When a record cannot be acknowledged.
    pub(crate) async fn rounds(self, mut records: Consumer<RoundRecord>) -> Result<(), RunError> {
        loop {
            let delivery = tokio::select! {
                delivery = records.next() => delivery,
                () = self.stop.requested() => return Ok(()),
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let body = Body::Round(delivery.message.clone());
            if self.publish_content(Topic::Rounds, body).await.is_err() {
                return Ok(());
            }
            delivery
                .ack()
                .await
                .map_err(|error| RunError::new("export a round", error))?;
        }
    }

    /// Exports what the checkpoint store announces.
    ///
    /// # Errors
    ///
    /// When an announcement cannot be acknowledged.
    pub(crate) async fn checkpoints(
        self,
        mut stored: Consumer<CheckpointMeta>,
    ) -> Result<(), RunError> {
        loop {
            let delivery = tokio::select! {
                delivery = stored.next() => delivery,
                () = self.stop.requested() => return Ok(()),
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let body = Body::Checkpoint(delivery.message.clone());
            if self.publish_content(Topic::Rounds, body).await.is_err() {
                return Ok(());
            }
            delivery
                .ack()
                .await
                .map_err(|error| RunError::new("export a checkpoint", error))?;
        }
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
            if self
                .publish(Topic::Rounds, body, Uuid::new_v4().to_string())
                .await
                .is_err()
            {
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

    async fn publish_change(&self, change: TileChange) -> Result<(), Stopping> {
        let sizes: Vec<usize> = change.tiles.iter().map(framed_len).collect();
        for range in ranges_within(&sizes, MAX_ENVELOPE_BYTES - CHANGE_OVERHEAD_BYTES) {
            let part = TileChange {
                tiles: change.tiles[range].to_vec(),
                layer: change.layer.clone(),
                frame_id: change.frame_id.clone(),
                sensor_id: change.sensor_id.clone(),
                ..change
            };
            self.publish_content(Topic::Map, Body::TileChange(part))
                .await?;
        }
        Ok(())
    }

    /// Publishes a body under an id made from its content, the same when it is published again.
    async fn publish_content(&self, topic: Topic, body: Body) -> Result<(), Stopping> {
        let envelope = Envelope {
            body: Some(body.clone()),
            ..Envelope::default()
        };
        let mut message_id = Digest::of(&envelope.encode_to_vec()).to_hex();
        message_id.truncate(32);
        self.publish(topic, body, message_id).await
    }

    /// Publishes until GossipSub took it.
    async fn publish(&self, topic: Topic, body: Body, message_id: String) -> Result<(), Stopping> {
        let kind = kind_of(&body);
        let data = seal(&self.node_id, message_id, body, now());
        let mut wait = FIRST_WAIT;
        loop {
            self.wait_for_subscriber(topic).await?;
            let refused = match self.client.publish(topic, data.clone()).await {
                Ok(()) => {
                    self.metrics.count_published(kind);
                    return Ok(());
                }
                Err(refused) => refused,
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
                    return Ok(());
                }
                PublishRefused::NoSubscriber { .. }
                | PublishRefused::Busy
                | PublishRefused::Sign(_)
                | PublishRefused::Restarting => {
                    self.metrics.export_retries.inc();
                    tracing::debug!(reason = %chain(&refused), "an export waits");
                    self.wait(&mut wait).await?;
                }
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

    async fn newest_change(&self, tiles: &mut TilesClient<Channel>) -> Result<u64, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            match tiles.list_layers(ListLayersRequest {}).await {
                Ok(response) => {
                    let layers = response.into_inner().layers;
                    return Ok(layers.iter().map(|l| l.last_change).max().unwrap_or(0));
                }
                Err(status) => self.tiles_failed(&status, &mut wait).await?,
            }
        }
    }

    async fn changes_after(
        &self,
        tiles: &mut TilesClient<Channel>,
        after: u64,
    ) -> Result<ListChangesResponse, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            let request = ListChangesRequest { after, limit: PAGE };
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

    async fn keep_cursor(&self, cursor: &Cursor, sequence: u64) -> Result<(), RunError> {
        let cursor = cursor.clone();
        let written = tokio::task::spawn_blocking(move || cursor.write(sequence));
        written
            .await
            .map_err(|error| RunError::new("write the export cursor", error))?
            .map_err(|error| RunError::new("export the map", error))?;
        self.metrics.exported_sequence.set(sequence);
        Ok(())
    }
}

/// Waits for a hint of a change that was not exported; hints that waited since before are passed over.
/// False when the bus is closed.
async fn newer_hint(hints: &mut Mailbox<TileChange>, exported: u64) -> bool {
    while let Some(hint) = hints.recv().await {
        if hint.message.sequence > exported {
            return true;
        }
    }
    false
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
