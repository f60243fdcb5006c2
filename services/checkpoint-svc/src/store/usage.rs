//! Room of each class, as sums in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::{CLASSES, Class, Rank};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClassUsage {
    pub(crate) objects: u64,
    pub(crate) size_bytes: u64,
    pub(crate) uploading: u64,
    /// Objects that nobody pinned and that went, since the start.
    pub(crate) expired: u64,
    /// Objects that somebody preferred to keep and that went, since the start.
    pub(crate) evicted: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<[ClassUsage; CLASSES.len()]>);

impl Usage {
    pub(crate) fn of(&self, class: Class) -> ClassUsage {
        self.lock()[class as usize]
    }

    pub(super) fn count(&self, class: Class, size_bytes: u64) {
        self.settle(&[(class, size_bytes)], &[]);
    }

    pub(super) fn settle(&self, stored: &[(Class, u64)], gone: &[(Class, u64, Rank)]) {
        let mut classes = self.lock();
        for (class, size_bytes) in stored {
            let usage = &mut classes[*class as usize];
            usage.objects += 1;
            usage.size_bytes += size_bytes;
        }
        for (class, size_bytes, rank) in gone {
            let usage = &mut classes[*class as usize];
            usage.objects -= 1;
            usage.size_bytes -= size_bytes;
            if *rank == Rank::Free {
                usage.expired += 1;
            } else {
                usage.evicted += 1;
            }
        }
    }

    /// Takes room for an upload; says how much is missing when there is not enough.
    pub(super) fn reserve(&self, class: Class, more: u64, max_bytes: u64) -> Result<(), u64> {
        let mut classes = self.lock();
        let usage = &mut classes[class as usize];
        let wanted = usage.size_bytes + usage.uploading + more;
        match wanted.checked_sub(max_bytes) {
            None | Some(0) => {
                usage.uploading += more;
                Ok(())
            }
            Some(missing) => Err(missing),
        }
    }

    pub(super) fn release(&self, class: Class, reserved: u64) {
        self.lock()[class as usize].uploading -= reserved;
    }

    fn lock(&self) -> MutexGuard<'_, [ClassUsage; CLASSES.len()]> {
        // Sums are whole after every statement, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
