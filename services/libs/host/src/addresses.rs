//! The addresses file: where the doors of a running process are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sovereign_disk::{Readers, write_whole};

use crate::HostError;

pub(crate) struct AddressesFile {
    path: PathBuf,
}

impl AddressesFile {
    pub(crate) fn write(
        path: &Path,
        addresses: &BTreeMap<String, SocketAddr>,
    ) -> Result<Self, HostError> {
        let fail = |source| HostError::AddressesFile {
            path: path.to_path_buf(),
            source,
        };
        let text = serde_json::to_string(addresses).map_err(|error| fail(error.into()))?;
        // Whoever waits for the file reads all of it or none.
        write_whole(path, text.as_bytes(), Readers::All).map_err(fail)?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    /// Removes what is at `path`; nothing there is as good.
    pub(crate) fn remove(path: &Path) {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "remove the addresses file");
        }
    }
}

impl Drop for AddressesFile {
    fn drop(&mut self) {
        Self::remove(&self.path);
    }
}
