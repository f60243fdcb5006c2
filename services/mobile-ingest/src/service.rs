//! The service: built from its parts, then run.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use sovereign_objects::Objects;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::mobile::v1::mobile_server::{MobileServer, SERVICE_NAME};
use sovereign_service::{
    BuildError, Clock, Context, Listen, ReadyLatch, Replicas, RunError, Service, Stop, StopSource,
    Tasks, limited,
};
use tokio::sync::Semaphore;
use tonic::service::Routes;

use crate::calls::Calls;
use crate::certificate::{ServedCertificate, Source};
use crate::config::{Config, Settings};
use crate::events::Events;
use crate::feed::{self, Feed};
use crate::grpc::Api;
use crate::http::assets::Console;
use crate::http::edge::Edge;
use crate::http::{body, feed as http_feed, server};
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::secrets::{self, AccessToken, Origin};
use crate::upstream::Upstream;

const TOKEN_FILE: &str = "token";

/// The HTTPS edge.
pub struct MobileService {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Arc<ServedCertificate>,
    node: String,
    clock: Clock,
    settings: Settings,
    token: AccessToken,
    intake: Arc<Intake>,
    upstream: Arc<Upstream>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    feed: Feed,
    ready: ReadyLatch,
}

impl Service for MobileService {
    const NAME: &'static str = "mobile-ingest";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    fn listens(settings: &Settings) -> Vec<Listen> {
        vec![Listen::tcp("listen", settings.listen)]
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("https");
        let metrics = Arc::new(Metrics::new(&context.metrics));
        let token_file = settings
            .token_file
            .clone()
            .unwrap_or_else(|| context.data_dir.join(TOKEN_FILE));
        let (token, origin) = secrets::open_token(&token_file)
            .map_err(|error| BuildError::new("open the access token", error))?;
        if origin == Origin::Made {
            tracing::info!("access token written to {}", token_file.display());
        }
        let source = Source {
            certificate: settings.certificate.clone(),
            data_dir: context.data_dir.clone(),
            listen: settings.listen.ip(),
        };
        let certificate = ServedCertificate::open(source, context.clock.clone(), metrics.clone())
            .map_err(|error| BuildError::new("set up TLS", error))?;
        let (listener, address) = bind(settings.listen)
            .map_err(|error| BuildError::new(format!("bind {}", settings.listen), error))?;

        let feed = Feed::subscribe(&context.bus).await?;
        let intake = Intake::new(
            context.bus,
            Objects::new(calls.checkpoint.clone()),
            context.clock.clone(),
            settings.limits,
            metrics.clone(),
        );
        Ok(Self {
            listener,
            address,
            certificate: Arc::new(certificate),
            node: context.node,
            clock: context.clock,
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
        let api = Api {
            intake: self.intake.clone(),
            metrics: self.metrics.clone(),
        };
        Routes::new(limited!(MobileServer::new(api)))
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
            certificate: self.certificate.clone(),
            intake: self.intake.clone(),
            upstream: self.upstream.clone(),
            events: self.events.clone(),
            metrics: self.metrics,
            console: Console::embedded(),
            readers: Arc::new(Semaphore::new(http_feed::MAX_READERS)),
            bodies: Semaphore::new(body::BODY_BUDGET_KIB),
            clock: self.clock,
            stop: stop.clone(),
        });
        let mut tasks = Tasks::new(stop.clone());
        let verdicts = self.feed.verdicts();
        tasks.spawn("https", server::serve(edge, self.listener));
        tasks.spawn(
            "feed",
            self.feed
                .run(self.events.clone(), self.intake, stop.clone()),
        );
        tasks.spawn("certificate", self.certificate.watch(stop.clone()));
        tasks.spawn(
            "keyframes",
            feed::watch_keyframes(
                self.events.clone(),
                self.upstream.clone(),
                verdicts,
                stop.clone(),
            ),
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
