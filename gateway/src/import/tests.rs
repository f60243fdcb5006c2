use std::pin::pin;

use futures::FutureExt as _;
use prost::Message as _;
use sovereign_service::StopSource;

use super::*;
use crate::wire::tests::envelope;
use crate::wire::{Envelope, RoundRecord};

fn round(id: &str) -> Box<Received> {
    let record = RoundRecord {
        round_id: id.to_owned(),
        ..RoundRecord::default()
    };
    Box::new(Received {
        origin: PeerId::random(),
        topic: Topic::Rounds,
        message_id: id.to_owned(),
        published_unix_nanos: 1,
        body: Body::Round(record),
    })
}

#[tokio::test]
async fn what_is_accepted_after_a_stop_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::memory(&dir.path().join("journal.redb"), "node").unwrap();
    let mut rounds = bus.consume(&MESH_ROUND, "test").await.unwrap();
    let (accepted, received) = mpsc::channel(4);
    let importer = Importer {
        bus: bus.clone(),
        names: TopicNames::new("fl.rounds".to_owned()),
        metrics: Metrics::for_tests(),
        subscribers: broadcast::channel(1).0,
        received,
    };
    let stop = StopSource::new();
    stop.request();
    let mut running = pin!(importer.run(stop.stop()));
    let ended = running.as_mut().now_or_never();
    assert!(ended.is_none(), "the swarm may accept more");
    accepted.send(round("late")).await.unwrap();
    drop(accepted);
    running.await.unwrap();
    let delivery = rounds.next().await.unwrap();
    assert_eq!(delivery.message.record.unwrap().round_id, "late");
    bus.close().await;
}

fn is_accepted(inspector: &mut Inspector, by: [PeerId; 2], number: u32, now: Duration) -> bool {
    let [forwarder, author] = by;
    match inspector.inspect(
        forwarder,
        author,
        Topic::Rounds,
        &envelope(&number.to_string()),
        now,
    ) {
        Verdict::Accepted(_) => true,
        Verdict::Excess => false,
        refused @ (Verdict::Duplicate | Verdict::Unknown | Verdict::Refused) => {
            panic!("{refused:?}")
        }
    }
}

#[test]
fn a_peer_with_ever_new_identities_is_heard_up_to_its_rate() {
    let metrics = Metrics::for_tests();
    let mut inspector = Inspector::new(metrics.clone());
    let [hostile, honest] = [PeerId::random(), PeerId::random()];
    let start = Duration::from_secs(1);
    let flood = 2 * FORWARDER.burst;
    let heard = (0..flood)
        .filter(|number| {
            let fresh = PeerId::random();
            is_accepted(&mut inspector, [hostile, fresh], *number, start)
        })
        .count();
    assert_eq!(heard, FORWARDER.burst as usize);
    let ignored = metrics.refused(Refusal::ForwarderRate);
    assert_eq!(ignored, u64::from(flood - FORWARDER.burst));
    // Others are heard as before, and so is it after a while.
    assert!(is_accepted(&mut inspector, [honest, honest], 0, start));
    let later = start + Duration::from_secs(1);
    assert!(is_accepted(&mut inspector, [hostile, hostile], 0, later));
}

#[test]
fn an_author_is_heard_up_to_its_rate_whoever_brings_it() {
    let metrics = Metrics::for_tests();
    let mut inspector = Inspector::new(metrics.clone());
    let author = PeerId::random();
    let forwarders: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
    let flood = 2 * AUTHOR.burst;
    let heard = (0..flood)
        .zip(forwarders.iter().cycle())
        .filter(|(number, forwarder)| {
            is_accepted(
                &mut inspector,
                [**forwarder, author],
                *number,
                Duration::ZERO,
            )
        })
        .count();
    assert_eq!(heard, AUTHOR.burst as usize);
    let ignored = metrics.refused(Refusal::AuthorRate);
    assert_eq!(ignored, u64::from(flood - AUTHOR.burst));
}

#[test]
fn ten_busy_nodes_behind_one_forwarder_are_all_heard() {
    let mut inspector = Inspector::new(Metrics::for_tests());
    let forwarder = PeerId::random();
    let nodes: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    let mut number = 0;
    let mut say = |count: u32, now: Duration| {
        for node in &nodes {
            for _ in 0..count {
                number += 1;
                assert!(is_accepted(&mut inspector, [forwarder, *node], number, now));
            }
        }
    };
    // A hundred rounds and the backlog of an island each at once, then five changes a second.
    say(100 + crate::domain::rate::OWN.burst, Duration::ZERO);
    for second in 0..100 {
        say(5, Duration::from_secs(second));
    }
}

#[test]
fn nobody_silences_an_author_with_what_it_said_before() {
    let mut inspector = Inspector::new(Metrics::for_tests());
    let [author, hostile] = [PeerId::random(), PeerId::random()];
    let now = Duration::ZERO;
    assert!(is_accepted(&mut inspector, [author, author], 0, now));
    for _ in 0..2 * AUTHOR.burst {
        let again = inspector.inspect(hostile, author, Topic::Rounds, &envelope("0"), now);
        assert!(matches!(again, Verdict::Duplicate), "{again:?}");
    }
    assert!(is_accepted(&mut inspector, [author, author], 1, now));
}

#[test]
fn what_was_too_much_is_heard_when_it_comes_again() {
    let mut inspector = Inspector::new(Metrics::for_tests());
    let author = PeerId::random();
    for number in 0..AUTHOR.burst {
        assert!(is_accepted(
            &mut inspector,
            [author; 2],
            number,
            Duration::ZERO
        ));
    }
    let (more, later) = (AUTHOR.burst, Duration::from_secs(1));
    assert!(!is_accepted(
        &mut inspector,
        [author; 2],
        more,
        Duration::ZERO
    ));
    assert!(is_accepted(&mut inspector, [author; 2], more, later));
}

#[test]
fn what_a_later_version_says_is_ignored_and_nobody_blamed_for_it() {
    let metrics = Metrics::for_tests();
    let mut inspector = Inspector::new(metrics.clone());
    let mut inspect = |data: &[u8]| {
        let [forwarder, author] = [PeerId::random(), PeerId::random()];
        inspector.inspect(forwarder, author, Topic::Rounds, data, Duration::ZERO)
    };
    let round = |phase| {
        let record = RoundRecord {
            round_id: "r-1".to_owned(),
            phase,
            model_digest: sovereign_model::Digest::of(b"model").to_hex(),
            min_participants: 2,
            opened_unix_nanos: 1,
            closes_unix_nanos: 2,
            node_id: "node".to_owned(),
        };
        let mut envelope = Envelope::decode(envelope("1").as_slice()).unwrap();
        envelope.body = Some(Body::Round(record));
        envelope.encode_to_vec()
    };
    // A field of the envelope that this version has not.
    let mut body = Envelope::decode(envelope("1").as_slice()).unwrap();
    body.body = None;
    let mut body = body.encode_to_vec();
    body.extend([0xfa, 0x01, 0x01, b'x']);
    assert!(matches!(inspect(&body), Verdict::Unknown));
    assert!(matches!(inspect(&round(99)), Verdict::Unknown));
    assert_eq!(metrics.refused(Refusal::Body), 1);
    assert_eq!(metrics.refused(Refusal::Phase), 1);
    assert!(matches!(inspect(&round(0)), Verdict::Refused));
    assert!(matches!(inspect(&round(1)), Verdict::Accepted(_)));
    assert!(matches!(inspect(&round(2)), Verdict::Accepted(_)));
}
