//! What the service counts and measures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sovereign_model::Timestamp;
use sovereign_service::chain;

use crate::error::Refusal;

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

const LATENCIES: usize = 1_024;

sovereign_service::metrics! {
    /// Counters.
    pub(crate) struct Metrics {
        /// Frames painted.
        frames_painted: Counter,
        /// Frames that could not be painted, by reason.
        frames_refused: Labelled,
        /// Frames delivered again after they had been dealt with.
        pub(crate) frames_repeated: Counter,
        /// Frames whose pose was revised.
        pub(crate) frames_revised: Counter,
        /// Verdicts dealt with and acknowledged.
        pub(crate) frames_settled: Counter,
        /// Verdicts in hand that are not dealt with yet.
        pub(crate) frames_waiting: Gauge,
        /// Times that a frame or ground waited for the content store.
        pub(crate) retries: Counter,
        /// Tiles written, parents included.
        pub(crate) tiles_written: Counter,
        /// Tiles that wait to be painted again, once for each frame that is a reason.
        pub(crate) tiles_waiting: Gauge,
        /// Damaged tiles and changes of tiles found.
        pub(crate) tiles_damaged: Counter,
        /// Tiles served, by source.
        pub(crate) tiles_served: Labelled,
        /// Changes that could not be published; they are in the log.
        pub(crate) hints_lost: Counter,
        /// Frame in to tile committed.
        paint_latency_seconds: Histogram =
            Histogram::new([0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0]),
    }
}

/// Counts and measures; what `GetPaintStats` tells is kept beside the metrics.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) metrics: Metrics,
    since: Timestamp,
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    refused: BTreeMap<&'static str, u64>,
    latencies_nanos: VecDeque<i64>,
}

#[derive(Debug)]
pub(crate) struct PaintStats {
    pub(crate) frames_painted: u64,
    pub(crate) frames_refused: BTreeMap<&'static str, u64>,
    pub(crate) tiles_written: u64,
    pub(crate) latencies_nanos: Vec<i64>,
    /// Since when these count.
    pub(crate) since: Timestamp,
}

impl Meter {
    pub(crate) fn new(metrics: Metrics, since: Timestamp) -> Self {
        Self {
            metrics,
            since,
            figures: Mutex::default(),
        }
    }

    pub(crate) fn painted(&self, latency_nanos: i64) {
        self.metrics.frames_painted.inc();
        let seconds = latency_nanos as f64 / 1e9;
        self.metrics.paint_latency_seconds.observe(seconds);
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.latencies_nanos.len() == LATENCIES {
            figures.latencies_nanos.pop_front();
        }
        figures.latencies_nanos.push_back(latency_nanos);
    }

    /// Counts a frame that was refused. The first of its reason is worth a look.
    pub(crate) fn refused(&self, frame_id: &str, sensor_id: &str, refusal: &Refusal) {
        let reason = refusal.reason();
        let refused = &self.metrics.frames_refused;
        refused.get_or_create(&[("reason", reason)]).inc();
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = figures.refused.entry(reason).or_default();
        *count += 1;
        if *count == 1 && !refusal.is_ordinary() {
            tracing::warn!(
                frame_id,
                sensor_id,
                reason,
                error = %chain(refusal),
                "a frame cannot be painted; more of this reason are counted and logged as DEBUG"
            );
        } else {
            tracing::debug!(frame_id, sensor_id, reason, error = %chain(refusal), "a frame cannot be painted");
        }
    }

    pub(crate) fn stats(&self) -> PaintStats {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latencies_nanos: Vec<i64> = figures.latencies_nanos.iter().copied().collect();
        let frames_refused = figures.refused.clone();
        drop(figures);
        latencies_nanos.sort_unstable();
        PaintStats {
            frames_painted: self.metrics.frames_painted.get(),
            frames_refused,
            tiles_written: self.metrics.tiles_written.get(),
            latencies_nanos,
            since: self.since,
        }
    }
}

/// The smallest value that at least `percent` of an ascending list do not exceed; `None` of none.
pub(crate) fn percentile(ascending: &[i64], percent: usize) -> Option<i64> {
    let rank = (ascending.len() * percent).div_ceil(100);
    ascending.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<i64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[7, 9], 99), Some(9));
        assert_eq!(percentile(&[], 50), None);
    }
}
