//! The contract suite over memory and the journal.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::{Mutex, PoisonError};

use sovereign_bus::{Bus, contract::Stage, contract_tests};
use tempfile::TempDir;

struct Memory {
    folder: TempDir,
    bus: Mutex<Option<Bus>>,
}

impl Memory {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            bus: Mutex::default(),
        }
    }

    fn open(&self) -> Bus {
        let mut bus = self.bus.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || Bus::memory(&self.folder.path().join("bus.redb"), "node-1").unwrap();
        bus.get_or_insert_with(open).clone()
    }
}

impl Stage for Memory {
    async fn bus(&self) -> Bus {
        self.open()
    }

    async fn crash(&self, bus: Bus) -> Bus {
        self.bus
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The last handle: the file is free again, and was not closed by anyone.
        drop(bus);
        self.open()
    }
}

contract_tests!(Memory::new());
