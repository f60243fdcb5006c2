//! Warnings of what may happen with every request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A warning of one kind is written at most this often; what happens meanwhile is counted.
const EVERY: Duration = Duration::from_secs(60);

/// When one kind of trouble was last written to the log, and how often it happened since.
#[derive(Debug, Default)]
pub(crate) struct Sparse(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

impl Sparse {
    /// It happened again: how often since the last warning, with this time, when a new one is due.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        // No panic can leave the two numbers half changed.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        let is_due = told
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if !is_due {
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_at_once_then_now_and_then_with_how_often_it_was() {
        let warnings = Sparse::default();
        let start = Instant::now();
        assert_eq!(warnings.due(start), Some(1));
        for second in 0..60 {
            assert_eq!(warnings.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(warnings.due(start + EVERY), Some(61));
        assert_eq!(warnings.due(start + EVERY), None);
        assert_eq!(warnings.due(start + 3 * EVERY), Some(2));
    }
}
