//! The gRPC door: the routes of every mounted service, health and reflection.

mod incoming;

use std::time::Duration;

use sovereign_service::{Readiness, ReadinessBoard, Stop, guarded};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::HostError;
use crate::metrics::HostMetrics;
pub(crate) use incoming::Cut;

/// Calls one connection may have in flight; further ones wait at the client.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// Largest sum of request headers; more is refused by HTTP/2.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// A client that does not answer a probe of this interval within the timeout is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Mounted {
    pub(crate) grpc_service: &'static str,
    pub(crate) descriptor_set: &'static [u8],
    pub(crate) routes: Routes,
    pub(crate) readiness: Readiness,
}

pub(crate) struct Grpc {
    routes: Routes,
    health: Health,
}

impl Grpc {
    pub(crate) fn new(mounted: Vec<Mounted>, board: ReadinessBoard) -> Result<Self, HostError> {
        let (reporter, health_service) = health_reporter();
        let mut services = Vec::new();
        let mut names = vec!["grpc.health.v1.Health".to_owned()];
        let mut descriptors: Vec<&'static [u8]> = vec![tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut routes = Routes::new(health_service);
        for service in mounted {
            if !descriptors.contains(&service.descriptor_set) {
                descriptors.push(service.descriptor_set);
            }
            names.push(service.grpc_service.to_owned());
            // Each set of routes answers what it does not know; only one may do so when merged.
            let merged = routes
                .into_axum_router()
                .merge(service.routes.into_axum_router().reset_fallback());
            routes = Routes::from(merged);
            services.push((service.grpc_service, service.readiness));
        }
        let reflection = || {
            let mut builder = tonic_reflection::server::Builder::configure();
            for descriptor in &descriptors {
                builder = builder.register_encoded_file_descriptor_set(descriptor);
            }
            for name in &names {
                builder = builder.with_service_name(name);
            }
            builder
        };
        let routes = routes
            .add_service(reflection().build_v1().map_err(HostError::Reflection)?)
            .add_service(
                reflection()
                    .build_v1alpha()
                    .map_err(HostError::Reflection)?,
            );
        Ok(Self {
            routes: guarded(routes),
            health: Health {
                reporter,
                services,
                board,
            },
        })
    }

    /// Serves until `stop`, then until every call has ended or `cut` was made. Beside it, health
    /// follows readiness, and says "not serving" from the moment of `stop`.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        metrics: HostMetrics,
        stop: Stop,
        cut: Cut,
    ) -> Result<(), tonic::transport::Error> {
        let signal = stop.clone();
        let server = Server::builder()
            .tcp_nodelay(true)
            .http2_adaptive_window(Some(true))
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .trace_fn(|request| tracing::debug_span!("grpc", method = request.uri().path()))
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(
                incoming::incoming(listener, cut, metrics.clone()),
                async move { signal.requested().await },
            );
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => return ended,
            () = self.health.follow(&metrics, stop) => {}
        }
        server.await
    }
}

struct Health {
    reporter: HealthReporter,
    services: Vec<(&'static str, Readiness)>,
    board: ReadinessBoard,
}

impl Health {
    async fn follow(self, metrics: &HostMetrics, stop: Stop) {
        let mut latches = self.board.watch();
        loop {
            let all = latches.borrow_and_update().values().all(|set| *set);
            let stopping = stop.is_requested();
            let status = |ready: bool| {
                if ready && !stopping {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                }
            };
            for (name, readiness) in &self.services {
                self.reporter
                    .set_service_status(*name, status(readiness.is_ready()))
                    .await;
            }
            self.reporter.set_service_status("", status(all)).await;
            metrics.ready.set(i64::from(all && !stopping));
            if stopping {
                return;
            }
            tokio::select! {
                () = stop.requested() => {}
                // The board holds the sender, so this cannot fail while `self` lives.
                _ = latches.changed() => {}
            }
        }
    }
}
