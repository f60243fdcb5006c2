//! What the bus counts, by topic pattern: patterns are constants, so the label is bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of one topic.
#[derive(Debug, Default)]
pub struct TopicCounters {
    /// Messages published or stored.
    pub published: Counter,
    /// Appends that stored nothing because the message id was stored before.
    pub duplicates: Counter,
    /// Messages handed to a reader.
    pub delivered: Counter,
    /// Of the delivered, those that may have been delivered before.
    pub redelivered: Counter,
    /// Live messages in whose place a newer one of their subject came before they were read.
    pub replaced: Counter,
    /// Live messages that were lost because a mailbox was full of other subjects.
    pub dropped: Counter,
    /// Messages that did not decode and were skipped.
    pub undecodable: Counter,
    /// Stored messages that are gone although a group had not acknowledged them: the store was emptied from
    /// outside.
    pub lost: Counter,
    /// Stored messages that the store lost, and that their publisher stored again.
    pub restored: Counter,
}

/// [`TopicCounters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicCounts {
    /// Messages published or stored.
    pub published: u64,
    /// Appends that stored nothing because the message id was stored before.
    pub duplicates: u64,
    /// Messages handed to a reader.
    pub delivered: u64,
    /// Of the delivered, those that may have been delivered before.
    pub redelivered: u64,
    /// Live messages in whose place a newer one of their subject came before they were read.
    pub replaced: u64,
    /// Live messages that were lost because a mailbox was full of other subjects.
    pub dropped: u64,
    /// Messages that did not decode and were skipped.
    pub undecodable: u64,
    /// Stored messages that are gone although a group had not acknowledged them: the store was emptied from
    /// outside.
    pub lost: u64,
    /// Stored messages that the store lost, and that their publisher stored again.
    pub restored: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: &'static str,
}

type TopicFamily = Family<TopicLabel, Counter>;

#[derive(Default)]
pub(crate) struct BusMetrics {
    topics: Mutex<BTreeMap<&'static str, Arc<TopicCounters>>>,
    published: TopicFamily,
    duplicates: TopicFamily,
    delivered: TopicFamily,
    redelivered: TopicFamily,
    replaced: TopicFamily,
    dropped: TopicFamily,
    undecodable: TopicFamily,
    lost: TopicFamily,
    restored: TopicFamily,
}

impl BusMetrics {
    pub(crate) fn topic(&self, pattern: &'static str) -> Arc<TopicCounters> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = topics.entry(pattern).or_insert_with(|| {
            let label = TopicLabel { topic: pattern };
            let counter = |family: &TopicFamily| family.get_or_create(&label).clone();
            Arc::new(TopicCounters {
                published: counter(&self.published),
                duplicates: counter(&self.duplicates),
                delivered: counter(&self.delivered),
                redelivered: counter(&self.redelivered),
                replaced: counter(&self.replaced),
                dropped: counter(&self.dropped),
                undecodable: counter(&self.undecodable),
                lost: counter(&self.lost),
                restored: counter(&self.restored),
            })
        });
        Arc::clone(counters)
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, TopicCounts> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics
            .iter()
            .map(|(pattern, counters)| (*pattern, counters.counts()))
            .collect()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sovereign_bus");
        let families = [
            (
                "published_messages",
                "Messages published or stored",
                &self.published,
            ),
            (
                "duplicate_messages",
                "Appends of a message id that was stored before",
                &self.duplicates,
            ),
            (
                "delivered_messages",
                "Messages handed to a reader",
                &self.delivered,
            ),
            (
                "redelivered_messages",
                "Messages that may have been delivered before",
                &self.redelivered,
            ),
            (
                "replaced_messages",
                "Live messages in whose place a newer one of their subject came",
                &self.replaced,
            ),
            (
                "dropped_messages",
                "Live messages lost because a mailbox was full of other subjects",
                &self.dropped,
            ),
            (
                "undecodable_messages",
                "Messages that did not decode and were skipped",
                &self.undecodable,
            ),
            (
                "lost_messages",
                "Stored messages that are gone although a group had not acknowledged them",
                &self.lost,
            ),
            (
                "restored_messages",
                "Stored messages that the store lost and their publisher stored again",
                &self.restored,
            ),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
    }
}

impl TopicCounters {
    fn counts(&self) -> TopicCounts {
        TopicCounts {
            published: self.published.get(),
            duplicates: self.duplicates.get(),
            delivered: self.delivered.get(),
            redelivered: self.redelivered.get(),
            replaced: self.replaced.get(),
            dropped: self.dropped.get(),
            undecodable: self.undecodable.get(),
            lost: self.lost.get(),
            restored: self.restored.get(),
        }
    }
}
