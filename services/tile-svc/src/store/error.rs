use std::path::PathBuf;

use sovereign_disk::OpenDatabaseError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("open the tile store")]
    Open(#[source] OpenDatabaseError),
    #[error(
        "the map {} was made by an earlier version: move it away to begin the map anew, and send the \
         pictures again (sovereign-node replay)",
        .0.display()
    )]
    Outdated(PathBuf),
    #[error("read the tile store")]
    Read(#[source] Box<redb::Error>),
    #[error("write the tile store")]
    Write(#[source] Box<redb::Error>),
    #[error("{what} is damaged in the tile store")]
    Damaged { what: String },
}

impl StoreError {
    pub(super) fn read(error: redb::Error) -> Self {
        Self::Read(Box::new(error))
    }

    pub(super) fn write(error: redb::Error) -> Self {
        Self::Write(Box::new(error))
    }
}
