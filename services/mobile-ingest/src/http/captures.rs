//! `POST /api/v1/drones/{drone_id}/captures`: a picture from the air, on its way to the drone door.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sovereign_model::{Intrinsics, SensorId};
use sovereign_service::Code;

use super::Edge;
use super::auth::Writer;
use super::body;
use super::ingest::{accepted, require_jpeg};
use super::problem::Problem;
use super::query::{self, CaptureQuery};
use crate::domain::picture;
use crate::error::CallError;
use crate::grpc::upstream::{Calibration, DroneCapture};
use crate::service::now;

/// Accepts one picture; 202 once it is durably queued.
pub(crate) async fn submit(
    writer: Result<Writer, Problem>,
    State(edge): State<Arc<Edge>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<CaptureQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let taken = async {
        writer?;
        take(&edge, path?.0, query::checked(query)?, &headers, body).await
    };
    taken
        .await
        .inspect_err(|problem| edge.metrics.capture_refused(problem.code()))
}

async fn take(
    edge: &Edge,
    drone: String,
    written: CaptureQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let vehicle_id = SensorId::parse(&drone)
        .map_err(|error| Problem::field("drone_id", format!("drone_id: {error}")))?
        .to_string();
    let captured = query::timestamp(written.timestamp.as_deref())?;
    let limits = edge.intake.limits();
    if let Some(captured) = captured {
        limits.check_skew(captured, now())?;
    }
    let calibration = calibration(&written)?;
    if written
        .mount_pitch
        .is_some_and(|pitch| !(-180.0..=180.0).contains(&pitch))
    {
        return Err(Problem::field(
            "mount_pitch",
            "mount_pitch must be -180 to 180 degrees",
        ));
    }
    require_jpeg(headers)?;
    let held = body::read(body, headers, limits.max_picture, &edge.bodies).await?;
    picture::check_jpeg(&held.bytes)
        .map_err(|fault| Problem::field("image", format!("the body {fault}")))?;
    let capture = DroneCapture {
        vehicle_id,
        image: held.bytes,
        captured_unix_nanos: captured.map_or(0, |time| time.as_unix_nanos()),
        calibration,
        mount_pitch_deg: written.mount_pitch,
        simulated: written.simulated.unwrap_or(false),
    };
    let submitted = edge.upstream.submit_capture(capture).await;
    drop(held.room);
    let receipt = submitted.map_err(problem_from_call)?;
    edge.metrics.capture(if receipt.duplicate {
        "duplicate"
    } else {
        "accepted"
    });
    Ok(accepted(&receipt.frame_id, receipt.duplicate))
}

/// The drone door has one limit, the size of the picture; sending it again later would not help.
fn problem_from_call(error: CallError) -> Problem {
    if error.code == Code::ResourceExhausted {
        return Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            body::TOO_LARGE,
            error.message,
        );
    }
    error.into()
}

/// A camera is described as a whole or not at all; distortion may be left out.
fn calibration(written: &CaptureQuery) -> Result<Option<Calibration>, Problem> {
    let focal_and_centre = [
        ("fx", written.fx),
        ("fy", written.fy),
        ("cx", written.cx),
        ("cy", written.cy),
    ];
    let size = [("width", written.width), ("height", written.height)];
    let distortion = [written.k1, written.k2];
    let nothing = focal_and_centre.iter().all(|(_, value)| value.is_none())
        && size.iter().all(|(_, value)| value.is_none())
        && distortion.iter().all(Option::is_none);
    if nothing {
        return Ok(None);
    }
    let missing = |name: &str| {
        Problem::field(
            name,
            format!("{name} is missing: a camera needs fx, fy, cx, cy, width and height"),
        )
    };
    let number = |index: usize| {
        let (name, value) = focal_and_centre[index];
        value.ok_or_else(|| missing(name))
    };
    let pixels = |index: usize| {
        let (name, value) = size[index];
        value.ok_or_else(|| missing(name))
    };
    let camera = Calibration {
        width_px: pixels(0)?,
        height_px: pixels(1)?,
        fx_px: number(0)?,
        fy_px: number(1)?,
        cx_px: number(2)?,
        cy_px: number(3)?,
        k1: written.k1.unwrap_or(0.0),
        k2: written.k2.unwrap_or(0.0),
    };
    Intrinsics::new(
        camera.width_px,
        camera.height_px,
        camera.fx_px,
        camera.fy_px,
        camera.cx_px,
        camera.cy_px,
        camera.k1,
        camera.k2,
    )
    .map_err(|error| Problem::field(error.field.trim_end_matches("_px"), error.to_string()))?;
    Ok(Some(camera))
}
