//! The allocator of the process: glibc's, told what a painting node needs.

/// Left alone, every few threads get an arena of their own, and each keeps the most that it ever held.
/// Work that blocks moves between many threads, so that a node held half as much again.
#[cfg(target_env = "gnu")]
const MAX_ARENAS: libc::c_int = 2;

/// Pictures and their like go back to the system when they are done; left alone, glibc keeps what is
/// freed once for the next of its size.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 1 << 20;

/// Free memory kept for what comes next, in each arena: a commit's worth of tiles.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 32 << 20;

/// To be called before other threads are started.
pub(crate) fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, MAX_ARENAS),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        #[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
        // SAFETY: it takes two numbers, and nothing else allocates meanwhile.
        let taken = unsafe { libc::mallopt(what, value) };
        debug_assert_eq!(taken, 1, "glibc knows parameter {what}");
    }
}
