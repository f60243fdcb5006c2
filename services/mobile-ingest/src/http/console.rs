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
    let brotli = asset.brotli.filter(|_| takes_brotli(&headers));
    let mut response = (common, Body::from(brotli.unwrap_or(asset.bytes))).into_response();
    let headers = response.headers_mut();
    if brotli.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
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

/// Whether `Accept-Encoding` (RFC 9110, 12.5.3) names brotli and does not refuse it.
fn takes_brotli(headers: &HeaderMap) -> bool {
    let named = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for coding in named {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        if name.trim().eq_ignore_ascii_case("br") {
            let weight = weight.trim().trim_start_matches("q=");
            return weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brotli_is_for_who_takes_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_brotli(&headers)
        };
        assert!(takes("gzip, deflate, br, zstd"));
        assert!(takes("BR;q=0.5"));
        assert!(!takes("br;q=0, gzip"));
        assert!(!takes("gzip, brotli"));
        assert!(!takes_brotli(&HeaderMap::new()));
    }
}
