use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::transport::Headers;

const PATTERN: &str = "test.*.index";
const GROUP: &str = "readers";
const KEEP_READ: Duration = Duration::from_secs(1000);

/// An index with one topic, and a clock that only a test moves.
struct Rig {
    index: Index,
    topic: Arc<str>,
    now: Instant,
}

impl Rig {
    fn new(max_bytes: u64) -> Self {
        let mut index = Index::default();
        let topic = index.use_topic(&DurableSpec {
            pattern: PATTERN,
            retention: Retention {
                keep_read: KEEP_READ,
                max_bytes,
            },
            counters: Arc::default(),
        });
        Self {
            index,
            topic,
            now: Instant::now(),
        }
    }

    fn append(&mut self, key: &str) -> u64 {
        let number = self.index.next_number(PATTERN);
        let message = RawMessage {
            subject: key.into(),
            headers: Headers {
                message_id: number.to_string(),
                ..Headers::default()
            },
            payload: Bytes::new(),
        };
        self.index
            .add_message(&self.topic, number, key, message, self.now);
        number
    }

    fn join(&mut self) -> MemberId {
        self.index.join(&self.topic.clone(), GROUP, self.now).0
    }

    fn take(&mut self, member: &MemberId) -> Option<Taken> {
        match self.index.take(member, self.now) {
            Next::Take(taken) => {
                self.index.handed_out(member, &taken.key, taken.number);
                Some(taken)
            }
            Next::Wait(_) => None,
        }
    }

    fn settle(&mut self, member: &MemberId, taken: &Taken, outcome: Outcome) {
        self.index
            .settle(member, &taken.key, taken.number, outcome, self.now);
    }

    fn retain(&mut self) -> usize {
        let mut writes = Vec::new();
        self.index.retain(self.now, &mut writes);
        writes.len()
    }

    /// Reads and acknowledges as many of a member's messages.
    fn read(&mut self, member: &MemberId, messages: usize) {
        for _ in 0..messages {
            let taken = self.take(member).unwrap();
            self.settle(member, &taken, Outcome::Done);
        }
    }

    fn is_full(&self) -> bool {
        self.index.is_full(PATTERN, 0, 0).is_some()
    }
}

#[test]
fn new_keys_go_to_the_member_with_the_fewest() {
    let mut rig = Rig::new(u64::MAX);
    let members = [rig.join(), rig.join(), rig.join()];
    for number in 0..9 {
        rig.append(&format!("k{number}"));
    }
    for member in &members {
        let taken = std::iter::from_fn(|| rig.take(member)).count();
        assert_eq!(taken, 3);
    }
}

#[test]
fn a_key_in_flight_moves_only_when_its_delivery_ended() {
    let mut rig = Rig::new(u64::MAX);
    let leaver = rig.join();
    rig.append("a");
    rig.append("a");
    let held = rig.take(&leaver).unwrap();
    let heir = rig.join();
    rig.index.leave(&leaver, rig.now);
    assert!(rig.take(&heir).is_none());
    rig.settle(&leaver, &held, Outcome::Done);
    assert_eq!(rig.take(&heir).unwrap().number, 2);
}

#[test]
fn what_was_given_back_waits_longer_each_time_and_what_was_not_seen_does_not() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    rig.append("a");
    let taken = rig.take(&member).unwrap();
    assert!(!taken.redelivered);
    rig.settle(&member, &taken, Outcome::NotHandedOut);
    let taken = rig.take(&member).unwrap();
    for delay in [REDELIVERY_DELAY, REDELIVERY_DELAY * 2] {
        rig.settle(&member, &taken, Outcome::GivenBack);
        rig.now += delay - Duration::from_millis(1);
        assert!(rig.take(&member).is_none());
        rig.now += Duration::from_millis(1);
        assert!(rig.take(&member).unwrap().redelivered);
    }
}

#[test]
fn a_member_at_its_bound_gets_more_after_an_acknowledgement() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    for number in 0..=MAX_HELD {
        rig.append(&format!("k{number}"));
    }
    let held: Vec<_> = std::iter::from_fn(|| rig.take(&member)).collect();
    assert_eq!(held.len(), MAX_HELD);
    rig.settle(&member, &held[0], Outcome::Done);
    assert!(rig.take(&member).is_some());
}

#[test]
fn only_what_every_group_has_read_is_removed_a_while_after_that() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    let (other, _) = rig.index.join(&rig.topic.clone(), "others", rig.now);
    for _ in 0..4 {
        rig.append("a");
    }
    rig.read(&member, 3);
    rig.now += 2 * KEEP_READ;
    assert_eq!(rig.retain(), 0, "the other group has read nothing");
    rig.read(&other, 2);
    assert_eq!(
        rig.retain(),
        0,
        "the time begins when the last group has read it"
    );
    rig.now += KEEP_READ;
    assert_eq!(rig.retain(), 2);
    assert_eq!(rig.take(&other).unwrap().number, 3);
    assert_eq!(rig.take(&member).unwrap().number, 4);
}

#[test]
fn what_nobody_reads_is_kept_for_a_group_that_comes_and_goes_after_its_time() {
    let mut rig = Rig::new(u64::MAX);
    rig.append("a");
    rig.now += KEEP_READ;
    rig.append("a");
    assert_eq!(rig.retain(), 1);
    let member = rig.join();
    rig.now += KEEP_READ;
    assert_eq!(rig.retain(), 0, "it has a reader now");
    rig.read(&member, 1);
}

#[test]
fn a_key_without_messages_is_forgotten_with_its_cursor() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    rig.append("a");
    rig.read(&member, 1);
    rig.now += KEEP_READ;
    rig.retain();
    let mut writes = Vec::new();
    rig.index.take_unwritten(&mut writes);
    assert!(
        writes
            .iter()
            .any(|write| matches!(write, Write::ForgetKey { .. }))
    );
    let number = rig.append("a");
    assert_eq!(rig.take(&member).unwrap().number, number);
}

#[test]
fn where_there_is_no_room_what_was_read_goes_first_and_then_nothing_comes() {
    let mut rig = Rig::new(10 * MESSAGE_OVERHEAD_BYTES);
    let member = rig.join();
    for number in 0..10 {
        assert!(!rig.is_full(), "{number}");
        rig.append(if number % 2 == 0 { "a" } else { "b" });
    }
    assert!(rig.is_full());
    assert_eq!(rig.retain(), 0);
    rig.read(&member, 3);
    assert!(!rig.is_full());
    rig.append("a");
    assert_eq!(rig.retain(), 1, "no more than has to");
    assert!(!rig.is_full());
}

#[test]
fn a_group_that_starts_again_gets_all_that_is_kept() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    for _ in 0..3 {
        rig.append("a");
    }
    rig.read(&member, 2);
    let topic = Arc::clone(&rig.topic);
    assert!(!rig.index.rewind(&topic, GROUP, rig.now), "it has a member");
    rig.index.leave(&member, rig.now);
    assert!(rig.index.rewind(&topic, GROUP, rig.now));
    rig.now += KEEP_READ;
    assert_eq!(rig.retain(), 0);
    let member = rig.join();
    rig.read(&member, 3);
}

#[test]
fn retention_removes_no_more_at_once_than_its_bound() {
    let mut rig = Rig::new(u64::MAX);
    for _ in 0..MAX_REMOVALS + 5 {
        rig.append("a");
    }
    rig.now += KEEP_READ;
    let mut writes = Vec::new();
    assert!(rig.index.retain(rig.now, &mut writes));
    assert_eq!(writes.len(), MAX_REMOVALS);
    assert!(!rig.index.retain(rig.now, &mut writes));
    assert_eq!(writes.len(), MAX_REMOVALS + 5);
}

proptest! {
    /// Whatever members do: the messages of a key are done in order, one at a time, and each exactly
    /// once unless it was given back.
    #[test]
    fn no_key_is_split_skipped_or_repeated(
        steps in proptest::collection::vec((0u8..6, 0usize..4), 1..200),
    ) {
        let mut rig = Rig::new(u64::MAX);
        let mut members = vec![rig.join()];
        let mut held: Vec<(MemberId, Taken)> = Vec::new();
        let mut appended: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut done: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (action, choice) in steps {
            match action {
                0 | 1 => {
                    let key = format!("k{choice}");
                    let number = rig.append(&key);
                    appended.entry(key).or_default().push(number);
                }
                2 => {
                    if let Some(member) = members.get(choice).cloned()
                        && let Some(taken) = rig.take(&member)
                    {
                        prop_assert!(held.iter().all(|(_, other)| other.key != taken.key));
                        held.push((member, taken));
                    }
                }
                3 if !held.is_empty() => {
                    let (member, taken) = held.remove(choice % held.len());
                    rig.settle(&member, &taken, Outcome::Done);
                    done.entry(taken.key.to_string()).or_default().push(taken.number);
                }
                4 if !held.is_empty() => {
                    let (member, taken) = held.remove(choice % held.len());
                    rig.settle(&member, &taken, Outcome::GivenBack);
                    rig.now += Duration::from_secs(4);
                }
                5 if choice == 1 => {
                    rig.now += KEEP_READ;
                    rig.retain();
                }
                5 if choice == 0 && !members.is_empty() => {
                    rig.index.leave(&members.remove(0), rig.now);
                }
                _ if members.len() < 4 => members.push(rig.join()),
                _ => {}
            }
        }
        for (member, taken) in held {
            rig.settle(&member, &taken, Outcome::NotHandedOut);
        }
        for member in members {
            rig.index.leave(&member, rig.now);
        }
        let last = rig.join();
        rig.now += Duration::from_secs(4);
        while let Some(taken) = rig.take(&last) {
            rig.settle(&last, &taken, Outcome::Done);
            done.entry(taken.key.to_string()).or_default().push(taken.number);
        }
        prop_assert_eq!(done, appended);
    }
}

#[test]
fn the_cache_forgets_the_oldest_and_stays_bounded() {
    let mut cache = Cache::default();
    let topic: Arc<str> = PATTERN.into();
    let body = Bytes::from(vec![0; CACHE_BYTES / 8 - MESSAGE_OVERHEAD_BYTES as usize]);
    for number in 0..20 {
        cache.insert(
            &topic,
            number,
            RawMessage {
                subject: "s".into(),
                headers: Headers::default(),
                payload: body.clone(),
            },
        );
    }
    let kept: BTreeSet<u64> = (0..20)
        .filter(|number| cache.get(&topic, *number).is_some())
        .collect();
    assert_eq!(kept, (12..20).collect());
    (0..20).for_each(|number| cache.remove(&topic, number));
    assert_eq!(cache.bytes, 0);
    // Messages without a body take room too.
    let most = CACHE_BYTES / MESSAGE_OVERHEAD_BYTES as usize;
    for number in 0..2 * most as u64 {
        let empty = RawMessage {
            subject: "s".into(),
            headers: Headers::default(),
            payload: Bytes::new(),
        };
        cache.insert(&topic, number, empty);
    }
    assert_eq!(cache.messages.len(), most);
}
