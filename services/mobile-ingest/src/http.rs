//! HTTP: routes, who may use them, and what is put on every answer.

pub(crate) mod assets;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod captures;
pub(crate) mod connections;
pub(crate) mod console;
pub(crate) mod edge;
pub(crate) mod feed;
pub(crate) mod host;
pub(crate) mod ingest;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod tiles;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use tower::util::option_layer;
use tower_http::compression::{CompressionLayer, Predicate};
use tower_http::cors::{AllowOrigin, CorsLayer};

use edge::Edge;
use problem::Problem;

/// A browser asks again after this time whether it may.
const PREFLIGHT: Duration = Duration::from_secs(600);

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
        .layer(CompressionLayer::new().compress_when(Text))
        .layer(option_layer(cors(&edge.settings.cors_origins)))
        .layer(middleware::from_fn_with_state(edge.clone(), finish))
        .with_state(edge)
}

/// What is worth packing: text. Pictures are packed already, and events have to leave at once.
#[derive(Clone, Copy)]
struct Text;

impl Predicate for Text {
    fn should_compress<B: HttpBody>(&self, response: &axum::http::Response<B>) -> bool {
        const KINDS: [&str; 6] = [
            "text/html",
            "text/css",
            "text/javascript",
            "application/json",
            "application/geo+json",
            "image/svg+xml",
        ];
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        media_type.is_some_and(|is| KINDS.iter().any(|kind| is.starts_with(kind)))
    }
}

async fn wrong_method(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not a method of this route"),
    )
}

fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER])
        .max_age(PREFLIGHT);
    Some(layer)
}

async fn finish(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let (request, lent) = body::lend(request);
    let mut response = match host::check(&edge.certificate.leaf(), &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            edge.metrics.access_refused("host");
            problem.into_response()
        }
    };
    if let Some(lent) = lent
        && !response.status().is_success()
    {
        body::drain(lent).await;
    }
    edge.metrics.response(class(response.status()));
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.insert(
            "cross-origin-resource-policy",
            HeaderValue::from_static("same-origin"),
        );
    }
    response
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
