//! Holds a stream of frames to a rate.

use std::time::Duration;

/// Lets at most so many frames a second pass.
///
/// The schedule is kept, so that jitter of the source does not lower the rate; after a gap of more than
/// one period it starts anew, so that a stall is not followed by a burst. Moments are times since the
/// start of the stream, which never go back, as the time of day does when it is set.
#[derive(Debug)]
pub(crate) struct Pacer {
    period: Duration,
    due: Option<Duration>,
}

impl Pacer {
    pub(crate) fn new(fps: f64) -> Self {
        Self {
            period: Duration::from_secs_f64(1.0 / fps),
            due: None,
        }
    }

    pub(crate) fn passes(&mut self, now: Duration) -> bool {
        // A frame that is early by less than a fifth of a period is the one that was due.
        let slack = self.period / 5;
        let due = self.due.unwrap_or(now);
        if now + slack < due {
            return false;
        }
        let is_stalled = now.saturating_sub(due) > self.period;
        self.due = Some(if is_stalled { now } else { due } + self.period);
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
                let at = *frame as f64 / source_fps;
                pacer.passes(Duration::from_secs_f64(at))
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
        let at = Duration::from_millis;
        assert!(pacer.passes(at(0)));
        assert!(pacer.passes(at(5_000)));
        assert!(!pacer.passes(at(5_010)));
        assert!(!pacer.passes(at(5_050)));
        assert!(pacer.passes(at(5_100)));
    }
}
