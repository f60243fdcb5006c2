//! How far this node's exports are, kept over restarts.
//!
//! Two things for each network, so that a node that moves to another network starts over there and
//! finds the first as it left it: how far the map was exported, and the records that were published
//! and are not confirmed yet.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::error::StoreError;

/// Sequence and fingerprint of the last map change that was exported, by network.
const POSITIONS: TableDefinition<'_, &str, (u64, [u8; 32])> =
    TableDefinition::new("exported_change");
/// Records by network, queue and number.
const RECORDS: TableDefinition<'_, (&str, &str, u64), &[u8]> =
    TableDefinition::new("unconfirmed_record");

/// A place in the changes of the map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Sequence of a change; 0 is before the first.
    pub(crate) sequence: u64,
    /// Tells that change from one of the same sequence in another store.
    pub(crate) fingerprint: [u8; 32],
}

/// The exports of one network; cheap to clone. Every call blocks, and what it wrote is on disk when it
/// returns.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
    network: String,
}

impl Store {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be had.
    pub(crate) fn open(dir: &Path, network: &str) -> Result<Self, StoreError> {
        let open = || -> Result<Database, redb::Error> {
            let database = Database::create(dir.join("export.redb"))?;
            let write = database.begin_write()?;
            write.open_table(POSITIONS)?;
            write.open_table(RECORDS)?;
            write.commit()?;
            // A new file is on disk only after its folder is.
            File::open(dir)?.sync_all()?;
            Ok(database)
        };
        let database = open().map_err(failed("open the export store"))?;
        Ok(Self {
            database: Arc::new(database),
            network: network.to_owned(),
        })
    }

    /// How far the map was exported, before the first change when it never was.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn position(&self) -> Result<Position, StoreError> {
        let read = || -> Result<Position, redb::Error> {
            let table = self.database.begin_read()?.open_table(POSITIONS)?;
            let found = table.get(self.network.as_str())?.map(|found| found.value());
            Ok(
                found.map_or_else(Position::default, |(sequence, fingerprint)| Position {
                    sequence,
                    fingerprint,
                }),
            )
        };
        read().map_err(failed("read how far the map was exported"))
    }

    /// Keeps how far the map was exported.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn keep_position(&self, position: Position) -> Result<(), StoreError> {
        let value = (position.sequence, position.fingerprint);
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write
                .open_table(POSITIONS)?
                .insert(self.network.as_str(), value)?;
            write.commit()?;
            Ok(())
        };
        write().map_err(failed("keep how far the map was exported"))
    }

    /// Numbers of the records kept in a queue.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn records(&self, queue: &str) -> Result<Range<u64>, StoreError> {
        let read = || -> Result<Range<u64>, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let mut all = table.range(self.key(queue, 0)..=self.key(queue, u64::MAX))?;
            let first = all.next().transpose()?.map(|(key, _)| key.value().2);
            let last = all.next_back().transpose()?.map(|(key, _)| key.value().2);
            let last = last.or(first);
            Ok(first.unwrap_or(0)..last.map_or(0, |last| last + 1))
        };
        read().map_err(failed("list unconfirmed records"))
    }

    /// Keeps a record.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn keep_record(
        &self,
        queue: &str,
        number: u64,
        record: &[u8],
    ) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write
                .open_table(RECORDS)?
                .insert(self.key(queue, number), record)?;
            write.commit()?;
            Ok(())
        };
        write().map_err(failed("keep an unconfirmed record"))
    }

    /// A record that is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails, or has no such record.
    pub(crate) fn record(&self, queue: &str, number: u64) -> Result<Vec<u8>, StoreError> {
        let read = || -> Result<Vec<u8>, redb::Error> {
            let table = self.database.begin_read()?.open_table(RECORDS)?;
            let found = table.get(self.key(queue, number))?;
            let record = found.map(|record| record.value().to_vec());
            record.ok_or_else(|| {
                redb::Error::Corrupted(format!("record {number} of {queue} is missing"))
            })
        };
        read().map_err(failed("read an unconfirmed record"))
    }

    /// Deletes the records up to `through`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn delete_records(&self, queue: &str, through: u64) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write
                .open_table(RECORDS)?
                .retain_in(self.key(queue, 0)..=self.key(queue, through), |_, _| false)?;
            write.commit()?;
            Ok(())
        };
        write().map_err(failed("delete confirmed records"))
    }

    fn key<'a>(&'a self, queue: &'a str, number: u64) -> (&'a str, &'a str, u64) {
        (&self.network, queue, number)
    }
}

fn failed(operation: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |cause| StoreError { operation, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_survives_a_restart_and_belongs_to_its_network() {
        let dir = tempfile::tempdir().unwrap();
        let position = Position {
            sequence: 7,
            fingerprint: [3; 32],
        };
        let store = Store::open(dir.path(), "north").unwrap();
        assert_eq!(store.position().unwrap(), Position::default());
        store.keep_position(position).unwrap();
        drop(store);
        let store = Store::open(dir.path(), "north").unwrap();
        assert_eq!(store.position().unwrap(), position);
        drop(store);
        let other = Store::open(dir.path(), "south").unwrap();
        assert_eq!(other.position().unwrap(), Position::default());
    }

    #[test]
    fn records_belong_to_their_queue_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "north").unwrap();
        assert!(store.records("a").unwrap().is_empty());
        for number in 4..7 {
            store.keep_record("a", number, &[1]).unwrap();
        }
        store.keep_record("b", 0, &[2]).unwrap();
        drop(store);
        let store = Store::open(dir.path(), "north").unwrap();
        assert_eq!(store.records("a").unwrap(), 4..7);
        assert_eq!(store.records("b").unwrap(), 0..1);
        assert_eq!(store.record("b", 0).unwrap(), [2]);
        store.delete_records("a", 5).unwrap();
        assert_eq!(store.records("a").unwrap(), 6..7);
        store.delete_records("a", 6).unwrap();
        assert!(store.record("a", 6).is_err());
        assert!(store.records("a").unwrap().is_empty());
        assert_eq!(store.records("b").unwrap(), 0..1);
    }
}
