//! The wiring: the store, its calls, and the announcements.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sovereign_bus::{Bus, PublishError};
use sovereign_model::Timestamp;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::checkpoint::v1::{CheckpointChange, checkpoints_server};
use sovereign_proto::topics::CHECKPOINT_STORED;
use sovereign_service::{BuildError, Context, ReadyLatch, RunError, Service, Stop, chain};
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::Checkpoint;
use crate::grpc::{Calls, blocking, meta_from_checkpoint};
use crate::metrics::Metrics;
use crate::store::Store;

/// Wait before an announcement that the bus did not take is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The checkpoint store.
#[derive(Debug)]
pub struct CheckpointService {
    store: Store,
    bus: Bus,
    metrics: Metrics,
    stored: Arc<Notify>,
    routes: Routes,
    ready: ReadyLatch,
}

impl Service for CheckpointService {
    const NAME: &'static str = "checkpoint-svc";
    const GRPC_SERVICE: &'static str = checkpoints_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    type Config = Config;
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(config: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("store");
        let metrics = context.metrics.register(Metrics::registered);
        let dir = context.data_dir;
        let store = blocking(move || Store::open(&dir, config.max_bytes))
            .await
            .map_err(|error| BuildError::new("open the checkpoint store", error))?;
        metrics.size.set(store.size_bytes());
        let stored = Arc::new(Notify::new());
        let calls = Calls::new(store.clone(), metrics.clone(), stored.clone());
        Ok(Self {
            routes: calls.routes(),
            store,
            bus: context.bus,
            metrics,
            stored,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        self.routes.clone()
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        self.ready.set();
        loop {
            // What was stored but not announced, now or by an earlier process.
            let store = self.store.clone();
            let waiting = blocking(move || store.unannounced())
                .await
                .map_err(|error| RunError::new("announce checkpoints", error))?;
            for checkpoint in waiting {
                if !self.announce(checkpoint, &stop).await? {
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.stored.notified() => {}
                () = stop.requested() => return Ok(()),
            }
        }
    }
}

impl CheckpointService {
    /// Announces a checkpoint; false when it has to wait for the next start.
    async fn announce(&self, checkpoint: Checkpoint, stop: &Stop) -> Result<bool, RunError> {
        let message = CheckpointChange {
            meta: Some(meta_from_checkpoint(&checkpoint)),
            ..CheckpointChange::default()
        };
        loop {
            match self.bus.publish(&CHECKPOINT_STORED, None, &message).await {
                Ok(()) => break,
                Err(error @ PublishError::Transport(_)) => {
                    self.metrics.announce_retries.inc();
                    tracing::warn!(error = %chain(&error), "a stored checkpoint is not announced yet");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = stop.requested() => return Ok(false),
                    }
                }
                Err(PublishError::Closed) if stop.is_requested() => return Ok(false),
                Err(
                    error @ (PublishError::TooLarge { .. }
                    | PublishError::InvalidMessageId
                    | PublishError::Subject(_)
                    | PublishError::Closed),
                ) => return Err(RunError::new("announce a checkpoint", error)),
            }
        }
        let store = self.store.clone();
        blocking(move || store.announced(&checkpoint.version))
            .await
            .map_err(|error| RunError::new("announce a checkpoint", error))?;
        Ok(true)
    }
}

/// The clock of this crate.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
