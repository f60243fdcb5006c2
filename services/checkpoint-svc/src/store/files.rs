//! The bytes, on the file system.
//!
//! ```text
//! packs/<number>                            small objects, one record after the other
//! objects/<first two hex digits>/<sha256>   large ones, a file each
//! incoming/<number>                         uploads under way; emptied at every start
//! ```
//!
//! A record of a pack says by itself what it holds: `SMO1`, class, length, SHA-256, bytes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sovereign_disk::{make_dir, sync_dir};
use sovereign_model::Digest;

use crate::domain::Object;

/// Larger objects get a file of their own.
pub(crate) const MAX_PACKED_BYTES: usize = 512 << 10;
/// A pack that has grown past this is followed by the next.
const PACK_BYTES: u64 = 64 << 20;

const MAGIC: &[u8; 4] = b"SMO1";
const HEADER_BYTES: u64 = 4 + 1 + 4 + 32;

/// Bytes of the record of an object of this size.
pub(super) fn record_bytes(size_bytes: u64) -> u64 {
    HEADER_BYTES + size_bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    File,
    /// In a pack, from this byte on.
    Pack {
        pack: u64,
        offset: u64,
    },
}

#[derive(Debug)]
pub(super) struct Files {
    objects: PathBuf,
    packs: PathBuf,
    incoming: PathBuf,
    next_upload: AtomicU64,
}

impl Files {
    /// What holds the bytes, as the contract calls it.
    pub(super) const BACKEND: &'static str = "filesystem";

    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let files = Self {
            objects: dir.join("objects"),
            packs: dir.join("packs"),
            incoming: dir.join("incoming"),
            next_upload: AtomicU64::new(0),
        };
        if files.incoming.exists() {
            fs::remove_dir_all(&files.incoming)?;
        }
        for folder in [&files.objects, &files.packs, &files.incoming] {
            make_dir(folder)?;
        }
        Ok(files)
    }

    pub(super) fn hold_anything(dir: &Path) -> io::Result<bool> {
        for folder in ["objects", "packs"] {
            let entries = match fs::read_dir(dir.join(folder)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let path = entry?.path();
                if !path.is_dir() || fs::read_dir(path)?.next().is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn remove_unnamed(
        &self,
        named: &HashSet<String>,
        packs: &[(u64, u64)],
    ) -> io::Result<()> {
        for folder in fs::read_dir(&self.objects)? {
            for object in fs::read_dir(folder?.path())? {
                let object = object?;
                let name = object.file_name();
                if !name.to_str().is_some_and(|name| named.contains(name)) {
                    fs::remove_file(object.path())?;
                }
            }
        }
        for pack in fs::read_dir(&self.packs)? {
            let pack = pack?;
            let name = pack.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if !packs.iter().any(|(known, _)| Some(*known) == number) {
                fs::remove_file(pack.path())?;
            }
        }
        Ok(())
    }

    pub(super) fn receive(&self) -> io::Result<(PathBuf, File)> {
        let number = self.next_upload.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        let file = File::create_new(&path)?;
        Ok((path, file))
    }

    pub(super) fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.objects.join(&hex[..2]).join(&hex)
    }

    fn pack_path(&self, pack: u64) -> PathBuf {
        self.packs.join(pack.to_string())
    }

    /// Makes a received file an object, also over one that is there: these bytes were just verified,
    /// those may be damaged. On disk when the folder it returns is.
    pub(super) fn place(&self, received: &Path, digest: &Digest) -> io::Result<PathBuf> {
        let object = self.object_path(digest);
        let folder = object.parent().unwrap_or(&self.objects).to_owned();
        make_dir(&folder)?;
        fs::rename(received, &object)?;
        Ok(folder)
    }

    pub(super) fn open_object(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.object_path(digest))
    }

    /// Bytes of a packed object; `None` when they are not what the index says.
    pub(super) fn packed(
        &self,
        object: &Object,
        pack: u64,
        offset: u64,
    ) -> io::Result<Option<Bytes>> {
        let Ok(size) = usize::try_from(object.size_bytes) else {
            return Ok(None);
        };
        let mut bytes = vec![0; size.min(MAX_PACKED_BYTES)];
        let read = File::open(self.pack_path(pack))
            .and_then(|file| file.read_exact_at(&mut bytes, offset + HEADER_BYTES));
        let gone = [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof];
        match read {
            Ok(()) => Ok((Digest::of(&bytes) == object.digest).then(|| bytes.into())),
            Err(error) if gone.contains(&error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove_object(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.object_path(digest))
    }

    pub(super) fn remove_pack(&self, pack: u64) -> io::Result<()> {
        fs::remove_file(self.pack_path(pack))
    }
}

#[derive(Debug)]
pub(super) struct Pack {
    pub(super) number: u64,
    pub(super) end: u64,
    file: File,
    is_dirty: bool,
}

impl Pack {
    /// Goes on after the newest of `packs`, whose bytes past its known end nobody was told of.
    pub(super) fn resume(files: &Files, packs: &[(u64, u64)]) -> io::Result<Self> {
        let (number, end) = packs.last().copied().unwrap_or((0, 0));
        let path = files.pack_path(number);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.set_len(end)?;
        sync_dir(&files.packs)?;
        Ok(Self {
            number,
            end,
            file,
            is_dirty: false,
        })
    }

    pub(super) fn append(
        &mut self,
        files: &Files,
        object: &Object,
        bytes: &[u8],
    ) -> io::Result<Place> {
        if self.end >= PACK_BYTES {
            self.sync()?;
            let number = self.number + 1;
            let file = File::create(files.pack_path(number))?;
            sync_dir(&files.packs)?;
            *self = Self {
                number,
                end: 0,
                file,
                is_dirty: false,
            };
        }
        let offset = self.end;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(HEADER_BYTES as usize + bytes.len());
        record.extend_from_slice(MAGIC);
        record.push(object.class as u8);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(object.digest.as_bytes());
        record.extend_from_slice(bytes);
        self.file.write_all_at(&record, offset)?;
        self.end += record.len() as u64;
        self.is_dirty = true;
        Ok(Place::Pack {
            pack: self.number,
            offset,
        })
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_dirty) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
