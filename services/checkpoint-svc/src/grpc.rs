//! Both gRPC services, over the store.

mod checkpoints;
mod objects;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use sovereign_bus::Bus;
use sovereign_proto::checkpoint::v1::checkpoints_server::CheckpointsServer;
use sovereign_proto::checkpoint::v1::objects_server::ObjectsServer;
use sovereign_service::{Clock, limited, status_of};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use crate::error::StoreError;
use crate::metrics::Metrics;
use crate::store::{CHUNK_BYTES, Reader, Store, Upload};

/// Uploads of objects at a time; further ones wait. Each holds half a MiB at most.
const MAX_OBJECT_UPLOADS: usize = 64;
/// Uploads of checkpoints at a time; further ones fail with RESOURCE_EXHAUSTED.
const MAX_CHECKPOINT_UPLOADS: usize = 16;
/// An upload of which nothing comes for this long fails with DEADLINE_EXCEEDED, so that callers that fell
/// silent do not keep the others out.
const IDLE: Duration = Duration::from_secs(30);
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug, Clone)]
pub(crate) struct Api {
    store: Store,
    metrics: Metrics,
    bus: Bus,
    clock: Clock,
    object_uploads: Arc<Semaphore>,
    checkpoint_uploads: Arc<Semaphore>,
    idle: Duration,
}

impl Api {
    pub(crate) fn new(store: Store, metrics: Metrics, bus: Bus, clock: Clock) -> Self {
        Self {
            store,
            metrics,
            bus,
            clock,
            object_uploads: Arc::new(Semaphore::new(MAX_OBJECT_UPLOADS)),
            checkpoint_uploads: Arc::new(Semaphore::new(MAX_CHECKPOINT_UPLOADS)),
            idle: IDLE,
        }
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(limited!(CheckpointsServer::new(self.clone())))
            .add_service(limited!(ObjectsServer::new(self.clone())))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        blocking(move || question(&store)).await
    }

    async fn next_part<T>(&self, parts: &mut Streaming<T>) -> Result<Option<T>, StoreError> {
        let Ok(part) = tokio::time::timeout(self.idle, parts.message()).await else {
            self.metrics.idle_uploads.inc();
            let seconds = self.idle.as_secs();
            return Err(StoreError::Idle { seconds });
        };
        part.map_err(StoreError::Upload)
    }

    fn refused(&self, error: &StoreError) -> Status {
        self.metrics.refused.inc();
        status_of(error)
    }

    fn read_failed(&self, error: &StoreError) -> Status {
        if let StoreError::Damaged { digest } = error {
            self.metrics.damaged.inc();
            tracing::error!(%digest, "a stored object is damaged; put it again to repair it");
        }
        status_of(error)
    }

    fn answers<T: Send + 'static>(
        &self,
        first: T,
        reader: Reader,
        wrap: fn(Bytes) -> T,
    ) -> Answers<T> {
        let api = self.clone();
        let chunks = stream::try_unfold(reader, move |mut reader| {
            let api = api.clone();
            async move {
                let next = blocking(move || Ok(reader.next()?.map(|chunk| (chunk, reader))));
                match next.await {
                    Ok(Some((chunk, reader))) => Ok(Some((wrap(chunk), reader))),
                    Ok(None) => {
                        api.metrics.reads.inc();
                        Ok(None)
                    }
                    Err(error) => Err(api.read_failed(&error)),
                }
            }
        });
        Box::pin(stream::once(async move { Ok(first) }).chain(chunks))
    }
}

async fn write(mut upload: Upload, chunk: Bytes) -> Result<Upload, StoreError> {
    if chunk.len() > CHUNK_BYTES {
        return Err(StoreError::ChunkTooLarge {
            size: chunk.len(),
            limit: CHUNK_BYTES,
        });
    }
    blocking(move || upload.write(&chunk).map(|()| upload)).await
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Blocking(error)),
    }
}

fn page(limit: u32) -> usize {
    match usize::try_from(limit) {
        Ok(0) => DEFAULT_LIMIT,
        Ok(limit) => limit.min(MAX_LIMIT),
        Err(_) => MAX_LIMIT,
    }
}

#[cfg(test)]
mod tests;
