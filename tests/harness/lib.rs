//! What tests of more than one crate share: servers and our own binaries that are started, used and ended
//! by a test, and a recorded flight to feed them.
//!
//! In: nothing. Out: handles whose drop ends what they started. Invariants: every port is chosen by the
//! system, every file is in a folder of the test's own, and only processes that a handle started are
//! ended by it.

pub mod browser;
pub mod data;
pub mod flight;
pub mod nats;
pub mod process;
pub mod system;
pub mod tiles;

use std::time::Duration;

use tokio::time::Instant;

/// Asks `look` until it has an answer, for at most `limit`.
pub async fn wait_for<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < end, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
