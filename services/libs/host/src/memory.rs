//! The allocator of the process.

/// glibc gives every few threads an arena of their own, and each keeps the most that it ever held. Tasks
/// that block move between many threads, so that a painting node held half as much again in arenas.
#[cfg(target_env = "gnu")]
const MAX_ARENAS: i32 = 2;

/// To be called before other threads are started.
pub(crate) fn share_arenas() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
    // SAFETY: it takes two numbers, and nothing else allocates meanwhile.
    let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, MAX_ARENAS) };
    #[cfg(target_env = "gnu")]
    debug_assert_eq!(taken, 1, "glibc knows M_ARENA_MAX");
}
