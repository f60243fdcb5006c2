//! The wiring: identity, swarm, import, exports.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sovereign_bus::{Mailbox, Select};
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::mesh::v1::mesh_server;
use sovereign_proto::topics::{CHECKPOINT_STORED, ROUND_RECORD, TILE_CHANGED};
use sovereign_service::{
    BuildError, Clock, Context, Listen, ReadyLatch, Replicas, RunError, Service, Stop, Tasks,
};
use tokio::sync::{Semaphore, broadcast};
use tonic::service::Routes;

use crate::address::{listen_of, socket_addr, transport_of};
use crate::config::{Config, Mode, Settings};
use crate::domain::rate::OWN;
use crate::export::Exporter;
use crate::grpc::{Api, MAX_SUBSCRIPTIONS};
use crate::import::{Importer, Inspector};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::swarm::{self, Client, Identity, Supervisor};
use crate::topics::TopicNames;
use crate::wire::{Checkpoints, Log, Rounds, Tiles};

/// Messages kept for each gRPC subscriber; one that is further behind is told how many it missed.
const SUBSCRIBER_MESSAGES: usize = 256;

sovereign_service::calls! {
    /// Services that the gateway calls.
    pub struct Calls {
        /// Checkpoints that are announced.
        checkpoints: required "checkpoint-svc",
        /// Changes of the map that are announced.
        tiles: required "tile-svc",
        /// Rounds that are announced.
        rounds: required "round-svc",
    }
}

type Export = Box<dyn FnOnce(Exporter) -> BoxFuture<'static, Result<(), RunError>> + Send>;

fn export<L: Log, M: prost::Message + Default + 'static>(log: L, hints: Mailbox<M>) -> Export {
    Box::new(move |exporter| exporter.follow(log, hints).boxed())
}

/// The bridge between the bus and the mesh.
pub struct GatewayService {
    client: Client,
    supervisor: Supervisor,
    importer: Importer,
    routes: Routes,
    exports: [(&'static str, Export); 3],
    store: Store,
    node_id: String,
    mode: Mode,
    clock: Clock,
    metrics: Metrics,
    listening: ReadyLatch,
}

impl std::fmt::Debug for GatewayService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayService")
            .field("peer_id", &self.client.peer_id())
            .finish_non_exhaustive()
    }
}

impl Service for GatewayService {
    const NAME: &'static str = "mesh-gateway";
    const GRPC_SERVICE: &'static str = mesh_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    fn listens(settings: &Settings) -> Vec<Listen> {
        let addresses = settings.listen.iter();
        addresses
            .filter_map(|address| listen_of("listen", address))
            .collect()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let listening = context.ready.latch("listening");
        let metrics = Metrics::new(&context.metrics);
        let keypair = crate::key::load_or_create(&context.data_dir)
            .map_err(|error| BuildError::new("have an identity", error))?;
        let store = Store::open(&context.data_dir, &settings.network)
            .map_err(|error| BuildError::new("remember what was exported", error))?;
        let names = TopicNames::new(settings.topic.clone());
        let (network, mode) = (settings.network.clone(), settings.mode);
        let identity = Identity {
            keypair,
            node_id: context.node.clone(),
        };
        let inspector = Inspector::new(metrics.clone());
        let (client, received, supervisor) =
            swarm::start(settings, identity, OWN, inspector, metrics.clone())
                .await
                .map_err(|error| BuildError::new("start the mesh", error))?;

        let bus = &context.bus;
        let subscribe = |error| BuildError::new("subscribe to what is exported", error);
        let tile_hints = bus.subscribe(&TILE_CHANGED, Select::All).await;
        let checkpoint_hints = bus.subscribe(&CHECKPOINT_STORED, Select::All).await;
        let round_hints = bus.subscribe(&ROUND_RECORD, Select::All).await;

        let (subscribers, _) = broadcast::channel(SUBSCRIBER_MESSAGES);
        let api = Api {
            client: client.clone(),
            names: names.clone(),
            node_id: context.node.clone(),
            network,
            clock: context.clock.clone(),
            metrics: metrics.clone(),
            messages: subscribers.downgrade(),
            subscriptions: Arc::new(Semaphore::new(MAX_SUBSCRIPTIONS)),
        };
        let importer = Importer {
            bus: context.bus.clone(),
            names,
            metrics: metrics.clone(),
            subscribers,
            received,
        };
        tracing::info!(peer_id = %client.peer_id(), "mesh identity");
        Ok(Self {
            supervisor,
            importer,
            routes: api.routes(),
            exports: [
                (
                    "export-tiles",
                    export(Tiles::new(calls.tiles), tile_hints.map_err(subscribe)?),
                ),
                (
                    "export-checkpoints",
                    export(
                        Checkpoints::new(calls.checkpoints),
                        checkpoint_hints.map_err(subscribe)?,
                    ),
                ),
                (
                    "export-rounds",
                    export(Rounds::new(calls.rounds), round_hints.map_err(subscribe)?),
                ),
            ],
            store,
            node_id: context.node,
            mode,
            clock: context.clock,
            metrics,
            listening,
            client,
        })
    }

    fn routes(&self) -> Routes {
        self.routes.clone()
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let listen = self.client.state().listen;
        listen
            .iter()
            .filter_map(|addr| Some((transport_of(addr), socket_addr(addr)?)))
            .collect()
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let exporter = Exporter {
            client: self.client,
            node_id: self.node_id,
            store: self.store,
            clock: self.clock,
            metrics: self.metrics,
            stop: stop.clone(),
        };
        let mut tasks = Tasks::new(stop.clone());
        let (supervisor, swarm_stop) = (self.supervisor, stop.clone());
        tasks.spawn("swarm", async move {
            supervisor.run(swarm_stop).await;
            Ok(())
        });
        tasks.spawn("import", self.importer.run(stop));
        for (name, export) in self.exports {
            tasks.spawn(name, export(exporter.clone()));
        }
        let mode = self.mode.as_str();
        tasks.spawn("hello", async move {
            exporter.hello(mode).await;
            Ok(())
        });
        self.listening.set();
        tasks.wait().await
    }
}
