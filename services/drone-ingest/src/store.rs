//! Signing times on disk: the newest of each stream, so that nothing that was heard passes again after a restart.

use std::io;
use std::path::{Path, PathBuf};

use sovereign_disk::{Readers, write_whole};
use sovereign_model::{sealed, unsealed};

use crate::domain::signing::Stream;

/// A file of another layout has another key, and counts as damaged.
const KEY: &[u8] = b"MAVLink signing times 1";
const FILE: &str = "signing-times";
const ENTRY_BYTES: usize = 11;

/// What was kept.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) times: Vec<(Stream, u64)>,
    /// Nothing passed since: the process ended in order.
    pub(crate) exact: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SigningTimes {
    path: PathBuf,
}

impl SigningTimes {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
        }
    }

    /// What the last process kept. A file that cannot be used is told, and the service goes on without: a drone must
    /// not stay unheard for it.
    pub(crate) fn read(&self) -> Kept {
        let path = self.path.display();
        let lost = "signed packets of the last minute may pass once more; it is written anew";
        match std::fs::read(&self.path) {
            Ok(bytes) => kept_from_bytes(&bytes).unwrap_or_else(|| {
                tracing::warn!("the signing times in {path} are damaged: {lost}");
                Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!(%error, "the signing times in {path} cannot be read: {lost}");
                Kept::default()
            }
        }
    }

    /// Replaces what was kept.
    pub(crate) fn write(&self, kept: &Kept) -> io::Result<()> {
        write_whole(&self.path, &bytes_from_kept(kept), Readers::Owner)
    }
}

fn bytes_from_kept(kept: &Kept) -> Vec<u8> {
    let mut bytes = vec![u8::from(kept.exact)];
    for ((link, system, component), time) in &kept.times {
        bytes.extend([*link, *system, *component]);
        bytes.extend(time.to_le_bytes());
    }
    sealed(KEY, &bytes)
}

/// What was written; `None` when it is damaged.
fn kept_from_bytes(bytes: &[u8]) -> Option<Kept> {
    let (exact, entries) = unsealed(KEY, bytes)?.split_first()?;
    let (entries, []) = entries.as_chunks::<ENTRY_BYTES>() else {
        return None;
    };
    let times = entries.iter().map(|[link, system, component, time @ ..]| {
        ((*link, *system, *component), u64::from_le_bytes(*time))
    });
    Some(Kept {
        times: times.collect(),
        exact: *exact == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_and_no_damage_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = SigningTimes::in_folder(folder.path());
        assert_eq!(store.read(), Kept::default());
        let kept = Kept {
            times: vec![((1, 2, 3), 4), ((255, 254, 253), u64::MAX)],
            exact: true,
        };
        store.write(&kept).unwrap();
        assert_eq!(store.read(), kept);
        let whole = std::fs::read(folder.path().join(FILE)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert_eq!(kept_from_bytes(&damaged), None, "byte {at}");
            assert_eq!(kept_from_bytes(&whole[..at]), None, "cut at {at}");
        }
    }
}
