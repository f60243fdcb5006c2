//! How far each log was exported, kept over restarts.
//!
//! For each network, so that a node that moves to another one starts over there and finds the first as it
//! left it.

use std::path::Path;

use redb::TableDefinition;
use sovereign_disk::{Database, Layout};

use crate::domain::cursor::Position;
use crate::error::StoreError;

/// Sequence and fingerprint of the last entry that was exported, by network and log.
const POSITIONS: TableDefinition<'_, (&str, &str), (u64, [u8; 32])> =
    TableDefinition::new("exported");
const LAYOUT: Layout = Layout {
    format: 1,
    page_cache_bytes: 8 << 20,
};
const STORE_FILE: &str = "export.redb";

/// The exports of one network; cheap to clone. Every call blocks, and what it wrote is on disk when it
/// returns.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Database,
    network: String,
}

impl Store {
    pub(crate) fn open(dir: &Path, network: &str) -> Result<Self, StoreError> {
        let database = Database::open(&dir.join(STORE_FILE), LAYOUT, |write| {
            write.open_table(POSITIONS)?;
            Ok(())
        })?;
        Ok(Self {
            database,
            network: network.to_owned(),
        })
    }

    /// How far `log` was exported, before its first entry when it never was.
    pub(crate) fn position(&self, log: &str) -> Result<Position, StoreError> {
        let read = || -> Result<Position, redb::Error> {
            let table = self.database.begin_read()?.open_table(POSITIONS)?;
            let found = table.get((self.network.as_str(), log))?;
            Ok(found.map_or_else(Position::default, |found| {
                let (sequence, fingerprint) = found.value();
                Position {
                    sequence,
                    fingerprint,
                }
            }))
        };
        read().map_err(failed("read how far a log was exported"))
    }

    pub(crate) fn keep_position(&self, log: &str, position: Position) -> Result<(), StoreError> {
        let value = (position.sequence, position.fingerprint);
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write
                .open_table(POSITIONS)?
                .insert((self.network.as_str(), log), value)?;
            write.commit()
        };
        write().map_err(failed("keep how far a log was exported"))
    }
}

fn failed(operation: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |cause| StoreError::Use {
        operation,
        cause: Box::new(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_a_restart_and_belongs_to_its_network_and_log() {
        let dir = tempfile::tempdir().unwrap();
        let position = Position {
            sequence: 7,
            fingerprint: [3; 32],
        };
        let store = Store::open(dir.path(), "north").unwrap();
        assert_eq!(store.position("tiles").unwrap(), Position::default());
        store.keep_position("tiles", position).unwrap();
        drop(store);
        let store = Store::open(dir.path(), "north").unwrap();
        assert_eq!(store.position("tiles").unwrap(), position);
        assert_eq!(store.position("rounds").unwrap(), Position::default());
        drop(store);
        let other = Store::open(dir.path(), "south").unwrap();
        assert_eq!(other.position("tiles").unwrap(), Position::default());
    }
}
