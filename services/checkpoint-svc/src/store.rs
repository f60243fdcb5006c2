//! The store: bytes under their digest, and versions that name some of them. Everything here blocks.
//!
//! An object exists for callers when the index transaction that names it is on disk; its bytes were before.
//! What a crash leaves between the two goes at the next start. Objects without any index are not removed but
//! an error: then the index was lost, and not they.

mod files;
mod index;
mod reader;
#[cfg(test)]
mod tests;
mod upload;
mod usage;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sovereign_disk::Space;
use sovereign_model::{Digest, Timestamp, Version};

use crate::domain::{CLASSES, Class, Object, Rank, Retention};
use crate::error::StoreError;
use files::{Files, Pack, Place};
use index::Index;
pub(crate) use index::Logged;
use reader::Source;
pub(crate) use reader::{CHUNK_BYTES, Reader};
pub(crate) use upload::Upload;
pub(crate) use usage::{ClassUsage, Usage};
use writer::Writer;
pub(crate) use writer::{Inserted, Limits, PinChange};

/// Versions kept at most, so that a list of all fits one gRPC message; more are refused.
pub(crate) const MAX_VERSIONS: u64 = 20_000;
/// Times that an object is looked up again because its pack was written anew meanwhile.
const LOOKS: usize = 3;

#[derive(Debug, Clone)]
pub(crate) struct Store {
    index: Arc<Index>,
    files: Arc<Files>,
    usage: Arc<Usage>,
    writer: Writer,
    retention: [Retention; CLASSES.len()],
    space: Space,
}

impl Store {
    pub(crate) fn open(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let path = dir.join("index.redb");
        let lost = || -> io::Result<bool> { Ok(!path.try_exists()? && Files::hold_anything(dir)?) };
        if lost().map_err(StoreError::file("look for the index"))? {
            return Err(StoreError::IndexLost {
                path,
                dir: dir.to_owned(),
            });
        }
        let files = Files::open(dir).map_err(StoreError::file("make the folders of the store"))?;
        let index = Index::open(&path)?;
        let usage = Usage::default();
        let mut named = HashSet::new();
        index.all(|row| {
            usage.count(row.object.class, row.object.size_bytes);
            if row.place == Place::File {
                named.insert(row.object.digest.to_hex());
            }
        })?;
        let packs = index.packs()?;
        files
            .remove_unnamed(&named, &packs)
            .map_err(StoreError::file("remove objects that nothing names"))?;
        let pack = Pack::resume(&files, &packs).map_err(StoreError::file("open a pack"))?;
        let (index, files, usage) = (Arc::new(index), Arc::new(files), Arc::new(usage));
        let retention = limits.retention;
        let writer = Writer::start(index.clone(), files.clone(), usage.clone(), limits, pack)
            .map_err(StoreError::file("start the thread of the store"))?;
        Ok(Self {
            index,
            files,
            usage,
            writer,
            retention,
            space: Space::of_folder(dir),
        })
    }

    /// What holds the bytes.
    pub(crate) fn backend(&self) -> &'static str {
        Files::BACKEND
    }

    /// Room of a class: what is there, and what there may be.
    pub(crate) fn usage(&self, class: Class) -> (ClassUsage, u64) {
        let max_bytes = self.retention[class as usize].max_bytes;
        (self.usage.of(class), max_bytes)
    }

    /// Starts to receive an object. Its first `known_bytes` take no room: so many are stored already of what
    /// it says to be, and it becomes nothing else.
    pub(crate) fn begin(&self, class: Class, known_bytes: u64) -> Upload {
        Upload::new(self.clone(), class, known_bytes)
    }

    fn reserve(&self, class: Class, more: u64) -> Result<(), StoreError> {
        self.space
            .check_acceptable()
            .map_err(StoreError::DiskFull)?;
        let limit = self.retention[class as usize].max_bytes;
        if let Err(missing) = self.usage.reserve(class, more, limit) {
            self.writer.make_room(class, missing)?;
            let full = |_| StoreError::Full {
                class: class.label(),
                limit,
            };
            self.usage.reserve(class, more, limit).map_err(full)?;
        }
        Ok(())
    }

    pub(crate) fn object(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        Ok(self.index.object(digest)?.map(|row| row.object))
    }

    pub(crate) fn pins(&self, digest: &Digest) -> Result<Vec<(String, Rank)>, StoreError> {
        self.index.pins(digest)
    }

    pub(crate) fn list(
        &self,
        class: Class,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Object>, StoreError> {
        self.index.list(class, after, limit)
    }

    pub(crate) fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Reader, StoreError> {
        let damaged = || StoreError::Damaged { digest: *digest };
        for _ in 0..LOOKS {
            let row = self.index.object(digest)?.ok_or(StoreError::NotFound)?;
            let source = match row.place {
                Place::File => match self.files.open_object(digest) {
                    Ok(file) => Some(Source::File {
                        file,
                        leaves: self.index.leaves(digest)?,
                    }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(StoreError::file("open an object")(error)),
                },
                Place::Pack { pack, offset } => self
                    .files
                    .packed(&row.object, pack, offset)
                    .map_err(StoreError::file("read an object"))?
                    .map(Source::Memory),
            };
            if let Some(source) = source {
                return Ok(Reader::new(row.object, source, offset, length));
            }
        }
        Err(damaged())
    }

    pub(crate) fn update_pins(
        &self,
        changes: Vec<PinChange>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.writer.update_pins(changes, now)
    }

    pub(crate) fn retain(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.retain(now)
    }

    pub(crate) fn version(&self, version: &Version) -> Result<Option<Logged>, StoreError> {
        self.index.version(version)
    }

    pub(crate) fn version_of(&self, digest: &Digest) -> Result<Option<Logged>, StoreError> {
        self.index.version_of(digest)
    }

    pub(crate) fn versions(&self) -> Result<Vec<Logged>, StoreError> {
        self.index.versions()
    }

    /// At most `limit` versions stored after a sequence, oldest first, and the oldest sequence kept.
    pub(crate) fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Logged>, u64), StoreError> {
        Ok((
            self.index.changes(after, limit)?,
            self.index.oldest_change()?,
        ))
    }
}
