//! P2: camera frames over our bus on NATS against raw `async-nats`: the same server, the same bytes, one
//! publisher and one subscriber each, taking turns.

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use prost::Message as _;
use sovereign_bus::{Key, LiveTopic, Select};
use sovereign_proto::camera::v1::Frame;
use sovereign_tests::nats::NatsServer;
use tokio::time::Instant;

use crate::report::{Table, Target};

/// A payload, how many of them make a run, and the least share of the peer's throughput.
struct Size {
    bytes: usize,
    messages: usize,
    least: f64,
}

const SIZES: [Size; 2] = [
    Size {
        bytes: 256 << 10,
        messages: 3000,
        least: 0.97,
    },
    Size {
        bytes: 128,
        messages: 200_000,
        least: 0.95,
    },
];
const PAIRS: usize = 7;
/// Messages on their way at most, both sides: nothing is dropped, so that every message is timed.
const WINDOW: usize = 64;
/// The mailbox holds the whole window.
const TOPIC: LiveTopic<Frame> = LiveTopic::new("bench.*.frame", WINDOW * 2);
const LIMIT: Duration = Duration::from_secs(30);
/// The p99 of a frame may be this many times the peer's.
const P99_LIMIT: f64 = 1.10;

/// What one run came to.
struct Run {
    bytes_per_second: f64,
    p99: Duration,
}

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let nats = NatsServer::start()?;
    table.note(format!(
        "P2   bus over NATS against raw async-nats: one publisher, one subscriber, window {WINDOW}, {}",
        NatsServer::version()?
    ))?;
    for size in &SIZES {
        let frame = Frame {
            camera_id: "bench".to_owned(),
            jpeg: vec![0x5A; size.bytes].into(),
            ..Frame::default()
        };
        let (mut throughput, mut p99) = (Vec::new(), Vec::new());
        for pair in 0..=PAIRS {
            let ours = ours(nats.url(), &frame, size.messages).await?;
            let raw = raw(nats.url(), &frame, size.messages).await?;
            // The first pair warms up.
            if pair > 0 {
                throughput.push(ours.bytes_per_second / raw.bytes_per_second);
                p99.push(ours.p99.as_secs_f64() / raw.p99.as_secs_f64());
            }
        }
        let what = format!("{} B, throughput ours / raw", size.bytes);
        table.row(
            "P2",
            &what,
            "ratio",
            &throughput,
            Target::AtLeast(size.least),
        )?;
        if size.bytes > 1024 {
            let what = format!("{} B, p99 ours / raw", size.bytes);
            table.row("P2", &what, "ratio", &p99, Target::AtMost(P99_LIMIT))?;
        }
    }
    Ok(())
}

async fn ours(url: String, frame: &Frame, messages: usize) -> anyhow::Result<Run> {
    let connect = async |name| {
        let config = sovereign_bus_nats::NatsConfig {
            url: url.clone(),
            ..Default::default()
        };
        sovereign_bus_nats::connect(config, name).await
    };
    let (publisher, subscriber) = (connect("publisher").await?, connect("subscriber").await?);
    let key = Key::parse("bench")?;
    let mut mailbox = subscriber.subscribe(&TOPIC, Select::All).await?;
    let run = exchange(
        "our bus",
        frame.encoded_len(),
        messages,
        async |_| Ok(publisher.publish(&TOPIC, Some(&key), frame).await?),
        async || {
            let event = mailbox.recv().await.context("the bus closed")?;
            Ok(event.message.jpeg.len())
        },
    )
    .await?;
    let lost = mailbox.replaced() + mailbox.dropped();
    anyhow::ensure!(lost == 0, "{lost} were not delivered");
    publisher.close().await;
    subscriber.close().await;
    Ok(run)
}

async fn raw(url: String, frame: &Frame, messages: usize) -> anyhow::Result<Run> {
    let publisher = async_nats::connect(&url).await?;
    let client = async_nats::connect(&url).await?;
    let mut subscriber = client.subscribe("bench.bench.frame").await?;
    // Back from the server, so the server knows the subscription: another connection publishes next.
    client
        .publish("bench.bench.frame", Vec::new().into())
        .await?;
    subscriber.next().await.context("the connection closed")?;
    exchange(
        "raw async-nats",
        frame.encoded_len(),
        messages,
        async |_| {
            // The peer encodes and decodes the same message: what is compared is the bus.
            let payload = frame.encode_to_vec().into();
            Ok(publisher.publish("bench.bench.frame", payload).await?)
        },
        async || {
            let message = subscriber.next().await.context("the connection closed")?;
            Ok(Frame::decode(message.payload)?.jpeg.len())
        },
    )
    .await
}

/// Sends and receives `messages`, at most [`WINDOW`] under way, in one task: sending never runs ahead.
async fn exchange(
    who: &str,
    size: usize,
    messages: usize,
    mut send: impl AsyncFnMut(usize) -> anyhow::Result<()>,
    mut receive: impl AsyncFnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<Run> {
    let mut sent_at = std::collections::VecDeque::with_capacity(WINDOW);
    let mut latencies = Vec::with_capacity(messages);
    let start = Instant::now();
    let mut sent = 0;
    while latencies.len() < messages {
        while sent < messages && sent_at.len() < WINDOW {
            sent_at.push_back(Instant::now());
            send(sent).await?;
            sent += 1;
        }
        let length = tokio::time::timeout(LIMIT, receive())
            .await
            .with_context(|| {
                let received = latencies.len();
                format!("{who}: {sent} messages were sent, {received} received, and no more comes")
            })??;
        anyhow::ensure!(length > 0, "an empty frame");
        let at = sent_at.pop_front().context("more came than was sent")?;
        latencies.push(at.elapsed());
    }
    let elapsed = start.elapsed();
    latencies.sort();
    Ok(Run {
        bytes_per_second: (size * messages) as f64 / elapsed.as_secs_f64(),
        p99: latencies[latencies.len() * 99 / 100],
    })
}
