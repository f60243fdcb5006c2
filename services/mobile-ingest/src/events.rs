//! The event feed: each event is encoded once and shared by all readers.
//!
//! Every reader has a place in one ring of [`RING`] items. An item is one event, or several that belong
//! together, up to [`ITEM_BYTES`] and the last of them. A reader that falls further behind loses the
//! oldest items and is told how many events that were; nobody waits for it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::metrics::Metrics;

/// Items a reader may be behind before it loses the oldest. With [`ITEM_BYTES`] it bounds what a reader
/// that does not read keeps in memory, and it is many times what the fullest beat takes.
const RING: usize = 1024;
/// A batch is sent once it holds this many bytes.
const ITEM_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
struct Item {
    /// Events sent before these, since the start.
    before: u64,
    count: u64,
    text: Bytes,
}

#[derive(Debug)]
pub(crate) struct Events {
    ring: broadcast::Sender<Item>,
    /// Events sent since the start; held while an item enters the ring, so that numbers and ring agree.
    sent: Mutex<u64>,
    metrics: Arc<Metrics>,
}

impl Events {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            ring: broadcast::Sender::new(RING),
            sent: Mutex::new(0),
            metrics,
        }
    }

    /// Whether anybody reads; encoding for nobody is wasted.
    pub(crate) fn has_readers(&self) -> bool {
        self.ring.receiver_count() > 0
    }

    pub(crate) fn subscribe(&self) -> EventReader {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        EventReader {
            ring: self.ring.subscribe(),
            seen: *sent,
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn send(&self, name: &'static str, data: &impl Serialize) {
        let mut batch = Batch::new(self);
        batch.add(name, data);
        batch.send();
    }

    /// Sends an event under a number. A reader that comes back names the last one it had, and is told what came
    /// after.
    pub(crate) fn send_numbered(&self, name: &'static str, number: u64, data: &impl Serialize) {
        if self.has_readers()
            && let Some(event) = encoded(name, data)
        {
            self.put(numbered(number, &event), 1);
        }
    }

    fn put(&self, text: String, count: u64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let item = Item {
            before: *sent,
            count,
            text: text.into(),
        };
        // The last reader may have left since; then there is nobody to tell.
        if self.ring.send(item).is_ok() {
            *sent += count;
            self.metrics.events_sent.inc_by(count);
        }
    }
}

/// Events that are sent together, so that many at once do not push each other out of the ring.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    events: &'a Events,
    text: String,
    count: u64,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(events: &'a Events) -> Self {
        Self {
            events,
            text: String::new(),
            count: 0,
        }
    }

    /// Adds one event; sends what there is when that has become large.
    pub(crate) fn add(&mut self, name: &'static str, data: &impl Serialize) {
        if !self.events.has_readers() {
            return;
        }
        if let Some(event) = encoded(name, data) {
            self.text.push_str(&event);
            self.count += 1;
        }
        if self.text.len() >= ITEM_BYTES {
            self.send();
        }
    }

    pub(crate) fn send(&mut self) {
        if self.count > 0 {
            let count = std::mem::take(&mut self.count);
            self.events.put(std::mem::take(&mut self.text), count);
        }
    }
}

#[derive(Debug)]
pub(crate) struct EventReader {
    ring: broadcast::Receiver<Item>,
    /// Number of the last event that was read or given up.
    seen: u64,
    metrics: Arc<Metrics>,
}

impl EventReader {
    /// The next events, after the news of how many were missed before them; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.ring.recv().await {
                Ok(item) => {
                    let missed = item.before - self.seen;
                    self.seen = item.before + item.count;
                    if missed == 0 {
                        return Some(item.text);
                    }
                    self.metrics.events_missed.inc_by(missed);
                    let news = private("missed", &serde_json::json!({"events": missed}));
                    return Some([news, item.text].concat().into());
                }
                // The item that comes next tells how many events these were.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// An event for one reader.
pub(crate) fn private(name: &'static str, data: &impl Serialize) -> Bytes {
    encoded(name, data).unwrap_or_default().into()
}

/// The same, under a number.
pub(crate) fn private_numbered(name: &'static str, number: u64, data: &impl Serialize) -> Bytes {
    let event = encoded(name, data).map(|event| numbered(number, &event));
    event.unwrap_or_default().into()
}

fn numbered(number: u64, event: &str) -> String {
    format!("id: {number}\n{event}")
}

fn encoded(name: &'static str, data: &impl Serialize) -> Option<String> {
    match serde_json::to_string(data) {
        // JSON without indentation has no line breaks, which end an event.
        Ok(json) => Some(format!("event: {name}\ndata: {json}\n\n")),
        Err(error) => {
            tracing::error!(event = name, %error, "an event could not be encoded");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every vehicle, every pose and every phone there may be.
    const FULLEST_BEAT: u64 = 4096 + 4096 + 10_000;
    /// About as long as the longest of their events.
    fn state(number: u64) -> String {
        format!("{number:0700}")
    }

    fn count(text: &Bytes, name: &str) -> u64 {
        let text = std::str::from_utf8(text).unwrap();
        text.matches(&format!("event: {name}\n")).count() as u64
    }

    #[tokio::test]
    async fn the_fullest_beat_reaches_a_reader_whole_and_not_only_once() {
        let events = Events::new(Metrics::for_tests());
        let mut reader = events.subscribe();
        for _ in 0..3 {
            let mut batch = Batch::new(&events);
            for number in 0..FULLEST_BEAT {
                batch.add("vehicle", &state(number));
            }
            batch.send();
        }
        let mut seen = 0;
        while seen < 3 * FULLEST_BEAT {
            let text = reader.next().await.unwrap();
            assert!(text.len() < ITEM_BYTES + 1024);
            assert_eq!(count(&text, "missed"), 0);
            seen += count(&text, "vehicle");
        }
    }

    #[tokio::test]
    async fn what_was_missed_is_counted_in_events() {
        let metrics = Metrics::for_tests();
        let events = Events::new(metrics.clone());
        events.send("tile", &"for nobody");
        let mut reader = events.subscribe();
        let items = u64::try_from(RING).unwrap() + 3;
        for number in 0..items {
            let mut batch = Batch::new(&events);
            batch.add("tile", &number);
            batch.add("tile", &number);
            batch.send();
        }
        let first = reader.next().await.unwrap();
        let expected = "event: missed\ndata: {\"events\":6}\n\nevent: tile\ndata: 3\n\n";
        assert!(first.starts_with(expected.as_bytes()), "{first:?}");
        assert_eq!(metrics.events_missed.get(), 6);
        assert_eq!(metrics.events_sent.get(), 2 * items);
    }
}
