//! Holds a stream of frames to a rate.

use std::time::Duration;

use sovereign_model::Timestamp;

/// Lets at most so many frames a second pass.
///
/// The schedule is kept, so that jitter of the source does not lower the rate; after a gap of more than
/// one period it starts anew, so that a stall is not followed by a burst.
#[derive(Debug)]
pub(crate) struct Pacer {
    period: Duration,
    due: Option<Timestamp>,
}

impl Pacer {
    /// A pacer for `fps` frames per second, above 0.
    pub(crate) fn new(fps: f64) -> Self {
        Self {
            period: Duration::from_secs_f64(1.0 / fps),
            due: None,
        }
    }

    /// Whether the frame of this moment passes.
    pub(crate) fn passes(&mut self, now: Timestamp) -> bool {
        let period = self.period.as_nanos() as i64;
        // A frame that is early by less than a fifth of a period is the one that was due.
        let slack = period / 5;
        let due = self.due.unwrap_or(now);
        let late = now.nanos_since(due);
        if late + slack < 0 {
            return false;
        }
        let base = if late > period { now } else { due };
        self.due = Some(Timestamp::from_unix_nanos(base.as_unix_nanos() + period));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(source_fps: f64, limit: f64, seconds: f64) -> usize {
        let mut pacer = Pacer::new(limit);
        (0..(source_fps * seconds) as i64)
            .filter(|frame| {
                let at = (*frame as f64 / source_fps * 1e9) as i64;
                pacer.passes(Timestamp::from_unix_nanos(1_700_000_000_000_000_000 + at))
            })
            .count()
    }

    #[test]
    fn a_faster_source_is_held_to_the_rate() {
        let frames = passed(60.0, 10.0, 10.0);
        assert!((99..=101).contains(&frames), "{frames}");
    }

    #[test]
    fn a_slower_source_passes_whole() {
        assert_eq!(passed(25.0, 30.0, 10.0), 250);
    }

    #[test]
    fn a_stall_is_not_followed_by_a_burst() {
        let mut pacer = Pacer::new(10.0);
        let at = |ms: i64| Timestamp::from_unix_nanos(ms * 1_000_000);
        assert!(pacer.passes(at(0)));
        assert!(pacer.passes(at(5_000)));
        assert!(!pacer.passes(at(5_010)));
        assert!(!pacer.passes(at(5_050)));
        assert!(pacer.passes(at(5_100)));
    }
}
