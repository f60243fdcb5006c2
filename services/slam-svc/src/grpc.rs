//! The `Slam` gRPC service.

use std::sync::Arc;

use sovereign_proto::slam::v1::slam_server::Slam;
use sovereign_proto::slam::v1::{
    GetKeyframeRequest, GetKeyframeResponse, ListCalibrationsRequest, ListCalibrationsResponse,
    ListKeyframesRequest, ListKeyframesResponse, RemoveCalibrationRequest,
    RemoveCalibrationResponse, SetCalibrationRequest, SetCalibrationResponse,
};
use sovereign_service::{Clock, status_of};
use tonic::{Request, Response, Status};

use crate::error::CallError;
use crate::judge::Judge;
use crate::store::Page;
use crate::wire;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

pub(crate) struct Api {
    pub(crate) judge: Arc<Judge>,
    pub(crate) clock: Clock,
}

impl Api {
    async fn keyframe(&self, frame_id: String) -> Result<GetKeyframeResponse, CallError> {
        if frame_id.is_empty() {
            return Err(CallError::NoFrameId);
        }
        let wanted = frame_id.clone();
        let record = self.judge.ask(move |store| store.record(&wanted)).await?;
        let mut verdicts = record.map(|record| record.verdicts).unwrap_or_default();
        if verdicts.is_empty() {
            return Err(CallError::UnknownFrame(frame_id));
        }
        Ok(GetKeyframeResponse {
            keyframe: Some(verdicts.remove(0)),
            earlier: verdicts,
        })
    }

    async fn list(
        &self,
        request: ListKeyframesRequest,
    ) -> Result<ListKeyframesResponse, CallError> {
        let ListKeyframesRequest {
            sensor_id,
            limit,
            after,
        } = request;
        let limit = match usize::try_from(limit) {
            Ok(0) => DEFAULT_LIMIT,
            Ok(limit) => limit.min(MAX_LIMIT),
            Err(_) => MAX_LIMIT,
        };
        let page = self.judge.ask(move |store| {
            let sensor = (!sensor_id.is_empty()).then_some(sensor_id.as_str());
            match after {
                Some(after) => store.since(sensor, after, limit),
                None => store.newest(sensor, limit),
            }
        });
        let Page {
            keyframes,
            position,
        } = page.await?;
        match after {
            Some(after) if after > position => Err(CallError::Ahead {
                after,
                newest: position,
            }),
            _ => Ok(ListKeyframesResponse {
                keyframes,
                position,
            }),
        }
    }

    async fn set(
        &self,
        request: SetCalibrationRequest,
    ) -> Result<SetCalibrationResponse, CallError> {
        let said = wire::calibration_from_wire(request.calibration.as_ref(), self.clock.now())
            .map_err(CallError::Calibration)?;
        let calibration = Some(wire::calibration_from(&said));
        let frames = self.judge.set_calibration(said).await?;
        Ok(SetCalibrationResponse {
            calibration,
            frames,
        })
    }

    async fn calibrations(&self) -> Result<ListCalibrationsResponse, CallError> {
        let (calibrations, frames_waiting) = self.judge.calibrations().await?;
        Ok(ListCalibrationsResponse {
            calibrations: calibrations.iter().map(wire::calibration_from).collect(),
            frames_waiting,
        })
    }
}

fn answer<T>(answer: Result<T, CallError>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| status_of(&error))
}

#[tonic::async_trait]
impl Slam for Api {
    async fn get_keyframe(
        &self,
        request: Request<GetKeyframeRequest>,
    ) -> Result<Response<GetKeyframeResponse>, Status> {
        answer(self.keyframe(request.into_inner().frame_id).await)
    }

    async fn list_keyframes(
        &self,
        request: Request<ListKeyframesRequest>,
    ) -> Result<Response<ListKeyframesResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }

    async fn set_calibration(
        &self,
        request: Request<SetCalibrationRequest>,
    ) -> Result<Response<SetCalibrationResponse>, Status> {
        answer(self.set(request.into_inner()).await)
    }

    async fn remove_calibration(
        &self,
        request: Request<RemoveCalibrationRequest>,
    ) -> Result<Response<RemoveCalibrationResponse>, Status> {
        let RemoveCalibrationRequest {
            camera_model,
            sensor_id,
        } = request.into_inner();
        let model = camera_model.trim().to_owned();
        let removed = self.judge.remove_calibration(model, sensor_id).await;
        answer(removed.map(|frames| RemoveCalibrationResponse { frames }))
    }

    async fn list_calibrations(
        &self,
        _: Request<ListCalibrationsRequest>,
    ) -> Result<Response<ListCalibrationsResponse>, Status> {
        answer(self.calibrations().await)
    }
}
