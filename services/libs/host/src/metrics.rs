//! Metrics of the process itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Default)]
pub(crate) struct HostMetrics {
    pub(crate) grpc_connections: Gauge,
    pub(crate) grpc_accepted: Counter<u64, AtomicU64>,
    /// `sovereign_host_grpc_accept_errors_total`: connections the system could not hand over.
    pub(crate) grpc_accept_errors: Counter<u64, AtomicU64>,
    /// `sovereign_host_ready`: 1 when every readiness latch is set, else 0.
    pub(crate) ready: Gauge,
}

impl HostMetrics {
    pub(crate) fn register(&self, node: &str, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sovereign_host");
        registry.register(
            "build",
            "What runs here",
            Info::new(vec![
                ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("node".to_owned(), node.to_owned()),
            ]),
        );
        registry.register(
            "grpc_connections",
            "gRPC connections open now",
            self.grpc_connections.clone(),
        );
        registry.register(
            "grpc_accepted",
            "gRPC connections accepted",
            self.grpc_accepted.clone(),
        );
        registry.register(
            "grpc_accept_errors",
            "Connections the system could not hand over",
            self.grpc_accept_errors.clone(),
        );
        registry.register(
            "ready",
            "1 when every readiness latch is set",
            self.ready.clone(),
        );
    }
}
