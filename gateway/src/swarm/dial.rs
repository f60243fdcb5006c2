//! Whom to dial, and when.
//!
//! Two kinds of targets: seeds, which the operator named and which are redialled for ever, and peers learned
//! from hellos, identify and mDNS, which are dialled only while fewer peers are connected or being dialled
//! than wanted and are dropped after some failures. Every failure doubles the wait before the next try. While
//! the node has fewer than `min_peers` the wait is kept short, because an island has nothing better to do.
//! Time is the time since the swarm started, so a clock that is set changes nothing.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use lru::LruCache;

use crate::address::split_peer;

const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait while enough peers are connected.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest wait while fewer than `min_peers` are connected.
const LONGEST_ISLAND_WAIT: Duration = Duration::from_secs(2);
/// Learned peers remembered; one more forgets the one heard of longest ago.
const MAX_LEARNED: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
const MAX_ADDRS: usize = 16;
/// A learned peer that failed this often in a row is forgotten.
const MAX_LEARNED_FAILURES: u32 = 6;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Below this the node counts as an island.
    pub(crate) min_peers: usize,
    /// Below this learned peers are dialled.
    pub(crate) peers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TargetId {
    Seed(usize),
    Learned(PeerId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) target: TargetId,
    /// Identity that must answer; absent for a seed given without one.
    pub(crate) peer: Option<PeerId>,
    pub(crate) addrs: Vec<Multiaddr>,
}

#[derive(Debug)]
struct Target {
    expected: Option<PeerId>,
    /// Who answered last, for a seed without an identity.
    answered: Option<PeerId>,
    addrs: Vec<Multiaddr>,
    failures: u32,
    not_before: Duration,
}

impl Target {
    fn new(expected: Option<PeerId>, addrs: Vec<Multiaddr>) -> Self {
        Self {
            expected,
            answered: None,
            addrs,
            failures: 0,
            not_before: Duration::ZERO,
        }
    }

    fn is_connected(&self, connected: &impl Fn(&PeerId) -> bool) -> bool {
        let peer = self.expected.as_ref().or(self.answered.as_ref());
        peer.is_some_and(connected)
    }
}

#[derive(Debug)]
pub(crate) struct DialBook {
    local: PeerId,
    wanted: Wanted,
    seeds: Vec<Target>,
    learned: LruCache<PeerId, Target>,
    /// Dials that have not ended; kept beside the targets, because a learned peer may be forgotten
    /// while it is dialled. As many as there are seeds and wanted peers at most.
    running: HashSet<TargetId>,
}

impl DialBook {
    /// A book for a node that calls itself `local`. Seeds of one identity are one target; seeds that
    /// name the node itself are left out.
    pub(crate) fn new(local: PeerId, wanted: Wanted, seeds: Vec<Multiaddr>) -> Self {
        let mut targets: Vec<Target> = Vec::new();
        for seed in seeds {
            let (addr, peer) = split_peer(seed);
            if peer == Some(local) {
                continue;
            }
            let same = targets
                .iter_mut()
                .find(|target| peer.is_some() && target.expected == peer);
            match same {
                Some(target) => target.addrs.push(addr),
                None => targets.push(Target::new(peer, vec![addr])),
            }
        }
        Self {
            local,
            wanted,
            seeds: targets,
            learned: LruCache::new(MAX_LEARNED),
            running: HashSet::new(),
        }
    }

    pub(crate) fn learn(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) {
        if peer == self.local {
            return;
        }
        let addrs: Vec<Multiaddr> = addrs
            .into_iter()
            .map(split_peer)
            .filter(|(_, named)| named.is_none_or(|named| named == peer))
            .map(|(addr, _)| addr)
            .take(MAX_ADDRS)
            .collect();
        if addrs.is_empty() {
            return;
        }
        match self.learned.get_mut(&peer) {
            Some(target) => target.addrs = addrs,
            None => {
                self.learned.put(peer, Target::new(Some(peer), addrs));
            }
        }
    }

    /// Forgets a learned peer, because it turned out to be of another network.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.learned.pop(peer);
    }

    /// The dials due at `now`; each counts as running until [`Self::failed`] or [`Self::answered`].
    pub(crate) fn due(
        &mut self,
        now: Duration,
        peers: usize,
        connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<Dial> {
        let mut dials = Vec::new();
        let mut missing = self.missing(peers);
        let seeds = self.seeds.iter().enumerate();
        let seeds = seeds.map(|(place, target)| (TargetId::Seed(place), target));
        let learned = self.learned.iter();
        let learned = learned.map(|(peer, target)| (TargetId::Learned(*peer), target));
        for (id, target) in seeds.chain(learned) {
            let is_learned = matches!(id, TargetId::Learned(_));
            if is_learned && missing == 0 {
                break;
            }
            if target.not_before > now
                || target.is_connected(&connected)
                || !self.running.insert(id)
            {
                continue;
            }
            if is_learned {
                missing -= 1;
            }
            dials.push(Dial {
                target: id,
                peer: target.expected,
                addrs: target.addrs.clone(),
            });
        }
        dials
    }

    /// When [`Self::due`] has something again if nothing else happens; absent when never.
    pub(crate) fn next_due(
        &self,
        peers: usize,
        connected: impl Fn(&PeerId) -> bool,
    ) -> Option<Duration> {
        let seeds = self.seeds.iter().enumerate();
        let seeds = seeds.map(|(place, target)| (TargetId::Seed(place), target));
        let learned = self.learned.iter();
        let learned = learned.map(|(peer, target)| (TargetId::Learned(*peer), target));
        let learned = learned.filter(|_| self.missing(peers) > 0);
        seeds
            .chain(learned)
            .filter(|(id, target)| !self.running.contains(id) && !target.is_connected(&connected))
            .map(|(_, target)| target.not_before)
            .min()
    }

    /// Learned peers to dial besides those that are being dialled. Dials of seeds do not count: a
    /// seed that is down must not keep the node from finding others.
    fn missing(&self, peers: usize) -> usize {
        let dialling = self.running.iter();
        let dialling = dialling.filter(|id| matches!(id, TargetId::Learned(_)));
        let taken = peers + dialling.count();
        self.wanted.peers.saturating_sub(taken)
    }

    pub(crate) fn failed(&mut self, id: TargetId, now: Duration, peers: usize) {
        let longest = if peers < self.wanted.min_peers {
            LONGEST_ISLAND_WAIT
        } else {
            LONGEST_WAIT
        };
        self.running.remove(&id);
        let Some(target) = self.target(id) else {
            return;
        };
        let wait = FIRST_WAIT.saturating_mul(1 << target.failures.min(16));
        target.failures += 1;
        target.not_before = now + wait.min(longest);
        if let TargetId::Learned(peer) = id
            && target.failures >= MAX_LEARNED_FAILURES
        {
            self.learned.pop(&peer);
        }
    }

    /// Another peer than the target answered at `addr`, which ends a dial before the other addresses had
    /// their turn: it is dialled no more, unless there is no other.
    pub(crate) fn answers_for_another(&mut self, id: TargetId, addr: Multiaddr) {
        let (addr, _) = split_peer(addr);
        if let Some(target) = self.target(id)
            && target.addrs.iter().any(|known| *known != addr)
        {
            target.addrs.retain(|known| *known != addr);
        }
    }

    pub(crate) fn answered(&mut self, id: TargetId, peer: PeerId) {
        self.running.remove(&id);
        if let Some(target) = self.target(id) {
            target.answered = Some(peer);
            target.failures = 0;
        }
    }

    /// A connection to `peer` was lost: whoever leads to it may be dialled after the first wait, so
    /// that a peer that closes at once is not dialled in a tight loop.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Duration) {
        let learned = self.learned.iter_mut().map(|(_, target)| target);
        for target in self.seeds.iter_mut().chain(learned) {
            if target.expected.as_ref().or(target.answered.as_ref()) == Some(peer) {
                target.not_before = target.not_before.max(now + FIRST_WAIT);
            }
        }
    }

    /// A seed leads to this node itself, or to another network: it waits the longest time.
    pub(crate) fn useless(&mut self, id: TargetId, now: Duration) {
        self.running.remove(&id);
        if let Some(target) = self.target(id) {
            target.not_before = now + LONGEST_WAIT;
        }
    }

    /// Where a connected peer is known from, for [`Self::useless`].
    pub(crate) fn seeds_of(&self, peer: &PeerId) -> Vec<TargetId> {
        let leads =
            |target: &Target| target.expected.as_ref().or(target.answered.as_ref()) == Some(peer);
        let seeds = self.seeds.iter().enumerate();
        seeds
            .filter(|(_, target)| leads(target))
            .map(|(place, _)| TargetId::Seed(place))
            .collect()
    }

    fn target(&mut self, id: TargetId) -> Option<&mut Target> {
        match id {
            TargetId::Seed(place) => self.seeds.get_mut(place),
            TargetId::Learned(peer) => self.learned.peek_mut(&peer),
        }
    }
}

#[cfg(test)]
mod tests;
