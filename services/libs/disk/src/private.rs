//! Secrets on disk. A group may be meant to read one, as when an orchestrator mounts it; everybody never
//! is.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What everybody may do, among the bits of a mode.
const EVERYBODY: u32 = 0o007;

/// A secret file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Everybody may read or write it.
    #[error("{} is open to everybody (mode {mode:03o}); run chmod 600 on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Reads a file that is closed to everybody; `None` when there is no file.
///
/// # Errors
/// It cannot be read, or is open to everybody.
pub fn read_private(path: &Path) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let failed = |cause| PrivateFileError::Read {
        path: path.to_owned(),
        cause,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & EVERYBODY != 0 {
        return Err(PrivateFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    fs::read(path).map(Some).map_err(failed)
}

/// Makes a folder that only its owner may look into; one that is there stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Readers, write_whole};

    #[test]
    fn a_file_that_everybody_may_read_is_refused_and_one_of_a_group_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read_private(&path).unwrap().is_none());
        write_whole(&path, b"secret", Readers::Owner).unwrap();
        for (mode, readable) in [(0o600, true), (0o640, true), (0o604, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_private(&path) {
                Ok(read) => assert!(readable && read.unwrap() == b"secret", "{mode:o}"),
                Err(error) => assert!(!readable && error.to_string().contains("chmod 600")),
            }
        }
    }
}
