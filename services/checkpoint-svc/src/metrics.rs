//! What is measured. Names start with `sovereign_checkpoint_svc_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sovereign_service::metrics;

use crate::domain::{CLASSES, Class};
use crate::store::Store;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ClassLabel {
    class: &'static str,
}

impl From<Class> for ClassLabel {
    fn from(class: Class) -> Self {
        let class = class.label();
        Self { class }
    }
}

metrics! {
    pub(crate) struct Metrics {
        /// Objects stored.
        pub(crate) stored: Family<ClassLabel, Counter>,
        /// Puts of bytes that were here already.
        pub(crate) known: Family<ClassLabel, Counter>,
        /// Uploads that ended without a stored object.
        pub(crate) refused: Counter,
        /// Uploads given up because nothing more of them came; they count as refused too.
        pub(crate) idle_uploads: Counter,
        /// Reads that were verified to the end.
        pub(crate) reads: Counter,
        /// Reads that found other bytes than were stored.
        pub(crate) damaged: Counter,
        /// Hints that the bus did not take; the log has what they said.
        pub(crate) hints_lost: Counter,
        /// Bytes of stored objects.
        pub(crate) size: Family<ClassLabel, Gauge<u64, AtomicU64>> [Bytes],
        /// Objects that nobody pinned and that went because of age or room, since the start.
        pub(crate) expired: Family<ClassLabel, Gauge<u64, AtomicU64>>,
        /// Objects that went for want of room although somebody preferred to keep them, since the start.
        pub(crate) evicted: Family<ClassLabel, Gauge<u64, AtomicU64>>,
    }
}

impl Metrics {
    pub(crate) fn measure(&self, store: &Store) {
        for class in CLASSES {
            let (usage, _) = store.usage(class);
            let label = ClassLabel::from(class);
            self.size.get_or_create(&label).set(usage.size_bytes);
            self.expired.get_or_create(&label).set(usage.expired);
            self.evicted.get_or_create(&label).set(usage.evicted);
        }
    }
}
