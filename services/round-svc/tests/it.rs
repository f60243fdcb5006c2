//! Rounds over their gRPC service and the bus.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use round_svc::{Calls, Config, RoundService};
use sovereign_bus::{Bus, Key, Select};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::checkpoint::v1::checkpoints_server::{Checkpoints, CheckpointsServer};
use sovereign_proto::checkpoint::v1::{
    CheckpointMeta, GetRequest, GetResponse, ListChangesRequest, ListChangesResponse, ListRequest,
    ListResponse, PutRequest, PutResponse, get_request, get_response,
};
use sovereign_proto::mesh::v1::PeerRound;
use sovereign_proto::round::v1::rounds_client::RoundsClient;
use sovereign_proto::round::v1::{
    ListRecordsRequest, ListRoundsRequest, OpenRoundRequest, RecordEntry, Round, RoundPhase,
    RoundRecord,
};
use sovereign_proto::topics::{MESH_ROUND, ROUND_RECORD};
use sovereign_service::{Channel, Clock, Context, RunError, Service, StopSource};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(60);

/// A checkpoint store with one model.
struct OneModel;

fn model() -> String {
    Digest::of(b"model").to_hex()
}

#[tonic::async_trait]
impl Checkpoints for OneModel {
    type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

    async fn put(
        &self,
        _: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        Err(Status::unimplemented("one model is enough"))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        if request.into_inner().key != Some(get_request::Key::Digest(model())) {
            return Err(Status::not_found("no such checkpoint"));
        }
        let meta = get_response::Part::Meta(CheckpointMeta::default());
        let meta = Ok(GetResponse { part: Some(meta) });
        Ok(Response::new(Box::pin(futures::stream::iter([meta]))))
    }

    async fn list_changes(
        &self,
        _: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        Err(Status::unimplemented("one model is enough"))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Err(Status::unimplemented("one model is enough"))
    }
}

struct Running {
    client: RoundsClient<Channel>,
    bus: Bus,
    stop: StopSource,
    running: JoinSet<Result<(), RunError>>,
}

async fn start(dir: &Path, config: Config) -> Running {
    start_with(dir, config, Clock::system(), one_model()).await
}

async fn start_at(dir: &Path, clock: &Clock) -> Running {
    start_with(dir, Config::default(), clock.clone(), one_model()).await
}

fn one_model() -> Channel {
    Channel::local(Routes::new(CheckpointsServer::new(OneModel)))
}

async fn start_with(dir: &Path, config: Config, clock: Clock, checkpoints: Channel) -> Running {
    let bus = Bus::memory(&dir.join("journal.redb"), "test").unwrap();
    let context = Context {
        clock,
        ..Context::for_tests(RoundService::NAME, bus.clone(), dir)
    };
    let ready = context.ready.clone();
    let calls = Calls { checkpoints };
    let service = RoundService::build(RoundService::settings(config).unwrap(), calls, context)
        .await
        .unwrap();
    let client = RoundsClient::new(Channel::local(service.routes()));
    let stop = StopSource::new();
    let mut running = JoinSet::new();
    running.spawn(service.run(stop.stop()));
    within(ready.wait()).await;
    Running {
        client,
        bus,
        stop,
        running,
    }
}

impl Running {
    async fn open(
        &self,
        digest: &str,
        participants: u32,
        secs: u32,
    ) -> Result<RoundRecord, Status> {
        let request = OpenRoundRequest {
            model_digest: digest.to_owned(),
            min_participants: participants,
            timeout_secs: secs,
        };
        let mut client = self.client.clone();
        let response = within(client.open_round(request)).await?;
        Ok(response.into_inner().record.unwrap())
    }

    async fn list(&self) -> Vec<Round> {
        let mut client = self.client.clone();
        let response = within(client.list_rounds(ListRoundsRequest {})).await;
        response.unwrap().into_inner().rounds
    }

    async fn wait_for_rounds(&self, count: usize) -> Vec<Round> {
        within(async {
            loop {
                let rounds = self.list().await;
                if rounds.len() >= count {
                    return rounds;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    async fn records(&self, after: u64, limit: u32) -> Vec<RecordEntry> {
        let request = ListRecordsRequest { after, limit };
        let response = within(self.client.clone().list_records(request)).await;
        response.unwrap().into_inner().entries
    }

    async fn wait_for_records(&self, count: usize) -> Vec<RecordEntry> {
        within(async {
            loop {
                let records = self.records(0, 0).await;
                if records.len() >= count {
                    return records;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// The phases of a peer's rounds by id, once `id` is among them.
    async fn phases_with(&self, id: &str) -> Vec<(String, RoundPhase)> {
        within(async {
            loop {
                let rounds = self
                    .list()
                    .await
                    .into_iter()
                    .filter_map(|round| round.record);
                let phases: Vec<_> = rounds.map(|r| (r.round_id.clone(), r.phase())).collect();
                if phases.iter().any(|(known, _)| known == id) {
                    return phases;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    async fn append_of_peer(&self, peer: &str, record: RoundRecord) {
        let id = format!(
            "{peer}.{}.{}.{}",
            record.round_id, record.phase, record.node_id
        );
        let message = PeerRound {
            peer_id: peer.to_owned(),
            record: Some(record),
        };
        let key = Key::parse(peer).unwrap();
        let appended = self.bus.append(&MESH_ROUND, Some(&key), &id, &message);
        appended.await.unwrap();
    }

    async fn stop(mut self) {
        self.stop.request();
        let ended = within(self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap();
        self.bus.close().await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("happens within the limit")
}

fn record(id: &str, opened: i64) -> RoundRecord {
    RoundRecord {
        round_id: id.to_owned(),
        phase: RoundPhase::Open.into(),
        model_digest: model(),
        min_participants: 2,
        opened_unix_nanos: opened,
        closes_unix_nanos: opened + 1,
        node_id: "south".to_owned(),
    }
}

#[tokio::test]
async fn a_round_is_opened_listed_and_recorded_for_the_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let opened = running.open(&model(), 3, 0).await.unwrap();
    assert_eq!(opened.phase(), RoundPhase::Open);
    assert_eq!(opened.model_digest, model());
    assert_eq!(opened.min_participants, 3);
    assert_eq!(opened.node_id, "test-node");
    assert!(opened.opened_unix_nanos > 0);
    let open_nanos = opened.closes_unix_nanos - opened.opened_unix_nanos;
    assert_eq!(open_nanos, 120_000_000_000);
    let round = Round {
        record: Some(opened.clone()),
        origin_peer_id: String::new(),
    };
    assert_eq!(running.list().await, std::slice::from_ref(&round));

    let entry = RecordEntry {
        sequence: 1,
        record: Some(opened),
    };
    assert_eq!(running.records(0, 0).await, std::slice::from_ref(&entry));
    running.stop().await;

    let running = start(dir.path(), Config::default()).await;
    assert_eq!(running.list().await, [round]);
    assert_eq!(running.records(0, 0).await, [entry]);
    assert!(running.records(1, 0).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn the_timeout_is_the_callers_or_the_configured_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        default_timeout_secs: 7,
    };
    let running = start(dir.path(), config).await;
    for (asked, secs) in [(0, 7), (30, 30)] {
        let opened = running.open(&model(), 1, asked).await.unwrap();
        let nanos = opened.closes_unix_nanos - opened.opened_unix_nanos;
        assert_eq!(nanos, secs * 1_000_000_000);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_round_that_cannot_start_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let other = Digest::of(b"other").to_hex();
    let cases = [
        (other.as_str(), 1, 0, Code::NotFound),
        ("nothex", 1, 0, Code::InvalidArgument),
        (&model(), 0, 0, Code::InvalidArgument),
        (&model(), 1, u32::MAX, Code::InvalidArgument),
    ];
    for (digest, participants, secs, code) in cases {
        let status = running.open(digest, participants, secs).await.unwrap_err();
        assert_eq!(status.code(), code, "{}", status.message());
    }
    assert!(running.list().await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn no_round_is_opened_while_the_checkpoint_store_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let away = Channel::connect("http://127.0.0.1:1").unwrap();
    let running = start_with(dir.path(), Config::default(), Clock::system(), away).await;
    let status = running.open(&model(), 1, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(running.list().await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn rounds_of_peers_are_listed_under_them_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    running.append_of_peer("peer-a", record("r-1", 10)).await;
    running.append_of_peer("peer-b", record("r-1", 30)).await;
    running.append_of_peer("peer-a", record("r-2", 20)).await;
    let rounds = running.wait_for_rounds(3).await;
    let seen: Vec<(&str, i64)> = rounds
        .iter()
        .map(|r| {
            (
                r.origin_peer_id.as_str(),
                r.record.as_ref().unwrap().opened_unix_nanos,
            )
        })
        .collect();
    assert_eq!(seen, [("peer-b", 30), ("peer-a", 20), ("peer-a", 10)]);
    running.stop().await;
}

#[tokio::test]
async fn impossible_rounds_of_peers_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let mut bad = record("bad", 10);
    bad.model_digest = "none".to_owned();
    running.append_of_peer("peer-a", bad).await;
    let mut closed = record("closed", 10);
    closed.closes_unix_nanos = 10;
    running.append_of_peer("peer-a", closed).await;
    let mut unset = record("unset", 10);
    unset.phase = 0;
    running.append_of_peer("peer-a", unset).await;
    running.append_of_peer("peer-a", record("good", 10)).await;
    let rounds = running.wait_for_rounds(1).await;
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds[0].record.as_ref().unwrap().round_id, "good");
    running.stop().await;
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_nanos(secs * 1_000_000_000)
}

/// The same record, of the other phase.
fn closed(record: &RoundRecord) -> RoundRecord {
    RoundRecord {
        phase: RoundPhase::Closed.into(),
        ..record.clone()
    }
}

#[tokio::test]
async fn each_phase_of_a_round_gives_one_record_and_one_hint() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let mut hints = running
        .bus
        .subscribe(&ROUND_RECORD, Select::All)
        .await
        .unwrap();
    let opened = running.open(&model(), 1, 1).await.unwrap();
    let records = running.wait_for_records(2).await;
    let phases = [opened.clone(), closed(&opened)];
    let entry = |(sequence, record): (u64, &RoundRecord)| RecordEntry {
        sequence,
        record: Some(record.clone()),
    };
    assert_eq!(records, [entry((1, &phases[0])), entry((2, &phases[1]))]);
    for phase in phases {
        let hint = within(hints.recv()).await.unwrap();
        assert_eq!(hint.message, phase);
        assert_eq!(hint.key.unwrap().as_str(), opened.round_id);
    }
    // The next hint is of the next round, so no phase gave two.
    let next = running.open(&model(), 1, 60).await.unwrap();
    assert_eq!(within(hints.recv()).await.unwrap().message, next);
    assert_eq!(running.records(2, 0).await, [entry((3, &next))]);
    assert_eq!(running.records(0, 1).await, [entry((1, &opened))]);
    running.stop().await;
}

#[tokio::test]
async fn a_round_whose_time_ended_while_the_node_was_down_is_closed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(at(1000));
    let running = start_at(dir.path(), &clock).await;
    let [short, long] = [
        running.open(&model(), 1, 30).await.unwrap(),
        running.open(&model(), 1, 31).await.unwrap(),
    ];
    running.stop().await;
    clock.set(at(1030));
    for _ in 0..2 {
        let running = start_at(dir.path(), &clock).await;
        let records = running.wait_for_records(3).await;
        let records: Vec<_> = records
            .into_iter()
            .filter_map(|entry| entry.record)
            .collect();
        assert_eq!(records, [short.clone(), long.clone(), closed(&short)]);
        let phases: Vec<_> = running
            .list()
            .await
            .into_iter()
            .filter_map(|r| r.record)
            .collect();
        assert!(phases.contains(&closed(&short)) && phases.contains(&long));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_peer_closes_its_round_and_what_comes_late_or_twice_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let heard = |id: &str| record(id, 10);
    running.append_of_peer("peer-a", heard("r-1")).await;
    running
        .append_of_peer("peer-a", closed(&heard("r-1")))
        .await;
    running
        .append_of_peer("peer-a", closed(&heard("r-2")))
        .await;
    running.append_of_peer("peer-a", heard("r-2")).await;
    let again = RoundRecord {
        node_id: "another".to_owned(),
        ..heard("r-1")
    };
    running.append_of_peer("peer-a", again).await;
    running.append_of_peer("peer-b", heard("r-1")).await;
    running.append_of_peer("peer-a", heard("last")).await;
    running.append_of_peer("peer-b", heard("last-of-b")).await;
    running.phases_with("last-of-b").await;
    let mut phases = running.phases_with("last").await;
    phases.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| (a.1 as i32).cmp(&(b.1 as i32))));
    let expected = [
        ("last", RoundPhase::Open),
        ("last-of-b", RoundPhase::Open),
        ("r-1", RoundPhase::Open),
        ("r-1", RoundPhase::Closed),
        ("r-2", RoundPhase::Closed),
    ];
    assert_eq!(phases, expected.map(|(id, phase)| (id.to_owned(), phase)));
    let names = running.list().await.into_iter().filter_map(|r| r.record);
    assert!(names.into_iter().all(|record| record.node_id == "south"));
    // They are not this node's to export.
    assert!(running.records(0, 0).await.is_empty());
    running.stop().await;
}
