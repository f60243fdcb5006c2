//! Which messages were delivered already.

use std::num::NonZeroUsize;

use lru::LruCache;
use sovereign_model::Digest;

/// Messages remembered, of all origins together and since the start. One more forgets the one remembered
/// first; a copy of a forgotten message is delivered a second time, whoever brings it. GossipSub itself
/// forgets after a minute, so this covers what a peer publishes again after a restart. Sequence numbers
/// would need no memory of each message, but they begin with the clock: an origin whose clock was set back
/// would not be heard until the old time was reached.
pub(crate) const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

#[derive(Debug)]
pub(crate) struct Seen {
    keys: LruCache<Digest, ()>,
}

impl Seen {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            keys: LruCache::new(capacity),
        }
    }

    /// Whether a message is remembered. Asking does not make it newer, so nobody keeps old ones in the place
    /// of others by bringing them again.
    pub(crate) fn is_known(&self, origin: &[u8], message_id: &str) -> bool {
        self.keys.contains(&key(origin, message_id))
    }

    pub(crate) fn remember(&mut self, origin: &[u8], message_id: &str) {
        self.keys.put(key(origin, message_id), ());
    }
}

fn key(origin: &[u8], message_id: &str) -> Digest {
    // The length keeps the two parts apart, so no peer can forge a key of another.
    let length = (origin.len() as u64).to_le_bytes();
    Digest::of_parts(&[&length, origin, message_id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_new(seen: &mut Seen, origin: &[u8], message_id: &str) -> bool {
        let known = seen.is_known(origin, message_id);
        seen.remember(origin, message_id);
        !known
    }

    #[test]
    fn a_message_is_new_once_for_each_origin() {
        let mut seen = Seen::new(REMEMBERED);
        assert!(is_new(&mut seen, b"a", "1"));
        assert!(!is_new(&mut seen, b"a", "1"));
        assert!(is_new(&mut seen, b"b", "1"));
        assert!(is_new(&mut seen, b"a1", ""));
    }

    #[test]
    fn the_oldest_is_forgotten_over_the_bound() {
        let mut seen = Seen::new(NonZeroUsize::new(2).unwrap());
        for id in ["1", "2", "3"] {
            assert!(is_new(&mut seen, b"a", id));
        }
        assert!(!is_new(&mut seen, b"a", "3"));
        assert!(is_new(&mut seen, b"a", "1"));
    }
}
