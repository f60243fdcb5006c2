//! What is measured. Names start with `sovereign_mesh_gateway_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::envelope::{Kind, Refusal};

/// Label of messages: one of the five kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Label of refused messages: one of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Every metric of the gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    published: Family<KindLabel, Counter>,
    received: Family<KindLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    /// Copies of a delivered message that came again.
    pub(crate) duplicates: Counter,
    /// Connected peers.
    pub(crate) peers: Gauge,
    /// Dials that failed.
    pub(crate) dial_failures: Counter,
    /// Connections from peers that failed in the handshake or were over the limit.
    pub(crate) incoming_failures: Counter,
    /// Peers sent away because they are of another network.
    pub(crate) foreign_peers: Counter,
    /// Messages that a slow peer's queue lost.
    pub(crate) lost_to_slow_peers: Counter,
    /// Restarts of the swarm.
    pub(crate) swarm_restarts: Counter,
    /// Map changes that the tile store no longer kept when they were to be exported.
    pub(crate) changes_missed: Counter,
    /// Exports that were tried again.
    pub(crate) export_retries: Counter,
    /// Times that exports began again because the link they went over was lost.
    pub(crate) export_rewinds: Counter,
    /// Exports given up because they fit no message.
    pub(crate) export_too_large: Counter,
    /// Sequence of the last exported map change.
    pub(crate) exported_sequence: Gauge<u64, AtomicU64>,
    /// Imported messages that the bus did not take.
    pub(crate) import_failures: Counter,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register(
            "published",
            "Messages published, by kind",
            m.published.clone(),
        );
        registry.register(
            "received",
            "Messages accepted from peers, by kind",
            m.received.clone(),
        );
        registry.register(
            "refused",
            "Messages refused, by the rule they broke",
            m.refused.clone(),
        );
        registry.register(
            "duplicates",
            "Copies of delivered messages that came again",
            m.duplicates.clone(),
        );
        registry.register("peers", "Connected peers", m.peers.clone());
        registry.register(
            "dial_failures",
            "Dials that failed",
            m.dial_failures.clone(),
        );
        registry.register(
            "incoming_failures",
            "Connections from peers that failed or were over the limit",
            m.incoming_failures.clone(),
        );
        registry.register(
            "foreign_peers",
            "Peers of other networks that were sent away",
            m.foreign_peers.clone(),
        );
        registry.register(
            "lost_to_slow_peers",
            "Messages lost in the queue of a slow peer",
            m.lost_to_slow_peers.clone(),
        );
        registry.register(
            "swarm_restarts",
            "Restarts of the swarm",
            m.swarm_restarts.clone(),
        );
        registry.register(
            "changes_missed",
            "Map changes gone from the tile store before they were exported",
            m.changes_missed.clone(),
        );
        registry.register(
            "export_retries",
            "Exports that were tried again",
            m.export_retries.clone(),
        );
        registry.register(
            "export_rewinds",
            "Times that exports began again because the link they went over was lost",
            m.export_rewinds.clone(),
        );
        registry.register(
            "export_too_large",
            "Exports given up because they fit no message",
            m.export_too_large.clone(),
        );
        registry.register(
            "exported_sequence",
            "Sequence of the last exported map change",
            m.exported_sequence.clone(),
        );
        registry.register(
            "import_failures",
            "Imported messages that the bus did not take at once",
            m.import_failures.clone(),
        );
        metrics
    }

    pub(crate) fn count_published(&self, kind: Kind) {
        let kind = kind.label();
        self.published.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn count_received(&self, kind: Kind) {
        let kind = kind.label();
        self.received.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn count_refused(&self, refusal: Refusal) {
        let reason = refusal.label();
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    #[cfg(test)]
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        let reason = refusal.label();
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }
}
