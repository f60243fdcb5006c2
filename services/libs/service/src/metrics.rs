//! Metrics of a service: declared once, each with its help.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;

/// Where a service registers its metrics; names start with `sovereign_<service>_`.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    prefix: String,
}

impl Metrics {
    /// Metrics of `service` within the registry of a process.
    #[must_use]
    pub fn new(registry: Arc<Mutex<Registry>>, service: &str) -> Self {
        Self {
            registry,
            prefix: format!("sovereign_{}", service.replace('-', "_")),
        }
    }

    /// Registers metrics; the registry given to `add` puts the prefix before each name.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        // A panic while registering leaves a registry that is whole, so poison is no reason to fail.
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix(&self.prefix))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Declares the metrics of a service. Each field is a metric of its name, and its comment is the help; a
/// unit (`[Bytes]`) becomes part of the name, and what has no default is made by the expression after `=`.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $help:literal])+ $field_vis:vis $field:ident: $type:ty $([$unit:ident])? $(= $make:expr)?,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $($(#[doc = $help])+ $field_vis $field: $type,)*
        }

        impl $name {
            /// Makes and registers them.
            $vis fn new(metrics: &$crate::Metrics) -> Self {
                metrics.register(|registry| {
                    let made = Self {
                        $($field: $crate::metrics!(@make $($make)?),)*
                    };
                    $($crate::metrics!(
                        @register registry, stringify!($field), concat!($($help),+).trim().trim_end_matches('.'),
                        made.$field.clone() $(, $unit)?
                    );)*
                    made
                })
            }
        }
    };
    (@make) => { ::std::default::Default::default() };
    (@make $make:expr) => { $make };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr) => {
        $registry.register($name, $help, $metric)
    };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr, $unit:ident) => {
        $registry.register_with_unit(
            $name, $help, ::prometheus_client::registry::Unit::$unit, $metric,
        )
    };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    metrics! {
        struct Painting {
            /// Frames painted.
            painted: Counter,
            /// What is stored.
            size: Gauge<u64, AtomicU64> [Bytes],
            /// From arrival
            /// to commit.
            latency: Histogram [Seconds] = Histogram::new([1.0]),
        }
    }

    #[test]
    fn a_metric_is_registered_under_its_service_with_its_comment_as_help() {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let metrics = Painting::new(&Metrics::new(registry.clone(), "tile-svc"));
        metrics.painted.inc();
        metrics.size.set(7);
        metrics.latency.observe(0.5);
        let mut text = String::new();
        encode(&mut text, &registry.lock().unwrap()).unwrap();
        for line in [
            "# HELP sovereign_tile_svc_painted Frames painted.",
            "sovereign_tile_svc_painted_total 1",
            "sovereign_tile_svc_size_bytes 7",
            "# HELP sovereign_tile_svc_latency_seconds From arrival to commit.",
            "sovereign_tile_svc_latency_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
