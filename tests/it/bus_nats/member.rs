//! A member of a consumer group that a test kills: `bus-member <url> <log> <name>` notes each message as it
//! comes and as it is done.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::Context as _;
use sovereign_bus_nats::NatsConfig;
use sovereign_tests::nats::DURABLE;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("bus-member <url> <log> <name>");
    let (url, log, name) = (argument()?, argument()?, argument()?);
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    let mut note = |what: &str, key: &str, number: u64| {
        let line = format!("{name} {what} {key} {number}\n");
        log.write_all(line.as_bytes())
    };
    let config = NatsConfig {
        url,
        ..NatsConfig::default()
    };
    let bus = sovereign_bus_nats::connect(config, "node-1").await?;
    let mut consumer = bus.consume(&DURABLE, "shared").await?;
    while let Some(delivery) = consumer.next().await {
        let key = delivery.key.clone().context("a message without a key")?;
        let number = delivery.message.number;
        note("got", key.as_str(), number)?;
        delivery.ack().await?;
        note("ack", key.as_str(), number)?;
        let lost = bus.metrics_snapshot()[DURABLE.pattern()].lost;
        if lost > 0 {
            note("lost", "-", lost)?;
        }
    }
    Ok(())
}
