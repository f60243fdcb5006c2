//! HTTP: routes, who may use them, and what is put on every answer.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod captures;
pub(crate) mod connections;
pub(crate) mod console;
pub(crate) mod feed;
pub(crate) mod ingest;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod tiles;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use sovereign_service::{Code, Stop};
use tokio::sync::Semaphore;

use crate::config::Settings;
use crate::events::Events;
use crate::grpc::upstream::Upstream;
use crate::metrics::Metrics;
use crate::secrets::AccessToken;
use crate::service::intake::Intake;
use console::Console;
use problem::Problem;

/// Everything a request may need.
pub(crate) struct Edge {
    pub(crate) node: String,
    pub(crate) address: SocketAddr,
    pub(crate) settings: Settings,
    pub(crate) token: AccessToken,
    pub(crate) intake: Arc<Intake>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) console: Console,
    /// Places for event readers.
    pub(crate) readers: Arc<Semaphore>,
    /// Memory for request bodies, in KiB.
    pub(crate) bodies: Semaphore,
    pub(crate) stop: Stop,
}

/// Every route.
pub(crate) fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/api/v1/register", any(ingest::register))
        .route("/api/v1/upload", any(ingest::upload))
        .route("/api/v1/stream", any(feed::clients))
        .route("/api/v1/health", any(ingest::health))
        .route(
            "/api/v1/clients/{client_id}/pictures",
            post(ingest::picture),
        )
        .route("/api/v1/drones/{drone_id}/captures", post(captures::submit))
        .route("/api/v1/events", get(feed::events))
        .route("/api/v1/vehicles", get(state::vehicles))
        .route("/api/v1/phones", get(state::phones))
        .route("/api/v1/keyframes", get(state::keyframes))
        .route("/api/v1/stats", get(state::stats))
        .route("/api/v1/mesh", get(state::mesh))
        .route(
            "/api/v1/session",
            post(auth::open_session).delete(auth::close_session),
        )
        .route("/tiles", get(tiles::list))
        .route("/tiles/{layer}", get(tiles::describe))
        .route("/tiles/{layer}/{z}/{x}/{file}", get(tiles::tile))
        .fallback(console::file)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(edge.clone(), finish))
        .with_state(edge)
}

async fn wrong_method(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not a method of this route"),
    )
}

/// Puts on every answer what every answer carries, and counts it.
async fn finish(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let origin = allowed_origin(&edge, request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, is_preflight) {
        (Some(_), true) => preflight(),
        (Some(_), false) | (None, _) => next.run(request).await,
    };
    let status = response.status();
    edge.metrics.response(class(status));
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("etag, retry-after"),
        );
    } else {
        headers.insert(
            "cross-origin-resource-policy",
            HeaderValue::from_static("same-origin"),
        );
    }
    if !edge.settings.cors_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

fn allowed_origin(edge: &Edge, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    edge.settings
        .cors_origins
        .contains(origin)
        .then(|| origin.clone())
}

fn preflight() -> Response {
    (
        StatusCode::NO_CONTENT,
        [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type, if-none-match",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ],
    )
        .into_response()
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// A route of the API that is none.
pub(crate) fn unknown_route(path: &str) -> Problem {
    Problem::from_code(Code::NotFound, format!("there is nothing at {path}"))
}
