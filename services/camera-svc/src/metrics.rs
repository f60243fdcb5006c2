//! What the service counts.

use prometheus_client::metrics::counter::Counter;

sovereign_service::metrics! {
    /// Counters of all cameras together; each camera's own are in `ListCameras`.
    pub(crate) struct Metrics {
        /// Frames published on the bus.
        pub(crate) frames_published: Counter,
        /// Frames skipped to hold the configured rate.
        pub(crate) frames_skipped: Counter,
        /// Frames that could not be decoded.
        pub(crate) frames_broken: Counter,
        /// Frames of live sources dropped because publishing was late.
        pub(crate) frames_dropped: Counter,
        /// Frames that could not be published: too large, or the bus is closed.
        pub(crate) frames_refused: Counter,
        /// Times a source failed and was opened again.
        pub(crate) reconnects: Counter,
    }
}
