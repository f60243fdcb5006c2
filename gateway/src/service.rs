//! The wiring: identity, swarm, import, exports.

pub(crate) mod export;
pub(crate) mod import;

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use sovereign_bus::{Consumer, Mailbox, Select};
use sovereign_model::Timestamp;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::checkpoint::v1::CheckpointMeta;
use sovereign_proto::mesh::v1::envelope::Body;
use sovereign_proto::mesh::v1::mesh_server;
use sovereign_proto::round::v1::RoundRecord;
use sovereign_proto::tile::v1::TileChange;
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::topics::{CHECKPOINT_STORED, ROUND_RECORD, TILE_CHANGED};
use sovereign_service::{
    BuildError, Channel, Context, MAX_MESSAGE_BYTES, ReadyLatch, RunError, Service, Stop, Tasks,
};
use tokio::sync::broadcast;
use tonic::service::Routes;

use crate::config::{Config, Mode, Settings};
use crate::domain::rate::OWN;
use crate::grpc::{self, transport_of};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::store::Store;
use crate::swarm::{self, Client, Identity, Supervisor};
use crate::topics::TopicNames;
use export::Exporter;
use import::{Importer, Inspector};

/// Messages kept for each gRPC subscriber; one that is further behind is told how many it missed.
const SUBSCRIBER_MESSAGES: usize = 256;

sovereign_service::calls! {
    /// Services that the gateway calls.
    pub struct Calls {
        /// Changes of the map.
        tiles: required "tile-svc",
    }
}

/// The bridge between the bus and the mesh.
pub struct GatewayService {
    client: Client,
    supervisor: Supervisor,
    importer: Importer,
    routes: Routes,
    tiles: TilesClient<Channel>,
    hints: Mailbox<TileChange>,
    rounds: (Consumer<RoundRecord>, Outbox),
    checkpoints: (Consumer<CheckpointMeta>, Outbox),
    store: Store,
    node_id: String,
    mode: Mode,
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
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let listening = context.ready.latch("listening");
        let metrics = context.metrics.register(Metrics::registered);
        let keypair = crate::key::load_or_create(&context.data_dir)
            .map_err(|error| BuildError::new("have an identity", error))?;
        let remember = |error| BuildError::new("remember what was exported", error);
        let store = Store::open(&context.data_dir, &settings.network).map_err(remember)?;
        let outbox = |queue| Outbox::open(store.clone(), queue).map_err(remember);
        let outboxes = (outbox("rounds")?, outbox("checkpoints")?);
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
        let hints = bus.subscribe(&TILE_CHANGED, Select::All).await;
        let rounds = bus.consume(&ROUND_RECORD, Self::NAME).await;
        let checkpoints = bus.consume(&CHECKPOINT_STORED, Self::NAME).await;

        let (subscribers, _) = broadcast::channel(SUBSCRIBER_MESSAGES);
        let calls_served = grpc::Calls::new(
            client.clone(),
            names.clone(),
            context.node.clone(),
            network,
            metrics.clone(),
            subscribers.downgrade(),
        );
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
            routes: calls_served.routes(),
            tiles: TilesClient::new(calls.tiles)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            hints: hints.map_err(subscribe)?,
            rounds: (rounds.map_err(subscribe)?, outboxes.0),
            checkpoints: (checkpoints.map_err(subscribe)?, outboxes.1),
            store,
            node_id: context.node,
            mode,
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
        let map = exporter.clone();
        tasks.spawn("export-map", map.map(self.tiles, self.hints, self.store));
        let (records, outbox) = self.rounds;
        let rounds = exporter.clone().records(records, outbox, Body::Round);
        tasks.spawn("export-rounds", rounds);
        let (records, outbox) = self.checkpoints;
        let checkpoints = exporter.clone().records(records, outbox, Body::Checkpoint);
        tasks.spawn("export-checkpoints", checkpoints);
        let mode = self.mode.as_str();
        tasks.spawn("hello", async move {
            exporter.hello(mode).await;
            Ok(())
        });
        self.listening.set();
        tasks.wait().await
    }
}

/// The clock of this crate.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let (host, port) = (parts.next()?, parts.next()?);
    let ip = if let Protocol::Ip4(ip) = host {
        IpAddr::from(ip)
    } else if let Protocol::Ip6(ip) = host {
        IpAddr::from(ip)
    } else {
        return None;
    };
    if let Protocol::Tcp(port) | Protocol::Udp(port) = port {
        Some(SocketAddr::new(ip, port))
    } else {
        None
    }
}
