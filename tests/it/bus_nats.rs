//! The bus over a real NATS server: the whole contract, and what only a network can do to it.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt;
use sovereign_bus::{
    Appended, Bus, Key, LiveTopic, PublishError, Select,
    contract::{Probe, Stage},
    contract_tests,
};
use sovereign_bus_nats::{APPEND_LIMIT, ConnectError, NatsConfig};
use sovereign_tests::nats::{DURABLE, NatsServer};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const LIVE: LiveTopic<Probe> = LiveTopic::new("it.*.live", 500_000);
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
    connect_with(&server.url(), NatsConfig::default().partitions).await
}

async fn connect_with(url: &str, partitions: u16) -> Bus {
    let config = NatsConfig {
        url: url.to_owned(),
        partitions,
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
    assert_eq!((mailbox.replaced(), mailbox.dropped()), (0, 0));
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
async fn a_bus_whose_deliveries_cannot_be_given_back_closes_before_its_process_is_ended() {
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
    }
    let held = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    // From here on somebody reads what is asked of the stream's consumers, and never answers.
    let client = async_nats::connect(server.url()).await.unwrap();
    let silent = client.subscribe("$JS.API.CONSUMER.>").await.unwrap();
    client.flush().await.unwrap();
    let operator = jetstream(&server).await;
    operator.delete_stream("IT_DURABLE").await.unwrap();
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
    drop((silent, held));
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
        loop {
            let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
            let came = delivery.message.number;
            delivery.ack().await.unwrap();
            // What its publisher did not know to be read yet may be stored again.
            if came > 5 {
                assert_eq!(came, number);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_lost_with_its_store_is_stored_again_and_counted() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    for number in 1..=5 {
        append(&bus, "a", number).await;
    }
    server.restart_empty().unwrap();
    // Nobody appends, so it is noticed without that.
    let restored = || bus.metrics_snapshot()[DURABLE.pattern()].restored;
    timeout(LIMIT, async {
        while restored() < 5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    let mut came = BTreeSet::new();
    while came.len() < 5 {
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        came.insert(delivery.message.number);
        delivery.ack().await.unwrap();
    }
    assert_eq!(came, (1..=5).collect());
    let counts = bus.metrics_snapshot()[DURABLE.pattern()];
    assert_eq!((counts.restored, counts.lost), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_sees_what_is_there_after_the_stream_was_deleted() {
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    append(&bus, "a", 1).await;
    let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    delivery.ack().await.unwrap();
    let operator = jetstream(&server).await;
    operator.delete_stream("IT_DURABLE").await.unwrap();
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
async fn another_number_of_partitions_than_the_stream_has_is_refused_in_words() {
    let server = NatsServer::start().unwrap();
    append(&connect(&server).await, "a", 1).await;
    let bus = connect_with(&server.url(), 32).await;
    let message = probe(2, 8);
    let refused = bus.append(&DURABLE, Some(&key("a")), "2", &message).await;
    let error = refused.unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>();
    let text = text.join(": ");
    assert!(
        text.contains("IT_DURABLE") && text.contains("than 32"),
        "{text}"
    );
    let nothing = NatsConfig {
        url: server.url(),
        partitions: 0,
        ..NatsConfig::default()
    };
    let refused = sovereign_bus_nats::connect(nothing, "node-1").await.err();
    assert!(matches!(refused, Some(ConnectError::Partitions(0))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_rests_behind_a_key_that_fills_it_and_goes_on_when_that_is_done() {
    let server = NatsServer::start().unwrap();
    let bus = connect_with(&server.url(), 1).await;
    let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
    for number in 0..40 {
        append(&bus, "a", number).await;
    }
    append(&bus, "b", 0).await;
    let held = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
    let behind = timeout(Duration::from_secs(1), consumer.next()).await;
    assert!(behind.is_err(), "{behind:?}");
    held.ack().await.unwrap();
    let mut done = 1;
    while done < 41 {
        let delivery = timeout(LIMIT, consumer.next()).await.unwrap().unwrap();
        delivery.ack().await.unwrap();
        done += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_keys_are_64_consumers_and_each_message_comes_once_and_in_order() {
    const KEYS: u64 = 10_000;
    const EACH: u64 = 2;
    const APPENDS: usize = 256;
    let server = NatsServer::start().unwrap();
    let bus = connect(&server).await;
    let (seen, mut said) = tokio::sync::mpsc::channel(APPENDS);
    let mut readers = tokio::task::JoinSet::new();
    for member in 0..3 {
        let bus = connect(&server).await;
        let mut consumer = bus.consume(&DURABLE, "reader").await.unwrap();
        let seen = seen.clone();
        readers.spawn(async move {
            while let Some(delivery) = consumer.next().await {
                let what = (member, delivery.key.clone(), delivery.message.number);
                delivery.ack().await.unwrap();
                if seen.send(what).await.is_err() {
                    return;
                }
            }
        });
    }
    let load = async {
        for number in 0..EACH {
            let appends = (0..KEYS).map(|name| {
                let (bus, name) = (bus.clone(), format!("phone-{name}"));
                async move { append(&bus, &name, number).await }
            });
            let appends = futures::stream::iter(appends).buffer_unordered(APPENDS);
            appends.collect::<()>().await;
        }
    };
    let mut next = BTreeMap::new();
    let mut members = BTreeSet::new();
    let reading = async {
        for _ in 0..KEYS * EACH {
            let (member, key, number) = timeout(LIMIT, said.recv()).await.unwrap().unwrap();
            let expected = next.entry(key).or_insert(0);
            assert_eq!(number, *expected);
            *expected += 1;
            members.insert(member);
        }
    };
    tokio::join!(load, reading);
    assert_eq!(members.len(), 3);
    let operator = jetstream(&server).await;
    let stream = operator.get_stream("IT_DURABLE").await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 64);
    let counts = bus.metrics_snapshot()[DURABLE.pattern()];
    assert_eq!(counts.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_killed_processes_move_under_load_without_loss_and_in_order() {
    const KEYS: u64 = 40;
    const EACH: u64 = 50;
    let server = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("deliveries");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let acknowledged = || read().lines().filter(|line| line.contains(" ack ")).count();
    let mut members = (0..3)
        .map(|member| start_member(&server, &log, member))
        .collect::<Vec<_>>();
    let bus = connect(&server).await;
    let load = async {
        for number in 0..EACH {
            for name in 0..KEYS {
                append(&bus, &format!("k{name}"), number).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let kills = async {
        for (member, after) in [(0, 200), (1, 400)] {
            while acknowledged() < after {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            end(&mut members[member]);
            members[member] = start_member(&server, &log, member + 3);
        }
        while acknowledged() < (KEYS * EACH) as usize - 2 * MAX_IN_FLIGHT {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(2 * LIMIT, async { tokio::join!(load, kills) })
        .await
        .unwrap();
    let is_complete = || {
        let last = format!(" {}", EACH - 1);
        let text = read();
        let keys = text
            .lines()
            .filter(|line| line.contains(" ack ") && line.ends_with(&last));
        keys.count() as u64 >= KEYS
    };
    timeout(LIMIT, async {
        while !is_complete() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    members.iter_mut().for_each(end);

    let mut last = BTreeMap::new();
    let mut done = BTreeSet::new();
    let mut owners = BTreeMap::<String, BTreeSet<String>>::new();
    for line in read().lines() {
        let [member, what, key, number] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        assert_ne!(what, "lost", "{line:?}");
        let number = number.parse::<u64>().unwrap();
        if what == "ack" {
            done.insert((key.to_owned(), number));
            continue;
        }
        owners
            .entry(key.to_owned())
            .or_default()
            .insert(member.to_owned());
        assert!(
            !done.contains(&(key.to_owned(), number)),
            "done again: {line:?}"
        );
        let before = last.insert(key.to_owned(), number);
        let follows = before.map_or(0, |before| before + 1);
        assert!(
            number == follows || Some(number) == before,
            "after {before:?}: {line:?}"
        );
    }
    assert!(last.len() as u64 == KEYS && last.values().all(|last| *last == EACH - 1));
    assert!(owners.values().any(|owners| owners.len() > 1), "{owners:?}");
}

/// Messages that a killed member may have had acknowledged without its having noted it.
const MAX_IN_FLIGHT: usize = 64;

fn start_member(server: &NatsServer, log: &Path, name: usize) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bus-member"))
        .arg(server.url())
        .arg(log)
        .arg(name.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn end(member: &mut Child) {
    member.kill().unwrap();
    member.wait().unwrap();
}

/// The server as an operator sees it.
async fn jetstream(server: &NatsServer) -> async_nats::jetstream::Context {
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client)
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
