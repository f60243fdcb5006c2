//! Bytes that arrive, and how they become an object.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use sovereign_model::{Digest, DigestBuilder, Timestamp, Version};

use super::Store;
use super::files::MAX_PACKED_BYTES;
use super::reader::LEAF_BYTES;
use super::writer::{Body, Insert, Inserted};
use crate::domain::{Class, Object};
use crate::error::StoreError;

/// An object that is being received. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Store,
    class: Class,
    digest: DigestBuilder,
    arrived: Arrived,
    size_bytes: u64,
    known_bytes: u64,
    /// Part of the sum of uploads under way that is this one's.
    reserved: u64,
}

#[derive(Debug)]
enum Arrived {
    InMemory(Vec<u8>),
    OnDisk(OnDisk),
}

#[derive(Debug)]
struct OnDisk {
    path: PathBuf,
    file: File,
    leaves: Leaves,
}

impl OnDisk {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.leaves.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(StoreError::file("write an upload"))
    }
}

#[derive(Debug, Default)]
struct Leaves {
    done: Vec<u8>,
    current: DigestBuilder,
    in_current: usize,
}

impl Leaves {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(LEAF_BYTES - self.in_current));
            self.current.update(now);
            self.in_current += now.len();
            if self.in_current == LEAF_BYTES {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        let leaf = std::mem::take(&mut self.current).finish();
        self.done.extend_from_slice(leaf.as_bytes());
        self.in_current = 0;
    }

    fn finish(mut self) -> Vec<u8> {
        if self.in_current > 0 {
            self.close();
        }
        self.done
    }
}

impl Upload {
    pub(super) fn new(store: Store, class: Class, known_bytes: u64) -> Self {
        Self {
            store,
            class,
            digest: DigestBuilder::new(),
            arrived: Arrived::InMemory(Vec::new()),
            size_bytes: 0,
            known_bytes,
            reserved: 0,
        }
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let size_bytes = self.size_bytes + chunk.len() as u64;
        let more = size_bytes.saturating_sub(self.known_bytes) - self.reserved;
        if more > 0 {
            self.store.reserve(self.class, more)?;
            self.reserved += more;
        }
        self.size_bytes = size_bytes;
        self.digest.update(chunk);
        match &mut self.arrived {
            Arrived::InMemory(bytes) if bytes.len() + chunk.len() <= MAX_PACKED_BYTES => {
                bytes.extend_from_slice(chunk);
                Ok(())
            }
            Arrived::InMemory(bytes) => {
                let bytes = std::mem::take(bytes);
                let received = self.store.files.receive();
                let (path, file) = received.map_err(StoreError::file("begin an upload"))?;
                let leaves = Leaves::default();
                let mut on_disk = OnDisk { path, file, leaves };
                let appended = on_disk.append(&bytes).and_then(|()| on_disk.append(chunk));
                self.arrived = Arrived::OnDisk(on_disk);
                appended
            }
            Arrived::OnDisk(on_disk) => on_disk.append(chunk),
        }
    }

    pub(crate) fn finish(
        self,
        pin: Option<String>,
        now: Timestamp,
    ) -> Result<Inserted, StoreError> {
        self.store_as(None, pin, None, now)
    }

    pub(crate) fn finish_as(
        self,
        version: Version,
        expected: Option<Digest>,
        now: Timestamp,
    ) -> Result<Inserted, StoreError> {
        self.store_as(expected, None, Some(version), now)
    }

    fn store_as(
        mut self,
        expected: Option<Digest>,
        pin: Option<String>,
        version: Option<Version>,
        now: Timestamp,
    ) -> Result<Inserted, StoreError> {
        if self.size_bytes == 0 {
            return Err(StoreError::Empty);
        }
        let digest = std::mem::take(&mut self.digest).finish();
        if let Some(expected) = expected
            && expected != digest
        {
            return Err(StoreError::OtherDigest {
                expected,
                actual: digest,
            });
        }
        let body = match &mut self.arrived {
            Arrived::InMemory(bytes) => Body::Packed(std::mem::take(bytes).into()),
            Arrived::OnDisk(OnDisk { path, file, leaves }) => {
                // Long for a large object, so here, where nobody else waits for it.
                file.sync_all()
                    .map_err(StoreError::file("write an upload"))?;
                Body::File {
                    path: path.clone(),
                    leaves: std::mem::take(leaves).finish(),
                }
            }
        };
        let object = Object {
            digest,
            class: self.class,
            size_bytes: self.size_bytes,
            stored: now,
        };
        self.store.writer.insert(Insert {
            object,
            body,
            pin,
            version,
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.usage.release(self.class, self.reserved);
        if let Arrived::OnDisk(OnDisk { path, .. }) = &self.arrived {
            // Gone already when it became an object; otherwise the next start clears what is left.
            let _ = fs::remove_file(path);
        }
    }
}
