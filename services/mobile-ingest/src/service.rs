//! The service: built from its parts, then run.

pub(crate) mod feed;
pub(crate) mod intake;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use sovereign_model::Timestamp;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::mobile::v1::mobile_server;
use sovereign_service::{
    BuildError, Context, ReadyLatch, RunError, Service, Stop, StopSource, Tasks,
};
use tokio::sync::Semaphore;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::events::Events;
use crate::grpc::{self, upstream::Upstream};
use crate::http::console::Console;
use crate::http::{Edge, body, feed as http_feed, server};
use crate::metrics::Metrics;
use crate::secrets::{self, AccessToken, Origin};
use crate::tls;
use feed::Feed;
use intake::Intake;

/// Access token within the data folder.
const TOKEN_FILE: &str = "token";

sovereign_service::calls! {
    /// The services that the edge shows.
    pub struct Calls {
        /// Vehicles, and pictures of drones.
        drones: required "drone-ingest",
        /// The map.
        tiles: required "tile-svc",
        /// Keyframes.
        slam: required "slam-svc",
        /// Peers.
        mesh: optional "mesh-gateway",
    }
}

/// The HTTPS edge.
pub struct MobileService {
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerConfig,
    node: String,
    settings: Settings,
    token: AccessToken,
    intake: Arc<Intake>,
    upstream: Arc<Upstream>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    feed: Feed,
    ready: ReadyLatch,
}

/// The clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

impl Service for MobileService {
    const NAME: &'static str = "mobile-ingest";
    const GRPC_SERVICE: &'static str = mobile_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("https");
        let metrics = Arc::new(Metrics::default());
        context
            .metrics
            .register(|registry| metrics.register(registry));

        let token_file = settings
            .token_file
            .clone()
            .unwrap_or_else(|| context.data_dir.join(TOKEN_FILE));
        let (token, origin) = secrets::open_token(&token_file)
            .map_err(|error| BuildError::new("open the access token", error))?;
        if origin == Origin::Made {
            tracing::info!("access token written to {}", token_file.display());
        }
        let tls = tls::server_config(
            &settings.certificate,
            &context.data_dir,
            settings.listen.ip(),
            SystemTime::now(),
        )
        .map_err(|error| BuildError::new("set up TLS", error))?;
        let (listener, address) = bind(settings.listen)
            .map_err(|error| BuildError::new(format!("bind {}", settings.listen), error))?;

        let feed = Feed::subscribe(&context.bus).await?;
        let intake = Intake::new(context.bus, settings.limits, metrics.clone());
        Ok(Self {
            listener,
            address,
            tls,
            node: context.node,
            token,
            intake: Arc::new(intake),
            upstream: Arc::new(Upstream::new(calls, metrics.clone())),
            events: Arc::new(Events::new(metrics.clone())),
            metrics,
            feed,
            ready,
            settings,
        })
    }

    fn routes(&self) -> Routes {
        grpc::routes(self.intake.clone(), self.metrics.clone())
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("https", self.address)]
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let stop = StopSource::under(&stop).stop();
        let edge = Arc::new(Edge {
            node: self.node,
            address: self.address,
            settings: self.settings,
            token: self.token,
            intake: self.intake.clone(),
            upstream: self.upstream.clone(),
            events: self.events.clone(),
            metrics: self.metrics,
            console: Console::embedded(),
            readers: Arc::new(Semaphore::new(http_feed::MAX_READERS)),
            bodies: Semaphore::new(body::BODY_BUDGET_KIB),
            stop: stop.clone(),
        });
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("https", server::serve(edge, self.listener, self.tls));
        tasks.spawn(
            "feed",
            self.feed
                .run(self.events.clone(), self.intake, stop.clone()),
        );
        tasks.spawn(
            "latency",
            feed::watch_latency(self.events, self.upstream, stop),
        );
        self.ready.set();
        tasks.wait().await
    }
}

fn bind(listen: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
