//! The bus over a real NATS server: the whole contract, and what only a network can do to it.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::time::{Duration, Instant};

use async_nats::jetstream::kv::Store;
use futures::StreamExt;
use sovereign_bus::{
    Appended, Bus, DurableTopic, Key, LiveTopic, PublishError, Retention, Select,
    contract::{Probe, Stage},
    contract_tests,
};
use sovereign_bus_nats::{APPEND_LIMIT, NatsConfig};
use sovereign_tests::nats::NatsServer;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const LIVE: LiveTopic<Probe> = LiveTopic::new("it.*.live", 500_000);
const DURABLE: DurableTopic<Probe> = DurableTopic::new(
    "it.*.durable",
    Retention {
        max_age: Duration::from_secs(3600),
        max_bytes: 64 << 20,
    },
);

/// Of the entries of the group `reader` of [`DURABLE`].
const GROUP_PREFIX: &str = "IT_DURABLE.reader.";

struct Nats {
    server: NatsServer,
}

impl Nats {
    fn new() -> Self {
        Self {
            server: NatsServer::start().unwrap(),
        }
    }
}

impl Stage for Nats {
    async fn bus(&self) -> Bus {
        connect(&self.server).await
    }

    async fn crash(&self, bus: Bus) -> Bus {
        self.server.kill();
        drop(bus);
        self.server.restart().unwrap();
        connect(&self.server).await
    }
}

contract_tests!(Nats::new());

async fn connect(server: &NatsServer) -> Bus {
    let config = NatsConfig {
        url: server.url(),
        ..NatsConfig::default()
    };
    sovereign_bus_nats::connect(config, "node-1").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_tiny_messages_is_delivered_or_counted() {
    const SENT: u64 = 200_000;
    let server = NatsServer::start().unwrap();
    let (here, there) = (connect(&server).await, connect(&server).await);
    let mut mailbox = here.subscribe(&LIVE, Select::All).await.unwrap();
    let key = key("a");
    for number in 0..SENT {
        let message = probe(number, 100);
        there.publish(&LIVE, Some(&key), &message).await.unwrap();
    }
    for number in 0..SENT {
        let event = timeout(LIMIT, mailbox.recv()).await.unwrap().unwrap();
        assert_eq!(event.message.number, number);
    }
    assert_eq!(mailbox.dropped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_payload_limit_is_what_the_server_announces() {
    let server = NatsServer::start_with_max_payload(1 << 20).unwrap();
    let bus = connect(&server).await;
    let limit = bus.payload_limit();
    assert!((1 << 19..1 << 20).contains(&limit), "{limit}");
    let refused = bus
        .publish(&LIVE, Some(&key("a")), &probe(1, 1 << 20))
        .await;
    let Err(PublishError::TooLarge { limit: named, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(named, limit);
    let largest = probe(1, limit - 16);
    bus.publish(&LIVE, Some(&key("a")), &largest).await.unwrap();
    let appended = bus.append(&DURABLE, Some(&key("a")), "id", &largest).await;
    assert_eq!(appended.unwrap(), Appended::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_publishing_is_an_error_in_bounded_time_and_works_again_after() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut mailbox = bus.subscribe(&LIVE, Select::All).await.unwrap();
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    let key = key("a");
    let stored = bus.append(&DURABLE, Some(&key), "1", &probe(1, 8)).await;
    assert_eq!(stored.unwrap(), Appended::Stored);
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    delivery.ack().await.unwrap();

    server.kill();
    let started = Instant::now();
    let failed = bus.append(&DURABLE, Some(&key), "2", &probe(2, 8)).await;
    assert!(
        matches!(failed, Err(PublishError::Transport(_))),
        "{failed:?}"
    );
    assert!(started.elapsed() < 2 * APPEND_LIMIT);
    let failed = bus.publish(&LIVE, Some(&key), &probe(2, 8)).await;
    assert!(
        matches!(failed, Err(PublishError::Transport(_))),
        "{failed:?}"
    );

    server.restart().unwrap();
    timeout(LIMIT, async {
        while bus
            .append(&DURABLE, Some(&key), "2", &probe(2, 8))
            .await
            .is_err()
        {}
        while bus.publish(&LIVE, Some(&key), &probe(2, 8)).await.is_err() {}
    })
    .await
    .unwrap();
    let mut delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    if delivery.message.number == 1 {
        // The killed server had not written that it was acknowledged, and perhaps not even that it was
        // delivered: then it cannot know that this is the second time.
        delivery.ack().await.unwrap();
        delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    }
    assert_eq!(delivery.message.number, 2);
    delivery.ack().await.unwrap();
    let event = timeout(LIMIT, mailbox.recv()).await.unwrap().unwrap();
    assert_eq!(event.message.number, 2);
}

#[test]
fn keys_of_a_process_that_vanished_go_to_another_with_what_it_held() {
    let server = NatsServer::start().unwrap();
    let rest = tokio::runtime::Runtime::new().unwrap();
    let vanishing = tokio::runtime::Runtime::new().unwrap();
    let (held, consumer, bus) = vanishing.block_on(async {
        let bus = connect(&server).await;
        let mut consumer = bus.consume(&DURABLE, "shared").await.unwrap();
        for number in 0..3 {
            let id = format!("id-{number}");
            bus.append(&DURABLE, Some(&key("a")), &id, &probe(number, 8))
                .await
                .unwrap();
        }
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.message.number, 0);
        (delivery, consumer, bus)
    });
    // As a kill does: nothing of it runs any more, and nothing says so.
    vanishing.shutdown_background();
    rest.block_on(async {
        let bus = connect(&server).await;
        let mut consumer = bus.consume(&DURABLE, "shared").await.unwrap();
        for number in 0..3 {
            let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
            assert_eq!(delivery.message.number, number);
            assert_eq!(delivery.redelivered, number == 0);
            delivery.ack().await.unwrap();
        }
    });
    drop((held, consumer, bus));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_may_be_held_longer_than_the_server_waits_for_an_acknowledgement() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    bus.append(&DURABLE, Some(&key("a")), "1", &probe(1, 8))
        .await
        .unwrap();
    let held = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    let again = timeout(Duration::from_secs(14), consumer.next()).await;
    assert!(again.is_err(), "{again:?}");
    held.ack().await.unwrap();
    let again = timeout(Duration::from_secs(1), consumer.next()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_was_lost_with_its_connection_is_asked_for_again() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    append(&bus, "a", 1).await;
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    server.pause().unwrap();
    let unknown = timeout(LIMIT, delivery.ack()).await.unwrap();
    assert!(unknown.is_err(), "{unknown:?}");
    server.kill();
    // Longer than the server takes to deliver again what nobody acknowledged.
    let early = timeout(Duration::from_secs(22), consumer.next()).await;
    assert!(early.is_err(), "{early:?}");
    server.restart().unwrap();
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message.number, 1);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_reading_is_an_error_and_not_a_wait_without_end() {
    const MORE_THAN_FITS: u64 = 2000;
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let key = key("a");
    server.pause().unwrap();
    let mut refused = None;
    for number in 0..MORE_THAN_FITS {
        let message = probe(number, 64 << 10);
        let publish = bus.publish(&LIVE, Some(&key), &message);
        if let Err(error) = timeout(LIMIT, publish).await.unwrap() {
            refused = Some(error);
            break;
        }
    }
    server.resume().unwrap();
    assert!(
        matches!(refused, Some(PublishError::Transport(_))),
        "{refused:?}"
    );
    timeout(LIMIT, async {
        while bus.publish(&LIVE, Some(&key), &probe(1, 8)).await.is_err() {}
    })
    .await
    .unwrap();
}

#[test]
fn what_was_published_before_the_bus_closed_has_left_when_the_process_ends() {
    const SENT: u64 = 2000;
    let server = NatsServer::start().unwrap();
    let rest = tokio::runtime::Runtime::new().unwrap();
    let (reader, mut mailbox) = rest.block_on(async {
        let bus = connect(&server).await;
        let mailbox = bus.subscribe(&LIVE, Select::All).await.unwrap();
        (bus, mailbox)
    });
    let ending = tokio::runtime::Runtime::new().unwrap();
    ending.block_on(async {
        let bus = connect(&server).await;
        for number in 0..SENT {
            let message = probe(number, 1000);
            bus.publish(&LIVE, Some(&key("a")), &message).await.unwrap();
        }
        bus.close().await;
    });
    ending.shutdown_background();
    rest.block_on(async {
        for number in 0..SENT {
            let event = timeout(LIMIT, mailbox.recv()).await.unwrap().unwrap();
            assert_eq!(event.message.number, number);
        }
    });
    drop(reader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_whose_keys_cannot_be_given_back_closes_before_its_process_is_ended() {
    const SENT: u64 = 200;
    // What a process gives its bus.
    const PROCESS_LIMIT: Duration = Duration::from_secs(5);
    let server = NatsServer::start().unwrap();
    let there = connect(&server).await;
    let mut mailbox = there.subscribe(&LIVE, Select::All).await.unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    for number in 0..40 {
        append(&bus, &format!("k{number}"), number).await;
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        delivery.ack().await.unwrap();
    }
    // From here on somebody reads what is written to the bucket, and never answers.
    let client = async_nats::connect(server.url()).await.unwrap();
    let silent = client.subscribe("$KV.sovereign_groups.>").await.unwrap();
    client.flush().await.unwrap();
    let operator = jetstream(&server).await;
    operator.delete_key_value("sovereign_groups").await.unwrap();
    for number in 0..SENT {
        let message = probe(number, 1000);
        bus.publish(&LIVE, Some(&key("a")), &message).await.unwrap();
    }
    let started = Instant::now();
    bus.close().await;
    let took = started.elapsed();
    assert!(took < PROCESS_LIMIT, "{took:?}");
    for number in 0..SENT {
        let event = timeout(LIMIT, mailbox.recv()).await.unwrap().unwrap();
        assert_eq!(event.message.number, number);
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_server_lost_is_made_again() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let key = key("a");
    let stored = bus.append(&DURABLE, Some(&key), "1", &probe(1, 8)).await;
    assert_eq!(stored.unwrap(), Appended::Stored);
    let operator = jetstream(&server).await;
    operator.delete_stream("IT_DURABLE").await.unwrap();
    let lost = bus.append(&DURABLE, Some(&key), "2", &probe(2, 8)).await;
    assert!(matches!(lost, Err(PublishError::Transport(_))), "{lost:?}");
    let stored = bus.append(&DURABLE, Some(&key), "2", &probe(2, 8)).await;
    assert_eq!(stored.unwrap(), Appended::Stored);
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message.number, 2);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_consumer_goes_on_with_a_server_that_lost_its_store() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    for number in 1..=5 {
        append(&bus, "a", number).await;
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.message.number, number);
        delivery.ack().await.unwrap();
    }
    server.restart_empty().unwrap();
    // The new stream has fewer messages than the old one had, and then more.
    for (name, number) in [("a", 6), ("b", 7), ("a", 8), ("b", 9), ("a", 10), ("b", 11)] {
        let (key, id) = (key(name), format!("{name}-{number}"));
        let message = probe(number, 8);
        timeout(LIMIT, async {
            let append = || bus.append(&DURABLE, Some(&key), &id, &message);
            while append().await.is_err() {}
        })
        .await
        .unwrap();
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.message.number, number);
        delivery.ack().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_sees_what_is_there_after_both_stream_and_bucket_were_deleted() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    append(&bus, "a", 1).await;
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    delivery.ack().await.unwrap();
    let operator = jetstream(&server).await;
    operator.delete_stream("IT_DURABLE").await.unwrap();
    operator.delete_key_value("sovereign_groups").await.unwrap();
    // Only the consumer can make it again: nobody appends meanwhile.
    let stream = async {
        while operator.get_stream("IT_DURABLE").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, stream).await.unwrap();
    append(&bus, "a", 2).await;
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message.number, 2);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_member_that_is_gone_is_served_again_although_the_stream_was_empty() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    // What a member leaves that was killed, and whose messages are too old.
    let operator = jetstream(&server).await;
    let bucket = operator.get_key_value("sovereign_groups").await.unwrap();
    let owner = bucket.put(format!("{GROUP_PREFIX}key.a"), "gone".into());
    owner.await.unwrap();
    wait_for_heartbeats(&bucket, 3).await;
    append(&bus, "a", 1).await;
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.message.number, 1);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_messages_is_taken_back_from_a_member_that_is_gone() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    let operator = jetstream(&server).await;
    let bucket = operator.get_key_value("sovereign_groups").await.unwrap();
    for entry in ["key.a", "member.gone"] {
        let put = bucket.put(format!("{GROUP_PREFIX}{entry}"), "gone".into());
        put.await.unwrap();
    }
    timeout(LIMIT, async {
        for entry in ["key.a", "member.gone"] {
            while value(&bucket, entry).await.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await
    .unwrap();
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_group_removes_from_its_bucket_is_forgotten_in_the_end() {
    const KEY_ENTRY: &str = "$KV.sovereign_groups.IT_DURABLE.reader.key.a";
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    let appended = bus
        .append(&DURABLE, Some(&key("a")), "1", &probe(1, 8))
        .await;
    assert_eq!(appended.unwrap(), Appended::Stored);
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    delivery.ack().await.unwrap();
    let operator = jetstream(&server).await;
    let bucket = operator.get_stream("KV_sovereign_groups").await.unwrap();
    let entry = bucket.get_last_raw_message_by_subject(KEY_ENTRY).await;
    assert!(entry.unwrap().headers.get("KV-Operation").is_none());
    drop(consumer);
    bus.close().await;
    let marker = bucket.get_last_raw_message_by_subject(KEY_ENTRY).await;
    let headers = marker.unwrap().headers;
    assert_eq!(headers.get("KV-Operation").unwrap().as_str(), "PURGE");
    assert_eq!(headers.get("Nats-TTL").unwrap().as_str(), "3600");
}

/// The server as an operator sees it.
async fn jetstream(server: &NatsServer) -> async_nats::jetstream::Context {
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client)
}

/// Waits until the members of [`GROUP_PREFIX`] said so many times that they are there.
async fn wait_for_heartbeats(bucket: &Store, heartbeats: usize) {
    let members = format!("{GROUP_PREFIX}member.*");
    let said = bucket.watch(members).await.unwrap();
    let said = said.take(heartbeats).collect::<Vec<_>>();
    assert_eq!(timeout(LIMIT, said).await.unwrap().len(), heartbeats);
}

async fn value(bucket: &Store, entry: &str) -> Option<String> {
    let value = bucket.get(format!("{GROUP_PREFIX}{entry}")).await.unwrap();
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

async fn append(bus: &Bus, name: &str, number: u64) {
    let (key, id) = (key(name), format!("{name}-{number}"));
    let message = probe(number, 8);
    let appended = bus.append(&DURABLE, Some(&key), &id, &message).await;
    assert_eq!(appended.unwrap(), Appended::Stored);
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn probe(number: u64, size: usize) -> Probe {
    Probe {
        number,
        body: vec![7; size].into(),
    }
}
