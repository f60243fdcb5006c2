//! Which member of a group has which key.
//!
//! The bucket holds, under `STREAM.group.`, one `member.ID` entry per member that it renews, and one
//! `key.KEY` entry per key that names its owner. An entry is made or changed only by the revision that
//! was seen, so two members never both believe that they took a key. A key is taken when it has no
//! owner, or when its owner was not heard of for [`MEMBER_TTL`]; a member with more keys than another
//! waits [`CLAIM_GRACE`] before it takes one. What is wrong here costs balance, never order: the server
//! hands out one message of a key at a time whoever asks.
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
use futures::StreamExt;
use sovereign_bus::transport::TransportError;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Member, RETRY_DELAY, pending::Pending, worker::Worker};
use crate::transport::{REMOVAL_MARKER_AGE, REQUEST_LIMIT, stream_name};

/// How often a member says that it is there, and looks at what retention removed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A member that was not heard of for this long is gone.
const MEMBER_TTL: Duration = Duration::from_secs(6);

/// How long members with more keys leave a new key to those with fewer.
const CLAIM_GRACE: Duration = Duration::from_millis(400);

/// How often claims that wait are looked at.
const CLAIM_PERIOD: Duration = Duration::from_millis(100);

/// Longest time that a leaving member tries to say so; after it its keys wait for [`MEMBER_TTL`].
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// Name of the entry of a topic without keys, which has no other.
const KEYLESS: &str = "-";

pub(super) struct Coordinator {
    member: Arc<Member>,
    store: kv::Store,
    /// `STREAM.group.`
    prefix: String,
    me: String,
    /// Other members, and when they were last heard of.
    others: HashMap<String, Instant>,
    keys: HashMap<String, KeyState>,
    workers: JoinSet<String>,
    discovery: push::Ordered,
    watch: kv::Watch,
    /// Highest sequence that any member is known to have seen.
    seen: u64,
    recorded_seen: u64,
}

#[derive(Default)]
struct KeyState {
    pending: Arc<Pending>,
    owner: Option<String>,
    /// Of the last entry that was seen, also of one that was deleted.
    revision: u64,
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
        let watch = watch(&store, &prefix).await.map_err(failed)?;
        let recorded = store
            .get(format!("{prefix}seen"))
            .await
            .map_err(|error| failed(error.into()))?;
        let recorded = recorded.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        // A new group has missed nothing: it starts with the oldest retained message.
        let seen = match recorded {
            Some(seen) => seen,
            None => first_sequence(&member)
                .await
                .map_err(failed)?
                .saturating_sub(1),
        };
        let discovery = discover(&member, 0).await.map_err(failed)?;
        let mut coordinator = Self {
            member,
            store,
            prefix,
            me,
            others: HashMap::new(),
            keys: HashMap::new(),
            workers: JoinSet::new(),
            discovery,
            watch,
            seen,
            recorded_seen: recorded.unwrap_or(0),
        };
        coordinator.announce().await.map_err(failed)?;
        Ok(coordinator)
    }

    /// Takes and serves keys until the member leaves.
    pub(super) async fn run(mut self) {
        let stop = self.member.stop.clone();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut claims = tokio::time::interval(CLAIM_PERIOD);
        claims.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                message = self.discovery.next() => match message {
                    Some(Ok(message)) => self.discovered(&message).await,
                    Some(Err(error)) => self.restart(&error.to_string()).await,
                    None => self.restart("the headers ended").await,
                },
                entry = self.watch.next() => match entry {
                    Some(Ok(entry)) => self.noted(&entry).await,
                    Some(Err(error)) => self.restart(&error.to_string()).await,
                    None => self.restart("the watch ended").await,
                },
                Some(ended) = self.workers.join_next() => self.worker_ended(ended).await,
                _ = claims.tick() => self.claim_due().await,
                _ = heartbeat.tick() => self.beat().await,
            }
        }
        self.leave().await;
    }

    /// Opens discovery and watch again; nothing was missed, both start from what is known.
    async fn restart(&mut self, reason: &str) {
        tracing::debug!(group = %self.member.group, reason, "the view of the group is opened again");
        tokio::time::sleep(RETRY_DELAY).await;
        match discover(&self.member, self.seen).await {
            Ok(discovery) => self.discovery = discovery,
            Err(error) => tracing::debug!(%error, "the headers of the stream cannot be read"),
        }
        match watch(&self.store, &self.prefix).await {
            Ok(watch) => self.watch = watch,
            Err(error) => tracing::debug!(%error, "the group cannot be watched"),
        }
    }

    /// The stream has a message.
    async fn discovered(&mut self, message: &async_nats::jetstream::Message) {
        let Ok(info) = message.info() else { return };
        let sequence = info.stream_sequence;
        self.note_gap(sequence);
        self.seen = self.seen.max(sequence);
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
        self.consider(&key).await;
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
    async fn noted(&mut self, entry: &kv::Entry) {
        let present = entry.operation == Operation::Put;
        let Some(name) = entry.key.strip_prefix(&self.prefix) else {
            return;
        };
        if let Some(other) = name.strip_prefix("member.") {
            if other != self.me && present {
                self.others.insert(other.to_owned(), Instant::now());
            } else {
                self.others.remove(other);
            }
        } else if let Some(key) = name.strip_prefix("key.") {
            let owner = present.then(|| String::from_utf8_lossy(&entry.value).into_owned());
            self.owner_noted(key.to_owned(), owner, entry.revision)
                .await;
        }
    }

    async fn owner_noted(&mut self, key: String, owner: Option<String>, revision: u64) {
        let state = self.keys.entry(key.clone()).or_default();
        if revision <= state.revision {
            return;
        }
        state.revision = revision;
        state.claim_at = None;
        if let Some(owner) = &owner
            && *owner != self.me
        {
            // Whoever has a key lives until proven otherwise.
            self.others
                .entry(owner.clone())
                .or_insert_with(Instant::now);
            if let Some(worker) = &state.worker {
                worker.cancel();
            }
        }
        state.owner = owner;
        self.consider(&key).await;
    }

    /// Takes a key that is free, at once or after the others had their chance.
    async fn consider(&mut self, key: &str) {
        if self.member.stop.is_cancelled() {
            return;
        }
        let now = Instant::now();
        let Some(state) = self.keys.get(key) else {
            return;
        };
        if state.claim_at.is_some() || state.worker.is_some() || !self.is_free(state, now) {
            return;
        }
        if !state.pending.has_waiting() {
            return;
        }
        let at = if self.has_fewest_keys(now) {
            now
        } else {
            now + CLAIM_GRACE
        };
        if let Some(state) = self.keys.get_mut(key) {
            state.claim_at = Some(at);
        }
        if at <= now {
            self.claim(key).await;
        }
    }

    fn is_free(&self, state: &KeyState, now: Instant) -> bool {
        match &state.owner {
            None => true,
            // Its worker ended without its entry being removed.
            Some(owner) if *owner == self.me => true,
            Some(owner) => !self.is_alive(owner, now),
        }
    }

    fn is_alive(&self, member: &str, now: Instant) -> bool {
        let heard = self.others.get(member);
        heard.is_some_and(|heard| now.duration_since(*heard) < MEMBER_TTL)
    }

    fn has_fewest_keys(&self, now: Instant) -> bool {
        let mut counts: HashMap<&str, usize> = self
            .others
            .keys()
            .filter(|other| self.is_alive(other, now))
            .map(|other| (other.as_str(), 0))
            .collect();
        counts.insert(&self.me, 0);
        for state in self.keys.values() {
            if let Some(count) = state
                .owner
                .as_deref()
                .and_then(|owner| counts.get_mut(owner))
            {
                *count += 1;
            }
        }
        let fewest = counts
            .iter()
            .min_by_key(|(member, count)| (**count, **member));
        fewest.is_some_and(|(member, _)| *member == self.me)
    }

    fn is_leader(&self) -> bool {
        let now = Instant::now();
        let mut alive = self.others.keys().filter(|other| self.is_alive(other, now));
        alive.all(|other| self.me < *other)
    }

    async fn claim_due(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, state)| state.claim_at.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.claim(&key).await;
        }
    }

    async fn claim(&mut self, key: &str) {
        let now = Instant::now();
        let Some(state) = self.keys.get(key) else {
            return;
        };
        if state.worker.is_some() || !self.is_free(state, now) {
            return;
        }
        let entry = format!("{}key.{key}", self.prefix);
        let value = self.me.clone().into();
        let claimed: Result<u64, async_nats::Error> = match state.owner {
            Some(_) => {
                let update = self.store.update(&entry, value, state.revision);
                update.await.map_err(Into::into)
            }
            None => self.store.create(&entry, value).await.map_err(Into::into),
        };
        // Where the topic has no keys there is nothing to replace.
        let subject = self.member.spec.pattern.replacen('*', key, 1);
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        match claimed {
            Ok(revision) => {
                let stop = self.member.stop.child_token();
                state.owner = Some(self.me.clone());
                state.revision = state.revision.max(revision);
                state.claim_at = None;
                state.worker = Some(stop.clone());
                let worker = Worker {
                    member: Arc::clone(&self.member),
                    key: key.to_owned(),
                    subject,
                    pending: Arc::clone(&state.pending),
                    stop,
                };
                self.workers.spawn(worker.run());
            }
            Err(error) => {
                tracing::trace!(key, %error, "another member was faster");
                state.claim_at = Some(now + CLAIM_GRACE);
            }
        }
    }

    async fn worker_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        let key = match ended {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "the worker of a key panicked");
                return;
            }
        };
        if let Some(state) = self.keys.get_mut(&key) {
            state.worker = None;
            if state.owner.as_deref() == Some(&*self.me) {
                self.release(&key).await;
            }
        }
        self.consider(&key).await;
    }

    /// Takes the entry of an owned key back.
    async fn release(&mut self, key: &str) {
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        let entry = format!("{}key.{key}", self.prefix);
        let deleted = self
            .store
            .purge_expect_revision_with_ttl(&entry, state.revision, REMOVAL_MARKER_AGE)
            .await;
        match deleted {
            Ok(()) => state.owner = None,
            Err(error) => tracing::debug!(key, %error, "a key is not given back"),
        }
    }

    async fn beat(&mut self) {
        match self.announce().await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(group = %self.member.group, %error, "a heartbeat failed");
                // Who cannot speak cannot hear either: nobody is gone because of it.
                let now = Instant::now();
                self.others.values_mut().for_each(|heard| *heard = now);
                return;
            }
        }
        self.forget_members().await;
        match first_sequence(&self.member).await {
            Ok(first) => self.retain(first),
            Err(error) => tracing::debug!(%error, "the stream's state is unknown"),
        }
        let free: Vec<String> = self.keys.keys().cloned().collect();
        for key in free {
            self.consider(&key).await;
        }
    }

    /// Says that this member is there, and how far the group has seen.
    async fn announce(&mut self) -> Result<(), async_nats::Error> {
        let entry = format!("{}member.{}", self.prefix, self.me);
        let put = self.store.put(entry, self.seen.to_string().into());
        timeout(REQUEST_LIMIT, put).await??;
        if self.seen != self.recorded_seen && self.is_leader() {
            let put = self
                .store
                .put(format!("{}seen", self.prefix), self.seen.to_string().into());
            timeout(REQUEST_LIMIT, put).await??;
            self.recorded_seen = self.seen;
        }
        Ok(())
    }

    /// Removes entries of members that crashed and own nothing.
    async fn forget_members(&mut self) {
        let now = Instant::now();
        let gone: Vec<String> = self
            .others
            .keys()
            .filter(|other| !self.is_alive(other, now))
            .filter(|other| {
                self.keys
                    .values()
                    .all(|state| state.owner.as_ref() != Some(other))
            })
            .cloned()
            .collect();
        for member in gone {
            let entry = format!("{}member.{member}", self.prefix);
            let purged = self.store.purge_with_ttl(entry, REMOVAL_MARKER_AGE);
            match purged.await {
                Ok(()) => {
                    self.others.remove(&member);
                }
                Err(error) => tracing::debug!(%error, "a member's entry stays"),
            }
        }
    }

    /// Forgets what the stream no longer has, and counts what this member should have read of it.
    fn retain(&mut self, first: u64) {
        let now = Instant::now();
        self.note_gap(first);
        self.seen = self.seen.max(first.saturating_sub(1));
        let mut unread = 0;
        let mut gone = Vec::new();
        for (key, state) in &self.keys {
            match &state.owner {
                Some(owner) if *owner == self.me => unread += state.pending.remove_below(first),
                Some(owner) if self.is_alive(owner, now) => drop(state.pending.remove_below(first)),
                // Its next owner counts it.
                Some(_) | None => {}
            }
            if state.pending.is_gone(first) {
                gone.push(key.clone());
            }
        }
        let counters = &self.member.spec.counters;
        counters.retention_removed_unread.inc_by(unread);
        for key in gone {
            match self.keys.get(&key).and_then(|state| state.worker.as_ref()) {
                // It gives the key back when it ends; the next look forgets the key.
                Some(worker) => worker.cancel(),
                None => drop(self.keys.remove(&key)),
            }
        }
    }

    /// Gives all keys back. A worker ends when its reader settled the delivery that it holds.
    async fn leave(mut self) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
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
            let owned: Vec<String> = self
                .keys
                .iter()
                .filter(|(_, state)| state.owner.as_deref() == Some(&*self.me))
                .map(|(key, _)| key.clone())
                .collect();
            for key in owned {
                self.release(&key).await;
            }
            self.announce().await?;
            let entry = format!("{}member.{}", self.prefix, self.me);
            self.store.purge_with_ttl(entry, REMOVAL_MARKER_AGE).await?;
            Ok::<(), async_nats::Error>(())
        };
        match timeout(LEAVE_LIMIT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a member left without a word"),
            Err(_elapsed) => tracing::debug!("a member left without a word"),
        }
    }
}

async fn first_sequence(member: &Member) -> Result<u64, async_nats::Error> {
    let info = timeout(REQUEST_LIMIT, member.stream.get_info()).await??;
    Ok(info.state.first_sequence.max(1))
}

/// The headers of all messages after `seen`, and of those to come.
async fn discover(member: &Member, seen: u64) -> Result<push::Ordered, async_nats::Error> {
    let consumer = member
        .stream
        .create_consumer(push::OrderedConfig {
            deliver_subject: member.shared.inbox(),
            description: Some(format!("what is stored, for group {}", member.group)),
            headers_only: true,
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: seen + 1,
            },
            ..push::OrderedConfig::default()
        })
        .await?;
    Ok(consumer.messages().await?)
}

async fn watch(store: &kv::Store, prefix: &str) -> Result<kv::Watch, async_nats::Error> {
    Ok(store.watch_with_history(format!("{prefix}>")).await?)
}
