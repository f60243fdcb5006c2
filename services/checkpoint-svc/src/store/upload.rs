//! An upload: bytes that arrive, and how they become a checkpoint.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::PoisonError;

use sovereign_model::{Digest, DigestBuilder, Timestamp, Version};

use super::{Inner, Store, Stored, sync_dir};
use crate::domain::{Checkpoint, Decision, decide};
use crate::error::CheckpointError;

/// A checkpoint that is being received. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Store,
    path: PathBuf,
    file: File,
    digest: DigestBuilder,
    size_bytes: u64,
    known_bytes: u64,
    /// Part of the sum of uploads under way that is this one's.
    reserved: u64,
}

impl Upload {
    pub(super) fn new(store: Store, path: PathBuf, file: File, known_bytes: u64) -> Self {
        Self {
            store,
            path,
            file,
            digest: DigestBuilder::new(),
            size_bytes: 0,
            known_bytes,
            reserved: 0,
        }
    }

    /// Appends a chunk.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Full`], or when the file cannot be written.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), CheckpointError> {
        let size_bytes = self.size_bytes + chunk.len() as u64;
        let more = size_bytes.saturating_sub(self.known_bytes) - self.reserved;
        if more > 0 {
            let limit = self.store.inner.max_bytes;
            let mut usage = self.store.inner.usage();
            let taken = usage.stored.saturating_add(usage.uploading);
            if taken.saturating_add(more) > limit {
                return Err(CheckpointError::Full { limit });
            }
            usage.uploading += more;
            self.reserved += more;
        }
        self.size_bytes = size_bytes;
        self.digest.update(chunk);
        self.file
            .write_all(chunk)
            .map_err(CheckpointError::file("write an upload"))
    }

    /// Makes it a checkpoint; on disk when it returns.
    ///
    /// # Errors
    ///
    /// When the bytes are not the expected ones, the version is taken, or the disk fails.
    pub(crate) fn finish(
        mut self,
        version: &Version,
        expected: Option<Digest>,
        now: Timestamp,
    ) -> Result<Stored, CheckpointError> {
        if self.size_bytes == 0 {
            return Err(CheckpointError::Empty);
        }
        let digest = std::mem::take(&mut self.digest).finish();
        if let Some(expected) = expected
            && expected != digest
        {
            return Err(CheckpointError::OtherDigest {
                expected,
                actual: digest,
            });
        }
        // Long for a large checkpoint, so before others have to wait.
        self.file
            .sync_all()
            .map_err(CheckpointError::file("write an upload"))?;
        let store = self.store.clone();
        let inner = &*store.inner;
        // It guards no value, so a panic of another is no reason to stop.
        let _placing = inner.placing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = store.by_version(version)?;
        match (decide(stored.as_ref(), &digest), stored) {
            (Decision::Known, Some(stored)) => {
                self.place(inner, &digest)?;
                Ok(Stored::Known(stored))
            }
            (Decision::Store, _) => {
                inner.check_count()?;
                let new_content = store.by_digest(&digest)?.is_none();
                let checkpoint = Checkpoint {
                    version: version.clone(),
                    digest,
                    size_bytes: self.size_bytes,
                    created: now,
                };
                let placed = self.place(inner, &digest);
                if let Err(error) = placed.and_then(|()| inner.insert(&checkpoint)) {
                    if new_content {
                        // Nothing names it; what cannot be removed now goes at the next start.
                        let _ = fs::remove_file(inner.object_path(&digest));
                    }
                    return Err(error);
                }
                if new_content {
                    let mut usage = inner.usage();
                    usage.stored += self.size_bytes;
                    usage.uploading -= std::mem::take(&mut self.reserved);
                }
                Ok(Stored::New(checkpoint))
            }
            (Decision::Taken | Decision::Known, _) => Err(CheckpointError::Taken(version.clone())),
        }
    }

    /// Makes it an object, also over one that is there: these bytes were just verified, those may be
    /// damaged.
    fn place(&self, inner: &Inner, digest: &Digest) -> Result<(), CheckpointError> {
        let place = || -> io::Result<()> {
            let object = inner.object_path(digest);
            let folder = object.parent().unwrap_or(&inner.objects);
            if !folder.exists() {
                fs::create_dir_all(folder)?;
                sync_dir(&inner.objects)?;
            }
            fs::rename(&self.path, &object)?;
            sync_dir(folder)
        };
        place().map_err(CheckpointError::file("place an object"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.inner.usage().uploading -= self.reserved;
        // Gone already when it became an object; otherwise the next start clears what is left.
        let _ = fs::remove_file(&self.path);
    }
}
