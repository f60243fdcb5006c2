//! Which member of a group has which key.
//!
//! The bucket holds, under `STREAM.group.`, one `member.ID` entry per member that it renews, and one
//! `key.KEY` entry per key that names its owner. An entry is made or changed only by the revision that
//! was seen, so two members never both believe that they took a key. A key is taken when it has no
//! owner, or when its owner is gone ([`super::presence`]); a member with more keys than another waits
//! [`CLAIM_GRACE`] before it takes one. What is wrong here costs balance, never order: the server hands
//! out one message of a key at a time whoever asks.
//!
//! The headers of the stream tell what exists. A gap in their sequence was removed before any member
//! saw it; `seen` remembers, over the time without members, how far they had seen.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{DeliverPolicy, push},
    kv::{self, Operation},
};
use futures::{StreamExt, future::join_all};
use sovereign_bus::transport::TransportError;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Member, RETRY_DELAY,
    bucket::{Bucket, Claim, Known, MAX_REQUESTS},
    limited,
    pending::Pending,
    presence::Presence,
    worker::Worker,
};
use crate::transport::stream_name;

/// How often a member says that it is there, and looks at what retention removed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// Heartbeats that do not come back before the group is looked at anew: more than what it takes to read
/// all entries of a large group.
const MAX_MISSED_ECHOES: u32 = 30;

/// How long members with more keys leave a new key to those with fewer.
const CLAIM_GRACE: Duration = Duration::from_millis(400);

/// How often claims that wait are looked at.
const CLAIM_PERIOD: Duration = Duration::from_millis(100);

/// Keys that are taken or given back in one turn: what is above it waits for the next turn, so that
/// heartbeats go on however many keys there are.
const KEYS_PER_TURN: usize = MAX_REQUESTS;

/// Longest time that a leaving member tries to say so; after it its keys wait until it is
/// gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// Name of the entry of a topic without keys, which has no other.
const KEYLESS: &str = "-";

pub(super) struct Coordinator {
    member: Arc<Member>,
    bucket: Bucket,
    presence: Presence,
    keys: HashMap<String, KeyState>,
    workers: JoinSet<String>,
    /// When claims that are due are made.
    claims: Interval,
    discovery: push::Ordered,
    watch: kv::Watch,
    /// Highest sequence that any member is known to have seen.
    seen: u64,
    recorded_seen: Option<u64>,
    /// Highest sequence that this member was told of: behind `seen` while it reads what was there.
    discovered: u64,
    /// When the stream was made.
    stream_made: i128,
    /// Revision of the last heartbeat.
    announced: u64,
    /// Heartbeats since one came back.
    missed_echoes: u32,
}

#[derive(Default)]
struct KeyState {
    pending: Arc<Pending>,
    owner: Option<String>,
    /// Of the last entry that was seen, also of one that was deleted.
    revision: u64,
    /// Also when it is due: then it counts as ours already, so that a member does not take all.
    claim_at: Option<Instant>,
    worker: Option<CancellationToken>,
}

impl Coordinator {
    /// Enters the group.
    pub(super) async fn start(member: Arc<Member>) -> Result<Self, TransportError> {
        const OPERATION: &str = "join the group";
        let failed = |error: async_nats::Error| TransportError::failed(OPERATION, error);
        let store = member.shared.groups().await?;
        let prefix = format!("{}.{}.", stream_name(member.spec.pattern), member.group);
        let mut me = uuid::Uuid::new_v4().simple().to_string();
        me.truncate(12);
        let bucket = Bucket { store, prefix, me };
        let watch = bucket.watch().await.map_err(failed)?;
        let recorded = bucket.seen().await.map_err(failed)?;
        let extent = extent(&member).await.map_err(failed)?;
        // A new group has missed nothing: it starts with the oldest retained message. So does one whose
        // stream was lost.
        let recorded = recorded.filter(|seen| *seen <= extent.last);
        let seen = recorded.unwrap_or(extent.first - 1);
        let discovery = discover(&member, 0).await.map_err(failed)?;
        let mut coordinator = Self {
            member,
            bucket,
            presence: Presence::default(),
            keys: HashMap::new(),
            workers: JoinSet::new(),
            claims: ticks(CLAIM_PERIOD),
            discovery,
            watch,
            seen,
            recorded_seen: recorded,
            discovered: 0,
            stream_made: extent.made,
            announced: 0,
            missed_echoes: 0,
        };
        coordinator.announce().await.map_err(failed)?;
        Ok(coordinator)
    }

    /// Takes and serves keys until the member leaves.
    pub(super) async fn run(mut self) {
        let stop = self.member.stop.clone();
        let mut heartbeat = ticks(HEARTBEAT);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                message = self.discovery.next() => match message {
                    Some(Ok(message)) => self.discovered(&message),
                    Some(Err(error)) => self.restart(&error.to_string()).await,
                    None => self.restart("the headers ended").await,
                },
                entry = self.watch.next() => match entry {
                    Some(Ok(entry)) => self.noted(&entry),
                    Some(Err(error)) => self.restart(&error.to_string()).await,
                    None => self.restart("the watch ended").await,
                },
                Some(ended) = self.workers.join_next() => self.worker_ended(ended).await,
                _ = self.claims.tick() => self.claim_due().await,
                _ = heartbeat.tick() => self.beat().await,
            }
        }
        self.leave().await;
    }

    /// Opens discovery and watch again; nothing was missed, both start from what is known.
    async fn restart(&mut self, reason: &str) {
        tracing::debug!(group = %self.member.group, reason, "the view of the group is opened again");
        tokio::time::sleep(RETRY_DELAY).await;
        match discover(&self.member, self.discovered).await {
            Ok(discovery) => self.discovery = discovery,
            Err(error) => tracing::debug!(%error, "the headers of the stream cannot be read"),
        }
        match self.bucket.watch().await {
            Ok(watch) => self.watch = watch,
            Err(error) => tracing::debug!(%error, "the group cannot be watched"),
        }
    }

    /// The stream has a message.
    fn discovered(&mut self, message: &async_nats::jetstream::Message) {
        let Ok(info) = message.info() else { return };
        let sequence = info.stream_sequence;
        self.note_gap(sequence);
        self.seen = self.seen.max(sequence);
        self.discovered = self.discovered.max(sequence);
        let subject = &message.subject;
        let key = match self.member.spec.key_of(subject) {
            Some(key) => key.to_string(),
            None if **subject == *self.member.spec.pattern => KEYLESS.to_owned(),
            // Another program stored it under a key that is none: no group can read it.
            None => return,
        };
        self.keys
            .entry(key.clone())
            .or_default()
            .pending
            .push(sequence);
        self.consider(&key);
    }

    /// Counts what was removed between the last seen message and `next`. One member does it for all.
    fn note_gap(&mut self, next: u64) {
        let gap = next.saturating_sub(self.seen + 1);
        if gap > 0 && self.is_leader() {
            let counters = &self.member.spec.counters;
            counters.retention_removed_unread.inc_by(gap);
        }
    }

    /// The bucket has a new entry.
    fn noted(&mut self, entry: &kv::Entry) {
        let Some(name) = entry.key.strip_prefix(&self.bucket.prefix) else {
            return;
        };
        if let Some(other) = name.strip_prefix("member.") {
            let present = entry.operation == Operation::Put;
            match (present, other == self.bucket.me) {
                (true, true) => {
                    self.missed_echoes = 0;
                    self.presence.echo(Instant::now());
                }
                (true, false) => self.presence.heard(other, entry.revision),
                (false, _) => self.presence.left(other),
            }
        } else if let Some(key) = name.strip_prefix("key.") {
            let state = self.keys.entry(key.to_owned()).or_default();
            if entry.revision > state.revision {
                state.claim_at = None;
                self.owner_noted(key, Some(entry));
                self.consider(key);
            }
        }
    }

    /// Notes what the bucket says of a key.
    fn owner_noted(&mut self, key: &str, entry: Option<&kv::Entry>) {
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        state.revision = entry.map_or(0, |entry| entry.revision);
        state.owner = entry
            .filter(|entry| entry.operation == Operation::Put)
            .map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        if let Some(owner) = &state.owner
            && *owner != self.bucket.me
        {
            self.presence.named(owner);
            if let Some(worker) = &state.worker {
                worker.cancel();
            }
        }
    }

    /// Plans to take a key that is free, at once or after the others had their chance.
    fn consider(&mut self, key: &str) {
        let now = Instant::now();
        let Some(state) = self.keys.get(key) else {
            return;
        };
        if state.claim_at.is_some() || !self.is_claimable(state) {
            return;
        }
        let at = if self.has_fewest_keys(now) {
            self.claims.reset_immediately();
            now
        } else {
            now + CLAIM_GRACE
        };
        if let Some(state) = self.keys.get_mut(key) {
            state.claim_at = Some(at);
        }
    }

    fn is_claimable(&self, state: &KeyState) -> bool {
        state.worker.is_none() && self.is_free(state) && state.pending.has_waiting()
    }

    fn is_free(&self, state: &KeyState) -> bool {
        match &state.owner {
            None => true,
            // Its worker ended without its entry being removed.
            Some(owner) if *owner == self.bucket.me => true,
            Some(owner) => !self.presence.is_alive(owner),
        }
    }

    fn has_fewest_keys(&self, now: Instant) -> bool {
        let mut counts: HashMap<&str, usize> =
            self.presence.alive().map(|other| (other, 0)).collect();
        counts.insert(&self.bucket.me, 0);
        for state in self.keys.values() {
            let planned = state.claim_at.is_some_and(|at| at <= now);
            let owner = planned
                .then_some(&*self.bucket.me)
                .or(state.owner.as_deref());
            if let Some(count) = owner.and_then(|owner| counts.get_mut(owner)) {
                *count += 1;
            }
        }
        let fewest = counts
            .iter()
            .min_by_key(|(member, count)| (**count, **member));
        fewest.is_some_and(|(member, _)| *member == self.bucket.me)
    }

    fn is_leader(&self) -> bool {
        let mut alive = self.presence.alive();
        alive.all(|other| *self.bucket.me < *other)
    }

    /// Takes keys whose time has come.
    async fn claim_due(&mut self) {
        let now = Instant::now();
        let mut due: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, state)| state.claim_at.is_some_and(|at| at <= now))
            .take(KEYS_PER_TURN + 1)
            .map(|(key, _)| key.clone())
            .collect();
        if due.len() > KEYS_PER_TURN {
            due.truncate(KEYS_PER_TURN);
            self.claims.reset_immediately();
        }
        let mut known: Vec<Known> = Vec::with_capacity(due.len());
        for key in due {
            let claimable = self
                .keys
                .get(&key)
                .is_some_and(|state| self.is_claimable(state));
            if let Some(state) = self.keys.get_mut(&key) {
                if claimable {
                    known.push((key, state.owner.as_ref().map(|_| state.revision)));
                } else {
                    // Since it was planned, another member took it.
                    state.claim_at = None;
                }
            }
        }
        for (key, claim) in self.bucket.claim(known).await {
            self.claimed(&key, claim);
        }
    }

    fn claimed(&mut self, key: &str, claim: Claim) {
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        state.claim_at = Some(Instant::now() + CLAIM_GRACE);
        match claim {
            Claim::Taken(revision) => {
                state.owner = Some(self.bucket.me.clone());
                state.revision = state.revision.max(revision);
                state.claim_at = None;
                let stop = self.member.stop.child_token();
                state.worker = Some(stop.clone());
                let worker = Worker {
                    member: Arc::clone(&self.member),
                    key: key.to_owned(),
                    // Where the topic has no keys there is nothing to replace.
                    subject: self.member.spec.pattern.replacen('*', key, 1),
                    pending: Arc::clone(&state.pending),
                    stop,
                };
                self.workers.spawn(worker.run());
            }
            // A server that lags behind may know less than the watch did.
            Claim::Refused(Some(entry)) if entry.revision < state.revision => {}
            // The watch tells it too, unless this member forgot the key since then.
            Claim::Refused(entry) => self.owner_noted(key, entry.as_ref()),
            Claim::Unknown(error) => tracing::debug!(key, %error, "a key is not taken"),
        }
    }

    async fn worker_ended(&mut self, ended: Result<String, JoinError>) {
        let mut unowned = Vec::new();
        let mut ended = Some(ended);
        while let Some(worker) = ended {
            match worker {
                Ok(key) => unowned.push(key),
                Err(error) => tracing::error!(%error, "the worker of a key panicked"),
            }
            ended = (unowned.len() < KEYS_PER_TURN)
                .then(|| self.workers.try_join_next())
                .flatten();
        }
        for key in &unowned {
            if let Some(state) = self.keys.get_mut(key) {
                state.worker = None;
            }
        }
        let mine = unowned.iter().filter(|key| self.is_mine(key));
        self.release(mine.cloned().collect()).await;
        if !self.member.stop.is_cancelled() {
            unowned.iter().for_each(|key| self.consider(key));
        }
    }

    fn is_mine(&self, key: &str) -> bool {
        let state = self.keys.get(key);
        state.is_some_and(|state| state.owner.as_deref() == Some(&*self.bucket.me))
    }

    /// Takes the entries of keys back.
    async fn release(&mut self, keys: Vec<String>) {
        let known = keys.into_iter().filter_map(|key| {
            let revision = self.keys.get(&key)?.revision;
            Some((key, revision))
        });
        let known = known.collect();
        for key in self.bucket.release(known).await {
            if let Some(state) = self.keys.get_mut(&key) {
                state.owner = None;
            }
        }
    }

    async fn beat(&mut self) {
        if let Err(error) = self.announce().await {
            tracing::debug!(group = %self.member.group, %error, "a heartbeat failed");
            // Where the server has the bucket, this changes nothing.
            if let Err(error) = self.member.shared.groups().await {
                tracing::debug!(%error, "the bucket of groups cannot be made");
            }
            return;
        }
        self.missed_echoes += 1;
        if self.missed_echoes > MAX_MISSED_ECHOES {
            self.missed_echoes = 0;
            self.restart("heartbeats do not come back").await;
        }
        self.forget_members().await;
        match extent(&self.member).await {
            Ok(extent) => {
                if extent.made != self.stream_made || extent.last < self.discovered {
                    self.begin_anew(&extent).await;
                }
                let abandoned = self.retain(extent.first);
                self.release(abandoned).await;
            }
            Err(error) => {
                tracing::debug!(%error, "the stream's state is unknown");
                // Where the server has the stream, this changes nothing.
                if let Err(error) = self.member.shared.make_stream(&self.member.spec).await {
                    tracing::debug!(%error, "the stream cannot be made");
                }
            }
        }
        let keys: Vec<String> = self.keys.keys().cloned().collect();
        keys.iter().for_each(|key| self.consider(key));
    }

    /// Starts with the oldest message of a stream that is not the one that was known.
    async fn begin_anew(&mut self, extent: &Extent) {
        match discover(&self.member, 0).await {
            Ok(discovery) => self.discovery = discovery,
            Err(error) => {
                tracing::debug!(%error, "the headers of a new stream cannot be read");
                return;
            }
        }
        tracing::warn!(
            stream = stream_name(self.member.spec.pattern),
            "the server lost the stream"
        );
        self.stream_made = extent.made;
        self.discovered = 0;
        self.seen = extent.first - 1;
        self.recorded_seen = None;
        for state in self.keys.values_mut() {
            state.pending.begin_anew();
            // What it holds is of the stream before; the next one opens the key's consumer.
            if let Some(worker) = &state.worker {
                worker.cancel();
            }
        }
    }

    /// Forgets who has which key: the bucket is not the one that was known.
    fn forget_owners(&mut self) {
        for state in self.keys.values_mut() {
            state.owner = None;
            state.revision = 0;
            if let Some(worker) = &state.worker {
                worker.cancel();
            }
        }
    }

    /// Says that this member is there, and how far the group has seen.
    async fn announce(&mut self) -> Result<(), async_nats::Error> {
        let revision = self.bucket.announce(self.seen).await?;
        if revision <= self.announced {
            self.forget_owners();
            self.restart("the server lost the bucket of groups").await;
        }
        self.announced = revision;
        if self.recorded_seen != Some(self.seen) && self.is_leader() {
            self.bucket.record_seen(self.seen).await?;
            self.recorded_seen = Some(self.seen);
        }
        Ok(())
    }

    /// Removes entries of members that crashed and own nothing.
    async fn forget_members(&mut self) {
        let gone: Vec<String> = self
            .presence
            .gone()
            .filter(|other| {
                let mut states = self.keys.values();
                states.all(|state| state.owner.as_deref() != Some(*other))
            })
            .take(KEYS_PER_TURN)
            .map(str::to_owned)
            .collect();
        let purges = gone.iter().map(|member| self.bucket.remove_member(member));
        let purges = join_all(purges).await;
        for (member, purged) in gone.iter().zip(purges) {
            match purged {
                Ok(()) => self.presence.left(member),
                Err(error) => tracing::debug!(%error, "a member's entry stays"),
            }
        }
    }

    /// Forgets what the stream no longer has, and counts what this member should have read of it.
    /// Returns keys whose entries are to be taken back: until that is done they are not forgotten,
    /// because nobody else would know who has them.
    fn retain(&mut self, first: u64) -> Vec<String> {
        self.note_gap(first);
        self.seen = self.seen.max(first.saturating_sub(1));
        let mut unread = 0;
        let (mut forgotten, mut abandoned) = (Vec::new(), Vec::new());
        for (key, state) in &self.keys {
            let is_mine = state.owner.as_deref() == Some(&*self.bucket.me);
            let is_free = self.is_free(state);
            // A living owner counts its own; what nobody has is counted by the next owner.
            if is_mine || !is_free {
                let removed = state.pending.remove_below(first);
                unread += if is_mine { removed } else { 0 };
            }
            if !state.pending.is_gone(first) {
                continue;
            }
            if let Some(worker) = &state.worker {
                // It gives the key back when it ends; the next look forgets the key.
                worker.cancel();
            } else if state.owner.is_none() {
                forgotten.push(key.clone());
            } else if is_free && abandoned.len() < KEYS_PER_TURN {
                abandoned.push(key.clone());
            }
        }
        let counters = &self.member.spec.counters;
        counters.retention_removed_unread.inc_by(unread);
        for key in forgotten {
            self.keys.remove(&key);
        }
        abandoned
    }

    /// Gives all keys back. A worker ends when its reader settled the delivery that it holds.
    async fn leave(mut self) {
        let mut heartbeat = ticks(HEARTBEAT);
        while !self.workers.is_empty() {
            tokio::select! {
                Some(ended) = self.workers.join_next() => {
                    let release = self.worker_ended(ended);
                    drop(timeout(LEAVE_LIMIT, release).await);
                }
                _ = heartbeat.tick() => drop(self.announce().await),
            }
        }
        let farewell = async {
            let owned = self.keys.keys().filter(|key| self.is_mine(key));
            self.release(owned.cloned().collect()).await;
            self.announce().await?;
            self.bucket.remove_member(&self.bucket.me).await
        };
        match timeout(LEAVE_LIMIT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a member left without a word"),
            Err(_elapsed) => tracing::debug!("a member left without a word"),
        }
    }
}

/// Ticks that come later when a turn took longer, and never in a bunch.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What a stream has.
struct Extent {
    /// Differs where the stream was lost and made again.
    made: i128,
    /// 1 at least.
    first: u64,
    last: u64,
}

async fn extent(member: &Member) -> Result<Extent, async_nats::Error> {
    let info = limited(member.stream.get_info()).await?;
    Ok(Extent {
        made: info.created.unix_timestamp_nanos(),
        first: info.state.first_sequence.max(1),
        last: info.state.last_sequence,
    })
}

/// The headers of all messages after `known`, and of those to come.
async fn discover(member: &Member, known: u64) -> Result<push::Ordered, async_nats::Error> {
    let created = member.stream.create_consumer(push::OrderedConfig {
        deliver_subject: member.shared.inbox(),
        description: Some(format!("what is stored, for group {}", member.group)),
        headers_only: true,
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: known + 1,
        },
        ..push::OrderedConfig::default()
    });
    let consumer = limited(created).await?;
    limited(consumer.messages()).await
}
