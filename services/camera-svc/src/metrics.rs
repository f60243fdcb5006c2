//! What the service counts.

use prometheus_client::metrics::counter::Counter;
use sovereign_service::Context;

/// Counters of all cameras together; each camera's own are in `ListCameras`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CameraMetrics {
    /// Frames published on the bus.
    pub(crate) frames_published: Counter,
    /// Frames read from a source and skipped to hold the configured rate.
    pub(crate) frames_skipped: Counter,
    /// Frames that were read and could not be decoded.
    pub(crate) frames_broken: Counter,
    /// Frames of live sources that were read while the publisher was busy with earlier ones.
    pub(crate) frames_dropped: Counter,
    /// Frames that could not be published: too large, or the bus is closed.
    pub(crate) frames_refused: Counter,
    /// Times a source failed and was opened again.
    pub(crate) reconnects: Counter,
}

impl CameraMetrics {
    pub(crate) fn register(context: &Context) -> Self {
        let metrics = Self::default();
        context.metrics.register(|registry| {
            registry.register(
                "frames_published",
                "Frames published on the bus",
                metrics.frames_published.clone(),
            );
            registry.register(
                "frames_skipped",
                "Frames skipped to hold the configured rate",
                metrics.frames_skipped.clone(),
            );
            registry.register(
                "frames_broken",
                "Frames that could not be decoded",
                metrics.frames_broken.clone(),
            );
            registry.register(
                "frames_dropped",
                "Frames of live sources dropped because publishing was late",
                metrics.frames_dropped.clone(),
            );
            registry.register(
                "frames_refused",
                "Frames that could not be published",
                metrics.frames_refused.clone(),
            );
            registry.register(
                "reconnects",
                "Times a source failed and was opened again",
                metrics.reconnects.clone(),
            );
        });
        metrics
    }
}
