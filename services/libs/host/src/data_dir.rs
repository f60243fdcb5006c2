//! The data folder: closed to other users, held by one process.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use sovereign_disk::private_dir;

use crate::HostError;

const MODE: u32 = 0o700;
/// What anybody else may do, among the bits of a mode.
const OTHERS: u32 = 0o077;
const OF_OTHERS: &str =
    "it is open to other users and holds files that are not ours; `chmod 700` it if it is meant";
/// File that a process locks in its data folder; it stays when the process ends.
const LOCK: &str = "lock";

/// A data folder held by this process until dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the folder when it is not there, closes it to other users and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, HostError> {
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| HostError::DataDir { path, source }
        };
        private_dir(path).map_err(fail(path))?;
        // Absolute, so that services are free of the working directory.
        let path = path.canonicalize().map_err(fail(path))?;
        close(&path).map_err(fail(&path))?;
        let file = path.join(LOCK);
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
        Ok(Self { path, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names the locked file among all that this kernel knows: a process that held the same is gone. A
    /// copy of the folder is another, and after a start of the machine so is the same one.
    pub(crate) fn lock_id(&self) -> Option<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let file = self.lock.metadata().ok()?;
        Some(format!("{} {} {}", boot.trim(), file.dev(), file.ino()))
    }

    pub(crate) fn of(&self, service: &str) -> Result<PathBuf, HostError> {
        let path = self.path.join(service);
        match private_dir(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(HostError::DataDir { path, source }),
        }
    }
}

/// Whether a folder can be the data folder, or be made; nothing is changed.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    let Some(there) = absolute.ancestors().find(|folder| folder.exists()) else {
        return Ok(());
    };
    if !there.is_dir() {
        let why = format!("{} is no folder", there.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
    }
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let why = format!("this user may not write in {}: {error}", there.display());
        io::Error::new(error.kind(), why)
    })?;
    if there == absolute && is_of_others(&absolute)? {
        return Err(io::Error::other(OF_OTHERS));
    }
    Ok(())
}

/// Whether a folder is open to other users and holds files, and is no data folder.
fn is_of_others(path: &Path) -> io::Result<bool> {
    Ok(path.metadata()?.permissions().mode() & OTHERS != 0
        && !path.join(LOCK).exists()
        && fs::read_dir(path)?.next().is_some())
}

/// Closes a folder that was made by another. One with files in it that is no data folder is refused:
/// whoever shares it would be locked out by a wrong path.
fn close(path: &Path) -> io::Result<()> {
    if path.metadata()?.permissions().mode() & OTHERS == 0 {
        return Ok(());
    }
    if is_of_others(path)? {
        return Err(io::Error::other(OF_OTHERS));
    }
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(|error| {
        let why = format!("it is open to other users and cannot be closed to them: {error}");
        io::Error::new(error.kind(), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_data_folder_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let why = |path: &Path| check(path).unwrap_err().to_string();
        assert!(why(&file).ends_with("file is no folder"), "{}", why(&file));
        assert!(why(&file.join("below")).ends_with("file is no folder"));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(why(folder.path()), OF_OTHERS);
        assert!(check(&folder.path().join("new/folder")).is_ok());
        assert!(!folder.path().join("new").exists(), "nothing is made");
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_folder_is_closed_to_others_and_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        for folder in [held.path().to_path_buf(), held.of("tile-svc").unwrap()] {
            assert_eq!(mode(&folder), 0o700);
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

    #[test]
    fn a_folder_that_was_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        drop(DataDir::lock(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
        // By now it has files, and they are ours.
        set_mode(&path, 0o750);
        drop(DataDir::lock(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_shared_folder_of_others_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("notes.txt"), "of somebody").unwrap();
        set_mode(&path, 0o755);
        let error = sovereign_service::chain(&DataDir::lock(&path).unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("open to other users"), "{error}");
        assert_eq!(mode(&path), 0o755);
        assert!(!path.join(LOCK).exists());
        set_mode(&path, 0o700);
        DataDir::lock(&path).unwrap();
    }
}
