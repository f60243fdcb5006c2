//! State as JSON: vehicles, phones, keyframes, measurements, the mesh.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sovereign_model::SensorId;

use super::auth::Reader;
use super::edge::Edge;
use super::problem::Problem;
use super::query::{self, KeyframesQuery};
use crate::error::CallError;

const DEFAULT_KEYFRAMES: u32 = 100;
const MAX_KEYFRAMES: u32 = 1000;

pub(crate) async fn vehicles(
    _: Reader,
    State(edge): State<Arc<Edge>>,
) -> Result<Response, Problem> {
    let vehicles = edge.upstream.vehicles().await?;
    Ok(Json(json!({"vehicles": vehicles})).into_response())
}

pub(crate) async fn phones(_: Reader, State(edge): State<Arc<Edge>>) -> Response {
    Json(json!({"phones": edge.intake.phones()})).into_response()
}

pub(crate) async fn keyframes(
    _: Reader,
    State(edge): State<Arc<Edge>>,
    query: Result<Query<KeyframesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::checked(query)?;
    let limit = query.limit.unwrap_or(DEFAULT_KEYFRAMES);
    if !(1..=MAX_KEYFRAMES).contains(&limit) {
        return Err(Problem::field(
            "limit",
            format!("limit must be 1 to {MAX_KEYFRAMES}"),
        ));
    }
    let sensor = query.sensor.unwrap_or_default();
    if !sensor.is_empty() {
        SensorId::parse(&sensor)
            .map_err(|error| Problem::field("sensor", format!("sensor: {error}")))?;
    }
    let keyframes = edge.upstream.keyframes(sensor, limit, query.after).await?;
    Ok(Json(keyframes).into_response())
}

pub(crate) async fn mesh(_: Reader, State(edge): State<Arc<Edge>>) -> Result<Response, Problem> {
    Ok(Json(edge.upstream.mesh().await?).into_response())
}

/// `GET /api/v1/stats`: answers with what there is, and names the services that did not answer.
pub(crate) async fn stats(_: Reader, State(edge): State<Arc<Edge>>) -> Response {
    let (paint, layers, drones) = tokio::join!(
        edge.upstream.paint_stats(),
        edge.upstream.layers(),
        edge.upstream.drone_stats(),
    );
    let mut unavailable = Vec::new();
    let layers = or_name(layers, &mut unavailable).unwrap_or_default();
    let paint = or_name(paint, &mut unavailable);
    let drones = or_name(drones, &mut unavailable);
    let accepted = edge.metrics.accepted_by_stream();
    let rejected = edge.metrics.rejected_by_reason();
    let (clients, simulated_phone) = {
        let clients = edge.intake.clients();
        let simulated = clients.iter().any(|(_, client)| client.simulated);
        (clients.len(), simulated)
    };
    Json(json!({
        "node": edge.node,
        "version": env!("CARGO_PKG_VERSION"),
        "simulated": simulated_phone || layers.iter().any(|layer| layer.simulated),
        "paint": paint,
        "mobile": {
            "clients": clients,
            "accepted_total": accepted.values().sum::<u64>(),
            "rejected_total": rejected.values().sum::<u64>(),
            "accepted_by_type": accepted,
            "rejected_by_reason": rejected,
        },
        "drones": drones,
        "events": {
            "readers": edge.metrics.event_readers.get(),
            "sent": edge.metrics.events_sent.get(),
            "missed": edge.metrics.events_missed.get(),
        },
        "unavailable": unavailable,
    }))
    .into_response()
}

fn or_name<T>(answer: Result<T, CallError>, unavailable: &mut Vec<&'static str>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(error) => {
            if !unavailable.contains(&error.service) {
                unavailable.push(error.service);
            }
            None
        }
    }
}
