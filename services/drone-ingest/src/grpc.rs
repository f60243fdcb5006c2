//! The calls, and the wire form of what the domain says.

use std::collections::HashMap;
use std::sync::Arc;

use sovereign_model::{Intrinsics, SensorId, Timestamp};
use sovereign_proto::convert::FieldError;
use sovereign_proto::drone::v1 as drone;
use sovereign_proto::drone::v1::drones_server::{Drones, DronesServer};
use sovereign_proto::geo::v1 as wire;
use sovereign_service::{MAX_MESSAGE_BYTES, status_of};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::domain::history::{Fix, Looking};
use crate::domain::jpeg::jpeg_size;
use crate::domain::telemetry::Position;
use crate::domain::vehicle::Snapshot;
use crate::error::CaptureError;
use crate::service::{self, Picture, Shared};

/// How a camera can be mounted, degrees from the nose.
const MOUNT_PITCH_DEG: std::ops::RangeInclusive<f64> = -180.0..=180.0;

/// The service `Drones`.
pub(crate) fn routes(shared: Arc<Shared>) -> Routes {
    Routes::new(
        DronesServer::new(DronesCalls { shared })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
}

struct DronesCalls {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Drones for DronesCalls {
    async fn list_vehicles(
        &self,
        _request: Request<drone::ListVehiclesRequest>,
    ) -> Result<Response<drone::ListVehiclesResponse>, Status> {
        let vehicles = self.shared.door().vehicles();
        let vehicles = vehicles.iter().map(|(s, _)| state_from_snapshot(s));
        Ok(Response::new(drone::ListVehiclesResponse {
            vehicles: vehicles.collect(),
        }))
    }

    async fn submit_capture(
        &self,
        request: Request<drone::SubmitCaptureRequest>,
    ) -> Result<Response<drone::SubmitCaptureResponse>, Status> {
        let latest = self.shared.door().latest_time(service::now());
        let limit = self.shared.capture_limit();
        let queued = match picture(request.into_inner(), limit, latest) {
            Ok(picture) => self.shared.capture(picture).await,
            Err(error) => Err(error),
        };
        match queued {
            Ok(queued) => Ok(Response::new(drone::SubmitCaptureResponse {
                frame_id: queued.frame_id,
                duplicate: queued.duplicate,
            })),
            Err(error) => {
                self.shared.door().stats_mut().reject(error.reject());
                Err(status_of(&error))
            }
        }
    }

    async fn get_ingest_stats(
        &self,
        _request: Request<drone::GetIngestStatsRequest>,
    ) -> Result<Response<drone::GetIngestStatsResponse>, Status> {
        let (stats, vehicles) = {
            let door = self.shared.door();
            (door.stats().clone(), door.vehicles())
        };
        let owned = |(name, count): (&'static str, u64)| (name.to_owned(), count);
        let last_accepted: HashMap<String, f64> = vehicles
            .iter()
            .map(|(state, heard)| {
                let seconds = heard.as_unix_nanos() as f64 / 1e9;
                (state.vehicle_id.to_string(), seconds)
            })
            .collect();
        let rejected = stats.rejected_by_reason();
        Ok(Response::new(drone::GetIngestStatsResponse {
            datagrams: stats.datagrams,
            bytes: stats.bytes,
            accepted_by_type: stats.accepted_by_type().map(owned).collect(),
            rejected_by_reason: rejected.map(|(r, n)| (r.code().to_owned(), n)).collect(),
            messages_by_source: stats.messages_by_source().collect(),
            messages_by_version: stats.messages_by_version().map(owned).into(),
            last_accepted_unix_by_vehicle: last_accepted,
            active_vehicles: vehicles.len() as u64,
        }))
    }
}

/// Checks a request, field by field. `limit` is that of the picture in bytes; no exposure is later than
/// `latest`.
fn picture(
    request: drone::SubmitCaptureRequest,
    limit: usize,
    latest: Timestamp,
) -> Result<Picture, CaptureError> {
    let field = |name: &str, why: String| CaptureError::from(FieldError::new(name, why));
    let vehicle_id = SensorId::parse(&request.vehicle_id)
        .map_err(|error| field("vehicle_id", format!("cannot be used: {error}")))?;
    if request.image.len() > limit {
        return Err(CaptureError::TooLarge {
            limit,
            size: request.image.len(),
        });
    }
    jpeg_size(&request.image).map_err(CaptureError::Image)?;
    let captured = match request.captured_unix_nanos {
        0 => None,
        nanos if nanos > latest.as_unix_nanos() => {
            return Err(field(
                "captured_unix_nanos",
                format!("is {nanos}, further ahead of this door's clock than the allowed skew"),
            ));
        }
        nanos if nanos > 0 => Some(Timestamp::from_unix_nanos(nanos)),
        nanos => {
            return Err(field(
                "captured_unix_nanos",
                format!("is {nanos}, before 1970"),
            ));
        }
    };
    if let Some(intrinsics) = &request.intrinsics {
        Intrinsics::try_from(intrinsics).map_err(|error| error.within("intrinsics"))?;
    }
    if let Some(pitch) = request.mount_pitch_deg
        && !MOUNT_PITCH_DEG.contains(&pitch)
    {
        return Err(field(
            "mount_pitch_deg",
            format!("is {pitch}, must be -180 to 180"),
        ));
    }
    Ok(Picture {
        vehicle_id,
        image: request.image,
        captured,
        intrinsics: request.intrinsics,
        mount_pitch_deg: request.mount_pitch_deg,
        simulated: request.simulated,
    })
}

impl From<FieldError> for CaptureError {
    fn from(FieldError { field, why }: FieldError) -> CaptureError {
        CaptureError::Field { field, why }
    }
}

/// A place as a message.
pub(crate) fn point_from_position(position: Position) -> wire::GeoPoint {
    wire::GeoPoint {
        latitude_deg: position.latitude_deg,
        longitude_deg: position.longitude_deg,
        altitude_m: position.altitude_m,
    }
}

/// Matched telemetry as a message.
pub(crate) fn telemetry_from_fix(fix: &Fix) -> wire::TelemetryFix {
    let (attitude, attitude_is_camera) = match fix.looking {
        Some(Looking::Camera(attitude)) => (Some(attitude.into()), true),
        Some(Looking::Body(attitude)) => (Some(attitude.into()), false),
        None => (None, false),
    };
    wire::TelemetryFix {
        position: Some(point_from_position(fix.place.position)),
        relative_altitude_m: fix.place.relative_altitude_m,
        attitude,
        attitude_is_camera,
        time_offset_nanos: i64::try_from(fix.offset.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// A state as a message.
pub(crate) fn state_from_snapshot(state: &Snapshot) -> drone::VehicleState {
    drone::VehicleState {
        vehicle_id: state.vehicle_id.to_string(),
        observed_unix_nanos: state.observed.as_unix_nanos(),
        position: state.position.map(point_from_position),
        relative_altitude_m: state.relative_altitude_m,
        attitude: state.attitude.map(Into::into),
        velocity: state.velocity.map(|velocity| wire::VelocityNed {
            north_mps: velocity.north_mps,
            east_mps: velocity.east_mps,
            down_mps: velocity.down_mps,
        }),
        ground_speed_mps: state.ground_speed_mps,
        heading_deg: state.heading_deg,
        battery_percent: state.battery_percent,
        flight_mode: state.flight_mode.to_string(),
        source: state.source.as_str().to_owned(),
        confidence: state.confidence,
        armed: state.armed,
        link: Some(drone::LinkStats {
            messages: state.link.messages,
            lost: state.link.lost,
            signed: state.link.signed,
        }),
        simulated: state.simulated,
        sensor_health: state.sensor_health.to_string(),
    }
}
