//! What the service counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

pub(crate) type Label = [(&'static str, &'static str); 1];

sovereign_service::metrics! {
    /// Counters of all sensors together.
    pub(crate) struct Metrics {
        /// Captures settled, by outcome: `image_metadata`, `telemetry` (for a part of the pose at
        /// least), `position_only`, `lost`, `known` (delivered again), `scan` (no picture), `malformed`.
        pub(crate) captures: Family<Label, Counter>,
        /// Captures without a pose, by reason.
        pub(crate) unplaced: Family<Label, Counter>,
        /// Pictures that an editor rewrote after the exposure, by pixels: `as_stored`, `turned`, `undecided`.
        pub(crate) edited: Family<Label, Counter>,
        /// Damaged parts of pictures' metadata.
        pub(crate) metadata_damaged: Family<Label, Counter>,
        /// Phone samples settled, by outcome: `pose`, `other`, `invalid`.
        pub(crate) samples: Family<Label, Counter>,
        /// Deliveries given back because a step failed, by step: `capture`, `sample`, `refusal`, `rejudge`.
        pub(crate) retries: Family<Label, Counter>,
        /// Verdicts revised.
        pub(crate) verdicts_revised: Counter,
        /// Verdicts taken back because the painter refused the frame.
        pub(crate) verdicts_refused: Counter,
        /// Frames that wait to be judged again.
        pub(crate) frames_waiting: Gauge,
        /// Damaged records found in the keyframe store.
        pub(crate) records_damaged: Counter,
        /// From taking a capture to its verdict being on disk.
        pub(crate) settle_seconds: Histogram = Histogram::new(exponential_buckets(0.000_25, 2.0, 15)),
    }
}
