//! How far the map was exported, kept over restarts.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::error::CursorError;

/// Last exported sequence by network: a node that moves to another network starts over there.
const CURSORS: TableDefinition<'_, &str, u64> = TableDefinition::new("exported_sequence");

/// The export cursor of one network; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    database: Arc<Database>,
    network: String,
}

impl Cursor {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    ///
    /// [`CursorError`] when the file cannot be had.
    pub(crate) fn open(dir: &Path, network: &str) -> Result<Self, CursorError> {
        let open = || -> Result<Database, redb::Error> {
            let database = Database::create(dir.join("export.redb"))?;
            let write = database.begin_write()?;
            write.open_table(CURSORS)?;
            write.commit()?;
            Ok(database)
        };
        let database = open().map_err(|cause| CursorError {
            operation: "open",
            cause,
        })?;
        Ok(Self {
            database: Arc::new(database),
            network: network.to_owned(),
        })
    }

    /// The last exported sequence, 0 at first.
    ///
    /// # Errors
    ///
    /// [`CursorError`] when the store fails.
    pub(crate) fn read(&self) -> Result<u64, CursorError> {
        let read = || -> Result<u64, redb::Error> {
            let read = self.database.begin_read()?;
            let table = read.open_table(CURSORS)?;
            Ok(table.get(self.network.as_str())?.map_or(0, |v| v.value()))
        };
        read().map_err(|cause| CursorError {
            operation: "read",
            cause,
        })
    }

    /// Keeps `sequence`; on disk when it returns. Blocks.
    ///
    /// # Errors
    ///
    /// [`CursorError`] when the store fails.
    pub(crate) fn write(&self, sequence: u64) -> Result<(), CursorError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write
                .open_table(CURSORS)?
                .insert(self.network.as_str(), sequence)?;
            write.commit()?;
            Ok(())
        };
        write().map_err(|cause| CursorError {
            operation: "write",
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_survives_a_restart_and_belongs_to_its_network() {
        let dir = tempfile::tempdir().unwrap();
        let cursor = Cursor::open(dir.path(), "north").unwrap();
        assert_eq!(cursor.read().unwrap(), 0);
        cursor.write(7).unwrap();
        drop(cursor);
        let cursor = Cursor::open(dir.path(), "north").unwrap();
        assert_eq!(cursor.read().unwrap(), 7);
        drop(cursor);
        let other = Cursor::open(dir.path(), "south").unwrap();
        assert_eq!(other.read().unwrap(), 0);
    }
}
