//! The `Slam` gRPC service: arguments apart, ask the store, wrap the answer.

use std::sync::Arc;

use sovereign_proto::slam::v1::slam_server::Slam;
use sovereign_proto::slam::v1::{
    GetKeyframeRequest, GetKeyframeResponse, ListKeyframesRequest, ListKeyframesResponse,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status};

use crate::error::{CallError, StoreError};
use crate::store::Store;

/// Keyframes listed when the caller does not say how many.
const DEFAULT_LIMIT: usize = 100;
/// Keyframes listed at most; a larger wish gets this many.
const MAX_LIMIT: usize = 1000;

pub(crate) struct SlamApi {
    pub(crate) store: Arc<Store>,
}

impl SlamApi {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, CallError> {
        let store = self.store.clone();
        let answer = tokio::task::spawn_blocking(move || question(&store))
            .await
            .map_err(StoreError::Thread)?;
        Ok(answer?)
    }
}

#[tonic::async_trait]
impl Slam for SlamApi {
    async fn get_keyframe(
        &self,
        request: Request<GetKeyframeRequest>,
    ) -> Result<Response<GetKeyframeResponse>, Status> {
        let frame_id = request.into_inner().frame_id;
        if frame_id.is_empty() {
            return Err(status_of(&CallError::NoFrameId));
        }
        let wanted = frame_id.clone();
        let keyframe = self
            .ask(move |store| store.keyframe(&wanted))
            .await
            .and_then(|found| found.ok_or(CallError::UnknownFrame(frame_id)))
            .map_err(|error| status_of(&error))?;
        Ok(Response::new(GetKeyframeResponse {
            keyframe: Some(keyframe),
        }))
    }

    async fn list_keyframes(
        &self,
        request: Request<ListKeyframesRequest>,
    ) -> Result<Response<ListKeyframesResponse>, Status> {
        let ListKeyframesRequest { sensor_id, limit } = request.into_inner();
        let limit = match usize::try_from(limit) {
            Ok(0) => DEFAULT_LIMIT,
            Ok(limit) => limit.min(MAX_LIMIT),
            Err(_) => MAX_LIMIT,
        };
        let keyframes = self
            .ask(move |store| {
                let sensor = (!sensor_id.is_empty()).then_some(sensor_id.as_str());
                store.newest(sensor, limit)
            })
            .await
            .map_err(|error| status_of(&error))?;
        Ok(Response::new(ListKeyframesResponse { keyframes }))
    }
}
