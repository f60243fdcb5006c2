//! A process that is killed: what it acknowledged is there, what it did is not done again out of order.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use sovereign_bus::{Appended, Bus, Class, DurableTopic, Key, PublishError, contract::Probe};

/// Set in the child: the journal that it appends to until it is killed.
const CHILD: &str = "SOVEREIGN_BUS_CRASH_JOURNAL";
const THIS_TEST: &str = "a_killed_process_loses_nothing_that_it_acknowledged";

/// Set in the child of the next test: the journal of which it does some messages.
const ABORTED_CHILD: &str = "SOVEREIGN_BUS_ABORTED_JOURNAL";
const ABORTED_TEST: &str = "what_a_killed_process_had_done_is_flagged_when_it_comes_again";
const DONE: u64 = 5;

/// Set in the child of the last test: the journal that does not get all the room that it wants.
const FULL_CHILD: &str = "SOVEREIGN_BUS_FULL_JOURNAL";
const FULL_TEST: &str = "a_journal_that_cannot_be_written_refuses_and_still_reads";
const TOPIC: DurableTopic<Probe> = DurableTopic::new("crash.*.probe", Class::Records);
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

#[test]
fn what_a_killed_process_had_done_is_flagged_when_it_comes_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(journal) = std::env::var_os(ABORTED_CHILD) {
        runtime.block_on(acknowledge_and_abort(Path::new(&journal)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("bus.redb");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ABORTED_TEST, "--nocapture"])
        .env(ABORTED_CHILD, &journal)
        .output()
        .unwrap();
    assert!(!child.status.success());
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let done: BTreeSet<String> = said
        .lines()
        .filter_map(|line| Some(line.split_once("done ")?.1.to_owned()))
        .collect();
    assert_eq!(done.len() as u64, DONE, "{said}");
    runtime.block_on(async {
        let bus = Bus::memory(&journal, "parent").unwrap();
        let mut consumer = bus.consume(&TOPIC, "child").await.unwrap();
        // The last one was never done, so it comes in any case.
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await;
            let delivery = next.unwrap().unwrap();
            let id = delivery.headers.message_id.clone();
            assert!(delivery.redelivered || !done.contains(&id), "{id}");
            let number = delivery.message.number;
            delivery.ack().await.unwrap();
            if number == DONE {
                break;
            }
        }
        bus.close().await;
    });
}

/// Ends before the acknowledgements of what it did are on disk.
async fn acknowledge_and_abort(journal: &Path) {
    let bus = Bus::memory(journal, "child").unwrap();
    let mut consumer = bus.consume(&TOPIC, "child").await.unwrap();
    for number in 0..=DONE {
        append(&bus, &format!("{number}"), &probe(number, 1))
            .await
            .unwrap();
    }
    for _ in 0..DONE {
        let delivery = consumer.next().await.unwrap();
        let id = delivery.headers.message_id.clone();
        delivery.ack().await.unwrap();
        say("done", &id);
    }
    std::process::abort();
}

#[test]
fn a_journal_that_cannot_be_written_refuses_and_still_reads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(journal) = std::env::var_os(FULL_CHILD) {
        runtime.block_on(append_until_full(Path::new(&journal)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("bus.redb");
    // A file of 16 MiB at most, as a disk would be full: without the signal, writing is an error.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 32768; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", FULL_TEST, "--nocapture"])
        .env(FULL_CHILD, &journal)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}");
    let acknowledged: BTreeSet<String> = said
        .lines()
        .filter_map(|line| Some(line.split_once("acked ")?.1.to_owned()))
        .collect();
    assert!(!acknowledged.is_empty(), "{said}");
    // With room again, what was acknowledged is there and the next is stored.
    runtime.block_on(async {
        let bus = Bus::memory(&journal, "parent").unwrap();
        let nothing = BTreeSet::new();
        let all = drain(&bus, "verify", &nothing, |all| acknowledged.is_subset(all)).await;
        assert!(acknowledged.is_subset(&all), "{acknowledged:?} {all:?}");
        append(&bus, "after", &probe(1, 1 << 20)).await.unwrap();
        bus.close().await;
    });
}

async fn append_until_full(journal: &Path) {
    let bus = Bus::memory(journal, "child").unwrap();
    let mut number = 0;
    let refused = loop {
        let id = format!("0/full/{number:08}");
        let message = probe(number, 1 << 20);
        match append(&bus, &id, &message).await {
            Ok(_) => say("acked", &id),
            Err(refused) => break refused,
        }
        number += 1;
    };
    assert!(matches!(refused, PublishError::Full(_)), "{refused:?}");
    // What was accepted is delivered, and can be done with.
    let all = drain(&bus, "child", &BTreeSet::new(), |all| {
        all.len() as u64 == number
    })
    .await;
    assert_eq!(all.len() as u64, number);
    bus.close().await;
}

async fn append(bus: &Bus, id: &str, message: &Probe) -> Result<Appended, PublishError> {
    bus.append(&TOPIC, Some(&key("k0")), id, message).await
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn probe(number: u64, size: usize) -> Probe {
    Probe {
        number,
        body: vec![number as u8; size].into(),
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
            let key = key(&format!("k{writer}"));
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
    let verifier = format!("verify-{}", acknowledged.len());
    let all = drain(&bus, &verifier, &BTreeSet::new(), |all| {
        acknowledged.is_subset(all)
    })
    .await;
    for id in acknowledged {
        assert!(all.contains(id), "{id} was acknowledged and is lost");
    }
    // The child's group goes on: what it never finished must still come. One message may have been
    // finished by a child that was killed before it said so.
    let unfinished: BTreeSet<_> = all.difference(consumed).cloned().collect();
    let again = drain(&bus, "child", consumed, |again| {
        unfinished.difference(again).count() <= 1
    })
    .await;
    consumed.extend(again);
    let missing: Vec<_> = all.difference(consumed).cloned().collect();
    assert!(
        missing.len() <= 1,
        "never delivered to the group: {missing:?}"
    );
    consumed.extend(missing);
    bus.close().await;
}

/// Consumes as `group` until it has `enough` and nothing more comes, or nothing for long; checks the order of
/// every key, and that what was `done` before is flagged.
async fn drain(
    bus: &Bus,
    group: &str,
    done: &BTreeSet<String>,
    enough: impl Fn(&BTreeSet<String>) -> bool,
) -> BTreeSet<String> {
    let mut consumer = bus.consume(&TOPIC, group).await.unwrap();
    let mut last: BTreeMap<(Key, String), u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    loop {
        let patience = Duration::from_secs(if enough(&seen) { 1 } else { 60 });
        let Ok(delivery) = tokio::time::timeout(patience, consumer.next()).await else {
            break;
        };
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
        assert!(delivery.redelivered || !done.contains(&id), "{id}");
        assert!(seen.insert(id));
        delivery.ack().await.unwrap();
    }
    seen
}
