//! What is measured. Names start with `sovereign_round_svc_`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Every metric of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Rounds opened here.
    pub(crate) opened: Counter,
    /// Requests to open a round that were refused.
    pub(crate) refused: Counter,
    /// Rounds of peers that were kept.
    pub(crate) received: Counter,
    /// Rounds of peers that cannot be, or came from more peers than are kept.
    pub(crate) rejected: Counter,
    /// Rounds dropped because their origin has newer ones, or for a peer with newer ones.
    pub(crate) dropped: Counter,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register("opened", "Rounds opened here", m.opened.clone());
        registry.register(
            "refused",
            "Requests to open a round that were refused",
            m.refused.clone(),
        );
        registry.register(
            "received",
            "Rounds of peers that were kept",
            m.received.clone(),
        );
        registry.register(
            "rejected",
            "Rounds of peers that cannot be, or of too many peers",
            m.rejected.clone(),
        );
        registry.register(
            "dropped",
            "Rounds dropped for newer ones of their origin or of one more peer",
            m.dropped.clone(),
        );
        metrics
    }
}
