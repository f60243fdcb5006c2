//! A round: what may be asked for, what a peer may write, and in which order rounds are shown.

use std::time::Duration;

use sovereign_model::{Digest, Timestamp};

/// Longest time for which a round may be open.
pub(crate) const LONGEST_ROUND: Duration = Duration::from_secs(7 * 24 * 3600);
/// The clock of a peer may be ahead by so much; a round of one that would close later is refused, so
/// that nobody has a place among the peers for ever.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);
/// Longest round id, bytes; it is a key of the bus.
const MAX_ROUND_ID_BYTES: usize = 64;
/// Longest name of a node or peer, bytes.
const MAX_NAME_BYTES: usize = 128;

/// An open round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    /// Peer that opened it, empty for this node.
    pub(crate) origin: String,
    pub(crate) round_id: String,
    pub(crate) model: Digest,
    pub(crate) min_participants: u32,
    pub(crate) opened: Timestamp,
    pub(crate) closes: Timestamp,
    /// Name of the node that opened it.
    pub(crate) node_id: String,
}

/// What a caller asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) model: Digest,
    pub(crate) min_participants: u32,
    pub(crate) timeout: Duration,
}

/// Why a round cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Impossible {
    #[error("field `model_digest`")]
    Model(#[source] sovereign_model::ParseDigestError),
    #[error("field `min_participants` must be at least 1")]
    Participants,
    #[error("field `timeout_secs` is {secs}, at most {} are allowed", LONGEST_ROUND.as_secs())]
    Timeout { secs: u32 },
    #[error("the clock of this node is beyond the range of times")]
    Clock,
    #[error("field `round_id` must be 1 to {MAX_ROUND_ID_BYTES} of letters, digits, `-`, `_`")]
    RoundId,
    #[error("a name has more than {MAX_NAME_BYTES} bytes or control characters")]
    Name,
    #[error("the round closes before it opens, or later than any round may")]
    Times,
}

impl Wanted {
    /// Checks a request; a timeout of 0 means `default_timeout`.
    ///
    /// # Errors
    ///
    /// [`Impossible`] naming the field.
    pub(crate) fn new(
        model_digest: &str,
        min_participants: u32,
        timeout_secs: u32,
        default_timeout: Duration,
    ) -> Result<Self, Impossible> {
        let timeout = match timeout_secs {
            0 => default_timeout,
            secs => Duration::from_secs(u64::from(secs)),
        };
        if timeout > LONGEST_ROUND {
            return Err(Impossible::Timeout { secs: timeout_secs });
        }
        if min_participants == 0 {
            return Err(Impossible::Participants);
        }
        Ok(Self {
            model: Digest::from_hex(model_digest).map_err(Impossible::Model)?,
            min_participants,
            timeout,
        })
    }

    /// The round that opens `now`.
    ///
    /// # Errors
    ///
    /// [`Impossible::Clock`].
    pub(crate) fn open(
        self,
        round_id: String,
        node_id: String,
        now: Timestamp,
    ) -> Result<Round, Impossible> {
        Ok(Round {
            origin: String::new(),
            round_id,
            model: self.model,
            min_participants: self.min_participants,
            opened: now,
            closes: now.checked_add(self.timeout).ok_or(Impossible::Clock)?,
            node_id,
        })
    }
}

impl Round {
    /// Checks what another process or peer wrote.
    ///
    /// # Errors
    ///
    /// [`Impossible`].
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Impossible> {
        let id = self.round_id.as_bytes();
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=MAX_ROUND_ID_BYTES).contains(&id.len()) || !id.iter().all(allowed) {
            return Err(Impossible::RoundId);
        }
        for name in [&self.origin, &self.node_id] {
            if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
                return Err(Impossible::Name);
            }
        }
        if self.min_participants == 0 {
            return Err(Impossible::Participants);
        }
        let latest = now.checked_add(LONGEST_ROUND + CLOCK_SLACK);
        let is_peer = !self.origin.is_empty();
        if self.closes <= self.opened || (is_peer && latest.is_some_and(|l| self.closes > l)) {
            return Err(Impossible::Times);
        }
        Ok(())
    }
}

/// Sorts for a reader: newest first, and the same order at each call.
pub(crate) fn newest_first(rounds: &mut [Round]) {
    rounds.sort_by(|a, b| {
        b.opened
            .cmp(&a.opened)
            .then_with(|| a.origin.cmp(&b.origin))
            .then_with(|| a.round_id.cmp(&b.round_id))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(120);

    fn hex() -> String {
        Digest::of(b"model").to_hex()
    }

    fn round(opened: i64) -> Round {
        let wanted = Wanted::new(&hex(), 2, 0, DEFAULT).unwrap();
        let now = Timestamp::from_unix_nanos(opened);
        wanted.open("r-1".into(), "north".into(), now).unwrap()
    }

    #[test]
    fn a_round_is_open_for_the_time_asked_for_or_the_default() {
        let closes = |secs| {
            let wanted = Wanted::new(&hex(), 1, secs, DEFAULT).unwrap();
            let round = wanted
                .open("r".into(), "n".into(), Timestamp::UNIX_EPOCH)
                .unwrap();
            round.closes.as_unix_nanos()
        };
        assert_eq!(closes(0), 120_000_000_000);
        assert_eq!(closes(7), 7_000_000_000);
    }

    #[test]
    fn impossible_requests_name_their_field() {
        let wanted = |digest: &str, participants, secs| {
            Wanted::new(digest, participants, secs, DEFAULT)
                .unwrap_err()
                .to_string()
        };
        assert!(wanted("nothex", 1, 0).contains("model_digest"));
        assert!(wanted(&hex(), 0, 0).contains("min_participants"));
        assert!(wanted(&hex(), 1, 604_801).contains("timeout_secs"));
        let late = Timestamp::from_unix_nanos(i64::MAX);
        let wanted = Wanted::new(&hex(), 1, 0, DEFAULT).unwrap();
        let opened = wanted.open("r".into(), "n".into(), late);
        assert!(matches!(opened, Err(Impossible::Clock)));
    }

    #[test]
    fn what_a_peer_writes_is_checked() {
        let now = Timestamp::from_unix_nanos(1);
        round(1).check(now).unwrap();
        let with = |change: fn(&mut Round)| {
            let mut round = round(1);
            change(&mut round);
            round.check(now).unwrap_err()
        };
        assert!(matches!(with(|r| r.round_id.clear()), Impossible::RoundId));
        assert!(matches!(
            with(|r| r.round_id = "a.b".into()),
            Impossible::RoundId
        ));
        assert!(matches!(
            with(|r| r.node_id = "\u{1b}[0m".into()),
            Impossible::Name
        ));
        assert!(matches!(
            with(|r| r.origin = "x".repeat(129)),
            Impossible::Name
        ));
        assert!(matches!(
            with(|r| r.min_participants = 0),
            Impossible::Participants
        ));
        assert!(matches!(with(|r| r.closes = r.opened), Impossible::Times));
        let never = |r: &mut Round| {
            r.origin = "peer".into();
            r.closes = Timestamp::from_unix_nanos(i64::MAX);
        };
        assert!(matches!(with(never), Impossible::Times));
    }

    #[test]
    fn the_newest_round_comes_first() {
        let mut rounds = vec![round(1), round(3), round(2)];
        newest_first(&mut rounds);
        let opened: Vec<i64> = rounds.iter().map(|r| r.opened.as_unix_nanos()).collect();
        assert_eq!(opened, [3, 2, 1]);
    }
}
