//! The checkpoint store over its gRPC service and the bus.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use checkpoint_svc::{CheckpointRoom, CheckpointService, Config};
use futures::{StreamExt as _, stream};
use sovereign_bus::{Bus, Mailbox, Select};
use sovereign_model::Digest;
use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
use sovereign_proto::checkpoint::v1::{
    CheckpointChange, CheckpointMeta, GetRequest, ListChangesRequest, ListRequest, PutHeader,
    PutRequest, get_request, get_response, put_request,
};
use sovereign_proto::topics::CHECKPOINT_STORED;
use sovereign_service::{Channel, Context, RunError, Service, StopSource};
use tokio::task::JoinSet;
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

struct Running {
    client: CheckpointsClient<Channel>,
    bus: Bus,
    stop: StopSource,
    running: JoinSet<Result<(), RunError>>,
}

async fn start(dir: &Path, config: Config) -> Running {
    let bus = Bus::memory(&dir.join("journal.redb"), "test").unwrap();
    let data = dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let context = Context::for_tests(CheckpointService::NAME, bus.clone(), &data);
    let ready = context.ready.clone();
    let service =
        CheckpointService::build(CheckpointService::settings(config).unwrap(), (), context)
            .await
            .unwrap();
    let client = CheckpointsClient::new(Channel::local(service.routes()));
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
    async fn put(
        &self,
        version: &str,
        digest: &str,
        chunks: Vec<Vec<u8>>,
    ) -> Result<CheckpointMeta, Status> {
        self.send(messages(version, digest, chunks)).await
    }

    async fn send(&self, messages: Vec<PutRequest>) -> Result<CheckpointMeta, Status> {
        let mut client = self.client.clone();
        let response = within(client.put(tokio_stream::iter(messages))).await?;
        Ok(response.into_inner().meta.unwrap())
    }

    /// Chunks that arrived, and how it ended.
    async fn get(&self, key: get_request::Key) -> (Vec<Vec<u8>>, Result<CheckpointMeta, Status>) {
        let request = GetRequest { key: Some(key) };
        let mut stream = match self.client.clone().get(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (Vec::new(), Err(status)),
        };
        let (mut chunks, mut meta) = (Vec::new(), None);
        loop {
            match within(stream.message()).await {
                Ok(Some(response)) => match response.part.unwrap() {
                    get_response::Part::Meta(first) => {
                        assert!(meta.is_none() && chunks.is_empty(), "metadata comes first");
                        meta = Some(first);
                    }
                    get_response::Part::Chunk(chunk) => chunks.push(chunk.to_vec()),
                },
                Ok(None) => return (chunks, Ok(meta.unwrap())),
                Err(status) => return (chunks, Err(status)),
            }
        }
    }

    async fn list(&self) -> Vec<CheckpointMeta> {
        let mut client = self.client.clone();
        let response = within(client.list(ListRequest {})).await;
        response.unwrap().into_inner().checkpoints
    }

    async fn announcements(&self) -> Mailbox<CheckpointChange> {
        let all = self.bus.subscribe(&CHECKPOINT_STORED, Select::All).await;
        all.unwrap()
    }

    async fn stop(mut self) {
        self.stop.request();
        let ended = within(self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap();
        self.bus.close().await;
    }
}

fn messages(version: &str, digest: &str, chunks: Vec<Vec<u8>>) -> Vec<PutRequest> {
    let header = put_request::Part::Header(PutHeader {
        version: version.to_owned(),
        digest: digest.to_owned(),
    });
    let chunks = chunks
        .into_iter()
        .map(|c| put_request::Part::Chunk(c.into()));
    let parts = std::iter::once(header).chain(chunks);
    parts.map(|part| PutRequest { part: Some(part) }).collect()
}

fn version(text: &str) -> get_request::Key {
    get_request::Key::Version(text.to_owned())
}

fn object(dir: &Path, meta: &CheckpointMeta) -> PathBuf {
    let objects = dir.join("data").join("objects");
    objects.join(&meta.digest[..2]).join(&meta.digest)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("happens within the limit")
}

async fn next(announced: &mut Mailbox<CheckpointChange>) -> CheckpointMeta {
    let event = within(announced.recv()).await.unwrap();
    event.message.meta.unwrap()
}

#[tokio::test]
async fn a_checkpoint_comes_back_as_it_was_put_and_is_announced_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let mut announced = running.announcements().await;
    let chunks: Vec<Vec<u8>> = vec![vec![1; MIB], vec![2; 3], vec![3; MIB], vec![4; 100]];
    let bytes = chunks.concat();
    let digest = Digest::of(&bytes);

    let meta = running
        .put("v1.0", &digest.to_hex(), chunks.clone())
        .await
        .unwrap();
    assert_eq!(meta.version, "v1.0");
    assert_eq!(meta.digest, digest.to_hex());
    assert_eq!(meta.cid, digest.cid());
    assert_eq!(meta.size_bytes, bytes.len() as u64);
    assert_eq!(meta.backend, "filesystem");
    assert!(meta.created_unix_nanos > 0);
    assert_eq!(next(&mut announced).await, meta);

    let again = running.put("v1.0", "", chunks).await.unwrap();
    assert_eq!(again, meta);
    let other = running
        .put("v0.9", "", vec![b"small".to_vec()])
        .await
        .unwrap();
    assert_eq!(
        next(&mut announced).await,
        other,
        "the second put is not announced"
    );

    for key in [version("v1.0"), get_request::Key::Digest(digest.to_hex())] {
        let (chunks, ended) = running.get(key).await;
        assert_eq!(ended.unwrap(), meta);
        assert_eq!(chunks.concat(), bytes);
        assert!(chunks.iter().all(|chunk| chunk.len() <= MIB));
    }
    assert_eq!(running.list().await, [other.clone(), meta.clone()]);
    running.stop().await;

    let running = start(dir.path(), Config::default()).await;
    assert_eq!(running.list().await, [other, meta]);
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_never_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let chunks = vec![vec![1; MIB], vec![2; MIB], vec![3; 10]];
    let meta = running.put("v1", "", chunks.clone()).await.unwrap();
    let mut bytes = chunks.concat();
    bytes[7] ^= 0x80;
    std::fs::write(object(dir.path(), &meta), &bytes).unwrap();
    let (read, ended) = running.get(version("v1")).await;
    assert_eq!(ended.unwrap_err().code(), Code::DataLoss);
    assert!(read.is_empty(), "nothing that was not verified leaves");

    std::fs::remove_file(object(dir.path(), &meta)).unwrap();
    let (read, ended) = running.get(version("v1")).await;
    assert_eq!(ended.unwrap_err().code(), Code::DataLoss);
    assert!(read.is_empty());

    running.put("v1", "", chunks.clone()).await.unwrap();
    let (read, ended) = running.get(version("v1")).await;
    assert_eq!(ended.unwrap(), meta);
    assert_eq!(read.concat(), chunks.concat());
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        checkpoints: CheckpointRoom {
            max_bytes: 3 * MIB as u64,
        },
        ..Config::default()
    };
    let running = start(dir.path(), config).await;
    let kept = running
        .put("kept", "", vec![b"kept".to_vec()])
        .await
        .unwrap();
    let one = || vec![b"x".to_vec()];
    let wrong = Digest::of(b"y").to_hex();
    for name in ["", "../up", "a/b", ".."] {
        let status = running.put(name, "", one()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("version"), "{}", status.message());
    }
    let cases = [
        ("v1", wrong.as_str(), one(), Code::InvalidArgument),
        ("v1", "nothex", one(), Code::InvalidArgument),
        ("v1", "", vec![], Code::InvalidArgument),
        ("v1", "", vec![vec![0; MIB + 1]], Code::InvalidArgument),
        ("v1", "", vec![vec![0; MIB]; 3], Code::ResourceExhausted),
        ("kept", "", one(), Code::AlreadyExists),
        ("kept", &wrong, one(), Code::AlreadyExists),
    ];
    for (name, digest, chunks, code) in cases {
        let status = running.put(name, digest, chunks).await.unwrap_err();
        assert_eq!(status.code(), code, "{name} {digest}: {}", status.message());
    }
    let headless = messages("v1", "", one()).split_off(1);
    let twice = [messages("v1", "", one()), messages("v1", "", one())].concat();
    for wrong in [vec![], headless, twice, vec![PutRequest { part: None }]] {
        let status = running.send(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert_eq!(running.list().await, [kept]);
    let incoming = std::fs::read_dir(dir.path().join("data").join("incoming"));
    assert_eq!(incoming.unwrap().count(), 0);
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let digest = Digest::of(b"nothing").to_hex();
    let cases = [
        (version("v1"), Code::NotFound),
        (get_request::Key::Digest(digest), Code::NotFound),
        (version("../v1"), Code::InvalidArgument),
        (
            get_request::Key::Digest("12".to_owned()),
            Code::InvalidArgument,
        ),
    ];
    for (key, code) in cases {
        let (_, ended) = running.get(key).await;
        assert_eq!(ended.unwrap_err().code(), code);
    }
    let status = running
        .client
        .clone()
        .get(GetRequest { key: None })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test]
async fn of_two_contents_that_race_for_a_version_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let (a, b) = tokio::join!(
        running.put("v1", "", vec![b"first".to_vec(); 50]),
        running.put("v1", "", vec![b"other".to_vec(); 50]),
    );
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    assert_eq!(lost.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(running.list().await, [won.unwrap()]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_stored_is_in_the_log_also_when_its_caller_gave_up() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let sent = Arc::new(AtomicBool::new(false));
    let all_sent = sent.clone();
    let messages = stream::iter(messages("v1", "", vec![vec![1; MIB]]));
    let messages = messages.chain(stream::poll_fn(move |_| {
        all_sent.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    }));
    let mut client = running.client.clone();
    let mut put = Box::pin(client.put(messages));
    // A local call runs where it is polled: the poll that finds the end of the stream also begins to
    // store, on another thread.
    within(std::future::poll_fn(|context| {
        let _ = put.as_mut().poll(context);
        if sent.load(Ordering::Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }))
    .await;
    drop(put);
    let changes = within(async {
        loop {
            let mut client = running.client.clone();
            let request = ListChangesRequest::default();
            let answer = client.list_changes(request).await.unwrap().into_inner();
            if !answer.changes.is_empty() {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((changes.oldest_kept, changes.changes[0].sequence), (1, 1));
    let logged: Vec<_> = changes.changes.into_iter().filter_map(|c| c.meta).collect();
    assert_eq!(running.list().await, logged);
    running.stop().await;
}

#[tokio::test]
async fn what_is_there_can_be_put_again_into_a_full_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        checkpoints: CheckpointRoom {
            max_bytes: 2 * MIB as u64,
        },
        ..Config::default()
    };
    let running = start(dir.path(), config).await;
    let chunks = || vec![vec![1; MIB], vec![2; MIB]];
    let meta = running.put("v1", "", chunks()).await.unwrap();
    std::fs::write(object(dir.path(), &meta), b"damaged").unwrap();
    for digest in ["", &meta.digest] {
        assert_eq!(running.put("v1", digest, chunks()).await.unwrap(), meta);
    }
    let (read, ended) = running.get(version("v1")).await;
    assert_eq!(ended.unwrap(), meta);
    assert_eq!(read.concat(), chunks().concat());
    let other = running.put("v2", &meta.digest, chunks()).await.unwrap();
    assert_eq!(other.digest, meta.digest);

    // The digest of another opens no door.
    let longer = vec![vec![1; MIB]; 3];
    for (digest, chunks) in [("", vec![vec![3]]), (&meta.digest, longer)] {
        let status = running.put("v3", digest, chunks).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{digest}");
    }
    running.stop().await;
}
