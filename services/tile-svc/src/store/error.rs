use std::path::PathBuf;

use sovereign_disk::OpenDatabaseError;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file cannot be opened.
    #[error("open the tile store")]
    Open(#[source] OpenDatabaseError),
    /// An earlier version of this program made it.
    #[error(
        "the map {} was made by an earlier version: move it away to begin the map anew, and send the \
         pictures again (sovereign-node replay)",
        .0.display()
    )]
    Outdated(PathBuf),
    /// A read failed.
    #[error("read the tile store")]
    Read(#[source] Box<redb::Error>),
    /// A write failed; nothing of it was kept.
    #[error("write the tile store")]
    Write(#[source] Box<redb::Error>),
    /// What was read is not what was written.
    #[error("{what} is damaged in the tile store")]
    Damaged {
        /// Which value.
        what: String,
    },
}

impl StoreError {
    pub(super) fn read(error: redb::Error) -> Self {
        Self::Read(Box::new(error))
    }

    pub(super) fn write(error: redb::Error) -> Self {
        Self::Write(Box::new(error))
    }
}
