use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
use sovereign_proto::checkpoint::v1::{PutHeader, PutRequest, put_request};
use sovereign_service::{Channel, Context};
use tonic::Code;

use super::*;
use crate::config::Config;

fn header(version: &str) -> PutRequest {
    let version = version.to_owned();
    let digest = String::new();
    PutRequest {
        part: Some(put_request::Part::Header(PutHeader { version, digest })),
    }
}

#[tokio::test]
async fn uploads_that_fell_silent_make_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Config::default().settings().unwrap().limits;
    let store = Store::open(&dir.path().join("store"), limits).unwrap();
    let bus = Bus::memory(&dir.path().join("journal.redb"), "test").unwrap();
    let context = Context::for_tests("checkpoint-svc", bus.clone(), dir.path());
    let metrics = Metrics::new(&context.metrics);
    let mut api = Api::new(store, metrics.clone(), bus, context.clock);
    api.idle = Duration::from_millis(50);
    let client = CheckpointsClient::new(Channel::local(api.routes()));
    let silent = (0..MAX_CHECKPOINT_UPLOADS).map(|number| {
        let mut client = client.clone();
        // Every second one never says anything.
        let said = (number % 2 == 0).then(|| header(&format!("v{number}")));
        async move {
            let said = stream::iter(said).chain(stream::pending());
            client.put(said).await.unwrap_err().code()
        }
    });
    let ended = futures::future::join_all(silent);
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert_eq!(
        ended.unwrap(),
        [Code::DeadlineExceeded; MAX_CHECKPOINT_UPLOADS]
    );
    assert_eq!(metrics.idle_uploads.get(), MAX_CHECKPOINT_UPLOADS as u64);
    let chunk = put_request::Part::Chunk(b"x".as_slice().into());
    let parts = [header("v1"), PutRequest { part: Some(chunk) }];
    client.clone().put(stream::iter(parts)).await.unwrap();
}
