//! The `av-v1` routes for phones, and pictures as bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use sovereign_service::{HasCode, chain};

use super::auth::{self, Writer};
use super::body;
use super::edge::Edge;
use super::problem::{Problem, RETRY_AFTER_SECS};
use super::query::{self, PictureQuery};
use crate::domain::capture::PictureNote;
use crate::domain::clients::Announcement;
use crate::domain::frame::{Reject, RejectCode, Stream, WrittenPlace, client_id_from_text};
use crate::domain::json;
use crate::error::IngestError;

const MAX_REGISTRATION: usize = 16 << 10;
pub(crate) const JPEG: &str = "image/jpeg";

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    device_model: Option<String>,
    #[serde(default)]
    streams: Option<Vec<String>>,
}

/// `/api/v1/register`: errors are plain text, as the contract has them.
pub(crate) async fn register(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        edge.metrics.rejected(RejectCode::InvalidPayload);
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed; use POST",
        );
    }
    if !auth::has_token(&parts.headers, &edge) {
        edge.metrics.rejected(RejectCode::Unauthorized);
        return text(
            StatusCode::UNAUTHORIZED,
            "unauthorized; send the access token as `Authorization: Bearer <token>`",
        );
    }
    match admit(&edge, &parts.headers, body).await {
        Ok(client_id) => {
            Json(json!({"status": "registered", "client_id": client_id})).into_response()
        }
        Err(error) => {
            edge.metrics.rejected(error.reject_code());
            text(error.code().http(), &chain(&error))
        }
    }
}

async fn admit(edge: &Edge, headers: &HeaderMap, body: Body) -> Result<String, IngestError> {
    let held = body::read(body, headers, MAX_REGISTRATION, &edge.bodies).await?;
    let registration: Registration = json::read_object(&held.bytes, "registration")
        .map_err(|message| Reject::new(RejectCode::InvalidPayload, message))?;
    let announcement = Announcement {
        device_model: registration.device_model.unwrap_or_default(),
        streams: registration.streams.unwrap_or_default(),
    };
    let client_id = registration.client_id.unwrap_or_default();
    let id = edge.intake.register(&client_id, announcement)?;
    tracing::info!(client = %id, "a phone registered");
    Ok(client_id)
}

fn text(status: StatusCode, message: &str) -> Response {
    let mut response = (status, format!("{message}\n")).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    finish_refusal(status, headers);
    response
}

fn finish_refusal(status: StatusCode, headers: &mut HeaderMap) {
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"sovereign-map\""),
        );
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from_static(RETRY_AFTER_SECS),
        );
    }
}

/// `/api/v1/upload`: one frame; 202 once it is durably queued.
pub(crate) async fn upload(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        let reject = Reject::new(RejectCode::InvalidPayload, "method not allowed; use POST");
        let mut response = refuse(&edge, StatusCode::METHOD_NOT_ALLOWED, &reject);
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if !auth::has_token(&parts.headers, &edge) {
        let reject = Reject::new(
            RejectCode::Unauthorized,
            "send the access token as `Authorization: Bearer <token>`",
        );
        return refuse(&edge, StatusCode::UNAUTHORIZED, &reject);
    }
    let uploaded =
        match body::read(body, &parts.headers, edge.settings.max_upload, &edge.bodies).await {
            Ok(held) => {
                let uploaded = edge.intake.upload(&held.bytes).await;
                drop(held.room);
                uploaded
            }
            Err(fault) => Err(fault.into()),
        };
    match uploaded {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => {
            log_refusal(&error);
            let code = error.reject_code();
            let reject = Reject::new(code, chain(&error));
            refuse(&edge, error.status(), &reject)
        }
    }
}

fn log_refusal(error: &IngestError) {
    match error {
        IngestError::Refused(reject) => {
            tracing::debug!(code = reject.code.as_str(), "a sample was refused");
        }
        IngestError::Picture(error) => {
            tracing::debug!(code = error.label(), "a picture was refused");
        }
        IngestError::Body(_)
        | IngestError::Store(_)
        | IngestError::Queue(_)
        | IngestError::QueueTimeout
        | IngestError::Full(_) => {}
    }
}

fn refuse(edge: &Edge, status: StatusCode, reject: &Reject) -> Response {
    edge.metrics.rejected(reject.code);
    let document = json!({"error": {"code": reject.code.as_str(), "message": reject.message}});
    let mut response = (status, Json(document)).into_response();
    finish_refusal(status, response.headers_mut());
    response
}

/// `/api/v1/health`: open to all; who sent what is for readers.
pub(crate) async fn health(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let accepted = edge.metrics.accepted_by_stream();
    let rejected = edge.metrics.rejected_by_reason();
    let full = RejectCode::BufferFull.as_str();
    Json(json!({
        "status": "ok",
        "clients": edge.intake.clients().len(),
        "ingest_stats": {
            "accepted_total": accepted.values().sum::<u64>(),
            "rejected_total": rejected.values().sum::<u64>(),
            "buffer_drops_total": rejected.get(full).copied().unwrap_or(0),
            "accepted_by_type": accepted,
            "rejected_by_reason": rejected,
            "last_accepted_unix_by_client": last_accepted(&edge, &parts),
        },
    }))
    .into_response()
}

fn last_accepted(edge: &Edge, parts: &Parts) -> BTreeMap<String, i64> {
    if !auth::may_read(parts, edge) {
        return BTreeMap::new();
    }
    edge.intake
        .clients()
        .iter()
        .filter_map(|(id, client)| {
            let seconds = client.newest()?.as_unix_nanos().div_euclid(1_000_000_000);
            Some((id.to_string(), seconds))
        })
        .collect()
}

/// `POST /api/v1/clients/{client_id}/pictures`: a JPEG as it is.
pub(crate) async fn picture(
    writer: Result<Writer, Problem>,
    State(edge): State<Arc<Edge>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PictureQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let taken = async {
        writer?;
        take_picture(&edge, path?.0, query::checked(query)?, &headers, body).await
    };
    let count = |problem: &Problem| edge.metrics.rejected(problem.reject_code());
    body::counted(taken, count).await
}

async fn take_picture(
    edge: &Edge,
    client: String,
    written: PictureQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let client = client_id_from_text(&client)?;
    let captured = query::timestamp(written.timestamp.as_deref())?;
    let place = WrittenPlace {
        latitude: written.latitude,
        longitude: written.longitude,
        altitude: written.altitude,
        accuracy_m: written.accuracy_m,
        heading_deg: written.heading_deg,
    }
    .check(Stream::Camera)?;
    require_jpeg(headers)?;
    let note = PictureNote {
        captured,
        place,
        simulated: written.simulated.unwrap_or(false),
    };
    let limit = edge.intake.limits().max_picture;
    let (pieces, room) = body::pieces(body, headers, limit, &edge.bodies).await?;
    let receipt = edge
        .intake
        .picture(&client, pieces, note)
        .await
        .inspect_err(log_refusal)?;
    drop(room);
    Ok(accepted(&receipt.frame_id, receipt.duplicate))
}

pub(crate) fn accepted(frame_id: &str, duplicate: bool) -> Response {
    let document = json!({"frame_id": frame_id, "duplicate": duplicate});
    (StatusCode::ACCEPTED, Json(document)).into_response()
}

/// Refuses a body that is announced as something else than a JPEG.
pub(crate) fn require_jpeg(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(JPEG)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("send the picture with `Content-Type: {JPEG}`"),
    ))
}
