//! The `Cameras` gRPC service: arguments apart, ask the board, wrap the answer.

use std::sync::Arc;

use sovereign_proto::camera::v1::cameras_server::Cameras;
use sovereign_proto::camera::v1::{
    GetSnapshotRequest, GetSnapshotResponse, ListCamerasRequest, ListCamerasResponse,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status};

use crate::service::Board;

pub(crate) struct CamerasApi {
    pub(crate) board: Arc<Board>,
}

#[tonic::async_trait]
impl Cameras for CamerasApi {
    async fn list_cameras(
        &self,
        _request: Request<ListCamerasRequest>,
    ) -> Result<Response<ListCamerasResponse>, Status> {
        Ok(Response::new(ListCamerasResponse {
            cameras: self.board.statuses(),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let camera_id = request.into_inner().camera_id;
        let frame = self
            .board
            .snapshot(&camera_id)
            .map_err(|error| status_of(&error))?;
        Ok(Response::new(GetSnapshotResponse { frame: Some(frame) }))
    }
}
