//! The wiring: the store, its calls, and the clock by which objects age.

use std::time::Duration;

use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::checkpoint::v1::checkpoints_server;
use sovereign_service::{
    BuildError, Clock, Context, ReadyLatch, Replicas, RunError, Service, Stop, chain,
};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::grpc::{Api, blocking};
use crate::metrics::Metrics;
use crate::store::Store;

const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// The content store.
#[derive(Debug)]
pub struct CheckpointService {
    store: Store,
    metrics: Metrics,
    clock: Clock,
    api: Api,
    ready: ReadyLatch,
}

impl Service for CheckpointService {
    const NAME: &'static str = "checkpoint-svc";
    const GRPC_SERVICE: &'static str = checkpoints_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = Config;
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("store");
        let metrics = Metrics::new(&context.metrics);
        let dir = context.data_dir;
        let store = blocking(move || Store::open(&dir, settings.limits))
            .await
            .map_err(|error| BuildError::new("open the content store", error))?;
        metrics.measure(&store);
        let clock = context.clock;
        let api = Api::new(store.clone(), metrics.clone(), context.bus, clock.clone());
        Ok(Self {
            store,
            metrics,
            clock,
            api,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        self.api.routes()
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        self.ready.set();
        let mut rounds = tokio::time::interval(RETAIN_EVERY);
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                () = stop.requested() => return Ok(()),
            }
            let (store, now) = (self.store.clone(), self.clock.now());
            if let Err(error) = blocking(move || store.retain(now)).await {
                tracing::error!(error = %chain(&error), "old objects could not go");
            }
            self.metrics.measure(&self.store);
        }
    }
}
