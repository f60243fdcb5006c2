//! How far a log was exported, and where to go on.
//!
//! A cursor names the last entry that was exported, by its sequence and a fingerprint of its content. The
//! next page begins with that entry: when it is gone or another has its sequence, the log was replaced and
//! is exported from its start. What is published counts as exported only when [`Unconfirmed`] says so;
//! before that a lost link or a restart goes back to what is confirmed, so entries may be published twice
//! and are never left out.

use std::time::Duration;

use super::unconfirmed::{Settled, Unconfirmed};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) sequence: u64,
    /// Tells that entry from one of the same sequence in another log.
    pub(crate) fingerprint: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<T> {
    pub(crate) position: Position,
    pub(crate) content: T,
}

#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) entries: Vec<Entry<T>>,
    pub(crate) oldest_kept: u64,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Resumed<T> {
    At {
        entries: Vec<Entry<T>>,
        /// Entries that were not exported and are no longer kept.
        missed: u64,
    },
    /// It is not the log that was exported: at its start.
    Anew,
}

#[derive(Debug)]
pub(crate) struct Cursor {
    confirmed: Position,
    at: Position,
    unconfirmed: Unconfirmed<Position>,
}

impl Cursor {
    pub(crate) fn new(confirmed: Position) -> Self {
        Self {
            confirmed,
            at: confirmed,
            unconfirmed: Unconfirmed::new(),
        }
    }

    pub(crate) fn confirmed(&self) -> Position {
        self.confirmed
    }

    pub(crate) fn after(&self) -> u64 {
        self.at.sequence.saturating_sub(1)
    }

    /// Confirms what is confirmed at `now` and goes back when something is lost. `linked_since` is since
    /// when some peer has been subscribed without interruption.
    pub(crate) fn settle(
        &mut self,
        now: Duration,
        linked_since: Option<Duration>,
    ) -> Settled<Position> {
        let settled = self.unconfirmed.settle(now, linked_since);
        if let Some(through) = settled.confirmed {
            self.confirmed = through;
        }
        if settled.lost {
            self.at = self.confirmed;
        }
        settled
    }

    /// Judges a page that begins behind [`Self::after`].
    pub(crate) fn resume<T>(&mut self, page: Page<T>) -> Resumed<T> {
        let (at, mut entries) = (self.at, page.entries);
        let first = entries.first().map(|entry| entry.position);
        let replaced = match first {
            Some(first) if first.sequence == at.sequence => first != at,
            Some(_) | None => at.sequence > 0 && page.oldest_kept <= at.sequence,
        };
        if replaced {
            *self = Self::new(Position::default());
            return Resumed::Anew;
        }
        if first == Some(at) {
            entries.remove(0);
        }
        let missed = page.oldest_kept.saturating_sub(1 + at.sequence);
        if missed > 0 {
            // Nothing before them can be exported any more, lost on its way or not.
            *self = Self::new(Position {
                sequence: at.sequence + missed,
                ..Position::default()
            });
        }
        Resumed::At { entries, missed }
    }

    pub(crate) fn published(&mut self, at: Duration, position: Position) {
        self.unconfirmed.published(at, position);
        self.at = position;
    }

    /// When [`Self::settle`] has something to confirm if every link holds; absent when it has not.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.unconfirmed.next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::unconfirmed::CONFIRMATION;

    /// A log of which an entry says which log it is of; it keeps entries from `oldest` on.
    #[derive(Debug, Clone)]
    struct Log {
        id: u8,
        entries: u64,
        oldest: u64,
    }

    impl Log {
        fn page(&self, after: u64, limit: usize) -> Page<(u8, u64)> {
            let kept = self.oldest.max(after + 1)..=self.entries;
            let entries = kept.take(limit).map(|sequence| Entry {
                position: Position {
                    sequence,
                    fingerprint: [self.id; 32],
                },
                content: (self.id, sequence),
            });
            Page {
                entries: entries.collect(),
                oldest_kept: if self.entries == 0 { 0 } else { self.oldest },
            }
        }
    }

    /// Publishes what a page brings; what that was, and what was missed.
    fn follow(cursor: &mut Cursor, log: &Log, now: Duration) -> (Vec<(u8, u64)>, u64) {
        let (mut published, mut gone) = (Vec::new(), 0);
        loop {
            match cursor.resume(log.page(cursor.after(), 4)) {
                Resumed::Anew => {}
                Resumed::At { entries, missed } => {
                    gone += missed;
                    if entries.is_empty() {
                        return (published, gone);
                    }
                    for entry in entries {
                        cursor.published(now, entry.position);
                        published.push(entry.content);
                    }
                }
            }
        }
    }

    fn log(id: u8, entries: u64) -> Log {
        Log {
            id,
            entries,
            oldest: 1,
        }
    }

    #[test]
    fn a_replaced_log_is_exported_from_its_start_whether_longer_or_shorter() {
        let mut cursor = Cursor::new(Position::default());
        for (id, entries) in [(1, 5), (2, 7), (3, 3), (4, 0), (5, 1)] {
            let (published, missed) = follow(&mut cursor, &log(id, entries), Duration::ZERO);
            let all: Vec<_> = (1..=entries).map(|sequence| (id, sequence)).collect();
            assert_eq!((published, missed), (all, 0));
        }
    }

    #[test]
    fn what_is_gone_before_it_was_exported_is_counted_and_the_rest_exported() {
        let mut cursor = Cursor::new(Position::default());
        let mut log = log(1, 3);
        follow(&mut cursor, &log, Duration::ZERO);
        (log.entries, log.oldest) = (9, 6);
        let (published, missed) = follow(&mut cursor, &log, Duration::ZERO);
        assert_eq!(published, [(1, 6), (1, 7), (1, 8), (1, 9)]);
        assert_eq!(missed, 2);
    }

    #[test]
    fn only_what_is_confirmed_is_not_published_again_after_a_crash() {
        let (mut cursor, linked) = (Cursor::new(Position::default()), Some(Duration::ZERO));
        follow(&mut cursor, &log(1, 2), Duration::from_secs(10));
        follow(&mut cursor, &log(1, 3), Duration::from_secs(20));
        let now = Duration::from_secs(10) + CONFIRMATION;
        assert_eq!(cursor.next(), Some(now));
        assert!(!cursor.settle(now, linked).lost);
        let mut again = Cursor::new(cursor.confirmed());
        let (published, _) = follow(&mut again, &log(1, 3), Duration::ZERO);
        assert_eq!(published, [(1, 3)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append,
        Publish,
        Settle { linked: bool },
        Crash,
    }

    proptest! {
        /// Links may come and go and the process may crash anywhere, between publishing and keeping the
        /// cursor above all: everything confirmed was published over a link that held, and all is
        /// published in the end.
        #[test]
        fn nothing_is_ever_left_out(steps in prop::collection::vec(prop_oneof![
            Just(Step::Append),
            Just(Step::Publish),
            any::<bool>().prop_map(|linked| Step::Settle { linked }),
            Just(Step::Crash),
        ], 0..60)) {
            let mut log = log(1, 0);
            let mut cursor = Cursor::new(Position::default());
            let mut kept = Position::default();
            let mut arrived = 0;
            let (mut now, mut linked_since) = (Duration::ZERO, Some(Duration::ZERO));
            // What went over the link that is there now: it arrives unless the link turns out dead.
            let mut on_its_way = 0;
            for step in steps {
                now += CONFIRMATION / 2;
                match step {
                    Step::Append => log.entries += 1,
                    Step::Publish => {
                        let (published, missed) = follow(&mut cursor, &log, now);
                        prop_assert_eq!(missed, 0);
                        if let Some((_, first)) = published.first() {
                            prop_assert!(*first <= on_its_way.max(arrived) + 1, "a gap");
                        }
                        on_its_way = published.last().map_or(on_its_way, |(_, last)| *last);
                    }
                    Step::Settle { linked } => {
                        if linked {
                            linked_since.get_or_insert(now);
                        } else {
                            linked_since = None;
                            on_its_way = arrived;
                        }
                        let settled = cursor.settle(now, linked_since);
                        if let Some(through) = settled.confirmed {
                            arrived = arrived.max(through.sequence);
                            kept = through;
                        }
                        prop_assert!(cursor.confirmed().sequence <= arrived.max(on_its_way));
                    }
                    Step::Crash => {
                        cursor = Cursor::new(kept);
                        on_its_way = arrived;
                        prop_assert!(kept.sequence <= arrived);
                    }
                }
            }
            follow(&mut cursor, &log, now);
            prop_assert_eq!(cursor.at.sequence, log.entries);
        }
    }
}
