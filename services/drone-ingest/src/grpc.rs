//! The calls.

use std::sync::Arc;

use futures::stream;
use sovereign_proto::convert::FieldError;
use sovereign_proto::drone::v1 as drone;
use sovereign_proto::drone::v1::drones_server::Drones;
use sovereign_proto::drone::v1::submit_capture_request::Part;
use sovereign_service::status_of;
use tonic::{Request, Response, Status, Streaming};

use crate::capture::Accepted;
use crate::error::CaptureError;
use crate::intake::Intake;
use crate::wire;

pub(crate) struct Api {
    pub(crate) intake: Arc<Intake>,
}

impl Api {
    async fn submit(
        &self,
        mut parts: Streaming<drone::SubmitCaptureRequest>,
    ) -> Result<Accepted, CaptureError> {
        let first = parts.message().await.map_err(CaptureError::Receive)?;
        let Some(Part::Header(header)) = first.and_then(|first| first.part) else {
            return Err(FieldError::new("header", "is missing: send it first").into());
        };
        let note = wire::note_from_header(&header, self.intake.latest_time())?;
        let pieces = stream::try_unfold(parts, |mut parts| async {
            match parts.message().await?.map(|message| message.part) {
                None => Ok(None),
                Some(Some(Part::Chunk(chunk))) => Ok(Some((chunk, parts))),
                Some(Some(Part::Header(_)) | None) => Err(Status::invalid_argument(
                    "`chunk` is missing after the header",
                )),
            }
        });
        self.intake.accept(note, pieces).await
    }
}

#[tonic::async_trait]
impl Drones for Api {
    async fn list_vehicles(
        &self,
        _request: Request<drone::ListVehiclesRequest>,
    ) -> Result<Response<drone::ListVehiclesResponse>, Status> {
        let vehicles = self.intake.door().vehicles();
        let vehicles = vehicles.iter().map(|(s, _)| wire::state_from_snapshot(s));
        Ok(Response::new(drone::ListVehiclesResponse {
            vehicles: vehicles.collect(),
        }))
    }

    async fn submit_capture(
        &self,
        request: Request<Streaming<drone::SubmitCaptureRequest>>,
    ) -> Result<Response<drone::SubmitCaptureResponse>, Status> {
        match self.submit(request.into_inner()).await {
            Ok(accepted) => Ok(Response::new(drone::SubmitCaptureResponse {
                frame_id: accepted.frame_id,
                duplicate: accepted.duplicate,
            })),
            Err(error) => {
                self.intake.door().stats_mut().reject(error.reject());
                Err(status_of(&error))
            }
        }
    }

    async fn get_ingest_stats(
        &self,
        _request: Request<drone::GetIngestStatsRequest>,
    ) -> Result<Response<drone::GetIngestStatsResponse>, Status> {
        let stats = wire::stats_from_door(&self.intake.door());
        Ok(Response::new(stats))
    }
}
