//! The data folder: closed to other users, held by one process.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::HostError;

/// Only the owner may look inside.
const MODE: u32 = 0o700;

/// A data folder held by this process until dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is not there and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, HostError> {
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| HostError::DataDir { path, source }
        };
        create(path).map_err(fail(path))?;
        // Absolute, so that services are free of the working directory.
        let path = path.canonicalize().map_err(fail(path))?;
        let file = path.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(fail(&file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text is for people; without it the message is still right.
                let _ = lock.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    process => format!("process {process}"),
                };
                return Err(HostError::DataDirInUse { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(fail(&file)(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(fail(&file))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of one service.
    pub(crate) fn of(&self, service: &str) -> Result<PathBuf, HostError> {
        let path = self.path.join(service);
        match create(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(HostError::DataDir { path, source }),
        }
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(MODE).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_folder_is_closed_to_others_and_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        for folder in [held.path().to_path_buf(), held.of("tile-svc").unwrap()] {
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let error = DataDir::lock(&path).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--data-dir"), "{text}");
        drop(held);
        DataDir::lock(&path).unwrap();
    }
}
