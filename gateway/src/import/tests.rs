use std::pin::pin;

use futures::FutureExt as _;
use sovereign_proto::round::v1::RoundRecord;
use sovereign_service::StopSource;

use super::*;

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
        metrics: Metrics::default(),
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
