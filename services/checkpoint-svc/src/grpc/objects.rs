//! `sovereign.checkpoint.v1.Objects`.

use sovereign_proto::checkpoint::v1::objects_server::Objects;
use sovereign_proto::checkpoint::v1::{
    GetObjectRequest, GetObjectResponse, GetUsageRequest, GetUsageResponse, ListObjectsRequest,
    ListObjectsResponse, PutObjectRequest, PutObjectResponse, StatObjectRequest,
    StatObjectResponse, UpdatePinsRequest, UpdatePinsResponse, get_object_response,
    put_object_request,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api, blocking, page, write};
use crate::domain::CLASSES;
use crate::error::StoreError;
use crate::store::Inserted;
use crate::wire;

const MAX_PIN_CHANGES: usize = 10_000;

impl Api {
    async fn receive_object(
        &self,
        mut parts: Streaming<PutObjectRequest>,
    ) -> Result<Inserted, StoreError> {
        // Closed never: the semaphore lives as long as this.
        let _permit = self.object_uploads.acquire().await;
        let first = self.next_part(&mut parts).await?;
        let Some(put_object_request::Part::Header(header)) = first.and_then(|first| first.part)
        else {
            return Err(StoreError::HeaderPlace);
        };
        let class = wire::class(header.class())?;
        let pin = wire::pin_name(header.pin)?;
        let mut upload = self.store.begin(class, 0);
        let mut came = 0;
        loop {
            let part = self.next_part(&mut parts).await?;
            match part.ok_or(StoreError::EndMissing)?.part {
                Some(put_object_request::Part::Chunk(chunk)) => {
                    came += chunk.len() as u64;
                    upload = write(upload, chunk).await?;
                }
                Some(put_object_request::Part::End(end)) if end.size_bytes == came => break,
                Some(put_object_request::Part::End(end)) => {
                    let said = end.size_bytes;
                    return Err(StoreError::OtherSize { said, came });
                }
                Some(put_object_request::Part::Header(_)) | None => {
                    return Err(StoreError::HeaderPlace);
                }
            }
        }
        let now = self.clock.now();
        // To its end on that thread: a caller that gives up meanwhile takes nothing back.
        let inserted = blocking(move || upload.finish(pin, now)).await?;
        self.count(&inserted);
        Ok(inserted)
    }

    pub(super) fn count(&self, inserted: &Inserted) {
        let counter = if inserted.known {
            &self.metrics.known
        } else {
            &self.metrics.stored
        };
        counter.get_or_create(&inserted.object.class.into()).inc();
        self.metrics.measure(&self.store);
    }
}

fn chunk_of(chunk: bytes::Bytes) -> GetObjectResponse {
    GetObjectResponse {
        part: Some(get_object_response::Part::Chunk(chunk)),
    }
}

#[tonic::async_trait]
impl Objects for Api {
    type GetStream = Answers<GetObjectResponse>;

    async fn put(
        &self,
        request: Request<Streaming<PutObjectRequest>>,
    ) -> Result<Response<PutObjectResponse>, Status> {
        match self.receive_object(request.into_inner()).await {
            Ok(inserted) => Ok(Response::new(PutObjectResponse {
                object: Some(wire::object_info(&inserted.object, Vec::new())),
                known: inserted.known,
            })),
            Err(error) => Err(self.refused(&error)),
        }
    }

    async fn get(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        let digest = wire::digest("digest", &request.digest);
        let digest = digest.map_err(|error| status_of(&error))?;
        let reader = self
            .ask(move |store| store.read(&digest, request.offset, request.length))
            .await
            .map_err(|error| self.read_failed(&error))?;
        let object = wire::object_info(reader.object(), Vec::new());
        let first = GetObjectResponse {
            part: Some(get_object_response::Part::Object(object)),
        };
        Ok(Response::new(self.answers(first, reader, chunk_of)))
    }

    async fn stat(
        &self,
        request: Request<StatObjectRequest>,
    ) -> Result<Response<StatObjectResponse>, Status> {
        let stat = async {
            let digest = wire::digest("digest", &request.get_ref().digest)?;
            self.ask(move |store| {
                let object = store.object(&digest)?.ok_or(StoreError::NotFound)?;
                Ok((object, store.pins(&digest)?))
            })
            .await
        };
        let (object, pins) = stat.await.map_err(|error| status_of(&error))?;
        Ok(Response::new(StatObjectResponse {
            object: Some(wire::object_info(&object, pins)),
        }))
    }

    async fn update_pins(
        &self,
        request: Request<UpdatePinsRequest>,
    ) -> Result<Response<UpdatePinsResponse>, Status> {
        let update = async {
            let changes = request.into_inner().changes;
            let (count, limit) = (changes.len(), MAX_PIN_CHANGES);
            if count > limit {
                return Err(StoreError::TooManyChanges { count, limit });
            }
            let changes = changes.into_iter().map(wire::pin_change);
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            let now = self.clock.now();
            self.ask(move |store| store.update_pins(changes, now)).await
        };
        let missing = update.await.map_err(|error| status_of(&error))?;
        Ok(Response::new(UpdatePinsResponse { missing }))
    }

    async fn list(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<ListObjectsResponse>, Status> {
        let list = async {
            let request = request.into_inner();
            let class = wire::class(request.class())?;
            let after = match request.after.as_ref() {
                [] => None,
                after => Some(wire::digest("after", after)?),
            };
            let limit = page(request.limit);
            self.ask(move |store| store.list(class, after.as_ref(), limit))
                .await
        };
        let objects = list.await.map_err(|error| status_of(&error))?;
        let objects = objects
            .iter()
            .map(|object| wire::object_info(object, Vec::new()));
        Ok(Response::new(ListObjectsResponse {
            objects: objects.collect(),
        }))
    }

    async fn get_usage(
        &self,
        _: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        let classes = CLASSES.map(|class| {
            let (usage, max_bytes) = self.store.usage(class);
            wire::class_usage(class, usage, max_bytes)
        });
        Ok(Response::new(GetUsageResponse {
            classes: classes.to_vec(),
            backend: self.store.backend().to_owned(),
        }))
    }
}
