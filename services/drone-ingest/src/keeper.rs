//! Keeps the signing times on disk while the door is open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sovereign_service::{RunError, Stop};
use tokio::time::{MissedTickBehavior, interval};

use crate::intake::Intake;
use crate::store::{Kept, SigningTimes};

/// Times are kept this often.
const BEAT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) store: SigningTimes,
    pub(crate) intake: Arc<Intake>,
}

impl Keeper {
    /// Keeps the times that change, until `stop`.
    pub(crate) async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = beat.tick() => {}
            }
            match self.keep(false).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        self.warn(&error);
                    }
                    failing = true;
                }
            }
        }
    }

    /// Keeps the times of a door that hears nothing any more.
    pub(crate) async fn keep_last(self) {
        self.intake.door().signatures().not_kept();
        if let Err(error) = self.keep(true).await {
            self.warn(&error);
        }
    }

    async fn keep(&self, exact: bool) -> io::Result<()> {
        let changed = self.intake.door().signatures().changed(self.intake.now());
        let Some(times) = changed.filter(|times| !times.is_empty()) else {
            return Ok(());
        };
        let (store, kept) = (self.store.clone(), Kept { times, exact });
        let written = tokio::task::spawn_blocking(move || store.write(&kept)).await;
        let written = written.map_err(io::Error::other).flatten();
        if written.is_err() {
            self.intake.door().signatures().not_kept();
        }
        written
    }

    fn warn(&self, error: &io::Error) {
        tracing::warn!(
            %error,
            "the signing times cannot be kept in {}: after a restart, signed packets may pass once more",
            self.store.path().display()
        );
    }
}
