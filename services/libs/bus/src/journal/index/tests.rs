use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::transport::Headers;

const PATTERN: &str = "test.*.index";
const GROUP: &str = "readers";

/// An index with one topic, and a clock that only a test moves.
struct Rig {
    index: Index,
    topic: Arc<str>,
    counters: Arc<TopicCounters>,
    now: Instant,
}

impl Rig {
    fn new(max_bytes: u64) -> Self {
        let counters = Arc::<TopicCounters>::default();
        let mut index = Index::default();
        let topic = index.use_topic(&DurableSpec {
            pattern: PATTERN,
            retention: Retention {
                max_age: Duration::from_nanos(1000),
                max_bytes,
            },
            counters: Arc::clone(&counters),
        });
        Self {
            index,
            topic,
            counters,
            now: Instant::now(),
        }
    }

    fn append(&mut self, key: &str, stored_unix_nanos: i64) -> u64 {
        let number = self.index.next_number(PATTERN);
        let message = RawMessage {
            subject: key.into(),
            headers: Headers {
                message_id: number.to_string(),
                ..Headers::default()
            },
            payload: Bytes::new(),
        };
        self.index.add_message(
            &self.topic,
            number,
            key,
            stored_unix_nanos,
            message,
            self.now,
        );
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

    fn retain(&mut self, now_unix_nanos: i64) -> usize {
        let mut writes = Vec::new();
        self.index.retain(now_unix_nanos, &mut writes);
        writes.len()
    }

    fn unread(&self) -> u64 {
        self.counters.retention_removed_unread.get()
    }
}

#[test]
fn new_keys_go_to_the_member_with_the_fewest() {
    let mut rig = Rig::new(u64::MAX);
    let members = [rig.join(), rig.join(), rig.join()];
    for number in 0..9 {
        rig.append(&format!("k{number}"), 0);
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
    rig.append("a", 0);
    rig.append("a", 0);
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
    rig.append("a", 0);
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
        rig.append(&format!("k{number}"), 0);
    }
    let held: Vec<_> = std::iter::from_fn(|| rig.take(&member)).collect();
    assert_eq!(held.len(), MAX_HELD);
    rig.settle(&member, &held[0], Outcome::Done);
    assert!(rig.take(&member).is_some());
}

#[test]
fn retention_counts_what_a_group_did_not_have_in_hand() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    for stored in 0..4 {
        rig.append("a", stored);
    }
    let done = rig.take(&member).unwrap();
    rig.settle(&member, &done, Outcome::Done);
    let held = rig.take(&member).unwrap();
    assert_eq!(rig.retain(1003), 3);
    // One was done, one is in hand, one was never read.
    assert_eq!(rig.unread(), 1);
    rig.settle(&member, &held, Outcome::GivenBack);
    assert_eq!(rig.unread(), 2);
    assert_eq!(rig.take(&member).unwrap().number, 4);
}

#[test]
fn a_key_without_messages_is_forgotten_with_its_cursor() {
    let mut rig = Rig::new(u64::MAX);
    let member = rig.join();
    rig.append("a", 0);
    let taken = rig.take(&member).unwrap();
    rig.settle(&member, &taken, Outcome::Done);
    rig.retain(2000);
    let mut writes = Vec::new();
    rig.index.take_unwritten(&mut writes);
    assert!(
        writes
            .iter()
            .any(|write| matches!(write, Write::ForgetKey { .. }))
    );
    assert_eq!(rig.unread(), 0);
    let number = rig.append("a", 2000);
    assert_eq!(rig.take(&member).unwrap().number, number);
}

#[test]
fn bytes_include_the_bookkeeping_so_that_empty_messages_are_bounded() {
    let mut rig = Rig::new(10 * MESSAGE_OVERHEAD_BYTES);
    for _ in 0..25 {
        rig.append("a", 0);
    }
    assert_eq!(rig.retain(0), 15);
}

#[test]
fn retention_removes_no_more_at_once_than_its_bound() {
    let mut rig = Rig::new(u64::MAX);
    for _ in 0..MAX_REMOVALS + 5 {
        rig.append("a", 0);
    }
    let mut writes = Vec::new();
    assert!(rig.index.retain(2000, &mut writes));
    assert_eq!(writes.len(), MAX_REMOVALS);
    assert!(!rig.index.retain(2000, &mut writes));
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
        let mut members: Vec<MemberId> = Vec::new();
        let mut held: Vec<(MemberId, Taken)> = Vec::new();
        let mut appended: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut done: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (action, choice) in steps {
            match action {
                0 | 1 => {
                    let key = format!("k{choice}");
                    let number = rig.append(&key, 0);
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
