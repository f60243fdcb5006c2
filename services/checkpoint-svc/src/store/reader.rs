//! An object read back, every chunk verified before it leaves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use sovereign_model::Digest;

use crate::domain::Object;
use crate::error::StoreError;

pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes under one digest in an object with a file of its own: what a range is verified by.
pub(super) const LEAF_BYTES: usize = 256 << 10;

const DIGEST_BYTES: usize = 32;

#[derive(Debug)]
pub(crate) struct Reader {
    object: Object,
    at: u64,
    end: u64,
    source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Memory(Bytes),
    File { file: File, leaves: Vec<u8> },
}

impl Reader {
    /// `length` bytes from `offset`, as far as there are; 0 means all that are left.
    pub(super) fn new(object: Object, source: Source, offset: u64, length: u64) -> Self {
        let size = object.size_bytes;
        let at = offset.min(size);
        let end = match length {
            0 => size,
            length => at.saturating_add(length).min(size),
        };
        Self {
            object,
            at,
            end,
            source,
        }
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.at == self.end {
            return Ok(None);
        }
        let chunk = match &self.source {
            Source::Memory(bytes) => {
                let at = usize::try_from(self.at).unwrap_or(bytes.len());
                let end = usize::try_from(self.end).unwrap_or(bytes.len());
                bytes.slice(at..end.min(at + CHUNK_BYTES))
            }
            Source::File { file, leaves } => {
                let chunk = self.read_leaves(file, leaves);
                let damaged = StoreError::Damaged {
                    digest: self.object.digest,
                };
                match chunk {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => return Err(damaged),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(damaged);
                    }
                    Err(error) => return Err(StoreError::file("read an object")(error)),
                }
            }
        };
        self.at += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// The leaves around the position, cut to what is wanted; `None` when one is not what was stored.
    fn read_leaves(&self, file: &File, leaves: &[u8]) -> io::Result<Option<Bytes>> {
        const LEAF: u64 = LEAF_BYTES as u64;
        let begin = self.at / LEAF * LEAF;
        let end = self
            .end
            .next_multiple_of(LEAF)
            .min(begin + CHUNK_BYTES as u64);
        let end = end.min(self.object.size_bytes);
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or_default()];
        file.read_exact_at(&mut bytes, begin)?;
        let first = usize::try_from(begin / LEAF).unwrap_or(usize::MAX);
        let mut expected = leaves.chunks_exact(DIGEST_BYTES).skip(first);
        for leaf in bytes.chunks(LEAF_BYTES) {
            if expected.next() != Some(Digest::of(leaf).as_bytes()) {
                return Ok(None);
            }
        }
        let from = usize::try_from(self.at - begin).unwrap_or_default();
        let to = usize::try_from(self.end.min(end) - begin).unwrap_or_default();
        Ok(Some(Bytes::from(bytes).slice(from..to)))
    }
}
