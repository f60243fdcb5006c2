//! Room on a disk, and what may still be done with it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

/// Kept free for what runs on, at most; on a small disk the tenth part.
const RESERVE_BYTES: u64 = 256 << 20;
const RESERVE_SHARE: u64 = 10;
/// Of the reserve, the part that nothing of ours is written into: so a commit that has begun finds room.
const LAST_SHARE: u64 = 4;

/// What may still be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Ample,
    /// Everything, and somebody should make room.
    Low,
    /// What runs on may; nothing new is accepted.
    Reserve,
    /// Nothing.
    Full,
}

/// Room on a disk at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Whether it takes no writes at all.
    pub is_read_only: bool,
}

impl Room {
    /// What may still be written.
    pub fn level(&self) -> Level {
        let reserve = RESERVE_BYTES.min(self.total_bytes / RESERVE_SHARE);
        if self.is_read_only || self.free_bytes < reserve / LAST_SHARE {
            Level::Full
        } else if self.free_bytes < reserve {
            Level::Reserve
        } else if self.free_bytes < 2 * reserve {
            Level::Low
        } else {
            Level::Ample
        }
    }
}

/// The disk that a file or folder is on.
#[derive(Debug, Clone)]
pub struct Space {
    folder: PathBuf,
}

impl Space {
    /// The disk of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The disk that a file is on, or is to be.
    pub fn of_file(path: &Path) -> Self {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Self::of_folder(folder.unwrap_or(Path::new(".")))
    }

    /// Room now.
    ///
    /// # Errors
    /// The folder is gone.
    pub fn room(&self) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(&self.folder)?;
        Ok(Room {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    /// Whether what runs on may write.
    ///
    /// # Errors
    /// There is no room for it: [`io::ErrorKind::StorageFull`], or [`io::ErrorKind::ReadOnlyFilesystem`].
    pub fn check_writable(&self) -> io::Result<()> {
        self.check(Level::Reserve)
    }

    /// Whether something new may be accepted.
    ///
    /// # Errors
    /// As of [`Space::check_writable`], and earlier.
    pub fn check_acceptable(&self) -> io::Result<()> {
        self.check(Level::Low)
    }

    fn check(&self, highest: Level) -> io::Result<()> {
        let room = self.room()?;
        if room.level() <= highest {
            return Ok(());
        }
        let folder = self.folder.display();
        if room.is_read_only {
            let why = format!("the disk of {folder} takes no writes");
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why));
        }
        let free = room.free_bytes >> 20;
        let why = format!("the disk of {folder} is full: {free} MiB are left");
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_follows_from_what_is_free() {
        let level = |free_mib: u64, total_mib: u64| {
            let room = Room {
                free_bytes: free_mib << 20,
                total_bytes: total_mib << 20,
                is_read_only: false,
            };
            room.level()
        };
        let large = 1_000_000;
        assert_eq!(level(513, large), Level::Ample);
        assert_eq!(level(511, large), Level::Low);
        assert_eq!(level(255, large), Level::Reserve);
        assert_eq!(level(63, large), Level::Full);
        assert_eq!(level(21, 100), Level::Ample);
        assert_eq!(level(9, 100), Level::Reserve);
        assert_eq!(level(2, 100), Level::Full);
    }

    #[test]
    fn the_disk_of_a_file_that_is_to_be_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::of_file(&folder.path().join("a.redb"));
        assert!(space.room().unwrap().total_bytes > 0);
        space.check_writable().unwrap();
        let gone = Space::of_folder(&folder.path().join("gone"));
        assert!(gone.room().is_err());
    }
}
