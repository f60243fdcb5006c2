//! Which other members are there.
//!
//! Time passes only while this member can hear: between two of its own heartbeats that came back from
//! the bucket. So an outage, a watch that was lost or a turn that took long makes nobody silent, also
//! where afterwards this member speaks first or is heard several times at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::coordinator::HEARTBEAT;

/// A member that was not heard of for this long is gone.
pub(super) const MEMBER_TTL: Duration = Duration::from_secs(6);

/// Two own heartbeats further apart than this say nothing about the time between them.
const MAX_STEP: Duration = HEARTBEAT.saturating_mul(2);

/// The other members of a group, by what was heard of them.
#[derive(Default)]
pub(super) struct Presence {
    others: HashMap<String, Heard>,
    /// How long this member could hear.
    listened: Duration,
    echoed: Option<Instant>,
}

struct Heard {
    /// Of its last entry, which may be told again.
    revision: u64,
    /// What [`Presence::listened`] was then.
    at: Duration,
}

impl Presence {
    /// An own heartbeat came back.
    pub(super) fn echo(&mut self, now: Instant) {
        if let Some(before) = self.echoed.replace(now) {
            self.listened += now.saturating_duration_since(before).min(MAX_STEP);
        }
    }

    /// A member said that it is there.
    pub(super) fn heard(&mut self, member: &str, revision: u64) {
        let at = self.listened;
        match self.others.get_mut(member) {
            Some(heard) if heard.revision == revision => {}
            Some(heard) => *heard = Heard { revision, at },
            None => drop(
                self.others
                    .insert(member.to_owned(), Heard { revision, at }),
            ),
        }
    }

    /// An entry names a member: whoever has a key lives until proven otherwise.
    pub(super) fn named(&mut self, member: &str) {
        if !self.others.contains_key(member) {
            self.heard(member, 0);
        }
    }

    /// A member left.
    pub(super) fn left(&mut self, member: &str) {
        self.others.remove(member);
    }

    pub(super) fn is_alive(&self, member: &str) -> bool {
        let heard = self.others.get(member);
        heard.is_some_and(|heard| self.hears(heard))
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &str> {
        let alive = self.others.iter().filter(|(_, heard)| self.hears(heard));
        alive.map(|(member, _)| member.as_str())
    }

    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        let gone = self.others.iter().filter(|(_, heard)| !self.hears(heard));
        gone.map(|(member, _)| member.as_str())
    }

    fn hears(&self, heard: &Heard) -> bool {
        self.listened.saturating_sub(heard.at) < MEMBER_TTL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A member that was heard of, and the time.
    fn both_there() -> (Presence, Instant) {
        let (mut presence, now) = (Presence::default(), Instant::now());
        presence.echo(now);
        presence.heard("other", 1);
        (presence, now)
    }

    #[test]
    fn a_member_is_gone_when_only_this_one_is_heard() {
        let (mut presence, mut now) = both_there();
        for _ in 0..5 {
            now += SECOND;
            presence.echo(now);
        }
        assert!(presence.is_alive("other"));
        presence.echo(now + SECOND);
        assert!(!presence.is_alive("other"));
        assert_eq!(presence.gone().collect::<Vec<_>>(), ["other"]);
        presence.heard("other", 2);
        assert_eq!(presence.alive().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn nobody_is_gone_because_nothing_was_heard_for_long() {
        let (mut presence, mut now) = both_there();
        now += 60 * SECOND;
        // What waited for the connection comes back at once, and this member's first.
        for _ in 0..20 {
            presence.echo(now);
        }
        assert!(presence.is_alive("other"));
    }

    #[test]
    fn an_entry_that_is_told_again_is_no_sign_of_life() {
        let (mut presence, mut now) = both_there();
        for _ in 0..6 {
            now += SECOND;
            presence.heard("other", 1);
            presence.named("other");
            presence.echo(now);
        }
        assert!(!presence.is_alive("other"));
    }

    #[test]
    fn an_owner_that_never_spoke_is_gone_after_its_time() {
        let (mut presence, mut now) = both_there();
        presence.named("unknown");
        assert!(presence.is_alive("unknown"));
        for _ in 0..6 {
            now += SECOND;
            presence.echo(now);
        }
        assert!(!presence.is_alive("unknown"));
    }
}
