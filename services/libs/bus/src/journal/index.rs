//! What the journal knows without its file: which messages are retained, who is in a group, which key
//! is whose, and what may be delivered next. Pure: takes the time, touches nothing.
//!
//! A key of a group is in one of three places: nowhere (nothing to deliver, or no member), waiting at
//! its owner (ready, or delayed after it was given back), or in flight. So at most one message of it is
//! unacknowledged.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::file::Write;
use crate::{
    Retention,
    metrics::TopicCounters,
    transport::{DurableSpec, RawMessage},
};

/// Bytes that one message takes in the journal beside its payload, in memory and on disk together. It
/// counts towards `Retention::max_bytes`, which so bounds the number of messages too.
const MESSAGE_OVERHEAD_BYTES: u64 = 512;

/// Unacknowledged deliveries that one member may hold. At the bound `next` waits for an
/// acknowledgement.
pub(super) const MAX_HELD: usize = 1024;

/// A message that was given back is delivered again after this, doubled each time up to 32 times.
const REDELIVERY_DELAY: Duration = Duration::from_millis(100);

/// Messages that retention removes at once: bounds how long everyone else waits for the index, and the
/// commit that removes them. What is left goes with the next one.
pub(super) const MAX_REMOVALS: usize = 4096;

/// Recent messages that are delivered without reading the file, with [`MESSAGE_OVERHEAD_BYTES`] each.
/// Above it the oldest are forgotten.
const CACHE_BYTES: usize = 32 << 20;

#[derive(Default)]
pub(super) struct Index {
    topics: HashMap<Arc<str>, Topic>,
    cache: Cache,
    next_member: u64,
}

#[derive(Default)]
struct Topic {
    /// Known once the topic was used in this process: before that nothing is removed.
    rules: Option<(Retention, Arc<TopicCounters>)>,
    /// Number that the next message gets; numbers start at 1 and are never given twice.
    last_number: u64,
    /// Retained messages; numbers follow each other because only the oldest are removed.
    entries: VecDeque<Entry>,
    first_number: u64,
    bytes: u64,
    ids: HashSet<Arc<str>>,
    keys: HashMap<Arc<str>, VecDeque<u64>>,
    groups: HashMap<String, Group>,
}

struct Entry {
    key: Arc<str>,
    message_id: Arc<str>,
    stored_unix_nanos: i64,
    payload_bytes: u64,
}

#[derive(Default)]
struct Group {
    stored: bool,
    members: BTreeMap<u64, Member>,
    keys: HashMap<Arc<str>, Cursor>,
    unwritten: HashSet<Arc<str>>,
}

#[derive(Default)]
struct Cursor {
    acked: u64,
    /// Highest number that was ever handed out: at or below it a delivery may be a repetition.
    handed_out: u64,
    owner: Option<u64>,
    waiting: bool,
    in_flight: Option<u64>,
    failures: u32,
    not_before: Option<Instant>,
}

struct Member {
    ready: VecDeque<Arc<str>>,
    delayed: Vec<(Instant, Arc<str>)>,
    held: usize,
    keys: usize,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Cache {
    messages: HashMap<(Arc<str>, u64), RawMessage>,
    order: VecDeque<(Arc<str>, u64)>,
    bytes: usize,
}

#[derive(Clone)]
pub(super) struct MemberId {
    pub(super) topic: Arc<str>,
    pub(super) group: String,
    pub(super) number: u64,
}

#[derive(Clone)]
pub(super) struct Taken {
    pub(super) key: Arc<str>,
    pub(super) number: u64,
    pub(super) redelivered: bool,
    pub(super) message: Option<RawMessage>,
}

pub(super) enum Next {
    Take(Taken),
    /// Nothing now; maybe something at that time.
    Wait(Option<Instant>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Given back by the reader: delivered again after a while.
    GivenBack,
    /// Never reached the reader: delivered again at once.
    NotHandedOut,
}

impl Index {
    pub(super) fn use_topic(&mut self, spec: &DurableSpec) -> Arc<str> {
        let (name, topic) = self.topic(spec.pattern);
        topic.rules = Some((spec.retention, Arc::clone(&spec.counters)));
        name
    }

    fn topic(&mut self, pattern: &str) -> (Arc<str>, &mut Topic) {
        let name = match self.topics.get_key_value(pattern) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(pattern),
        };
        let topic = self
            .topics
            .entry(Arc::clone(&name))
            .or_insert_with(|| Topic {
                first_number: 1,
                ..Topic::default()
            });
        (name, topic)
    }

    pub(super) fn restore_number(&mut self, topic: &str, last_number: u64) {
        let (_, topic) = self.topic(topic);
        topic.last_number = last_number;
        topic.first_number = last_number + 1;
    }

    pub(super) fn restore_group(&mut self, topic: &str, group: String) {
        self.topic(topic).1.groups.entry(group).or_default().stored = true;
    }

    pub(super) fn restore_cursor(&mut self, topic: &str, group: String, key: &str, acked: u64) {
        let group = self.topic(topic).1.groups.entry(group).or_default();
        let cursor = group.keys.entry(Arc::from(key)).or_default();
        cursor.acked = acked;
        cursor.handed_out = acked;
    }

    /// Restores a message; to be called in the order of numbers, and after the groups.
    pub(super) fn restore_message(
        &mut self,
        topic: &str,
        number: u64,
        key: &str,
        message_id: &str,
        stored_unix_nanos: i64,
        payload_bytes: u64,
    ) {
        let (_, topic) = self.topic(topic);
        topic.insert(number, key, message_id, stored_unix_nanos, payload_bytes);
        // What was acknowledged just before the process ended may not have been written: all that is
        // there may have been delivered.
        for group in topic.groups.values_mut() {
            let cursor = group.keys.entry(Arc::from(key)).or_default();
            cursor.handed_out = cursor.handed_out.max(number);
        }
    }

    pub(super) fn next_number(&self, topic: &str) -> u64 {
        self.topics
            .get(topic)
            .map_or(1, |topic| topic.last_number + 1)
    }

    pub(super) fn has_message_id(&self, topic: &str, message_id: &str) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|topic| topic.ids.contains(message_id))
    }

    pub(super) fn add_message(
        &mut self,
        name: &Arc<str>,
        number: u64,
        key: &str,
        stored_unix_nanos: i64,
        message: RawMessage,
        now: Instant,
    ) {
        let (_, topic) = self.topic(name);
        let key = topic.insert(
            number,
            key,
            &message.headers.message_id,
            stored_unix_nanos,
            message.payload.len() as u64,
        );
        for group in topic.groups.values_mut() {
            group.schedule(&topic.keys, &key, now);
        }
        self.cache.insert(name, number, message);
    }

    pub(super) fn join(
        &mut self,
        name: &Arc<str>,
        group: &str,
        now: Instant,
    ) -> (MemberId, Arc<Notify>) {
        let number = self.next_member;
        self.next_member += 1;
        let wake = Arc::new(Notify::new());
        let (_, topic) = self.topic(name);
        let members = topic.groups.entry(group.to_owned()).or_default();
        members.members.insert(
            number,
            Member {
                ready: VecDeque::new(),
                delayed: Vec::new(),
                held: 0,
                keys: 0,
                wake: Arc::clone(&wake),
            },
        );
        // In the order of their oldest message, so that a new group starts with the oldest of all.
        let mut keys: Vec<_> = topic
            .keys
            .iter()
            .filter_map(|(key, numbers)| Some((*numbers.front()?, Arc::clone(key))))
            .collect();
        keys.sort_unstable();
        for (_, key) in keys {
            members.schedule(&topic.keys, &key, now);
        }
        let id = MemberId {
            topic: Arc::clone(name),
            group: group.to_owned(),
            number,
        };
        (id, wake)
    }

    /// Takes a member out and gives its keys to the others; keys in flight follow when they end.
    pub(super) fn leave(&mut self, id: &MemberId, now: Instant) {
        let Some(topic) = self.topics.get_mut(&id.topic) else {
            return;
        };
        let Some(group) = topic.groups.get_mut(&id.group) else {
            return;
        };
        if group.members.remove(&id.number).is_none() {
            return;
        }
        let mut orphans = Vec::new();
        for (key, cursor) in &mut group.keys {
            if cursor.owner == Some(id.number) {
                cursor.owner = None;
                cursor.waiting = false;
                orphans.push(Arc::clone(key));
            }
        }
        orphans.sort_unstable();
        for key in orphans {
            group.schedule(&topic.keys, &key, now);
        }
    }

    pub(super) fn take(&mut self, id: &MemberId, now: Instant) -> Next {
        let Some(topic) = self.topics.get_mut(&id.topic) else {
            return Next::Wait(None);
        };
        let Some(group) = topic.groups.get_mut(&id.group) else {
            return Next::Wait(None);
        };
        let Some(member) = group.members.get_mut(&id.number) else {
            return Next::Wait(None);
        };
        let due = member.delayed.extract_if(.., |(at, _)| *at <= now);
        member.ready.extend(due.map(|(_, key)| key));
        while member.held < MAX_HELD
            && let Some(key) = member.ready.pop_front()
        {
            let Some(cursor) = group.keys.get_mut(&key) else {
                continue;
            };
            cursor.waiting = false;
            // Retention may have removed what the key waited with.
            let Some(number) = first_after(&topic.keys, &key, cursor.acked) else {
                continue;
            };
            cursor.in_flight = Some(number);
            member.held += 1;
            return Next::Take(Taken {
                redelivered: number <= cursor.handed_out,
                message: self.cache.get(&id.topic, number),
                key,
                number,
            });
        }
        Next::Wait(member.delayed.iter().map(|(at, _)| *at).min())
    }

    pub(super) fn handed_out(&mut self, id: &MemberId, key: &Arc<str>, number: u64) {
        if let Some(topic) = self.topics.get_mut(&id.topic)
            && let Some(group) = topic.groups.get_mut(&id.group)
            && let Some(cursor) = group.keys.get_mut(key)
        {
            cursor.handed_out = cursor.handed_out.max(number);
        }
    }

    pub(super) fn settle(
        &mut self,
        id: &MemberId,
        key: &Arc<str>,
        number: u64,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(topic) = self.topics.get_mut(&id.topic) else {
            return;
        };
        let Some(group) = topic.groups.get_mut(&id.group) else {
            return;
        };
        if let Some(member) = group.members.get_mut(&id.number) {
            member.held = member.held.saturating_sub(1);
            member.wake.notify_one();
        }
        let Some(cursor) = group.keys.get_mut(key) else {
            return;
        };
        cursor.in_flight = None;
        match outcome {
            Outcome::Done => {
                cursor.acked = cursor.acked.max(number);
                cursor.failures = 0;
                cursor.not_before = None;
                group.unwritten.insert(Arc::clone(key));
            }
            Outcome::GivenBack if number < topic.first_number => {
                cursor.failures = 0;
                if let Some((_, counters)) = &topic.rules {
                    counters.retention_removed_unread.inc();
                }
            }
            Outcome::GivenBack => {
                cursor.not_before =
                    Some(now + REDELIVERY_DELAY * 2_u32.pow(cursor.failures.min(5)));
                cursor.failures = cursor.failures.saturating_add(1);
            }
            Outcome::NotHandedOut => {}
        }
        group.schedule(&topic.keys, key, now);
        if !topic.keys.contains_key(key) {
            group.forget(key);
        }
    }

    pub(super) fn take_unwritten(&mut self, writes: &mut Vec<Write>) {
        for (name, topic) in &mut self.topics {
            for (group_name, group) in &mut topic.groups {
                if !group.stored {
                    group.stored = true;
                    writes.push(Write::Group {
                        topic: Arc::clone(name),
                        group: group_name.clone(),
                    });
                }
                for key in group.unwritten.drain() {
                    writes.push(match group.keys.get(&key) {
                        Some(cursor) => Write::Cursor {
                            topic: Arc::clone(name),
                            group: group_name.clone(),
                            number: cursor.acked,
                            key,
                        },
                        None => Write::ForgetKey {
                            topic: Arc::clone(name),
                            group: group_name.clone(),
                            key,
                        },
                    });
                }
            }
        }
    }

    /// Removes what is too old or too much, and counts what a group had not acknowledged. True when
    /// there is more than [`MAX_REMOVALS`].
    pub(super) fn retain(&mut self, now_unix_nanos: i64, writes: &mut Vec<Write>) -> bool {
        let mut left = MAX_REMOVALS;
        for (name, topic) in &mut self.topics {
            let Some((retention, counters)) = topic.rules.clone() else {
                continue;
            };
            let max_age = i64::try_from(retention.max_age.as_nanos()).unwrap_or(i64::MAX);
            let oldest = now_unix_nanos.saturating_sub(max_age);
            while let Some(front) = topic.entries.front()
                && (topic.bytes > retention.max_bytes || front.stored_unix_nanos < oldest)
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let number = topic.first_number;
                let Some(removed) = topic.remove_first() else {
                    break;
                };
                let unread = topic.groups.values().filter(|group| {
                    let cursor = group.keys.get(&removed.key);
                    cursor.is_none_or(|cursor| {
                        cursor.acked < number && cursor.in_flight != Some(number)
                    })
                });
                counters
                    .retention_removed_unread
                    .inc_by(unread.count() as u64);
                if !topic.keys.contains_key(&removed.key) {
                    for group in topic.groups.values_mut() {
                        group.forget(&removed.key);
                    }
                }
                self.cache.remove(name, number);
                writes.push(Write::Remove {
                    topic: Arc::clone(name),
                    number,
                    payload_bytes: removed.payload_bytes,
                });
            }
        }
        false
    }

    pub(super) fn wake_all(&self) {
        let groups = self.topics.values().flat_map(|topic| topic.groups.values());
        for member in groups.flat_map(|group| group.members.values()) {
            member.wake.notify_one();
        }
    }
}

impl Topic {
    fn insert(
        &mut self,
        number: u64,
        key: &str,
        message_id: &str,
        stored_unix_nanos: i64,
        payload_bytes: u64,
    ) -> Arc<str> {
        if self.entries.is_empty() {
            self.first_number = number;
        }
        let message_id: Arc<str> = Arc::from(message_id);
        let key = match self.keys.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        self.ids.insert(Arc::clone(&message_id));
        self.keys
            .entry(Arc::clone(&key))
            .or_default()
            .push_back(number);
        self.bytes += payload_bytes + MESSAGE_OVERHEAD_BYTES;
        self.last_number = number;
        self.entries.push_back(Entry {
            key: Arc::clone(&key),
            message_id,
            stored_unix_nanos,
            payload_bytes,
        });
        key
    }

    fn remove_first(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first_number += 1;
        self.bytes -= entry.payload_bytes + MESSAGE_OVERHEAD_BYTES;
        self.ids.remove(&entry.message_id);
        if let Some(numbers) = self.keys.get_mut(&entry.key) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.keys.remove(&entry.key);
            }
        }
        Some(entry)
    }
}

impl Group {
    /// Puts a key that has something to deliver at its owner, choosing one where it has none.
    fn schedule(&mut self, keys: &HashMap<Arc<str>, VecDeque<u64>>, key: &Arc<str>, now: Instant) {
        let cursor = self.keys.entry(Arc::clone(key)).or_default();
        if cursor.waiting || cursor.in_flight.is_some() {
            return;
        }
        if first_after(keys, key, cursor.acked).is_none() {
            return;
        }
        let owner = cursor.owner.or_else(|| {
            let fewest = self.members.iter().min_by_key(|(_, member)| member.keys);
            fewest.map(|(number, _)| *number)
        });
        let Some((owner, member)) =
            owner.and_then(|owner| Some((owner, self.members.get_mut(&owner)?)))
        else {
            return;
        };
        if cursor.owner.is_none() {
            cursor.owner = Some(owner);
            member.keys += 1;
        }
        cursor.waiting = true;
        match cursor.not_before.filter(|at| *at > now) {
            Some(at) => member.delayed.push((at, Arc::clone(key))),
            None => member.ready.push_back(Arc::clone(key)),
        }
        member.wake.notify_one();
    }

    /// Forgets a key without messages, unless one of it is still in flight.
    fn forget(&mut self, key: &Arc<str>) {
        let Some(cursor) = self.keys.get(key) else {
            return;
        };
        if cursor.in_flight.is_some() {
            return;
        }
        if let Some(member) = cursor.owner.and_then(|owner| self.members.get_mut(&owner)) {
            member.keys = member.keys.saturating_sub(1);
            member.ready.retain(|waiting| waiting != key);
            member.delayed.retain(|(_, waiting)| waiting != key);
        }
        self.keys.remove(key);
        self.unwritten.insert(Arc::clone(key));
    }
}

impl Cache {
    fn insert(&mut self, topic: &Arc<str>, number: u64, message: RawMessage) {
        let id = (Arc::clone(topic), number);
        self.bytes += cached_bytes(&message);
        self.order.push_back(id.clone());
        self.messages.insert(id, message);
        while self.bytes > CACHE_BYTES
            && let Some((topic, number)) = self.order.pop_front()
        {
            self.remove(&topic, number);
        }
        // Removed messages leave their place in the order behind; without this a journal of tiny
        // messages would collect them.
        if self.order.len() > 2 * self.messages.len() + 64 {
            let messages = &self.messages;
            self.order.retain(|id| messages.contains_key(id));
        }
    }

    fn get(&self, topic: &Arc<str>, number: u64) -> Option<RawMessage> {
        self.messages.get(&(Arc::clone(topic), number)).cloned()
    }

    fn remove(&mut self, topic: &Arc<str>, number: u64) {
        if let Some(message) = self.messages.remove(&(Arc::clone(topic), number)) {
            self.bytes -= cached_bytes(&message);
        }
    }
}

fn cached_bytes(message: &RawMessage) -> usize {
    message.payload.len() + MESSAGE_OVERHEAD_BYTES as usize
}

fn first_after(keys: &HashMap<Arc<str>, VecDeque<u64>>, key: &str, acked: u64) -> Option<u64> {
    let numbers = keys.get(key)?;
    numbers
        .get(numbers.partition_point(|number| *number <= acked))
        .copied()
}

#[cfg(test)]
mod tests;
