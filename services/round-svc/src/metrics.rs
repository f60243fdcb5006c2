//! What is measured. Names start with `sovereign_round_svc_`.

use prometheus_client::metrics::counter::Counter;

sovereign_service::metrics! {
    /// Every metric of the service.
    pub(crate) struct Metrics {
        /// Rounds opened here.
        pub(crate) opened: Counter,
        /// Rounds of this node whose time was over.
        pub(crate) closed: Counter,
        /// Requests to open a round that were refused.
        pub(crate) refused: Counter,
        /// Records of peers that opened or closed a round.
        pub(crate) received: Counter,
        /// Records of peers that cannot be, or came from more peers than are kept.
        pub(crate) rejected: Counter,
        /// Rounds dropped for newer ones of their origin or of one more peer.
        pub(crate) dropped: Counter,
        /// Hints at a record that the bus did not take; whoever reads the log finds it later.
        pub(crate) hints_lost: Counter,
    }
}
