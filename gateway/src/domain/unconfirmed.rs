//! What was published and may be lost with the link that it went over.
//!
//! GossipSub takes a message as soon as it can be queued for one peer, whose link may be dead already.
//! So a publication counts as done only when some peer that was subscribed at the time has stayed
//! connected for [`CONFIRMATION`]. When none of them has, it and all that was published after it are
//! published again, in order. It counts for all peers then: to publish again for each that comes back
//! would let one that comes and goes keep a node from ever being done. Times are those since the gateway
//! started.

use std::collections::VecDeque;
use std::time::Duration;

/// How long a link has to hold after a publication. A message waits in a queue for 30 s at most, and
/// a connection is dead for 30 s at most before it is noticed: 5 s to the first ping, 10 s without an
/// answer, 5 s to the second, and 10 s without an answer to that.
pub(crate) const CONFIRMATION: Duration = Duration::from_secs(60);
/// Publications within this time are confirmed together.
const STEP: Duration = Duration::from_secs(1);
/// Marks kept; over it publications are confirmed with the newest mark, which is later than they could.
const MAX_MARKS: usize = 64;

/// Publications that are not confirmed; `T` says how far they go.
#[derive(Debug)]
pub(crate) struct Unconfirmed<T> {
    marks: VecDeque<Mark<T>>,
}

#[derive(Debug)]
struct Mark<T> {
    first: Duration,
    last: Duration,
    through: T,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled<T> {
    /// Everything up to there is done; absent when nothing new is.
    pub(crate) confirmed: Option<T>,
    /// Everything after that is to be published again.
    pub(crate) lost: bool,
}

impl<T> Unconfirmed<T> {
    pub(crate) fn new() -> Self {
        Self {
            marks: VecDeque::new(),
        }
    }

    pub(crate) fn published(&mut self, at: Duration, through: T) {
        let full = self.marks.len() == MAX_MARKS;
        match self.marks.back_mut() {
            Some(mark) if full || at.saturating_sub(mark.first) < STEP => {
                mark.last = at;
                mark.through = through;
            }
            _ => self.marks.push_back(Mark {
                first: at,
                last: at,
                through,
            }),
        }
    }

    /// Takes out what is confirmed at `now`, or everything when it is lost. `linked_since` is since
    /// when some peer has been subscribed without interruption.
    pub(crate) fn settle(&mut self, now: Duration, linked_since: Option<Duration>) -> Settled<T> {
        let held = |mark: &Mark<T>| linked_since.is_some_and(|since| since <= mark.first);
        let mut confirmed = None;
        while self
            .marks
            .front()
            .is_some_and(|mark| held(mark) && now.saturating_sub(mark.last) >= CONFIRMATION)
        {
            confirmed = self.marks.pop_front().map(|mark| mark.through);
        }
        let lost = self.marks.front().is_some_and(|mark| !held(mark));
        if lost {
            self.marks.clear();
        }
        Settled { confirmed, lost }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.marks.front().map(|mark| mark.last + CONFIRMATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Settled<u64> = Settled {
        confirmed: None,
        lost: false,
    };
    const LOST: Settled<u64> = Settled {
        confirmed: None,
        lost: true,
    };

    fn confirmed(through: u64) -> Settled<u64> {
        Settled {
            confirmed: Some(through),
            lost: false,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_link_carried_is_confirmed_when_it_held_for_long_enough() {
        let mut unconfirmed = Unconfirmed::new();
        unconfirmed.published(at(10), 1);
        unconfirmed.published(at(20), 2);
        assert_eq!(unconfirmed.next(), Some(at(70)));
        assert_eq!(unconfirmed.settle(at(69), Some(at(0))), NOTHING);
        assert_eq!(unconfirmed.settle(at(70), Some(at(0))), confirmed(1));
        assert_eq!(unconfirmed.settle(at(90), Some(at(0))), confirmed(2));
        assert_eq!(unconfirmed.next(), None);
        assert_eq!(unconfirmed.settle(at(99), None), NOTHING);
    }

    #[test]
    fn what_no_link_carried_for_long_enough_is_lost_with_all_after_it() {
        let mut unconfirmed = Unconfirmed::new();
        unconfirmed.published(at(10), 1);
        unconfirmed.published(at(30), 2);
        assert_eq!(unconfirmed.settle(at(31), None), LOST);
        assert_eq!(unconfirmed.settle(at(99), Some(at(40))), NOTHING);
        // Somebody else is there at once, but was not when the first was published.
        unconfirmed.published(at(100), 1);
        unconfirmed.published(at(120), 2);
        assert_eq!(unconfirmed.settle(at(130), Some(at(110))), LOST);
    }

    #[test]
    fn a_link_beside_the_lost_one_confirms() {
        let mut unconfirmed = Unconfirmed::new();
        unconfirmed.published(at(10), 1);
        assert_eq!(unconfirmed.settle(at(15), Some(at(0))), NOTHING);
        assert_eq!(unconfirmed.settle(at(70), Some(at(10))), confirmed(1));
    }

    #[test]
    fn a_burst_is_one_mark_and_the_marks_are_bounded() {
        let mut unconfirmed = Unconfirmed::new();
        for number in 1..=1000 {
            unconfirmed.published(at(0), number);
        }
        assert_eq!(unconfirmed.marks.len(), 1);
        for number in 1..=1000 {
            unconfirmed.published(at(number), 1000 + number);
        }
        assert_eq!(unconfirmed.marks.len(), MAX_MARKS);
        assert_eq!(
            unconfirmed.settle(at(1059), Some(at(0))).confirmed,
            Some(1062)
        );
        assert_eq!(unconfirmed.settle(at(1060), Some(at(0))), confirmed(2000));
    }
}
