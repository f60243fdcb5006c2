//! Files that outlive a crash, and files that others may not read. Everything here blocks.
//!
//! * [`write_whole`], [`sync_dir`], [`make_dir`]: a file or name that is there, is there whole.
//! * [`read_private`], [`private_dir`]: the one rule about modes.
//! * [`open_database`]: a redb file, on disk together with its name.
//!
//! Absent on purpose: what is stored.

mod private;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Database, RepairSession};

pub use private::{PrivateFileError, private_dir, read_private};

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
#[error("open {}", path.display())]
pub struct OpenDatabaseError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: Box<redb::Error>,
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

/// Opens a redb file, or makes it together with its name; `page_cache_bytes` of it are kept in memory. One
/// that was not closed is read whole, which is logged: it may take long.
///
/// # Errors
/// Another process has it, it is damaged, or it cannot be made.
pub fn open_database(path: &Path, page_cache_bytes: usize) -> Result<Database, OpenDatabaseError> {
    let open = || -> Result<Database, redb::Error> {
        let database = Database::builder()
            .set_cache_size(page_cache_bytes)
            .set_repair_callback(repair_report(path))
            .create(path)?;
        sync_parent(path)?;
        Ok(database)
    };
    open().map_err(|cause| OpenDatabaseError {
        path: path.to_owned(),
        cause: Box::new(cause),
    })
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

    #[test]
    fn a_database_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let held = open_database(&path, 1 << 20).unwrap();
        let error = open_database(&path, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("a.redb"), "{error}");
        drop(held);
        open_database(&path, 1 << 20).unwrap();
    }
}
