//! The gRPC service `sovereign.checkpoint.v1.Checkpoints`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use sovereign_model::{Digest, Version};
use sovereign_proto::checkpoint::v1::checkpoints_server::{Checkpoints, CheckpointsServer};
use sovereign_proto::checkpoint::v1::{
    CheckpointMeta, GetRequest, GetResponse, ListChangesRequest, ListChangesResponse, ListRequest,
    ListResponse, PutHeader, PutRequest, PutResponse, get_request, get_response, put_request,
};
use sovereign_service::{MAX_MESSAGE_BYTES, status_of};
use tokio::sync::{Notify, Semaphore};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::{Checkpoint, Decision, decide};
use crate::error::CheckpointError;
use crate::metrics::Metrics;
use crate::service::now;
use crate::store::{CHUNK_BYTES, Reader, Store, Stored};

/// Uploads at a time; further ones fail with RESOURCE_EXHAUSTED.
const MAX_UPLOADS: usize = 16;
/// An upload of which nothing comes for this long fails with DEADLINE_EXCEEDED, so that callers that fell
/// silent do not keep the others out.
const IDLE: Duration = Duration::from_secs(30);

type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

/// The calls, over the store.
#[derive(Debug)]
pub(crate) struct Calls {
    store: Store,
    metrics: Metrics,
    /// Told when something is to be announced.
    stored: Arc<Notify>,
    uploads: Semaphore,
    idle: Duration,
}

impl Calls {
    pub(crate) fn new(store: Store, metrics: Metrics, stored: Arc<Notify>) -> Self {
        Self {
            store,
            metrics,
            stored,
            uploads: Semaphore::new(MAX_UPLOADS),
            idle: IDLE,
        }
    }

    pub(crate) fn routes(self) -> Routes {
        Routes::new(
            CheckpointsServer::new(self)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    async fn receive(
        &self,
        mut parts: Streaming<PutRequest>,
    ) -> Result<Checkpoint, CheckpointError> {
        let permit = self.uploads.try_acquire();
        let _permit = permit.map_err(|_| CheckpointError::TooManyUploads { limit: MAX_UPLOADS })?;
        let (version, expected) = match self.next_part(&mut parts).await? {
            Some(put_request::Part::Header(header)) => parse_header(&header)?,
            Some(put_request::Part::Chunk(_)) | None => return Err(CheckpointError::HeaderPlace),
        };
        let store = self.store.clone();
        let (version, mut upload) = blocking(move || {
            let stored = store.by_version(&version)?;
            // Said before the bytes are sent, when the caller told what they will be.
            if let Some(expected) = &expected
                && decide(stored.as_ref(), expected) == Decision::Taken
            {
                return Err(CheckpointError::Taken(version));
            }
            // What is there already has its room: it can be put again, to repair it too.
            let known = match &expected {
                Some(expected) => store.by_digest(expected)?,
                None => stored,
            };
            let known_bytes = known.map_or(0, |checkpoint| checkpoint.size_bytes);
            Ok((version, store.begin(known_bytes)?))
        })
        .await?;
        while let Some(part) = self.next_part(&mut parts).await? {
            let chunk = match part {
                put_request::Part::Chunk(chunk) => chunk,
                put_request::Part::Header(_) => return Err(CheckpointError::HeaderPlace),
            };
            if chunk.len() > CHUNK_BYTES {
                return Err(CheckpointError::ChunkTooLarge {
                    size: chunk.len(),
                    limit: CHUNK_BYTES,
                });
            }
            upload = blocking(move || upload.write(&chunk).map(|()| upload)).await?;
        }
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        let announce = self.stored.clone();
        blocking(move || {
            // To its end on this thread: a caller that gives up meanwhile takes nothing back.
            match upload.finish(&version, expected, now())? {
                Stored::New(checkpoint) => {
                    metrics.stored.inc();
                    metrics.size.set(store.size_bytes());
                    announce.notify_one();
                    tracing::info!(version = %checkpoint.version, digest = %checkpoint.digest, size_bytes = checkpoint.size_bytes, "checkpoint stored");
                    Ok(checkpoint)
                }
                Stored::Known(checkpoint) => {
                    metrics.known.inc();
                    Ok(checkpoint)
                }
            }
        })
        .await
    }

    async fn next_part(
        &self,
        parts: &mut Streaming<PutRequest>,
    ) -> Result<Option<put_request::Part>, CheckpointError> {
        let Ok(part) = tokio::time::timeout(self.idle, parts.message()).await else {
            self.metrics.idle_uploads.inc();
            let seconds = self.idle.as_secs();
            return Err(CheckpointError::Idle { seconds });
        };
        match part.map_err(CheckpointError::Upload)? {
            Some(PutRequest { part: Some(part) }) => Ok(Some(part)),
            Some(PutRequest { part: None }) => Err(CheckpointError::HeaderPlace),
            None => Ok(None),
        }
    }

    async fn find(&self, request: GetRequest) -> Result<(Checkpoint, Reader), CheckpointError> {
        let key = request.key.ok_or(CheckpointError::KeyMissing)?;
        let store = self.store.clone();
        blocking(move || {
            let checkpoint = match key {
                get_request::Key::Version(text) => store.by_version(&parse_version(&text)?),
                get_request::Key::Digest(text) => {
                    let digest = Digest::from_hex(&text).map_err(CheckpointError::Digest)?;
                    store.by_digest(&digest)
                }
            };
            let checkpoint = checkpoint?.ok_or(CheckpointError::NotFound)?;
            let reader = store.read(&checkpoint)?;
            Ok((checkpoint, reader))
        })
        .await
    }
}

#[tonic::async_trait]
impl Checkpoints for Calls {
    type GetStream = GetStream;

    async fn put(
        &self,
        request: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        match self.receive(request.into_inner()).await {
            Ok(checkpoint) => Ok(Response::new(PutResponse {
                meta: Some(meta_from_checkpoint(&checkpoint)),
            })),
            Err(error) => {
                self.metrics.refused.inc();
                Err(status_of(&error))
            }
        }
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetStream>, Status> {
        let metrics = self.metrics.clone();
        let (checkpoint, reader) = match self.find(request.into_inner()).await {
            Ok(found) => found,
            Err(error) => return Err(read_failed(&metrics, &error)),
        };
        let meta = get_response::Part::Meta(meta_from_checkpoint(&checkpoint));
        let meta = GetResponse { part: Some(meta) };
        let chunks = stream::try_unfold(reader, move |reader| {
            let metrics = metrics.clone();
            async move {
                match next_chunk(reader).await {
                    Ok(Some((chunk, reader))) => {
                        let part = Some(get_response::Part::Chunk(chunk));
                        Ok(Some((GetResponse { part }, reader)))
                    }
                    Ok(None) => {
                        metrics.reads.inc();
                        Ok(None)
                    }
                    Err(error) => Err(read_failed(&metrics, &error)),
                }
            }
        });
        let first = stream::once(async move { Ok(meta) });
        Ok(Response::new(Box::pin(futures::StreamExt::chain(
            first, chunks,
        ))))
    }

    async fn list_changes(
        &self,
        _request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        Err(Status::unimplemented("the log is not kept yet"))
    }

    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let store = self.store.clone();
        match blocking(move || store.list()).await {
            Ok(all) => Ok(Response::new(ListResponse {
                checkpoints: all.iter().map(meta_from_checkpoint).collect(),
            })),
            Err(error) => Err(status_of(&error)),
        }
    }
}

async fn next_chunk(mut reader: Reader) -> Result<Option<(Bytes, Reader)>, CheckpointError> {
    blocking(move || Ok(reader.next()?.map(|chunk| (chunk, reader)))).await
}

fn read_failed(metrics: &Metrics, error: &CheckpointError) -> Status {
    if let CheckpointError::Damaged { digest } = error {
        metrics.damaged.inc();
        tracing::error!(%digest, "a stored checkpoint is damaged; put it again to repair it");
    }
    status_of(error)
}

fn parse_header(header: &PutHeader) -> Result<(Version, Option<Digest>), CheckpointError> {
    let version = parse_version(&header.version)?;
    if header.digest.is_empty() {
        return Ok((version, None));
    }
    let digest = Digest::from_hex(&header.digest).map_err(CheckpointError::Digest)?;
    Ok((version, Some(digest)))
}

fn parse_version(text: &str) -> Result<Version, CheckpointError> {
    Version::parse(text).map_err(|cause| CheckpointError::Version {
        field: "version",
        cause,
    })
}

/// Files and the index are read and written on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, CheckpointError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CheckpointError::Blocking(error)),
    }
}

pub(crate) fn meta_from_checkpoint(checkpoint: &Checkpoint) -> CheckpointMeta {
    CheckpointMeta {
        version: checkpoint.version.to_string(),
        digest: checkpoint.digest.to_hex(),
        cid: checkpoint.digest.cid(),
        size_bytes: checkpoint.size_bytes,
        created_unix_nanos: checkpoint.created.as_unix_nanos(),
        backend: "filesystem".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use sovereign_proto::checkpoint::v1::checkpoints_client::CheckpointsClient;
    use sovereign_service::Channel;
    use tonic::Code;

    use super::*;

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
        let store = Store::open(dir.path(), 100).unwrap();
        let metrics = Metrics::default();
        let mut calls = Calls::new(store, metrics.clone(), Arc::default());
        calls.idle = Duration::from_millis(50);
        let client = CheckpointsClient::new(Channel::local(calls.routes()));
        let silent = (0..MAX_UPLOADS).map(|number| {
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
        assert_eq!(ended.unwrap(), [Code::DeadlineExceeded; MAX_UPLOADS]);
        assert_eq!(metrics.idle_uploads.get(), MAX_UPLOADS as u64);
        let chunk = put_request::Part::Chunk(b"x".as_slice().into());
        let parts = [header("v1"), PutRequest { part: Some(chunk) }];
        client.clone().put(stream::iter(parts)).await.unwrap();
    }
}
