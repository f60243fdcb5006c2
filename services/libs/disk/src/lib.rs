//! Files that outlive a crash, and files that others may not read. Everything here blocks.
//!
//! * [`write_whole`], [`sync_dir`], [`make_dir`]: a file or name that is there, is there whole.
//! * [`read_private`], [`private_dir`]: the one rule about modes.
//! * [`Database`]: a redb file that knows what it must at least contain.
//! * [`Space`]: room on a disk.
//!
//! Absent on purpose: what is stored.

mod database;
mod private;
mod space;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::RepairSession;

pub use database::{Database, Found, Layout, WriteTransaction};
pub use private::{PrivateFileError, private_dir, read_private};
pub use space::{Level, Room, Space};

/// How often a repair that goes on says so.
const REPAIR_REPORT_PERIOD: Duration = Duration::from_secs(5);

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Everybody.
    All,
}

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDatabaseError {
    /// Another process has it, or the disk fails.
    #[error("open {}", path.display())]
    Use {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<redb::Error>,
    },
    /// It was made by a later version of this program.
    #[error(
        "{} is of format {format}, and this version knows {known} at most: start the version that made it, or \
         move the file away",
        path.display()
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The latest that is known here.
        known: u64,
    },
}

/// Writes a file that is there whole or not at all, whatever happens.
///
/// # Errors
/// The file, or its folder, cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o644,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    // A file left by a crash keeps its mode when it is opened again.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a folder whose name is on disk; one that is there is fine.
///
/// # Errors
/// It cannot be made.
pub fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    sync_parent(path)
}

/// A rename, a new file or a removed one is on disk only after its folder is.
///
/// # Errors
/// The folder cannot be opened or written.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_dir(folder),
        Some(_) | None => Ok(()),
    }
}

fn repair_report(path: &Path) -> impl Fn(&mut RepairSession) + 'static {
    let path = path.to_owned();
    let reported: Cell<Option<Instant>> = Cell::default();
    move |session| {
        let recent = |at: Instant| at.elapsed() < REPAIR_REPORT_PERIOD;
        if !reported.get().is_some_and(recent) {
            reported.set(Some(Instant::now()));
            let progress = session.progress();
            tracing::info!(path = %path.display(), progress, "a file was not closed: it is read whole");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_whole_and_its_mode_is_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(dir.path().join("token.new"), "left by a crash").unwrap();
        write_whole(&path, b"one", Readers::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
        write_whole(&path, b"two", Readers::All).unwrap();
        assert_eq!(mode(&path), 0o644);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
