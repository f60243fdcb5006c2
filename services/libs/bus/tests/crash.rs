//! A process that is killed: what it acknowledged is there, what it did is not done again out of order.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use sovereign_bus::{Bus, DurableTopic, Key, Retention, contract::Probe};

/// Set in the child: the journal that it appends to until it is killed.
const CHILD: &str = "SOVEREIGN_BUS_CRASH_JOURNAL";
const THIS_TEST: &str = "a_killed_process_loses_nothing_that_it_acknowledged";
const TOPIC: DurableTopic<Probe> = DurableTopic::new(
    "crash.*.probe",
    Retention {
        max_age: Duration::from_secs(3600),
        max_bytes: 1 << 30,
    },
);
const WRITERS: u64 = 8;

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(journal) = std::env::var_os(CHILD) {
        runtime.block_on(append_until_killed(Path::new(&journal)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("bus.redb");
    let (mut acknowledged, mut consumed) = (BTreeSet::new(), BTreeSet::new());
    for round in 1..=3 {
        kill_after(
            &journal,
            400 + 130 * round,
            &mut acknowledged,
            &mut consumed,
        );
        runtime.block_on(verify(&journal, &acknowledged, &mut consumed));
    }
}

/// Runs this test's child until it printed so many lines, then kills it.
fn kill_after(
    journal: &Path,
    lines: usize,
    acknowledged: &mut BTreeSet<String>,
    consumed: &mut BTreeSet<String>,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(CHILD, journal)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    let mut line = String::new();
    let mut killed = false;
    // After the kill the rest of the pipe still counts: it was printed after an acknowledgement.
    while {
        line.clear();
        output.read_line(&mut line).unwrap() > 0
    } {
        if !line.ends_with('\n') {
            break;
        }
        if let Some(id) = line.trim().strip_prefix("acked ") {
            acknowledged.insert(id.to_owned());
            seen += 1;
        } else if let Some(id) = line.trim().strip_prefix("done ") {
            consumed.insert(id.to_owned());
        }
        if seen >= lines && !killed {
            killed = true;
            // SIGKILL on Unix.
            child.kill().unwrap();
        }
    }
    assert!(killed, "the child ended before it was killed");
    child.wait().unwrap();
}

async fn append_until_killed(journal: &Path) {
    let bus = Bus::memory(journal, "child").unwrap();
    let run = std::process::id();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let bus = bus.clone();
        tasks.spawn(async move {
            let key = Key::parse(&format!("k{writer}")).unwrap();
            for number in 0.. {
                let id = format!("{writer}/{run}/{number:08}");
                let size = (number as usize * 977) % 200_000;
                let message = Probe {
                    number,
                    body: vec![writer as u8; size].into(),
                };
                bus.append(&TOPIC, Some(&key), &id, &message).await.unwrap();
                say("acked", &id);
            }
        });
    }
    let mut consumer = bus.consume(&TOPIC, "child").await.unwrap();
    while let Some(delivery) = consumer.next().await {
        let id = delivery.headers.message_id.clone();
        delivery.ack().await.unwrap();
        say("done", &id);
    }
}

fn say(what: &str, id: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{what} {id}").unwrap();
    output.flush().unwrap();
}

async fn verify(journal: &Path, acknowledged: &BTreeSet<String>, consumed: &mut BTreeSet<String>) {
    let bus = Bus::memory(journal, "parent").unwrap();
    let all = drain(&bus, &format!("verify-{}", acknowledged.len())).await;
    for id in acknowledged {
        assert!(all.contains(id), "{id} was acknowledged and is lost");
    }
    // The child's group goes on: what it never finished must still come.
    consumed.extend(drain(&bus, "child").await);
    let missing: Vec<_> = all.iter().filter(|id| !consumed.contains(*id)).collect();
    assert!(
        missing.len() <= 1,
        "never delivered to the group: {missing:?}"
    );
    bus.close().await;
}

/// Consumes everything as `group`, and checks the order of every key.
async fn drain(bus: &Bus, group: &str) -> BTreeSet<String> {
    let mut consumer = bus.consume(&TOPIC, group).await.unwrap();
    let mut last: BTreeMap<(Key, String), u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
        let delivery = delivery.unwrap();
        let id = delivery.headers.message_id.clone();
        let key = delivery.key.clone().unwrap();
        let run = id.split('/').nth(1).unwrap().to_owned();
        let number = delivery.message.number;
        let before = last.insert((key, run), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{id} after {before:?}"
        );
        assert!(seen.insert(id));
        delivery.ack().await.unwrap();
    }
    seen
}
