//! How much anybody may say.
//!
//! A node holds itself to [`OWN`]. What others bring is held against [`AUTHOR`] and [`FORWARDER`],
//! which leave room for messages that waited somewhere and come all at once: an honest peer never
//! meets them. Times are those since the gateway started.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

// What a node allows itself is within what others allow it: everything that it may have published
// while a message waited for half a minute, at once; and ten nodes behind one forwarder.
const _: () = assert!(OWN.burst + 30 * OWN.per_second <= AUTHOR.burst);
const _: () = assert!(OWN.per_second < AUTHOR.per_second);
const _: () = assert!(10 * OWN.burst <= FORWARDER.burst);
const _: () = assert!(10 * OWN.per_second <= FORWARDER.per_second);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// What this node publishes. A map that is painted live changes a few times a second; this bounds the
/// backlog of an island, which goes on a hundred at a time.
pub(crate) const OWN: Rate = Rate {
    per_second: 100,
    burst: 500,
};
/// What one author may publish: twice what a node allows itself, and at once what it may publish
/// within the half minute that a message waits in a queue.
pub(crate) const AUTHOR: Rate = Rate {
    per_second: 200,
    burst: 4_000,
};
/// What one peer may bring, of its own and of others: ten authors that end a backlog each.
pub(crate) const FORWARDER: Rate = Rate {
    per_second: 1_000,
    burst: 10_000,
};

#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            tokens: f64::from(rate.burst),
            filled: now,
        }
    }

    pub(crate) fn has_one(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        let filled = self.tokens + passed * f64::from(self.rate.per_second);
        self.tokens = filled.min(f64::from(self.rate.burst));
        self.filled = self.filled.max(now);
        self.tokens >= 1.0
    }

    /// Counts one, which [`Self::has_one`] allowed.
    pub(crate) fn take_one(&mut self) {
        self.tokens -= 1.0;
    }
}

/// A bucket for each of those heard last. One more forgets the one heard longest ago, who begins with
/// a full bucket again.
#[derive(Debug)]
pub(crate) struct Buckets<K: Hash + Eq> {
    rate: Rate,
    buckets: LruCache<K, Bucket>,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(rate: Rate, capacity: NonZeroUsize) -> Self {
        Self {
            rate,
            buckets: LruCache::new(capacity),
        }
    }

    pub(crate) fn admit(&mut self, key: K, now: Duration) -> bool {
        let rate = self.rate;
        let bucket = self
            .buckets
            .get_or_insert_mut(key, || Bucket::new(rate, now));
        let admitted = bucket.has_one(now);
        if admitted {
            bucket.take_one();
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 30,
    };

    fn admitted(buckets: &mut Buckets<u8>, key: u8, now: Duration) -> usize {
        (0..100).filter(|_| buckets.admit(key, now)).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let mut buckets = Buckets::new(RATE, NonZeroUsize::new(2).unwrap());
        let at = Duration::from_secs;
        assert_eq!(admitted(&mut buckets, 1, at(5)), 30);
        assert_eq!(admitted(&mut buckets, 1, at(6)), 10);
        assert_eq!(admitted(&mut buckets, 2, at(6)), 30, "each has its own");
        assert_eq!(admitted(&mut buckets, 1, at(60)), 30);
        assert_eq!(admitted(&mut buckets, 1, at(59)), 0, "no credit twice");
        assert_eq!(admitted(&mut buckets, 1, at(60)), 0);
    }

    #[test]
    fn those_remembered_are_bounded() {
        let mut buckets = Buckets::new(RATE, NonZeroUsize::new(2).unwrap());
        for key in 0..10 {
            admitted(&mut buckets, key, Duration::ZERO);
        }
        assert_eq!(buckets.buckets.len(), 2);
        assert_eq!(admitted(&mut buckets, 9, Duration::ZERO), 0);
    }
}
