//! What is measured. Names start with `sovereign_mesh_gateway_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::domain::cursor::Position;
use crate::domain::envelope::{Kind, Refusal};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LogLabel {
    log: &'static str,
}

sovereign_service::metrics! {
    /// Every metric of the gateway.
    pub(crate) struct Metrics {
        /// Messages published, by kind.
        published: Family<KindLabel, Counter>,
        /// Messages accepted from peers, by kind.
        received: Family<KindLabel, Counter>,
        /// Messages refused, by the rule they broke.
        refused: Family<ReasonLabel, Counter>,
        /// Copies of delivered messages that came again.
        pub(crate) duplicates: Counter,
        /// Connected peers.
        pub(crate) peers: Gauge,
        /// Dials that failed.
        pub(crate) dial_failures: Counter,
        /// Connections from peers that failed or were over the limit.
        pub(crate) incoming_failures: Counter,
        /// Peers of other networks that were sent away.
        pub(crate) foreign_peers: Counter,
        /// Messages lost in the queue of a slow peer.
        pub(crate) lost_to_slow_peers: Counter,
        /// Restarts of the swarm.
        pub(crate) swarm_restarts: Counter,
        /// Entries gone from a log before they were exported.
        pub(crate) export_missed: Counter,
        /// Exports that were tried again.
        pub(crate) export_retries: Counter,
        /// Times that exports began again because the link they went over was lost.
        pub(crate) export_rewinds: Counter,
        /// Exports given up because they fit no message.
        pub(crate) export_too_large: Counter,
        /// Sequence of the last exported entry, by log.
        exported_sequence: Family<LogLabel, Gauge<u64, AtomicU64>>,
        /// Imported messages that the bus did not take at once.
        pub(crate) import_failures: Counter,
    }
}

impl Metrics {
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

    pub(crate) fn exported(&self, log: &'static str, position: Position) {
        let exported = self.exported_sequence.get_or_create(&LogLabel { log });
        exported.set(position.sequence);
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&sovereign_service::Metrics::new(Default::default(), "test"))
    }

    #[cfg(test)]
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        let reason = refusal.label();
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }
}
