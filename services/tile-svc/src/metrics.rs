//! What the service counts and measures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sovereign_service::{Context, chain};

use crate::error::Refusal;

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Newest frames whose latency is summarised; older ones are forgotten.
const LATENCIES: usize = 1_024;

/// Metrics, names prefixed with `sovereign_tile_svc_`, and the figures behind `GetPaintStats`.
#[derive(Debug)]
pub(crate) struct TileMetrics {
    /// `frames_painted_total`.
    painted: Counter,
    /// `frames_refused_total{reason}`: see [`Refusal::reason`].
    refused: Labelled,
    /// `frames_repeated_total`: frames delivered again after they had been painted.
    pub(crate) repeated: Counter,
    /// `verdicts_missed_total`: verdicts whose picture was gone.
    pub(crate) verdicts_missed: Counter,
    /// `verdicts_asked_total`: verdicts asked for because none had come.
    pub(crate) verdicts_asked: Counter,
    /// `captures_waiting`: pictures that wait for their verdict.
    pub(crate) waiting: Gauge,
    /// `tiles_written_total`, parents included.
    written: Counter,
    /// `tiles_damaged_total`: damaged tiles and changes of tiles found, each time.
    pub(crate) damaged: Counter,
    /// `tiles_served_total{source}`: from memory (`memory`) or encoded for the call (`encoded`).
    pub(crate) served: Labelled,
    /// `hints_lost_total`: changes that could not be published; they are in the log all the same.
    pub(crate) hints_lost: Counter,
    /// `paint_latency_seconds`: frame in to tile committed.
    latency: Histogram,
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    refused: BTreeMap<&'static str, u64>,
    latencies_nanos: VecDeque<i64>,
}

/// Figures since the process started.
#[derive(Debug)]
pub(crate) struct PaintStats {
    pub(crate) frames_painted: u64,
    pub(crate) frames_refused: BTreeMap<&'static str, u64>,
    pub(crate) tiles_written: u64,
    /// Newest latencies in nanoseconds, ascending.
    pub(crate) latencies_nanos: Vec<i64>,
}

impl TileMetrics {
    pub(crate) fn register(context: &Context) -> Self {
        let metrics = Self {
            painted: Counter::default(),
            refused: Labelled::default(),
            repeated: Counter::default(),
            verdicts_missed: Counter::default(),
            verdicts_asked: Counter::default(),
            waiting: Gauge::default(),
            written: Counter::default(),
            damaged: Counter::default(),
            served: Labelled::default(),
            hints_lost: Counter::default(),
            latency: Histogram::new([0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0]),
            figures: Mutex::default(),
        };
        context.metrics.register(|registry| {
            for (name, help, counter) in [
                ("frames_painted", "Frames painted", &metrics.painted),
                (
                    "frames_repeated",
                    "Frames delivered again after they had been painted",
                    &metrics.repeated,
                ),
                (
                    "verdicts_missed",
                    "Verdicts on a pose whose picture was gone",
                    &metrics.verdicts_missed,
                ),
                (
                    "verdicts_asked",
                    "Verdicts on a pose asked for because none had come",
                    &metrics.verdicts_asked,
                ),
                (
                    "tiles_written",
                    "Tiles written, parents included",
                    &metrics.written,
                ),
                (
                    "tiles_damaged",
                    "Damaged tiles and changes of tiles found",
                    &metrics.damaged,
                ),
                (
                    "hints_lost",
                    "Changes that could not be published; they are in the log",
                    &metrics.hints_lost,
                ),
            ] {
                registry.register(name, help, counter.clone());
            }
            registry.register(
                "frames_refused",
                "Frames that could not be painted",
                metrics.refused.clone(),
            );
            registry.register("tiles_served", "Tiles served", metrics.served.clone());
            registry.register(
                "captures_waiting",
                "Pictures that wait for the verdict on their pose",
                metrics.waiting.clone(),
            );
            registry.register(
                "paint_latency_seconds",
                "Frame in to tile committed",
                metrics.latency.clone(),
            );
        });
        metrics
    }

    /// Counts a frame that was painted, and how long it took.
    pub(crate) fn painted(&self, latency_nanos: i64) {
        self.painted.inc();
        self.latency.observe(latency_nanos as f64 / 1e9);
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.latencies_nanos.len() == LATENCIES {
            figures.latencies_nanos.pop_front();
        }
        figures.latencies_nanos.push_back(latency_nanos);
    }

    /// Counts tiles that were written.
    pub(crate) fn written(&self, tiles: usize) {
        self.written.inc_by(tiles as u64);
    }

    /// Counts a frame that was refused. The first of its reason is worth a look.
    pub(crate) fn refused(&self, frame_id: &str, sensor_id: &str, refusal: &Refusal) {
        let reason = refusal.reason();
        self.refused.get_or_create(&[("reason", reason)]).inc();
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

    /// The figures.
    pub(crate) fn stats(&self) -> PaintStats {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latencies_nanos: Vec<i64> = figures.latencies_nanos.iter().copied().collect();
        let frames_refused = figures.refused.clone();
        drop(figures);
        latencies_nanos.sort_unstable();
        PaintStats {
            frames_painted: self.painted.get(),
            frames_refused,
            tiles_written: self.written.get(),
            latencies_nanos,
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
