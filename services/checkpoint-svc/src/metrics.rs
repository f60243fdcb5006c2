//! What is measured. Names start with `sovereign_checkpoint_svc_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Every metric of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Versions stored.
    pub(crate) stored: Counter,
    /// Puts of bytes that the version had already.
    pub(crate) known: Counter,
    /// Uploads that ended without a stored checkpoint.
    pub(crate) refused: Counter,
    /// Uploads given up because nothing more of them came; they count as refused too.
    pub(crate) idle_uploads: Counter,
    /// Reads that were verified to the end.
    pub(crate) reads: Counter,
    /// Reads that found other bytes than were stored.
    pub(crate) damaged: Counter,
    /// Announcements that the bus did not take at once.
    pub(crate) announce_retries: Counter,
    /// Bytes of stored objects.
    pub(crate) size: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register("stored", "Versions stored", m.stored.clone());
        registry.register(
            "known",
            "Puts of bytes that the version had already",
            m.known.clone(),
        );
        registry.register(
            "refused",
            "Uploads that ended without a stored checkpoint",
            m.refused.clone(),
        );
        registry.register(
            "idle_uploads",
            "Uploads given up because nothing more of them came",
            m.idle_uploads.clone(),
        );
        registry.register(
            "reads",
            "Reads that were verified to the end",
            m.reads.clone(),
        );
        registry.register(
            "damaged",
            "Reads that found other bytes than were stored",
            m.damaged.clone(),
        );
        registry.register(
            "announce_retries",
            "Announcements that the bus did not take at once",
            m.announce_retries.clone(),
        );
        registry.register_with_unit("size", "Stored objects", Unit::Bytes, m.size.clone());
        metrics
    }
}
