//! A round: what may be asked for, what a peer may write, and what becomes of a round.
//!
//! A round is opened once and closed once. Events come twice and in any order, because peers repeat
//! themselves and the network does not keep order: what was closed stays closed.

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

/// What never changes in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Closed,
}

/// A round and how far it is: the content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) terms: Terms,
    pub(crate) phase: Phase,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Opened(Terms),
    /// Its node says that it closed; with the terms, for whoever did not hear that it opened.
    Closed(Terms),
    Expired,
}

impl From<Round> for Event {
    fn from(record: Round) -> Self {
        match record.phase {
            Phase::Open => Event::Opened(record.terms),
            Phase::Closed => Event::Closed(record.terms),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) model: Digest,
    pub(crate) min_participants: u32,
    pub(crate) timeout: Duration,
}

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

impl Round {
    /// The round after an event; `None` when nothing changes, because the event is a copy, comes late
    /// or comes too early. Of two that open a round the first counts.
    pub(crate) fn apply(known: Option<&Round>, event: Event, now: Timestamp) -> Option<Round> {
        let (terms, phase) = match (known, event) {
            (None, Event::Opened(terms)) => (terms, Phase::Open),
            (None, Event::Closed(terms)) => (terms, Phase::Closed),
            (Some(round), Event::Closed(_)) if round.phase == Phase::Open => {
                (round.terms.clone(), Phase::Closed)
            }
            (Some(round), Event::Expired)
                if round.phase == Phase::Open && now >= round.terms.closes =>
            {
                (round.terms.clone(), Phase::Closed)
            }
            (None, Event::Expired)
            | (Some(_), Event::Opened(_) | Event::Closed(_) | Event::Expired) => return None,
        };
        Some(Round { terms, phase })
    }
}

impl Wanted {
    /// Checks a request; a timeout of 0 means `default_timeout`.
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

    pub(crate) fn terms(
        self,
        round_id: String,
        node_id: String,
        now: Timestamp,
    ) -> Result<Terms, Impossible> {
        Ok(Terms {
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

impl Terms {
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
        if self.closes <= self.opened || latest.is_some_and(|latest| self.closes > latest) {
            return Err(Impossible::Times);
        }
        Ok(())
    }
}

/// Sorts for a reader: newest first, and the same order at each call.
pub(crate) fn newest_first(rounds: &mut [Round]) {
    rounds.sort_by(|a, b| {
        let (a, b) = (&a.terms, &b.terms);
        b.opened
            .cmp(&a.opened)
            .then_with(|| a.origin.cmp(&b.origin))
            .then_with(|| a.round_id.cmp(&b.round_id))
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Duration = Duration::from_secs(120);

    fn hex() -> String {
        Digest::of(b"model").to_hex()
    }

    fn terms(opened: i64) -> Terms {
        let wanted = Wanted::new(&hex(), 2, 0, DEFAULT).unwrap();
        let now = Timestamp::from_unix_nanos(opened);
        wanted.terms("r-1".into(), "north".into(), now).unwrap()
    }

    #[test]
    fn a_round_is_open_for_the_time_asked_for_or_the_default() {
        let closes = |secs| {
            let wanted = Wanted::new(&hex(), 1, secs, DEFAULT).unwrap();
            let terms = wanted
                .terms("r".into(), "n".into(), Timestamp::UNIX_EPOCH)
                .unwrap();
            terms.closes.as_unix_nanos()
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
        let opened = wanted.terms("r".into(), "n".into(), late);
        assert!(matches!(opened, Err(Impossible::Clock)));
    }

    #[test]
    fn what_a_peer_writes_is_checked() {
        let now = Timestamp::from_unix_nanos(1);
        terms(1).check(now).unwrap();
        let with = |change: fn(&mut Terms)| {
            let mut terms = terms(1);
            change(&mut terms);
            terms.check(now).unwrap_err()
        };
        assert!(matches!(with(|t| t.round_id.clear()), Impossible::RoundId));
        assert!(matches!(
            with(|t| t.round_id = "a.b".into()),
            Impossible::RoundId
        ));
        assert!(matches!(
            with(|t| t.node_id = "\u{1b}[0m".into()),
            Impossible::Name
        ));
        assert!(matches!(
            with(|t| t.origin = "x".repeat(129)),
            Impossible::Name
        ));
        assert!(matches!(
            with(|t| t.min_participants = 0),
            Impossible::Participants
        ));
        assert!(matches!(with(|t| t.closes = t.opened), Impossible::Times));
        let never = |t: &mut Terms| t.closes = Timestamp::from_unix_nanos(i64::MAX);
        assert!(matches!(with(never), Impossible::Times));
    }

    #[test]
    fn the_newest_round_comes_first() {
        let mut rounds = [1, 3, 2].map(|opened| Round {
            terms: terms(opened),
            phase: Phase::Open,
        });
        newest_first(&mut rounds);
        let opened = rounds.map(|round| round.terms.opened.as_unix_nanos());
        assert_eq!(opened, [3, 2, 1]);
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Said {
        Opened,
        Closed,
        Expired,
    }

    proptest! {
        /// Whatever comes twice, late or in another order: the phases only go on, each is entered once,
        /// the terms are those heard first, and the end depends on what was heard, not on its order.
        #[test]
        fn every_order_of_events_comes_to_the_same_end(
            said in prop::collection::vec(
                (prop_oneof![Just(Said::Opened), Just(Said::Closed), Just(Said::Expired)], 0_u32..200),
                0..12,
            ),
        ) {
            let mut known: Option<Round> = None;
            let mut entered = Vec::new();
            let mut due = false;
            for (number, (event, secs)) in said.iter().enumerate() {
                // Copies differ, so that it shows which one counts.
                let copy = Terms { node_id: number.to_string(), ..terms(0) };
                let now = Timestamp::from_unix_nanos(i64::from(*secs) * 1_000_000_000);
                let event = match event {
                    Said::Opened => Event::Opened(copy),
                    Said::Closed => Event::Closed(copy),
                    Said::Expired => Event::Expired,
                };
                due |= matches!(event, Event::Expired) && known.is_some() && *secs >= 120;
                if let Some(round) = Round::apply(known.as_ref(), event, now) {
                    entered.push(round.phase);
                    known = Some(round);
                }
            }
            prop_assert!(matches!(
                entered.as_slice(),
                [] | [Phase::Open] | [Phase::Closed] | [Phase::Open, Phase::Closed]
            ), "{entered:?}");
            let heard = |wanted: Said| said.iter().position(|(event, _)| *event == wanted);
            let first = match (heard(Said::Opened), heard(Said::Closed)) {
                (Some(opened), Some(closed)) => Some(opened.min(closed)),
                (opened, closed) => opened.or(closed),
            };
            prop_assert_eq!(known.is_some(), first.is_some());
            if let (Some(round), Some(first)) = (known, first) {
                prop_assert_eq!(round.terms.node_id, first.to_string());
                let closed = due || heard(Said::Closed).is_some();
                prop_assert_eq!(round.phase == Phase::Closed, closed);
            }
        }
    }
}
