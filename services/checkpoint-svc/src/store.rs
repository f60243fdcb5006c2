//! Objects on the file system and their index. Everything here blocks.
//!
//! ```text
//! objects/<first two hex digits>/<sha256>   one file for each content
//! incoming/<number>                         uploads under way; emptied at every start
//! index.redb                                version -> content; what is still to be announced
//! ```
//!
//! An upload becomes an object by a rename after its bytes are on disk, and exists for callers when
//! the index transaction after it is on disk. A crash between the two leaves an object that nothing
//! names, which the next start removes. Objects without any index are not removed but an error: then the
//! index was lost, and not they.

mod upload;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use sovereign_model::{Digest, DigestBuilder, Timestamp, Version};

use crate::domain::Checkpoint;
use crate::error::CheckpointError;
pub(crate) use upload::Upload;

/// Bytes read at a time, and the largest chunk sent.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Versions kept at most, so that a list of all fits one gRPC message; more are refused.
pub(crate) const MAX_CHECKPOINTS: u64 = 20_000;

/// Digest, size in bytes, nanoseconds since the Unix epoch at which it was stored.
type Row = (&'static [u8], u64, i64);
/// Every checkpoint by version.
const CHECKPOINTS: TableDefinition<'_, &str, Row> = TableDefinition::new("checkpoints");
/// The first version of every content, by digest.
const VERSIONS: TableDefinition<'_, &[u8], &str> = TableDefinition::new("versions");
/// Versions that were stored and not announced yet.
const UNANNOUNCED: TableDefinition<'_, &str, ()> = TableDefinition::new("unannounced");

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: PathBuf,
    incoming: PathBuf,
    index: Database,
    max_bytes: u64,
    max_checkpoints: u64,
    next_upload: AtomicU64,
    usage: Mutex<Usage>,
    /// Held from the decision on a version until it is in the index, so that of two uploads that race
    /// for it only one places its object.
    placing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Usage {
    stored: u64,
    uploading: u64,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The version is new.
    New(Checkpoint),
    /// The version had these bytes already.
    Known(Checkpoint),
}

impl Store {
    /// Opens or creates the store in `dir` and clears what an earlier process was receiving.
    ///
    /// # Errors
    ///
    /// When a folder or the index cannot be had.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> Result<Self, CheckpointError> {
        Self::open_with(dir, max_bytes, MAX_CHECKPOINTS)
    }

    fn open_with(
        dir: &Path,
        max_bytes: u64,
        max_checkpoints: u64,
    ) -> Result<Self, CheckpointError> {
        let (objects, incoming) = (dir.join("objects"), dir.join("incoming"));
        let path = dir.join("index.redb");
        let lost = || -> io::Result<bool> { Ok(!path.try_exists()? && holds_objects(&objects)?) };
        if lost().map_err(CheckpointError::file("look for the index"))? {
            return Err(CheckpointError::IndexLost { path, objects });
        }
        let folders = || -> io::Result<()> {
            if incoming.exists() {
                fs::remove_dir_all(&incoming)?;
            }
            fs::create_dir_all(&incoming)?;
            fs::create_dir_all(&objects)?;
            sync_dir(dir)
        };
        folders().map_err(CheckpointError::file("make the folders of the store"))?;
        let open = || -> Result<_, redb::Error> {
            let index = Database::create(&path)?;
            sync_dir(dir)?;
            let write = index.begin_write()?;
            let (mut stored, mut named) = (0, HashSet::new());
            {
                let checkpoints = write.open_table(CHECKPOINTS)?;
                write.open_table(UNANNOUNCED)?;
                // Contents under several versions are stored once.
                for entry in write.open_table(VERSIONS)?.iter()? {
                    let (digest, version) = entry?;
                    stored += checkpoints.get(version.value())?.map_or(0, |r| r.value().1);
                    named.extend(Digest::from_slice(digest.value()).map(|d| d.to_hex()));
                }
            }
            write.commit()?;
            Ok((index, stored, named))
        };
        let (index, stored, named) = open().map_err(CheckpointError::index("open the index"))?;
        remove_unnamed(&objects, &named)
            .map_err(CheckpointError::file("remove objects that nothing names"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                objects,
                incoming,
                index,
                max_bytes,
                max_checkpoints,
                next_upload: AtomicU64::new(0),
                usage: Mutex::new(Usage {
                    stored,
                    uploading: 0,
                }),
                placing: Mutex::default(),
            }),
        })
    }

    /// Bytes of stored objects.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.inner.usage().stored
    }

    /// Starts to receive a checkpoint. Its first `known_bytes` take no room of the store: so many are
    /// stored already of what it says to be, and it becomes nothing else.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub(crate) fn begin(&self, known_bytes: u64) -> Result<Upload, CheckpointError> {
        let number = self.inner.next_upload.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.incoming.join(number.to_string());
        let file = File::create_new(&path).map_err(CheckpointError::file("begin an upload"))?;
        Ok(Upload::new(self.clone(), path, file, known_bytes))
    }

    /// The checkpoint of a version.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub(crate) fn by_version(
        &self,
        version: &Version,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let read = || -> Result<_, redb::Error> {
            let read = self.inner.index.begin_read()?;
            let row = read.open_table(CHECKPOINTS)?.get(version.as_str())?;
            Ok(row.and_then(|row| checkpoint_from_row(version.as_str(), row.value())))
        };
        read().map_err(CheckpointError::index("look up a version"))
    }

    /// The first checkpoint with this content.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub(crate) fn by_digest(&self, digest: &Digest) -> Result<Option<Checkpoint>, CheckpointError> {
        let read = || -> Result<_, redb::Error> {
            let read = self.inner.index.begin_read()?;
            let versions = read.open_table(VERSIONS)?;
            let Some(version) = versions.get(digest.as_bytes().as_slice())? else {
                return Ok(None);
            };
            let row = read.open_table(CHECKPOINTS)?.get(version.value())?;
            Ok(row.and_then(|row| checkpoint_from_row(version.value(), row.value())))
        };
        read().map_err(CheckpointError::index("look up a digest"))
    }

    /// Every checkpoint, by version.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let read = || -> Result<_, redb::Error> {
            let read = self.inner.index.begin_read()?;
            let mut all = Vec::new();
            for entry in read.open_table(CHECKPOINTS)?.iter()? {
                let (version, row) = entry?;
                all.extend(checkpoint_from_row(version.value(), row.value()));
            }
            Ok(all)
        };
        read().map_err(CheckpointError::index("list the checkpoints"))
    }

    /// What is stored and not announced yet, by version.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub(crate) fn unannounced(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let read = || -> Result<_, redb::Error> {
            let read = self.inner.index.begin_read()?;
            let checkpoints = read.open_table(CHECKPOINTS)?;
            let mut all = Vec::new();
            for entry in read.open_table(UNANNOUNCED)?.iter()? {
                let (version, _) = entry?;
                let row = checkpoints.get(version.value())?;
                all.extend(row.and_then(|row| checkpoint_from_row(version.value(), row.value())));
            }
            Ok(all)
        };
        read().map_err(CheckpointError::index("list what is to be announced"))
    }

    /// `version` was announced.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub(crate) fn announced(&self, version: &Version) -> Result<(), CheckpointError> {
        let write = || -> Result<_, redb::Error> {
            let write = self.inner.index.begin_write()?;
            write.open_table(UNANNOUNCED)?.remove(version.as_str())?;
            write.commit()?;
            Ok(())
        };
        write().map_err(CheckpointError::index("remember an announcement"))
    }

    /// Opens the content of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] when the file is gone or has another length.
    pub(crate) fn read(&self, checkpoint: &Checkpoint) -> Result<Reader, CheckpointError> {
        let digest = checkpoint.digest;
        let file = match File::open(self.inner.object_path(&digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Damaged { digest });
            }
            Err(cause) => return Err(CheckpointError::file("open an object")(cause)),
        };
        let metadata = file
            .metadata()
            .map_err(CheckpointError::file("measure an object"))?;
        if metadata.len() != checkpoint.size_bytes {
            return Err(CheckpointError::Damaged { digest });
        }
        Ok(Reader {
            file,
            left: checkpoint.size_bytes,
            expected: digest,
            seen: Some(DigestBuilder::new()),
        })
    }
}

impl Inner {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Sums are whole after every statement, so a panic elsewhere is no reason to stop.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.objects.join(&hex[..2]).join(&hex)
    }

    fn check_count(&self) -> Result<(), CheckpointError> {
        let count = || -> Result<u64, redb::Error> {
            Ok(self.index.begin_read()?.open_table(CHECKPOINTS)?.len()?)
        };
        let limit = self.max_checkpoints;
        if count().map_err(CheckpointError::index("count the checkpoints"))? >= limit {
            return Err(CheckpointError::TooMany { limit });
        }
        Ok(())
    }

    /// Writes a version that is not in the index yet.
    fn insert(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let write = || -> Result<_, redb::Error> {
            let write = self.index.begin_write()?;
            {
                let version = checkpoint.version.as_str();
                let digest = checkpoint.digest.as_bytes().as_slice();
                let created = checkpoint.created.as_unix_nanos();
                let row = (digest, checkpoint.size_bytes, created);
                write.open_table(CHECKPOINTS)?.insert(version, row)?;
                let mut versions = write.open_table(VERSIONS)?;
                if versions.get(digest)?.is_none() {
                    versions.insert(digest, version)?;
                }
                write.open_table(UNANNOUNCED)?.insert(version, ())?;
            }
            write.commit()?;
            Ok(())
        };
        write().map_err(CheckpointError::index("write the index"))
    }
}

fn checkpoint_from_row(version: &str, row: (&[u8], u64, i64)) -> Option<Checkpoint> {
    let (digest, size_bytes, created) = row;
    Some(Checkpoint {
        version: Version::parse(version).ok()?,
        digest: Digest::from_slice(digest).ok()?,
        size_bytes,
        created: Timestamp::from_unix_nanos(created),
    })
}

/// Reads a checkpoint and verifies it on the way.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    left: u64,
    expected: Digest,
    seen: Option<DigestBuilder>,
}

impl Reader {
    /// The next chunk, absent after the last. The last is returned only when all bytes have the
    /// expected digest.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] when they have not.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        let digest = self.expected;
        if self.left == 0 {
            return Ok(None);
        }
        let size = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; size];
        match self.file.read_exact(&mut chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(CheckpointError::Damaged { digest });
            }
            Err(cause) => return Err(CheckpointError::file("read an object")(cause)),
        }
        self.left -= size as u64;
        if let Some(seen) = &mut self.seen {
            seen.update(&chunk);
        }
        if self.left == 0 && self.seen.take().map(DigestBuilder::finish) != Some(digest) {
            return Err(CheckpointError::Damaged { digest });
        }
        Ok(Some(chunk.into()))
    }
}

fn holds_objects(objects: &Path) -> io::Result<bool> {
    let folders = match fs::read_dir(objects) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for folder in folders {
        if fs::read_dir(folder?.path())?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_unnamed(objects: &Path, named: &HashSet<String>) -> io::Result<()> {
    for folder in fs::read_dir(objects)? {
        for object in fs::read_dir(folder?.path())? {
            let object = object?;
            let known = object
                .file_name()
                .to_str()
                .is_some_and(|n| named.contains(n));
            if !known {
                fs::remove_file(object.path())?;
            }
        }
    }
    Ok(())
}

/// A rename, a new file or a new folder is on disk only after its parent folder is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
