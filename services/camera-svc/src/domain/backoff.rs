//! Growing pauses between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
/// Longest pause: a camera that comes back is seen within this time.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn after_failure(&mut self) -> Duration {
        let pause = FIRST
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub(crate) fn after_success(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_anew_after_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after_failure(), FIRST);
        assert_eq!(backoff.after_failure(), FIRST * 2);
        for _ in 0..100 {
            backoff.after_failure();
        }
        assert_eq!(backoff.after_failure(), LONGEST);
        backoff.after_success();
        assert_eq!(backoff.after_failure(), FIRST);
    }
}
