//! The `Cameras` gRPC service.

use std::sync::Arc;

use sovereign_proto::camera::v1::cameras_server::Cameras;
use sovereign_proto::camera::v1::{
    GetSnapshotRequest, GetSnapshotResponse, ListCamerasRequest, ListCamerasResponse,
};
use sovereign_service::status_of;
use tonic::{Request, Response, Status};

use crate::board::Board;
use crate::wire::{frame_from, status_from};

pub(crate) struct Api {
    pub(crate) board: Arc<Board>,
}

#[tonic::async_trait]
impl Cameras for Api {
    async fn list_cameras(
        &self,
        _request: Request<ListCamerasRequest>,
    ) -> Result<Response<ListCamerasResponse>, Status> {
        let statuses = self.board.statuses().into_iter();
        let cameras = statuses.map(|(id, status)| status_from(id, status));
        Ok(Response::new(ListCamerasResponse {
            cameras: cameras.collect(),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let camera_id = request.into_inner().camera_id;
        let shot = self.board.snapshot(&camera_id);
        let shot = shot.map_err(|error| status_of(&error))?;
        Ok(Response::new(GetSnapshotResponse {
            frame: Some(frame_from(&camera_id, &shot)),
        }))
    }
}
