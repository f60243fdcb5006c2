//! The contract of the bus as a suite: one function a clause, run by every transport.
//!
//! A transport implements [`Stage`] and names it in [`contract_tests!`](crate::contract_tests), which
//! makes one test of every clause. A clause panics where the transport breaks it. Each test gets a stage
//! of its own, so clauses may use the same subjects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

use crate::{
    Appended, Bus, Class, Consumer, Delivery, DurableTopic, Key, LiveTopic, Mailbox, PublishError,
    Retention, Retentions, Select, SubscribeError,
};

/// A deployment of one transport that a clause may do anything to.
pub trait Stage: Send + Sync {
    /// The bus of one more process, or of the only one where the transport lives in a process.
    fn bus(&self) -> impl Future<Output = Bus> + Send;

    /// Ends everything that can crash without a farewell, and starts it again. `bus` is the last handle.
    fn crash(&self, bus: Bus) -> impl Future<Output = Bus> + Send;
}

/// Makes a test of every clause; `$stage` is an expression for a new [`contract::Stage`](Stage), and may
/// `await`.
#[macro_export]
macro_rules! contract_tests {
    ($stage:expr) => {
        $crate::contract_tests! { @each $stage;
            a_live_event_arrives_at_most_once,
            live_events_of_a_subject_arrive_in_order,
            a_publisher_never_waits_for_a_subscriber,
            sent_is_delivered_plus_replaced_plus_dropped,
            a_payload_above_the_limit_is_refused_by_name,
            a_message_that_does_not_decode_is_counted_and_skipped,
            headers_carry_node_message_and_trace,
            what_is_published_after_subscribe_is_seen,
            a_subscription_sees_only_what_it_selected,
            what_append_acknowledged_survives_a_crash,
            many_appends_share_the_way_to_disk,
            messages_of_a_key_come_in_order_one_at_a_time,
            a_key_may_be_any_of_its_alphabet,
            a_delivery_that_is_given_back_comes_again,
            other_keys_flow_while_a_delivery_is_held,
            a_key_that_is_given_back_again_and_again_does_not_stop_the_others,
            a_topic_without_keys_is_one_ordered_queue,
            groups_do_not_share_and_a_new_one_starts_with_the_oldest,
            members_share_keys_without_loss_or_repetition,
            a_key_moves_only_when_its_member_is_gone,
            a_message_id_is_stored_once,
            a_consumer_resumes_after_a_crash_of_either_side,
            what_every_group_has_read_goes_after_its_time_and_nothing_else,
            a_full_topic_refuses_and_takes_more_once_it_was_read,
            a_group_that_is_rewound_starts_with_the_oldest,
            a_closed_bus_ends_its_readers_and_refuses_writers,
        }
    };
    (@each $stage:expr; $($clause:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                $crate::contract::$clause(&$stage).await;
            }
        )*
    };
}

/// A number and some bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Probe {
    /// What a clause counts with.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// What makes it large.
    #[prost(bytes = "bytes", tag = "2")]
    pub body: bytes::Bytes,
}

/// Does not decode as a [`Probe`]: field 1 has another type.
#[derive(Clone, PartialEq, prost::Message)]
struct Foreign {
    #[prost(string, tag = "1")]
    text: String,
}

/// Longest time that anything may take: after a crash a partition rests until its member
/// counts as gone.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a clause watches that something does not happen.
const QUIET: Duration = Duration::from_millis(600);

const LIVE: LiveTopic<Probe> = LiveTopic::new("contract.*.live", 4);
const LIVE_LARGE: LiveTopic<Probe> = LiveTopic::new("contract.*.live", 20_000);
const LIVE_FOREIGN: LiveTopic<Foreign> = LiveTopic::new("contract.*.live", 4);
const LIVE_KEYLESS: LiveTopic<Probe> = LiveTopic::new("contract.keyless", 16);
const DURABLE: DurableTopic<Probe> = DurableTopic::new("contract.*.durable", Class::Records);
const DURABLE_FOREIGN: DurableTopic<Foreign> =
    DurableTopic::new("contract.*.durable", Class::Records);
const DURABLE_KEYLESS: DurableTopic<Probe> = DurableTopic::new("contract.stored", Class::Records);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// (1) A live event is delivered at most once, and without pressure exactly once.
pub async fn a_live_event_arrives_at_most_once(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut mailbox = subscribe(&bus, LIVE_LARGE, Select::All).await;
    for number in 0..500 {
        publish(&bus, LIVE_LARGE, "a", probe(number)).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        assert!(
            seen.insert(receive(&mut mailbox).await),
            "an event came twice"
        );
    }
    nothing(mailbox.recv(), "an event came twice").await;
}

/// (2) Events of one publisher and one subject arrive in the order of publishing.
pub async fn live_events_of_a_subject_arrive_in_order(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut mailbox = subscribe(&bus, LIVE_LARGE, Select::All).await;
    for number in 0..1000 {
        publish(
            &bus,
            LIVE_LARGE,
            if number % 3 == 0 { "a" } else { "b" },
            probe(number),
        )
        .await;
    }
    let mut last = BTreeMap::new();
    for _ in 0..1000 {
        let event = within("an event", mailbox.recv())
            .await
            .expect("the bus is open");
        let number = event.message.number;
        let before = last.insert(event.key, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{before:?} before {number}"
        );
    }
}

/// (3) A publisher is not slowed by a subscriber that does not read.
pub async fn a_publisher_never_waits_for_a_subscriber(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mailbox = subscribe(&bus, LIVE, Select::All).await;
    within("publishing to a reader that sleeps", async {
        for number in 0..5_000 {
            publish(&bus, LIVE, "a", sized_probe(number, 1024)).await;
        }
    })
    .await;
    until("all arrived", || mailbox.received() == 5_000).await;
    assert_eq!((mailbox.replaced(), mailbox.dropped()), (5_000 - 4, 0));
}

/// (4) A mailbox keeps the newest of each subject: sent = delivered + replaced + dropped, exactly,
/// and what was replaced is not called lost.
pub async fn sent_is_delivered_plus_replaced_plus_dropped(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut mailbox = subscribe(&bus, LIVE, Select::All).await;
    for number in 0..300 {
        for name in ["a", "b", "c"] {
            publish(&bus, LIVE, name, probe(number)).await;
        }
    }
    publish(&bus, LIVE, "rare", probe(7)).await;
    until("all arrived", || mailbox.received() == 901).await;
    let mut delivered: BTreeMap<Option<Key>, Vec<u64>> = BTreeMap::new();
    for _ in 0..13 {
        let event = within("an event", mailbox.recv())
            .await
            .expect("the bus is open");
        delivered
            .entry(event.key)
            .or_default()
            .push(event.message.number);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(delivered[&Some(key(name))], [296, 297, 298, 299]);
    }
    assert_eq!(delivered[&Some(key("rare"))], [7]);
    assert_eq!((mailbox.replaced(), mailbox.dropped()), (901 - 13, 0));
    let counts = bus.metrics_snapshot()[LIVE.pattern()];
    assert_eq!((counts.published, counts.delivered), (901, 13));
    assert_eq!((counts.replaced, counts.dropped), (888, 0));
    nothing(mailbox.recv(), "more was kept than the mailbox holds").await;
}

/// (5) One payload limit, checked in `publish` and `append`, with an error that names it.
pub async fn a_payload_above_the_limit_is_refused_by_name(stage: &impl Stage) {
    let bus = stage.bus().await;
    let limit = bus.payload_limit();
    let mut mailbox = subscribe(&bus, LIVE, Select::All).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;

    let largest = probe_of_encoded_size(limit);
    publish(&bus, LIVE, "a", largest.clone()).await;
    append(&bus, "a", "largest", largest).await;
    let event = within("the largest event", mailbox.recv()).await;
    assert_eq!(event.expect("the bus is open").message.number, 1);
    let delivery = next(&mut consumer).await;
    assert_eq!(prost::Message::encoded_len(&delivery.message), limit);
    acknowledge(delivery).await;

    let larger = probe_of_encoded_size(limit + 1);
    let refusals = [
        bus.publish(&LIVE, Some(&key("a")), &larger).await.err(),
        bus.append(&DURABLE, Some(&key("a")), "larger", &larger)
            .await
            .err(),
    ];
    for error in refusals {
        let error = error.expect("a message above the limit is refused");
        assert!(
            matches!(error, PublishError::TooLarge { limit: named, size }
                if named == limit && size == limit + 1),
            "{error:?}"
        );
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
    }
}

/// (6) A message that does not decode is counted and skipped, live and durable.
pub async fn a_message_that_does_not_decode_is_counted_and_skipped(stage: &impl Stage) {
    let bus = stage.bus().await;
    let foreign = Foreign {
        text: "foreign".to_owned(),
    };
    let mut mailbox = subscribe(&bus, LIVE, Select::All).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for id in ["x", "y"] {
        let published = bus.publish(&LIVE_FOREIGN, Some(&key("a")), &foreign).await;
        published.expect("the bus carries any message");
        let appended = bus
            .append(&DURABLE_FOREIGN, Some(&key("a")), id, &foreign)
            .await;
        appended.expect("the bus carries any message");
    }
    publish(&bus, LIVE, "a", probe(5)).await;
    append(&bus, "a", "z", probe(6)).await;
    assert_eq!(receive(&mut mailbox).await, 5);
    assert_eq!(mailbox.undecodable(), 2);
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message.number, 6);
    acknowledge(delivery).await;
    let counts = bus.metrics_snapshot();
    assert_eq!(counts[LIVE.pattern()].undecodable, 2);
    assert_eq!(counts[DURABLE.pattern()].undecodable, 2);
}

/// (7) Headers carry node, message id and W3C trace context.
pub async fn headers_carry_node_message_and_trace(stage: &impl Stage) {
    let bus = stage.bus().await;
    let traced = bus.clone().with_trace(|| Some(TRACE.to_owned()));
    let mut mailbox = subscribe(&bus, LIVE, Select::All).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    publish(&traced, LIVE, "a", probe(1)).await;
    publish(&bus, LIVE, "a", probe(2)).await;
    append(&traced, "a", "the-id", probe(1)).await;

    let first = within("an event", mailbox.recv())
        .await
        .expect("the bus is open");
    let second = within("an event", mailbox.recv())
        .await
        .expect("the bus is open");
    assert_eq!(&*first.headers.node, bus.node());
    assert_eq!(first.headers.traceparent.as_deref(), Some(TRACE));
    assert_eq!(second.headers.traceparent, None);
    assert!(!first.headers.message_id.is_empty());
    assert_ne!(first.headers.message_id, second.headers.message_id);

    let delivery = next(&mut consumer).await;
    assert_eq!(&*delivery.headers.node, bus.node());
    assert_eq!(delivery.headers.message_id, "the-id");
    assert_eq!(delivery.headers.traceparent.as_deref(), Some(TRACE));
    assert_eq!(delivery.key, Some(key("a")));
    acknowledge(delivery).await;
}

/// (8) When `subscribe` returns, what any process publishes after is seen; what was before is not.
pub async fn what_is_published_after_subscribe_is_seen(stage: &impl Stage) {
    let (here, there) = (stage.bus().await, stage.bus().await);
    publish(&there, LIVE, "a", probe(999)).await;
    // The other process's event is out once it comes back to that process's own reader.
    let mut own = subscribe(&there, LIVE, Select::All).await;
    publish(&there, LIVE, "a", probe(998)).await;
    assert_eq!(receive(&mut own).await, 998);
    for number in 0..50 {
        let mut mailbox = subscribe(&here, LIVE, Select::All).await;
        publish(&there, LIVE, "a", probe(number)).await;
        assert_eq!(receive(&mut mailbox).await, number);
    }
}

/// A subscription to one key sees that key, and a topic without keys works like any other.
pub async fn a_subscription_sees_only_what_it_selected(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut mailbox = subscribe(&bus, LIVE, Select::Key(key("wanted"))).await;
    let mut keyless = subscribe(&bus, LIVE_KEYLESS, Select::All).await;
    publish(&bus, LIVE, "other", probe(1)).await;
    publish(&bus, LIVE, "wanted", probe(2)).await;
    let published = bus.publish(&LIVE_KEYLESS, None, &probe(3)).await;
    published.expect("a keyless topic takes no key");
    assert_eq!(receive(&mut mailbox).await, 2);
    let event = within("an event", keyless.recv())
        .await
        .expect("the bus is open");
    assert_eq!((event.message.number, event.key), (3, None));
    let refused = bus.publish(&LIVE, None, &probe(4)).await;
    assert!(
        matches!(refused, Err(PublishError::Subject(_))),
        "{refused:?}"
    );
    let refused = bus.subscribe(&LIVE_KEYLESS, Select::Key(key("a"))).await;
    assert!(matches!(refused.err(), Some(SubscribeError::Subject(_))));
}

/// (9) `append` returns only after the message is on disk.
pub async fn what_append_acknowledged_survives_a_crash(stage: &impl Stage) {
    let bus = stage.bus().await;
    for number in 0..40 {
        append(
            &bus,
            "a",
            &format!("id-{number}"),
            sized_probe(number, 10_000),
        )
        .await;
    }
    append(&bus, "b", "large", sized_probe(7, 3 << 20)).await;
    let bus = stage.crash(bus).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let mut seen = BTreeSet::new();
    for _ in 0..41 {
        let delivery = next(&mut consumer).await;
        let expected = if delivery.key == Some(key("b")) {
            3 << 20
        } else {
            10_000
        };
        assert_eq!(delivery.message.body.len(), expected);
        assert_eq!(
            delivery.message,
            sized_probe(delivery.message.number, expected)
        );
        seen.insert(delivery.headers.message_id.clone());
        acknowledge(delivery).await;
    }
    assert_eq!(seen.len(), 41);
}

/// (9) Concurrent appends are all stored, and each waits for far less than the sum of all.
pub async fn many_appends_share_the_way_to_disk(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut appends = JoinSet::new();
    for number in 0..500 {
        let bus = bus.clone();
        appends.spawn(async move {
            let name = format!("k{}", number % 7);
            append(&bus, &name, &format!("id-{number}"), probe(number)).await;
        });
    }
    within("concurrent appends", appends.join_all()).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let delivery = next(&mut consumer).await;
        assert!(seen.insert(delivery.message.number));
        acknowledge(delivery).await;
    }
}

/// (10) Messages of a key come in order, the next one only after the acknowledgement.
pub async fn messages_of_a_key_come_in_order_one_at_a_time(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for number in 0..20 {
        append(&bus, "a", &format!("id-{number}"), probe(number)).await;
    }
    for number in 0..20 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        assert!(!delivery.redelivered);
        if number == 3 {
            nothing(consumer.next(), "a second message of the key was in flight").await;
        }
        acknowledge(delivery).await;
    }
    nothing(consumer.next(), "an acknowledged message came again").await;
}

/// (10) A key is served whatever it is made of.
pub async fn a_key_may_be_any_of_its_alphabet(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let longest = "k".repeat(64);
    for name in ["-", "_", "key", "0", &longest] {
        append(&bus, name, &format!("id-{name}"), probe(1)).await;
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.key, Some(key(name)));
        acknowledge(delivery).await;
    }
    nothing(consumer.next(), "a message came twice").await;
}

/// (10) Until it is acknowledged a message comes again, before the next one of its key.
pub async fn a_delivery_that_is_given_back_comes_again(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    append(&bus, "a", "id-1", probe(1)).await;
    append(&bus, "a", "id-2", probe(2)).await;
    let delivery = next(&mut consumer).await;
    assert!(!delivery.redelivered);
    drop(delivery);
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.message.number, delivery.redelivered), (1, true));
    drop(delivery);
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.message.number, delivery.redelivered), (1, true));
    acknowledge(delivery).await;
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.message.number, delivery.redelivered), (2, false));
    acknowledge(delivery).await;
}

/// (10) A member may hold deliveries of several keys; a held one stops only its own key.
pub async fn other_keys_flow_while_a_delivery_is_held(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for name in ["a", "b", "c"] {
        for number in 0..3 {
            append(&bus, name, &format!("{name}-{number}"), probe(number)).await;
        }
    }
    let mut held = BTreeMap::new();
    for _ in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, 0);
        assert!(held.insert(delivery.key.clone(), delivery).is_none());
    }
    let free = held
        .remove(&Some(key("b")))
        .expect("every key was delivered");
    acknowledge(free).await;
    for number in 1..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(
            (delivery.key.clone(), delivery.message.number),
            (Some(key("b")), number)
        );
        acknowledge(delivery).await;
    }
    nothing(consumer.next(), "a held key went on").await;
    for (_, delivery) in held {
        acknowledge(delivery).await;
    }
    for _ in 0..4 {
        acknowledge(next(&mut consumer).await).await;
    }
}

/// (10) What is given back again and again lets the other keys go on, those of its partition too.
pub async fn a_key_that_is_given_back_again_and_again_does_not_stop_the_others(stage: &impl Stage) {
    // More than a transport has partitions.
    const OTHERS: u64 = 130;
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    append(&bus, "refused", "refused", probe(0)).await;
    for number in 0..OTHERS {
        let name = format!("k{number}");
        append(&bus, &name, &name, probe(number)).await;
    }
    let refused = Some(key("refused"));
    let mut done = BTreeSet::new();
    within("the other keys", async {
        while (done.len() as u64) < OTHERS {
            let delivery = next(&mut consumer).await;
            if delivery.key != refused {
                assert!(done.insert(delivery.message.number), "done twice");
                acknowledge(delivery).await;
            }
        }
    })
    .await;
    let delivery = next(&mut consumer).await;
    assert_eq!((&delivery.key, delivery.redelivered), (&refused, true));
    acknowledge(delivery).await;
    nothing(consumer.next(), "a message came twice").await;
}

/// (10) A topic without keys is delivered in order, one at a time.
pub async fn a_topic_without_keys_is_one_ordered_queue(stage: &impl Stage) {
    let bus = stage.bus().await;
    for number in 0..5 {
        let id = format!("id-{number}");
        let appended = bus
            .append(&DURABLE_KEYLESS, None, &id, &probe(number))
            .await;
        assert_eq!(appended.expect("append"), Appended::Stored);
    }
    let mut consumer = consume(&bus, DURABLE_KEYLESS, "reader").await;
    for number in 0..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!(
            (delivery.key.clone(), delivery.message.number),
            (None, number)
        );
        acknowledge(delivery).await;
    }
}

/// (10) Every group gets everything, a group that comes later from the oldest retained message on.
pub async fn groups_do_not_share_and_a_new_one_starts_with_the_oldest(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut first = consume(&bus, DURABLE, "first").await;
    for number in 0..6 {
        append(&bus, "a", &format!("id-{number}"), probe(number)).await;
    }
    for number in 0..6 {
        let delivery = next(&mut first).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    let mut second = consume(&bus, DURABLE, "second").await;
    for number in 0..6 {
        let delivery = next(&mut second).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
}

/// (10) Members of a group share the keys: nothing is lost, nothing is done twice, no key is split.
pub async fn members_share_keys_without_loss_or_repetition(stage: &impl Stage) {
    const KEYS: u64 = 6;
    const EACH: u64 = 15;
    let (one, two) = (stage.bus().await, stage.bus().await);
    let mut members = [
        consume(&one, DURABLE, "shared").await,
        consume(&two, DURABLE, "shared").await,
    ];
    let publisher = async {
        for number in 0..EACH {
            for name in 0..KEYS {
                append(
                    &one,
                    &format!("k{name}"),
                    &format!("{name}-{number}"),
                    probe(number),
                )
                .await;
            }
        }
    };
    let mut done: BTreeMap<(Option<Key>, u64), usize> = BTreeMap::new();
    let mut owners: BTreeMap<Option<Key>, usize> = BTreeMap::new();
    let reader = async {
        let [first, second] = &mut members;
        while done.len() < usize::try_from(KEYS * EACH).unwrap_or(usize::MAX) {
            let (member, delivery) = tokio::select! {
                delivery = first.next() => (0, delivery),
                delivery = second.next() => (1, delivery),
            };
            let delivery = delivery.expect("the bus is open");
            let place = (delivery.key.clone(), delivery.message.number);
            assert!(place.1 == 0 || done.contains_key(&(place.0.clone(), place.1 - 1)));
            assert!(
                done.insert(place.clone(), member).is_none(),
                "{place:?} was done twice"
            );
            let owner = *owners.entry(place.0.clone()).or_insert(member);
            assert_eq!(owner, member, "{:?} has two members", place.0);
            acknowledge(delivery).await;
        }
    };
    within("shared work", async { tokio::join!(publisher, reader) }).await;
    for member in [0, 1] {
        assert!(owners.values().any(|owner| *owner == member), "{owners:?}");
    }
}

/// (10) A key stays with its member while that lives, however slow, and moves when it is gone.
pub async fn a_key_moves_only_when_its_member_is_gone(stage: &impl Stage) {
    let (one, two) = (stage.bus().await, stage.bus().await);
    let mut first = consume(&one, DURABLE, "shared").await;
    append(&one, "a", "id-0", probe(0)).await;
    let held = next(&mut first).await;
    let mut second = consume(&two, DURABLE, "shared").await;
    for number in 1..5 {
        append(&one, "a", &format!("id-{number}"), probe(number)).await;
    }
    nothing(second.next(), "a key moved although its member lives").await;
    acknowledge(held).await;
    let held = next(&mut first).await;
    assert_eq!(held.message.number, 1);
    nothing(second.next(), "a key moved although its member lives").await;
    drop(first);
    drop(held);
    for number in 1..5 {
        let delivery = next(&mut second).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    nothing(second.next(), "a message came twice").await;
}

/// (11) The same message id is stored once, also when it is appended at the same time.
pub async fn a_message_id_is_stored_once(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut appends = JoinSet::new();
    for _ in 0..8 {
        let bus = bus.clone();
        appends.spawn(async move { append_any(&bus, "a", "same", probe(1)).await });
    }
    let outcomes = within("concurrent appends", appends.join_all()).await;
    let stored = outcomes
        .iter()
        .filter(|outcome| **outcome == Appended::Stored);
    assert_eq!(stored.count(), 1, "{outcomes:?}");
    let bus = stage.crash(bus).await;
    assert_eq!(
        append_any(&bus, "a", "same", probe(2)).await,
        Appended::Duplicate
    );
    append(&bus, "a", "other", probe(3)).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for number in [1, 3] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    nothing(consumer.next(), "a duplicate was stored").await;
}

/// (12) A group goes on where it was, after a crash of the consumer or of the side that stores.
pub async fn a_consumer_resumes_after_a_crash_of_either_side(stage: &impl Stage) {
    let bus = stage.bus().await;
    for number in 0..9 {
        append(&bus, "a", &format!("id-{number}"), probe(number)).await;
    }
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for number in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    let held = next(&mut consumer).await;
    drop((held, consumer));

    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.message.number, delivery.redelivered), (3, true));
    acknowledge(delivery).await;
    let held = next(&mut consumer).await;
    assert_eq!(held.message.number, 4);
    drop((held, consumer));

    let bus = stage.crash(bus).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let first = next(&mut consumer).await;
    // Acknowledgements may be written late, so a crash may bring a few messages again: in order.
    let resumed_at = first.message.number;
    assert!(resumed_at <= 4, "message 4 was lost");
    acknowledge(first).await;
    for number in resumed_at + 1..9 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    nothing(consumer.next(), "an acknowledged message came again").await;
}

/// (13) What every group has acknowledged goes a while after that; what one has not, stays.
pub async fn what_every_group_has_read_goes_after_its_time_and_nothing_else(stage: &impl Stage) {
    let keep_read = Duration::from_secs(1);
    let bus = kept(stage.bus().await, keep_read, 64 << 20);
    let mut reader = consume(&bus, DURABLE, "reader").await;
    let mut slow = consume(&bus, DURABLE, "slow").await;
    for number in 0..5 {
        append(&bus, "a", &format!("id-{number}"), probe(number)).await;
    }
    for number in 0..5 {
        let delivery = next(&mut reader).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    for _ in 0..3 {
        acknowledge(next(&mut slow).await).await;
    }
    // Who comes sees what is kept, and what it does not read is not removed any more.
    let mut oldest = 0;
    within("three were removed", async {
        for latecomer in 0.. {
            tokio::time::sleep(2 * keep_read).await;
            let group = format!("late-{latecomer}");
            let mut late = consume(&bus, DURABLE, &group).await;
            oldest = next(&mut late).await.message.number;
            if oldest == 3 {
                break;
            }
            while let Ok(delivery) = timeout(QUIET, late.next()).await {
                acknowledge(delivery.expect("the bus is open")).await;
            }
        }
    })
    .await;
    assert_eq!(oldest, 3);
    for number in 3..5 {
        let delivery = next(&mut slow).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    assert_eq!(bus.metrics_snapshot()[DURABLE.pattern()].lost, 0);
}

/// (13) Where there is no room for what was not read, `append` is refused, and nothing is lost.
pub async fn a_full_topic_refuses_and_takes_more_once_it_was_read(stage: &impl Stage) {
    let bus = kept(stage.bus().await, Duration::from_secs(3600), 200_000);
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let mut stored = 0;
    let refused = loop {
        let id = format!("id-{stored}");
        let message = sized_probe(stored, 10_000);
        match bus.append(&DURABLE, Some(&key("a")), &id, &message).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, PublishError::Full(_)), "{refused:?}");
    assert!((12..20).contains(&stored), "{stored} fitted");
    for number in 0..stored {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
    within("room for more", async {
        let message = sized_probe(stored, 10_000);
        while let Err(error) = bus
            .append(&DURABLE, Some(&key("a")), "more", &message)
            .await
        {
            assert!(matches!(error, PublishError::Full(_)), "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(next(&mut consumer).await.message.number, stored);
    assert_eq!(bus.metrics_snapshot()[DURABLE.pattern()].lost, 0);
}

/// A group without members that is rewound gets again what is retained.
pub async fn a_group_that_is_rewound_starts_with_the_oldest(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for number in 0..4 {
        append(&bus, "a", &format!("id-{number}"), probe(number)).await;
        acknowledge(next(&mut consumer).await).await;
    }
    drop(consumer);
    within("the rewinding", bus.rewind(&DURABLE, "reader"))
        .await
        .expect("rewind");
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    for number in 0..4 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.number, number);
        acknowledge(delivery).await;
    }
}

/// A closed bus gives its readers what waits and then the end, and refuses what comes after.
pub async fn a_closed_bus_ends_its_readers_and_refuses_writers(stage: &impl Stage) {
    let bus = stage.bus().await;
    let mut mailbox = subscribe(&bus, LIVE, Select::All).await;
    let mut consumer = consume(&bus, DURABLE, "reader").await;
    let readers = async { tokio::join!(mailbox.recv(), consumer.next()) };
    let (ends, ()) = within("the end of readers", async {
        tokio::join!(readers, bus.close())
    })
    .await;
    assert!(ends.0.is_none() && ends.1.is_none());
    let refused = bus.publish(&LIVE, Some(&key("a")), &probe(1)).await;
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");
    let refused = bus.append(&DURABLE, Some(&key("a")), "id", &probe(1)).await;
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");
    let refused = bus.subscribe(&LIVE, Select::All).await.err();
    assert!(
        matches!(refused, Some(SubscribeError::Closed)),
        "{refused:?}"
    );
    let refused = bus.consume(&DURABLE, "reader").await.err();
    assert!(
        matches!(refused, Some(SubscribeError::Closed)),
        "{refused:?}"
    );
}

fn kept(bus: Bus, keep_read: Duration, max_bytes: u64) -> Bus {
    bus.with_retentions(Retentions {
        records: Retention {
            keep_read,
            max_bytes,
        },
        ..Retentions::default()
    })
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what} took longer than {LIMIT:?}"),
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn nothing<T: fmt::Debug>(future: impl Future<Output = T>, otherwise: &str) {
    if let Ok(value) = timeout(QUIET, future).await {
        panic!("{otherwise}: {value:?}");
    }
}

async fn subscribe(bus: &Bus, topic: LiveTopic<Probe>, select: Select) -> Mailbox<Probe> {
    let mailbox = within("subscribe", bus.subscribe(&topic, select)).await;
    mailbox.expect("subscribe")
}

async fn consume(bus: &Bus, topic: DurableTopic<Probe>, group: &str) -> Consumer<Probe> {
    let consumer = within("consume", bus.consume(&topic, group)).await;
    consumer.expect("consume")
}

async fn publish(bus: &Bus, topic: LiveTopic<Probe>, name: &str, message: Probe) {
    let published = bus.publish(&topic, Some(&key(name)), &message).await;
    published.expect("publish");
}

async fn append(bus: &Bus, name: &str, id: &str, message: Probe) {
    assert_eq!(append_any(bus, name, id, message).await, Appended::Stored);
}

async fn append_any(bus: &Bus, name: &str, id: &str, message: Probe) -> Appended {
    let name = key(name);
    let append = bus.append(&DURABLE, Some(&name), id, &message);
    within("append", append).await.expect("append")
}

async fn receive(mailbox: &mut Mailbox<Probe>) -> u64 {
    let event = within("an event", mailbox.recv()).await;
    event.expect("the bus is open").message.number
}

async fn next(consumer: &mut Consumer<Probe>) -> Delivery<Probe> {
    let delivery = within("a delivery", consumer.next()).await;
    delivery.expect("the bus is open")
}

async fn acknowledge(delivery: Delivery<Probe>) {
    let acknowledged = within("an acknowledgement", delivery.ack()).await;
    acknowledged.expect("acknowledge");
}

fn key(name: &str) -> Key {
    Key::parse(name).expect("the clause names a valid key")
}

fn probe(number: u64) -> Probe {
    Probe {
        number,
        body: bytes::Bytes::new(),
    }
}

fn sized_probe(number: u64, size: usize) -> Probe {
    let pattern = number.to_le_bytes();
    Probe {
        number,
        body: (0..size)
            .map(|index| pattern[index % 8] ^ (index as u8))
            .collect(),
    }
}

fn probe_of_encoded_size(size: usize) -> Probe {
    let overhead = prost::Message::encoded_len(&sized_probe(1, size)) - size;
    let message = sized_probe(1, size - overhead);
    assert_eq!(prost::Message::encoded_len(&message), size);
    message
}
