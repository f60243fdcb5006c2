//! What the service counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use sovereign_service::Context;

/// One label with a bounded set of values.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// Counters of all sensors together.
#[derive(Debug, Clone)]
pub(crate) struct SlamMetrics {
    /// Captures settled, by `outcome`: `image_metadata`, `telemetry` (for a part of the pose at least),
    /// `position_only`, `lost`, `known` (delivered again after its verdict), `malformed` (no frame id or
    /// sensor that can be answered).
    pub(crate) captures: Family<Label, Counter>,
    /// Captures without a pose, by `reason`.
    pub(crate) unplaced: Family<Label, Counter>,
    /// Pictures that an editor rewrote, by `pixels`: `as_stored`, `turned`, `undecided`.
    pub(crate) edited: Family<Label, Counter>,
    /// Damaged parts of pictures' metadata, by `part`: `exif`, `xmp`.
    pub(crate) damaged: Family<Label, Counter>,
    /// Phone samples settled, by `outcome`: `pose`, `other`, `invalid`.
    pub(crate) samples: Family<Label, Counter>,
    /// Deliveries given back because a step failed, by `step`: `capture`, `sample`, `ack`.
    pub(crate) retries: Family<Label, Counter>,
    /// Damaged records found in the keyframe store, each time.
    pub(crate) records_damaged: Counter,
    /// From taking a capture to its verdict being on disk.
    pub(crate) settle_seconds: Histogram,
}

impl SlamMetrics {
    pub(crate) fn register(context: &Context) -> SlamMetrics {
        let metrics = SlamMetrics {
            captures: Family::default(),
            unplaced: Family::default(),
            edited: Family::default(),
            damaged: Family::default(),
            samples: Family::default(),
            retries: Family::default(),
            records_damaged: Counter::default(),
            // 0.25 ms to 4 s.
            settle_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 15)),
        };
        context.metrics.register(|registry| {
            for (name, help, family) in [
                ("captures", "Captures settled", &metrics.captures),
                ("unplaced", "Captures without a pose", &metrics.unplaced),
                (
                    "edited",
                    "Pictures that an editor rewrote after the exposure",
                    &metrics.edited,
                ),
                (
                    "metadata_damaged",
                    "Damaged parts of pictures' metadata",
                    &metrics.damaged,
                ),
                ("samples", "Phone samples settled", &metrics.samples),
                (
                    "retries",
                    "Deliveries given back because a step failed",
                    &metrics.retries,
                ),
            ] {
                registry.register(name, help, family.clone());
            }
            registry.register(
                "records_damaged",
                "Damaged records found in the keyframe store",
                metrics.records_damaged.clone(),
            );
            registry.register(
                "settle_seconds",
                "From taking a capture to its verdict being on disk",
                metrics.settle_seconds.clone(),
            );
        });
        metrics
    }
}
