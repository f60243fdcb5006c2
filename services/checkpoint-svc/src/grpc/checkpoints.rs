//! `sovereign.checkpoint.v1.Checkpoints`.

use bytes::Bytes;
use sovereign_model::{Digest, Version};
use sovereign_proto::checkpoint::v1::checkpoints_server::Checkpoints;
use sovereign_proto::checkpoint::v1::{
    CheckpointMeta, GetRequest, GetResponse, ListChangesRequest, ListChangesResponse, ListRequest,
    ListResponse, PutHeader, PutRequest, PutResponse, get_request, get_response, put_request,
};
use sovereign_proto::topics::CHECKPOINT_STORED;
use sovereign_service::{chain, status_of};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api, MAX_CHECKPOINT_UPLOADS, blocking, page, write};
use crate::domain::{Class, Decision, decide};
use crate::error::StoreError;
use crate::store::{Logged, Reader, Upload};
use crate::wire;

impl Api {
    async fn receive_checkpoint(
        &self,
        mut parts: Streaming<PutRequest>,
    ) -> Result<Logged, StoreError> {
        let limit = MAX_CHECKPOINT_UPLOADS;
        let permit = self.checkpoint_uploads.try_acquire();
        let _permit = permit.map_err(|_| StoreError::TooManyUploads { limit })?;
        let first = self.next_part(&mut parts).await?;
        let Some(put_request::Part::Header(header)) = first.and_then(|first| first.part) else {
            return Err(StoreError::HeaderPlace);
        };
        let (version, expected) = parse_header(&header)?;
        let (version, mut upload) = self.begin(version, expected).await?;
        while let Some(part) = self.next_part(&mut parts).await? {
            let Some(put_request::Part::Chunk(chunk)) = part.part else {
                return Err(StoreError::HeaderPlace);
            };
            upload = write(upload, chunk).await?;
        }
        let now = self.clock.now();
        // To its end on that thread: a caller that gives up meanwhile takes nothing back.
        let inserted = blocking(move || upload.finish_as(version, expected, now)).await?;
        self.count(&inserted);
        let (logged, is_new) = inserted.version.ok_or(StoreError::NotFound)?;
        if is_new {
            let change = wire::change(&logged, self.store.backend());
            tracing::info!(version = %logged.checkpoint.version, digest = %logged.checkpoint.digest, size_bytes = logged.checkpoint.size_bytes, "checkpoint stored");
            if let Err(error) = self.bus.publish(&CHECKPOINT_STORED, None, &change).await {
                self.metrics.hints_lost.inc();
                tracing::debug!(error = %chain(&error), "nobody hears of a checkpoint at once");
            }
        }
        Ok(logged)
    }

    async fn begin(
        &self,
        version: Version,
        expected: Option<Digest>,
    ) -> Result<(Version, Upload), StoreError> {
        self.ask(move |store| {
            let stored = store.version(&version)?.map(|logged| logged.checkpoint);
            // Said before the bytes are sent, when the caller told what they will be.
            if let Some(expected) = &expected
                && decide(stored.as_ref(), expected) == Decision::Taken
            {
                return Err(StoreError::Taken(version));
            }
            // What is there already has its room: it can be put again, to repair it too.
            let known_bytes = match &expected {
                Some(expected) => store.object(expected)?.map(|object| object.size_bytes),
                None => stored.map(|checkpoint| checkpoint.size_bytes),
            };
            let upload = store.begin(Class::Checkpoint, known_bytes.unwrap_or_default());
            Ok((version, upload))
        })
        .await
    }

    async fn find(&self, request: GetRequest) -> Result<(Logged, Reader), StoreError> {
        let key = request.key.ok_or(StoreError::KeyMissing)?;
        self.ask(move |store| {
            let logged = match key {
                get_request::Key::Version(text) => store.version(&wire::version(&text)?)?,
                get_request::Key::Digest(text) => {
                    store.version_of(&wire::hex_digest("digest", &text)?)?
                }
            };
            let logged = logged.ok_or(StoreError::NotFound)?;
            let reader = store.read(&logged.checkpoint.digest, 0, 0)?;
            Ok((logged, reader))
        })
        .await
    }

    fn meta(&self, logged: &Logged) -> CheckpointMeta {
        wire::meta(logged, self.store.backend())
    }
}

fn parse_header(header: &PutHeader) -> Result<(Version, Option<Digest>), StoreError> {
    let version = wire::version(&header.version)?;
    let digest = match header.digest.as_str() {
        "" => None,
        digest => Some(wire::hex_digest("digest", digest)?),
    };
    Ok((version, digest))
}

fn chunk_of(chunk: Bytes) -> GetResponse {
    GetResponse {
        part: Some(get_response::Part::Chunk(chunk)),
    }
}

#[tonic::async_trait]
impl Checkpoints for Api {
    type GetStream = Answers<GetResponse>;

    async fn put(
        &self,
        request: Request<Streaming<PutRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        match self.receive_checkpoint(request.into_inner()).await {
            Ok(logged) => Ok(Response::new(PutResponse {
                meta: Some(self.meta(&logged)),
            })),
            Err(error) => Err(self.refused(&error)),
        }
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let found = self.find(request.into_inner()).await;
        let (logged, reader) = found.map_err(|error| self.read_failed(&error))?;
        let first = GetResponse {
            part: Some(get_response::Part::Meta(self.meta(&logged))),
        };
        Ok(Response::new(self.answers(first, reader, chunk_of)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let all = self.ask(crate::store::Store::versions).await;
        let all = all.map_err(|error| status_of(&error))?;
        Ok(Response::new(ListResponse {
            checkpoints: all.iter().map(|logged| self.meta(logged)).collect(),
        }))
    }

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let ListChangesRequest { after, limit } = request.into_inner();
        let limit = page(limit);
        let changes = self.ask(move |store| store.changes(after, limit)).await;
        let (changes, oldest_kept) = changes.map_err(|error| status_of(&error))?;
        let backend = self.store.backend();
        Ok(Response::new(ListChangesResponse {
            changes: changes
                .iter()
                .map(|logged| wire::change(logged, backend))
                .collect(),
            oldest_kept,
        }))
    }
}
