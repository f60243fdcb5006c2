//! The wiring: the store, its calls, and the two topics that fill it.

use std::time::SystemTime;

use sovereign_bus::Consumer;
use sovereign_model::Timestamp;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
use sovereign_proto::mesh::v1::PeerRound;
use sovereign_proto::round::v1::{RoundRecord, rounds_server};
use sovereign_proto::topics::{MESH_ROUND, ROUND_RECORD};
use sovereign_service::{
    BuildError, Context, MAX_MESSAGE_BYTES, ReadyLatch, RunError, Service, Stop, Tasks,
};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::Round;
use crate::grpc::{RoundCalls, blocking, round_from_record};
use crate::metrics::Metrics;
use crate::store::{Kept, Store};

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// The models that rounds start from.
        checkpoints: required "checkpoint-svc",
    }
}

/// Rounds of this node and of its peers.
pub struct RoundService {
    store: Store,
    metrics: Metrics,
    own: Consumer<RoundRecord>,
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
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("subscribed");
        let metrics = context.metrics.register(Metrics::registered);
        let dir = context.data_dir;
        let store = blocking(move || Store::open(&dir))
            .await
            .map_err(|error| BuildError::new("open the store of rounds", error))?;
        let subscribe = |error| BuildError::new("subscribe to rounds", error);
        let own = context.bus.consume(&ROUND_RECORD, Self::NAME).await;
        let peers = context.bus.consume(&MESH_ROUND, Self::NAME).await;
        let served = RoundCalls {
            store: store.clone(),
            bus: context.bus,
            checkpoints: CheckpointsClient::new(calls.checkpoints)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            default_timeout: settings.default_timeout,
            node_id: context.node,
            metrics: metrics.clone(),
        };
        Ok(Self {
            routes: served.routes(),
            store,
            metrics,
            own: own.map_err(subscribe)?,
            peers: peers.map_err(subscribe)?,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        self.routes.clone()
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        let keeper = Keeper {
            store: self.store,
            metrics: self.metrics,
            stop,
        };
        tasks.spawn("own-rounds", keeper.clone().own(self.own));
        tasks.spawn("peer-rounds", keeper.peers(self.peers));
        self.ready.set();
        tasks.wait().await
    }
}

/// Keeps what the topics bring.
#[derive(Debug, Clone)]
struct Keeper {
    store: Store,
    metrics: Metrics,
    stop: Stop,
}

impl Keeper {
    async fn own(self, mut records: Consumer<RoundRecord>) -> Result<(), RunError> {
        loop {
            let delivery = tokio::select! {
                delivery = records.next() => delivery,
                () = self.stop.requested() => return Ok(()),
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            self.keep(String::new(), delivery.message.clone()).await?;
            delivery
                .ack()
                .await
                .map_err(|error| RunError::new("keep a round", error))?;
        }
    }

    async fn peers(self, mut rounds: Consumer<PeerRound>) -> Result<(), RunError> {
        loop {
            let delivery = tokio::select! {
                delivery = rounds.next() => delivery,
                () = self.stop.requested() => return Ok(()),
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            let PeerRound { peer_id, record } = delivery.message.clone();
            match record {
                // An empty origin would pass for this node.
                Some(record) if !peer_id.is_empty() => {
                    if let Some(Kept::New { .. }) = self.keep(peer_id, record).await? {
                        self.metrics.received.inc();
                    }
                }
                Some(_) | None => {
                    self.metrics.rejected.inc();
                }
            }
            delivery
                .ack()
                .await
                .map_err(|error| RunError::new("keep a round of a peer", error))?;
        }
    }

    async fn keep(&self, origin: String, record: RoundRecord) -> Result<Option<Kept>, RunError> {
        let round: Option<Round> = round_from_record(origin, record);
        let now = now();
        let Some(round) = round.filter(|round| round.check(now).is_ok()) else {
            self.metrics.rejected.inc();
            return Ok(None);
        };
        let store = self.store.clone();
        let kept = blocking(move || store.insert(&round, now))
            .await
            .map_err(|error| RunError::new("keep a round", error))?;
        match kept {
            Kept::New { dropped } => {
                self.metrics.dropped.inc_by(dropped as u64);
            }
            Kept::TooManyPeers => {
                self.metrics.rejected.inc();
            }
            Kept::Known => {}
        }
        Ok(Some(kept))
    }
}

/// The clock of this crate.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
