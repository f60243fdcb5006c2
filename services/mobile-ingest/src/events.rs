//! The event feed: each event is encoded once and shared by all readers.
//!
//! Every reader has a place in one ring of [`RING`] events. A reader that falls further behind loses
//! the oldest ones and is told how many; nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::metrics::Metrics;

/// Events a reader may be behind before it loses the oldest.
const RING: usize = 1024;

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    ring: broadcast::Sender<Bytes>,
    next_id: AtomicU64,
    /// Tells the ids of this process from those of the one before.
    epoch: i64,
    metrics: Arc<Metrics>,
}

impl Events {
    /// No readers yet; `epoch` is the start of the process.
    pub(crate) fn new(epoch: i64, metrics: Arc<Metrics>) -> Self {
        Self {
            ring: broadcast::Sender::new(RING),
            next_id: AtomicU64::new(1),
            epoch,
            metrics,
        }
    }

    /// Whether anybody reads; encoding for nobody is wasted.
    pub(crate) fn has_readers(&self) -> bool {
        self.ring.receiver_count() > 0
    }

    /// What is sent from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Bytes> {
        self.ring.subscribe()
    }

    /// Sends one event to every reader.
    pub(crate) fn send(&self, name: &'static str, data: &impl Serialize) {
        if !self.has_readers() {
            return;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let Some(json) = json(name, data) else {
            return;
        };
        let event = format!("id: {}-{id}\nevent: {name}\ndata: {json}\n\n", self.epoch);
        // The last reader may have left since; then there is nobody to tell.
        if self.ring.send(Bytes::from(event)).is_ok() {
            self.metrics.events_sent.inc();
        }
    }
}

/// One event for one reader alone; it has no id, so it does not move the reader's place.
pub(crate) fn private(name: &'static str, data: &impl Serialize) -> Bytes {
    json(name, data).map_or_else(Bytes::new, |json| {
        Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
    })
}

fn json(name: &'static str, data: &impl Serialize) -> Option<String> {
    match serde_json::to_string(data) {
        // JSON without indentation has no line breaks, which end an event.
        Ok(json) => Some(json),
        Err(error) => {
            tracing::error!(event = name, %error, "an event could not be encoded");
            None
        }
    }
}
