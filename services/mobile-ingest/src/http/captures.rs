//! `POST /api/v1/drones/{drone_id}/captures`: a picture from the air, on its way to the drone door.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sovereign_model::{Distortion, Intrinsics, SensorId};
use sovereign_service::Code;

use super::auth::Writer;
use super::body;
use super::edge::Edge;
use super::ingest::{accepted, require_jpeg};
use super::problem::Problem;
use super::query::{self, CaptureQuery};
use crate::domain::capture::DroneCapture;
use crate::error::CallError;
use crate::upstream::SubmitError;

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
    let count = |problem: &Problem| edge.metrics.capture_refused(problem.code());
    body::counted(taken, count).await
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
        limits.check_skew(captured, edge.clock.now())?;
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
    let capture = DroneCapture {
        vehicle_id,
        captured_unix_nanos: captured.map_or(0, |time| time.as_unix_nanos()),
        calibration,
        mount_pitch_deg: written.mount_pitch,
        simulated: written.simulated.unwrap_or(false),
    };
    let (pieces, room) = body::pieces(body, headers, limits.max_picture, &edge.bodies).await?;
    let submitted = edge.upstream.submit_capture(capture, pieces).await;
    drop(room);
    let receipt = submitted.map_err(problem_from_submission)?;
    edge.metrics.capture(if receipt.duplicate {
        "duplicate"
    } else {
        "accepted"
    });
    Ok(accepted(&receipt.frame_id, receipt.duplicate))
}

fn problem_from_submission(error: SubmitError) -> Problem {
    match error {
        SubmitError::Body(fault) => fault.into(),
        // Room comes back when the map has caught up.
        SubmitError::Call(CallError {
            code: Code::ResourceExhausted,
            message,
            ..
        }) => Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no_room", message),
        SubmitError::Call(error) => error.into(),
    }
}

/// A camera is described as a whole or not at all; distortion may be left out.
fn calibration(written: &CaptureQuery) -> Result<Option<Intrinsics>, Problem> {
    let focal_and_centre = [
        ("fx", written.fx),
        ("fy", written.fy),
        ("cx", written.cx),
        ("cy", written.cy),
    ];
    let size = [("width", written.width), ("height", written.height)];
    let distortion = [written.k1, written.k2, written.k3, written.p1, written.p2];
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
    Intrinsics::new(
        pixels(0)?,
        pixels(1)?,
        number(0)?,
        number(1)?,
        number(2)?,
        number(3)?,
        0.0,
        0.0,
    )
    .and_then(|camera| {
        let [k1, k2, k3, p1, p2] = distortion.map(|written| written.unwrap_or(0.0));
        camera.with_distortion(Distortion { k1, k2, k3, p1, p2 })
    })
    .map(Some)
    .map_err(|error| Problem::field(error.field.trim_end_matches("_px"), error.to_string()))
}
