//! What a service is given beside its settings and channels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sovereign_bus::Bus;
use tokio::sync::watch;

use crate::{Clock, Metrics};

/// What a service is given: the bus, a folder, a clock, metrics, readiness.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the node this runs on, from the configuration.
    pub node: String,
    /// Events.
    pub bus: Bus,
    /// Folder of this service alone; it exists.
    pub data_dir: PathBuf,
    /// What time it is.
    pub clock: Clock,
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
            clock: Clock::system(),
            metrics: Metrics::new(Arc::default(), service),
            ready: ReadinessBoard::default().of(service),
        }
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
}
