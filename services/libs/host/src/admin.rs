//! The admin door: is it alive, is it ready, what has it counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sovereign_service::{ReadinessBoard, Stop};
use tokio::net::TcpListener;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) board: ReadinessBoard,
    pub(crate) registry: Arc<Mutex<Registry>>,
    /// Requested when the process drains: it is not ready any more.
    pub(crate) draining: Stop,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    stopping: bool,
    latches: BTreeMap<String, bool>,
}

impl Admin {
    pub(crate) async fn serve(self, listener: TcpListener, stop: Stop) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.requested().await })
            .await
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, Json<Ready>) {
    let latches = admin.board.watch().borrow().clone();
    let stopping = admin.draining.is_requested();
    let ready = !stopping && latches.values().all(|set| *set);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Ready {
        ready,
        stopping,
        latches,
    };
    (status, Json(body))
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    let encoded = encode(
        &mut text,
        &admin
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    match encoded {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
