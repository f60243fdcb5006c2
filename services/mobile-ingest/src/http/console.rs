//! The console. Its files hold no data, so anyone may load them; what they show is asked for by routes that
//! are guarded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::edge::Edge;
use super::problem::{Problem, unknown_route};
use super::tiles;

/// Scripts and styles from here alone; workers also from blobs, which the map library makes.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; \
     worker-src 'self' blob:; child-src 'self' blob:; img-src 'self' data: blob:; \
     media-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; \
     connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";
const PERMISSIONS_POLICY: &str = "camera=(), geolocation=(), accelerometer=(), gyroscope=(), \
     magnetometer=(), microphone=(), payment=(), usb=()";

pub(crate) async fn file(
    State(edge): State<Arc<Edge>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asset = edge
        .console
        .find(uri.path())
        .ok_or_else(|| unknown_route(uri.path()))?;
    if method != Method::GET && method != Method::HEAD {
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{method} is not a method of this file"),
        );
        let allow = (header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(([allow], problem).into_response());
    }
    let cache = if asset.immutable {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let common = [
        (header::ETAG, asset.etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ),
    ];
    if asset
        .etag
        .to_str()
        .is_ok_and(|etag| tiles::matches(&headers, etag))
    {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let mut response = (common, Body::from(asset.bytes)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(asset.media_type),
    );
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static(PERMISSIONS_POLICY),
    );
    Ok(response)
}
