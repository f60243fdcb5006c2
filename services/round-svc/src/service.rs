//! The wiring: the ledger, its calls, and what peers say.

use std::sync::Arc;

use sovereign_bus::Consumer;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::mesh::v1::PeerRound;
use sovereign_proto::round::v1::rounds_server;
use sovereign_proto::topics::MESH_ROUND;
use sovereign_service::{
    BuildError, Context, ReadyLatch, Replicas, RunError, Service, Stop, Tasks, settle_each,
};
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::grpc::Api;
use crate::ledger::{Ledger, blocking};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::wire::Models;

/// Records of peers kept at a time, each of another peer; the store writes one after the other.
const PEERS_AT_A_TIME: usize = 8;

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// The models that rounds start from.
        checkpoints: required "checkpoint-svc",
    }
}

/// Rounds of this node and of its peers.
pub struct RoundService {
    ledger: Ledger,
    peers: Consumer<PeerRound>,
    routes: Routes,
    ready: ReadyLatch,
}

impl std::fmt::Debug for RoundService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoundService").finish_non_exhaustive()
    }
}

impl Service for RoundService {
    const NAME: &'static str = "round-svc";
    const GRPC_SERVICE: &'static str = rounds_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::One;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("subscribed");
        let metrics = Metrics::new(&context.metrics);
        let dir = context.data_dir;
        let store = blocking(move || Store::open(&dir))
            .await
            .map_err(|error| BuildError::new("have the rounds", error))?;
        let peers = context.bus.consume(&MESH_ROUND, Self::NAME).await;
        let ledger = Ledger {
            store,
            bus: context.bus,
            models: Models::new(calls.checkpoints),
            node_id: context.node,
            clock: context.clock,
            metrics,
            opened: Arc::new(Notify::new()),
        };
        let api = Api {
            ledger: ledger.clone(),
            default_timeout: settings.default_timeout,
        };
        Ok(Self {
            routes: api.routes(),
            peers: peers.map_err(|error| BuildError::new("subscribe to rounds", error))?,
            ledger,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        self.routes.clone()
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        let ledger = self.ledger.clone();
        let hear = move |delivery| ledger.clone().hear(delivery);
        tasks.spawn("close", self.ledger.close_expired(stop.clone()));
        tasks.spawn(
            "peers",
            settle_each(self.peers, stop, PEERS_AT_A_TIME, hear),
        );
        self.ready.set();
        tasks.wait().await
    }
}
