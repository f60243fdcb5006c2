//! A stored checkpoint, and what becomes of bytes for a version.

use sovereign_model::{Digest, Timestamp, Version};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) version: Version,
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) created: Timestamp,
}

/// What is to be done with bytes that arrived for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Store,
    Known,
    Taken,
}

/// Decides on bytes with `digest` for a version that has `stored`, if anything.
pub(crate) fn decide(stored: Option<&Checkpoint>, digest: &Digest) -> Decision {
    match stored {
        None => Decision::Store,
        Some(checkpoint) if checkpoint.digest == *digest => Decision::Known,
        Some(_) => Decision::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_keeps_its_bytes() {
        let stored = Checkpoint {
            version: Version::parse("v1").unwrap(),
            digest: Digest::of(b"a"),
            size_bytes: 1,
            created: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(decide(None, &Digest::of(b"a")), Decision::Store);
        assert_eq!(decide(Some(&stored), &Digest::of(b"a")), Decision::Known);
        assert_eq!(decide(Some(&stored), &Digest::of(b"b")), Decision::Taken);
    }
}
