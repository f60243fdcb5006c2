//! A redb file that knows what it must at least contain, and does not take its process down.
//!
//! Each commit raises a number, in the file and then in a mark beside it. A file that holds less than its
//! mark says, is empty, or does not pass its checksums is damaged: it is put aside, or used as far as it
//! goes, and who opens it is told. A commit that fails leaves a database that can do nothing more; it is
//! opened again with the next use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{
    DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, TableError,
};
use sha2::{Digest as _, Sha256};

use crate::space::Space;
use crate::{OpenDatabaseError, repair_report, sync_parent};

/// What every file of ours holds beside its own tables: `format`, and the number of commits.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FORMAT: &str = "format";
const COMMITS: &str = "commits";

/// A larger file is checked as a whole only after a crash: it would take too long at each start.
const CHECKED_BYTES: u64 = 256 << 20;

/// Damaged files of one name that are kept; the next takes the place of the last.
const MAX_ASIDE: u32 = 8;

const MARK_BYTES: usize = 16;

/// What is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Version of its tables. A file of a higher one is refused.
    pub format: u64,
    /// Bytes of it that are kept in memory.
    pub page_cache_bytes: usize,
}

/// What was found where a database was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it was made.
    New,
    /// All that was ever committed.
    Whole,
    /// Less than was committed; what is there is used.
    Behind {
        /// Commits that are missing.
        commits: u64,
    },
    /// A file that cannot be used, or none where one had been; another was made.
    Replaced {
        /// Where the damaged file is now; nothing where it was gone.
        aside: Option<PathBuf>,
        /// What was wrong with it.
        why: String,
    },
}

impl Found {
    /// Whether something that was committed is missing.
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Behind { .. } | Self::Replaced { .. })
    }
}

/// An open database; clones are the same.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.0.path.display())
    }
}

struct Shared {
    path: PathBuf,
    layout: Layout,
    space: Space,
    found: Found,
    handle: Mutex<Option<Handle>>,
    /// `None` where it cannot be written: then nothing else can.
    mark: Option<File>,
}

#[derive(Clone)]
enum Handle {
    Writable(Arc<redb::Database>),
    /// The disk takes no writes.
    ReadOnly(Arc<redb::ReadOnlyDatabase>),
}

impl Database {
    /// Opens a file, or makes it together with its name. One that was not closed is read whole, which is
    /// logged: it may take long. `prepare` makes the tables of a file that is new, or of an earlier format.
    ///
    /// # Errors
    /// Another process has it, it is of a later version of this program, or the disk fails.
    pub fn open(
        path: &Path,
        layout: Layout,
        prepare: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Self, OpenDatabaseError> {
        let failed = |cause: redb::Error| OpenDatabaseError::Use {
            path: path.to_owned(),
            cause: Box::new(cause),
        };
        let marked = read_mark(&mark_path(path)).map_err(|error| failed(error.into()))?;
        let bytes = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed(error.into())),
        };
        let (handle, found) = if bytes == 0 {
            let found = match marked {
                Mark::None => Found::New,
                Mark::Commits(_) | Mark::Damaged => Found::Replaced {
                    aside: None,
                    why: "it is gone or empty".to_owned(),
                },
            };
            (make(path, layout).map_err(failed)?, found)
        } else {
            match open_file(path, layout, bytes) {
                Ok(handle) => {
                    let about = About::read(&handle).map_err(failed)?;
                    if about.format > layout.format {
                        return Err(OpenDatabaseError::Later {
                            path: path.to_owned(),
                            format: about.format,
                            known: layout.format,
                        });
                    }
                    let found = match marked {
                        Mark::Commits(marked) if marked > about.commits => Found::Behind {
                            commits: marked - about.commits,
                        },
                        Mark::None | Mark::Commits(_) | Mark::Damaged => Found::Whole,
                    };
                    (handle, found)
                }
                Err(Unusable::Damaged(why)) => {
                    let aside = set_aside(path).map_err(|error| failed(error.into()))?;
                    let found = Found::Replaced {
                        aside: Some(aside),
                        why,
                    };
                    (make(path, layout).map_err(failed)?, found)
                }
                Err(Unusable::Failed(cause)) => return Err(failed(cause)),
            }
        };
        report(path, &found);
        let mark = match &handle {
            Handle::ReadOnly(_) => None,
            Handle::Writable(_) => {
                let open = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(mark_path(path));
                Some(open.map_err(|error| failed(error.into()))?)
            }
        };
        let database = Self(Arc::new(Shared {
            path: path.to_owned(),
            layout,
            space: Space::of_file(path),
            found,
            handle: Mutex::new(Some(handle.clone())),
            mark,
        }));
        let about = About::read(&handle).map_err(failed)?;
        // From here on it is whole as it is.
        database.mark(about.commits);
        if about.format < layout.format {
            let made = || {
                let write = database.begin_write()?;
                prepare(&write)?;
                write.commit()
            };
            made().map_err(failed)?;
        }
        Ok(database)
    }

    /// What was there when it was opened.
    pub fn found(&self) -> &Found {
        &self.0.found
    }

    /// Begins to read what was committed last.
    ///
    /// # Errors
    /// The file cannot be opened again after it failed, or read.
    pub fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        let begun = match self.handle()? {
            Handle::Writable(database) => database.begin_read(),
            Handle::ReadOnly(database) => database.begin_read(),
        };
        begun.map_err(|error| self.failed(error.into()))
    }

    /// Begins the one transaction that may write, when there is none.
    ///
    /// # Errors
    /// There is no room on the disk, it takes no writes, or the file cannot be opened again after it failed.
    pub fn begin_write(&self) -> Result<WriteTransaction<'_>, redb::Error> {
        let shared = &self.0;
        shared.space.check_writable().map_err(redb::Error::Io)?;
        match self.handle()? {
            Handle::ReadOnly(_) => Err(read_only().into()),
            Handle::Writable(database) => match database.begin_write() {
                Ok(transaction) => Ok(WriteTransaction {
                    transaction,
                    database: self,
                }),
                Err(error) => Err(self.failed(error.into())),
            },
        }
    }

    fn handle(&self) -> Result<Handle, redb::Error> {
        let mut handle = self.lock();
        if let Some(handle) = &*handle {
            return Ok(handle.clone());
        }
        let shared = &self.0;
        let bytes = shared.path.metadata()?.len();
        match open_file(&shared.path, shared.layout, bytes) {
            Ok(opened) => {
                tracing::info!(path = %shared.path.display(), "a file is in use again after it had failed");
                Ok(handle.insert(opened).clone())
            }
            Err(Unusable::Failed(error)) => Err(error),
            Err(Unusable::Damaged(why)) => Err(redb::Error::Corrupted(why)),
        }
    }

    /// After a failure of the disk nothing can be done with what is open.
    fn failed(&self, error: redb::Error) -> redb::Error {
        if matches!(
            error,
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Corrupted(_)
        ) {
            let open = self.lock().take();
            drop(open);
        }
        error
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Handle>> {
        self.0.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not synced: after a crash of the machine the mark may say less than the file, never more.
    fn mark(&self, commits: u64) {
        let Some(mark) = &self.0.mark else { return };
        if let Err(error) = mark.write_all_at(&bytes_of_mark(commits), 0) {
            tracing::debug!(path = %self.0.path.display(), %error, "a mark was not written");
        }
    }
}

/// The one transaction that writes. Dropping it leaves everything as it was.
pub struct WriteTransaction<'a> {
    transaction: redb::WriteTransaction,
    database: &'a Database,
}

impl Deref for WriteTransaction<'_> {
    type Target = redb::WriteTransaction;

    fn deref(&self) -> &redb::WriteTransaction {
        &self.transaction
    }
}

impl WriteTransaction<'_> {
    /// Makes all of it so; on disk when this returns.
    ///
    /// # Errors
    /// None of it is so: the disk failed.
    pub fn commit(self) -> Result<(), redb::Error> {
        let Self {
            transaction,
            database,
        } = self;
        let commit = || -> Result<u64, redb::Error> {
            let commits = raise(&transaction, database.0.layout)?;
            transaction.commit()?;
            Ok(commits)
        };
        let commits = commit().map_err(|error| database.failed(error))?;
        database.mark(commits);
        Ok(())
    }
}

impl std::fmt::Debug for WriteTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTransaction").finish_non_exhaustive()
    }
}

fn raise(transaction: &redb::WriteTransaction, layout: Layout) -> Result<u64, redb::Error> {
    let mut about = transaction.open_table(ABOUT)?;
    let commits = about.get(COMMITS)?.map_or(0, |commits| commits.value()) + 1;
    about.insert(COMMITS, commits)?;
    about.insert(FORMAT, layout.format)?;
    Ok(commits)
}

struct About {
    format: u64,
    commits: u64,
}

impl About {
    fn read(handle: &Handle) -> Result<Self, redb::Error> {
        let read = match handle {
            Handle::Writable(database) => database.begin_read()?,
            Handle::ReadOnly(database) => database.begin_read()?,
        };
        let about = match read.open_table(ABOUT) {
            Ok(about) => about,
            // Of before there was such a table, or just made.
            Err(TableError::TableDoesNotExist(_)) => {
                return Ok(Self {
                    format: 0,
                    commits: 0,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let value = |key| -> Result<u64, redb::Error> {
            Ok(about.get(key)?.map_or(0, |value| value.value()))
        };
        Ok(Self {
            format: value(FORMAT)?,
            commits: value(COMMITS)?,
        })
    }
}

enum Unusable {
    Damaged(String),
    Failed(redb::Error),
}

fn make(path: &Path, layout: Layout) -> Result<Handle, redb::Error> {
    let database = redb::Database::builder()
        .set_cache_size(layout.page_cache_bytes)
        .create(path)?;
    sync_parent(path)?;
    Ok(Handle::Writable(Arc::new(database)))
}

fn open_file(path: &Path, layout: Layout, bytes: u64) -> Result<Handle, Unusable> {
    let open = |is_checked| {
        redb::Database::builder()
            .set_cache_size(layout.page_cache_bytes)
            .set_check_integrity_on_open(is_checked)
            .set_repair_callback(repair_report(path))
            .open(path)
    };
    let read_only = || {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(layout.page_cache_bytes);
        let database = builder.open_read_only(path)?;
        Ok(Handle::ReadOnly(Arc::new(database)))
    };
    // The library panics where some bytes are wrong.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let opened = match open(bytes <= CHECKED_BYTES) {
            // The check writes; without it there may be room enough.
            Err(error) if is_io(&error, io::ErrorKind::StorageFull) => open(false),
            opened => opened,
        };
        match opened {
            Err(error)
                if is_io(&error, io::ErrorKind::ReadOnlyFilesystem)
                    || is_io(&error, io::ErrorKind::StorageFull) =>
            {
                read_only()
            }
            opened => opened.map(|database| Handle::Writable(Arc::new(database))),
        }
    }));
    match opened {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(error)) if is_damage(&error) => Err(Unusable::Damaged(error.to_string())),
        Ok(Err(error)) => Err(Unusable::Failed(error.into())),
        Err(_panicked) => Err(Unusable::Damaged("it cannot be read".to_owned())),
    }
}

fn is_io(error: &DatabaseError, kind: io::ErrorKind) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(error)) if error.kind() == kind)
}

fn is_damage(error: &DatabaseError) -> bool {
    if let DatabaseError::Storage(StorageError::Io(error)) = error {
        return matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
        );
    }
    matches!(
        error,
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_))
    )
}

fn read_only() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the disk takes no writes",
    )
}

/// Moves a damaged file out of the way; nothing of it is deleted.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let place = |number| path.with_file_name(format!("{name}.damaged-{number}"));
    let free = (1..MAX_ASIDE).map(place).find(|place| !place.exists());
    let aside = free.unwrap_or_else(|| place(MAX_ASIDE));
    fs::rename(path, &aside)?;
    sync_parent(path)?;
    Ok(aside)
}

fn report(path: &Path, found: &Found) {
    let path = path.display();
    match found {
        Found::New | Found::Whole => {}
        Found::Behind { commits } => tracing::error!(
            %path,
            commits,
            "the last commits of a file are missing: it was damaged, and what it still holds is used"
        ),
        Found::Replaced { aside, why } => {
            let aside = aside.as_deref().map(|aside| aside.display().to_string());
            tracing::error!(
                %path,
                why,
                aside,
                "a file is damaged: a new one takes its place, and where the old one was put aside, a copy of it from a \
                 backup may be put back while the node is stopped"
            );
        }
    }
}

enum Mark {
    None,
    Commits(u64),
    Damaged,
}

fn mark_path(path: &Path) -> PathBuf {
    path.with_extension("mark")
}

fn read_mark(path: &Path) -> io::Result<Mark> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(Mark::None),
        Ok(bytes) => Ok(commits_of_mark(&bytes).map_or(Mark::Damaged, Mark::Commits)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Mark::None),
        Err(error) => Err(error),
    }
}

fn bytes_of_mark(commits: u64) -> [u8; MARK_BYTES] {
    let number = commits.to_le_bytes();
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&Sha256::digest(number)[..8]);
    bytes
}

fn commits_of_mark(bytes: &[u8]) -> Option<u64> {
    let number = bytes.first_chunk::<8>()?;
    let commits = u64::from_le_bytes(*number);
    (bytes_of_mark(commits) == bytes).then_some(commits)
}

#[cfg(test)]
mod tests;
