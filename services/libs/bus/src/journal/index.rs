//! What the journal knows without its file: which messages are retained, who is in a group, which key
//! is whose, and what may be delivered next. Pure: takes the time, touches nothing.
//!
//! A key of a group is in one of three places: nowhere (nothing to deliver, or no member), waiting at
//! its owner (ready, or delayed after it was given back), or in flight. So at most one message of it is
//! unacknowledged.
//!
//! A message is finished when every group has acknowledged it. Only what is finished is removed, in the order
//! in which it finished, so of each key the oldest first.

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
    /// Retained messages by number.
    entries: BTreeMap<u64, Entry>,
    bytes: u64,
    /// Numbers of the finished messages, with the time when each did.
    finished: VecDeque<(Instant, u64)>,
    finished_bytes: u64,
    ids: HashSet<Arc<str>>,
    keys: HashMap<Arc<str>, Numbers>,
    groups: HashMap<String, Group>,
}

struct Entry {
    key: Arc<str>,
    message_id: Arc<str>,
    payload_bytes: u64,
}

/// The retained messages of a key.
#[derive(Default)]
struct Numbers {
    all: VecDeque<u64>,
    /// The last that finished, 0 before the first.
    finished: u64,
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
        let topic = self.topics.entry(Arc::clone(&name)).or_default();
        (name, topic)
    }

    pub(super) fn restore_number(&mut self, topic: &str, last_number: u64) {
        let (_, topic) = self.topic(topic);
        topic.last_number = last_number;
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
        payload_bytes: u64,
    ) {
        let (_, topic) = self.topic(topic);
        topic.insert(number, key, message_id, payload_bytes);
        // What was acknowledged just before the process ended may not have been written: all that is
        // there may have been delivered.
        for group in topic.groups.values_mut() {
            let cursor = group.keys.entry(Arc::from(key)).or_default();
            cursor.handed_out = cursor.handed_out.max(number);
        }
    }

    /// Everything is restored.
    pub(super) fn restored(&mut self, now: Instant) {
        for topic in self.topics.values_mut() {
            topic.find_finished(now);
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

    /// The most that `topic` may take, when it has no room for a message of `payload_bytes` beside `waiting` bytes
    /// that are about to be added.
    pub(super) fn is_full(&self, topic: &str, waiting: u64, payload_bytes: u64) -> Option<u64> {
        let topic = self.topics.get(topic)?;
        let (retention, _) = topic.rules.as_ref()?;
        let unread = topic.bytes - topic.finished_bytes;
        let wanted = unread + waiting + stored_bytes(payload_bytes);
        (wanted > retention.max_bytes).then_some(retention.max_bytes)
    }

    pub(super) fn add_message(
        &mut self,
        name: &Arc<str>,
        number: u64,
        key: &str,
        message: RawMessage,
        now: Instant,
    ) {
        let (_, topic) = self.topic(name);
        let key = topic.insert(
            number,
            key,
            &message.headers.message_id,
            message.payload.len() as u64,
        );
        for group in topic.groups.values_mut() {
            group.schedule(&topic.keys, &key, now);
        }
        topic.finish(&key, now);
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
        let is_new = !topic.groups.contains_key(group);
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
            .filter_map(|(key, numbers)| Some((*numbers.all.front()?, Arc::clone(key))))
            .collect();
        keys.sort_unstable();
        for (_, key) in keys {
            members.schedule(&topic.keys, &key, now);
        }
        if is_new {
            topic.find_finished(now);
        }
        let id = MemberId {
            topic: Arc::clone(name),
            group: group.to_owned(),
            number,
        };
        (id, wake)
    }

    /// Lets a group without members start again; false when it has some.
    pub(super) fn rewind(&mut self, name: &Arc<str>, group: &str, now: Instant) -> bool {
        let (_, topic) = self.topic(name);
        if let Some(group) = topic.groups.get_mut(group) {
            if !group.members.is_empty() {
                return false;
            }
            let keys = std::mem::take(&mut group.keys);
            group.unwritten.extend(keys.into_keys());
            topic.find_finished(now);
        }
        true
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
            // Another member may have acknowledged what the key waited with.
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
            Outcome::GivenBack => {
                cursor.not_before =
                    Some(now + REDELIVERY_DELAY * 2_u32.pow(cursor.failures.min(5)));
                cursor.failures = cursor.failures.saturating_add(1);
            }
            Outcome::NotHandedOut => {}
        }
        group.schedule(&topic.keys, key, now);
        topic.finish(key, now);
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

    /// Removes what finished long enough ago, and more of it where the topic takes too much. True when there is more
    /// than [`MAX_REMOVALS`].
    pub(super) fn retain(&mut self, now: Instant, writes: &mut Vec<Write>) -> bool {
        let mut left = MAX_REMOVALS;
        for (name, topic) in &mut self.topics {
            let Some((retention, _)) = topic.rules else {
                continue;
            };
            while let Some((at, number)) = topic.finished.front().copied()
                && (topic.bytes > retention.max_bytes
                    || now.saturating_duration_since(at) >= retention.keep_read)
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let Some(payload_bytes) = topic.remove_first_finished() else {
                    break;
                };
                self.cache.remove(name, number);
                writes.push(Write::Remove {
                    topic: Arc::clone(name),
                    number,
                    payload_bytes,
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
    fn insert(&mut self, number: u64, key: &str, message_id: &str, payload_bytes: u64) -> Arc<str> {
        let message_id: Arc<str> = Arc::from(message_id);
        let key = match self.keys.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        self.ids.insert(Arc::clone(&message_id));
        let numbers = self.keys.entry(Arc::clone(&key)).or_default();
        numbers.all.push_back(number);
        self.bytes += stored_bytes(payload_bytes);
        self.last_number = self.last_number.max(number);
        let entry = Entry {
            key: Arc::clone(&key),
            message_id,
            payload_bytes,
        };
        self.entries.insert(number, entry);
        key
    }

    /// Notes which messages of a key finished.
    fn finish(&mut self, key: &Arc<str>, now: Instant) {
        let Some(numbers) = self.keys.get_mut(key) else {
            return;
        };
        let acked = |group: &Group| group.keys.get(key).map_or(0, |cursor| cursor.acked);
        // What no group reads is finished as it comes.
        let acked = self.groups.values().map(acked).min().unwrap_or(u64::MAX);
        let first = numbers
            .all
            .partition_point(|number| *number <= numbers.finished);
        for &number in numbers.all.range(first..) {
            if number > acked {
                break;
            }
            numbers.finished = number;
            self.finished.push_back((now, number));
            if let Some(entry) = self.entries.get(&number) {
                self.finished_bytes += stored_bytes(entry.payload_bytes);
            }
        }
    }

    /// Looks anew which messages are finished: a group came, or starts again.
    fn find_finished(&mut self, now: Instant) {
        self.finished.clear();
        self.finished_bytes = 0;
        for numbers in self.keys.values_mut() {
            numbers.finished = 0;
        }
        let keys: Vec<_> = self.keys.keys().cloned().collect();
        for key in keys {
            self.finish(&key, now);
        }
        self.finished.make_contiguous().sort_unstable();
    }

    /// Bytes of its payload; `None` where nothing is finished.
    fn remove_first_finished(&mut self) -> Option<u64> {
        let (_, number) = self.finished.pop_front()?;
        let entry = self.entries.remove(&number)?;
        self.bytes -= stored_bytes(entry.payload_bytes);
        self.finished_bytes -= stored_bytes(entry.payload_bytes);
        self.ids.remove(&entry.message_id);
        if let Some(numbers) = self.keys.get_mut(&entry.key) {
            numbers.all.pop_front();
            if numbers.all.is_empty() {
                self.keys.remove(&entry.key);
                for group in self.groups.values_mut() {
                    group.forget(&entry.key);
                }
            }
        }
        Some(entry.payload_bytes)
    }
}

impl Group {
    /// Puts a key that has something to deliver at its owner, choosing one where it has none.
    fn schedule(&mut self, keys: &HashMap<Arc<str>, Numbers>, key: &Arc<str>, now: Instant) {
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

    /// Forgets a key without messages.
    fn forget(&mut self, key: &Arc<str>) {
        let Some(cursor) = self.keys.get(key) else {
            return;
        };
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

/// What a message counts as in the bytes of its topic.
pub(super) fn stored_bytes(payload_bytes: u64) -> u64 {
    payload_bytes + MESSAGE_OVERHEAD_BYTES
}

fn first_after(keys: &HashMap<Arc<str>, Numbers>, key: &str, acked: u64) -> Option<u64> {
    let numbers = &keys.get(key)?.all;
    numbers
        .get(numbers.partition_point(|number| *number <= acked))
        .copied()
}

#[cfg(test)]
mod tests;
