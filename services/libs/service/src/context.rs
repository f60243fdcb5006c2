//! What a service is given beside its configuration and channels.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;
use sovereign_bus::Bus;
use tokio::sync::watch;

/// What a service is given: the bus, a folder, metrics, readiness.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the node this runs on, from the configuration.
    pub node: String,
    /// Events.
    pub bus: Bus,
    /// Folder of this service alone; it exists.
    pub data_dir: PathBuf,
    /// Metrics of this service.
    pub metrics: Metrics,
    /// Readiness of this service.
    pub ready: Readiness,
}

impl Context {
    /// A context for tests of one service: its own registry and readiness, `dir` as its folder.
    #[must_use]
    pub fn for_tests(service: &'static str, bus: Bus, dir: &Path) -> Self {
        Self {
            node: "test-node".to_owned(),
            bus,
            data_dir: dir.to_path_buf(),
            metrics: Metrics::new(Arc::default(), service),
            ready: ReadinessBoard::default().of(service),
        }
    }
}

/// Where a service registers its metrics; names start with `sovereign_<service>_`.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    prefix: String,
}

impl Metrics {
    /// Metrics of `service` within the registry of a process.
    #[must_use]
    pub fn new(registry: Arc<Mutex<Registry>>, service: &str) -> Self {
        Self {
            registry,
            prefix: format!("sovereign_{}", service.replace('-', "_")),
        }
    }

    /// Registers metrics; the registry given to `add` puts the prefix before each name.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        // A panic while registering leaves a registry that is whole, so poison is no reason to fail.
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix(&self.prefix))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Every readiness latch of a process, by `<service>/<latch>`. Owned by the host.
#[derive(Debug, Clone)]
pub struct ReadinessBoard {
    latches: Arc<watch::Sender<BTreeMap<String, bool>>>,
}

impl Default for ReadinessBoard {
    fn default() -> Self {
        Self {
            latches: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }
}

impl ReadinessBoard {
    /// The part of one service.
    #[must_use]
    pub fn of(&self, service: &str) -> Readiness {
        Readiness {
            board: self.clone(),
            service: service.to_owned(),
        }
    }

    /// The latches now and, through [`watch::Receiver::changed`], whenever one is added or set.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, bool>> {
        self.latches.subscribe()
    }
}

/// Readiness of one service: it is ready when each of its latches is set.
#[derive(Debug, Clone)]
pub struct Readiness {
    board: ReadinessBoard,
    service: String,
}

impl Readiness {
    /// Adds a latch that is not set; take it in `build`, so that readiness waits for it.
    #[must_use]
    pub fn latch(&self, name: &str) -> ReadyLatch {
        let name = format!("{}/{name}", self.service);
        self.board.latches.send_modify(|latches| {
            latches.entry(name.clone()).or_insert(false);
        });
        ReadyLatch {
            board: self.board.clone(),
            name,
        }
    }

    /// Whether every latch of this service is set.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let prefix = format!("{}/", self.service);
        self.board
            .latches
            .borrow()
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .all(|(_, set)| *set)
    }

    /// Completes when every latch of this service is set.
    pub async fn wait(&self) {
        let mut latches = self.board.watch();
        while !self.is_ready() {
            // The board holds a sender, so the channel cannot be closed while we are here.
            if latches.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One condition of readiness; once set it stays set.
#[derive(Debug, Clone)]
pub struct ReadyLatch {
    board: ReadinessBoard,
    name: String,
}

impl ReadyLatch {
    /// The condition holds.
    pub fn set(&self) {
        self.board
            .latches
            .send_if_modified(|latches| latches.insert(self.name.clone(), true) != Some(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn a_service_is_ready_when_each_of_its_latches_is_set() {
        let board = ReadinessBoard::default();
        let (tiles, slam) = (board.of("tile-svc"), board.of("slam-svc"));
        let (store, subscribed) = (tiles.latch("store"), tiles.latch("subscribed"));
        let _never = slam.latch("never");
        store.set();
        assert!(!tiles.is_ready());
        subscribed.set();
        assert!(tiles.is_ready());
        assert!(!slam.is_ready());
    }

    #[test]
    fn metric_names_carry_the_service() {
        let registry = Arc::new(Mutex::new(Registry::default()));
        let counter = Counter::<u64>::default();
        Metrics::new(registry.clone(), "tile-svc").register(|registry| {
            registry.register("painted", "Frames painted", counter.clone());
        });
        counter.inc();
        let mut text = String::new();
        encode(&mut text, &registry.lock().unwrap()).unwrap();
        assert!(
            text.contains("sovereign_tile_svc_painted_total 1"),
            "{text}"
        );
    }
}
