//! Which messages were delivered already.

use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_model::Digest;

/// Messages remembered. One more forgets the one seen longest ago; a copy of a forgotten message that
/// still travels is delivered a second time. GossipSub itself forgets after a minute, so this covers
/// what a peer publishes again after a restart.
pub(crate) const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The newest messages by origin and message id.
#[derive(Debug)]
pub(crate) struct Seen {
    keys: LruCache<Digest, ()>,
}

impl Seen {
    /// Nothing seen; remembers `capacity` messages.
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            keys: LruCache::new(capacity),
        }
    }

    /// Remembers a message; true when it was not known.
    pub(crate) fn is_new(&mut self, origin: &[u8], message_id: &str) -> bool {
        // The length keeps the two parts apart, so no peer can forge a key of another.
        let length = (origin.len() as u64).to_le_bytes();
        let key = Digest::of_parts(&[&length, origin, message_id.as_bytes()]);
        self.keys.put(key, ()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_for_each_origin() {
        let mut seen = Seen::new(REMEMBERED);
        assert!(seen.is_new(b"a", "1"));
        assert!(!seen.is_new(b"a", "1"));
        assert!(seen.is_new(b"b", "1"));
        assert!(seen.is_new(b"a1", ""));
    }

    #[test]
    fn the_oldest_is_forgotten_over_the_bound() {
        let mut seen = Seen::new(NonZeroUsize::new(2).unwrap());
        for id in ["1", "2", "3"] {
            assert!(seen.is_new(b"a", id));
        }
        assert!(!seen.is_new(b"a", "3"));
        assert!(seen.is_new(b"a", "1"));
    }
}
