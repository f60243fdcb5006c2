//! The console: files embedded in the binary.
//!
//! They hold no data, so anyone may load them; what they show is asked for by routes that are guarded.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};
use sovereign_model::Digest;

use super::problem::Problem;
use super::{Edge, tiles, unknown_route};

static WEB: Dir<'static> = include_dir!("$OUT_DIR/web");

/// Scripts and styles from here alone; workers also from blobs, which the map library makes.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; \
     worker-src 'self' blob:; child-src 'self' blob:; img-src 'self' data: blob:; \
     media-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; \
     connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";
/// The console asks for no device.
const PERMISSIONS_POLICY: &str = "camera=(), geolocation=(), accelerometer=(), gyroscope=(), \
     magnetometer=(), microphone=(), payment=(), usb=()";

/// One embedded file.
#[derive(Debug, Clone)]
struct Asset {
    bytes: &'static [u8],
    media_type: &'static str,
    etag: HeaderValue,
    /// Its name changes with its content.
    immutable: bool,
}

/// The embedded files by path, without leading slash.
#[derive(Debug)]
pub(crate) struct Console {
    assets: BTreeMap<String, Asset>,
}

impl Console {
    /// What the build embedded.
    pub(crate) fn embedded() -> Self {
        let mut assets = BTreeMap::new();
        collect(&WEB, &mut assets);
        Self { assets }
    }

    /// The file of a URL path: itself, the index, or a page named without `.html`.
    fn find(&self, path: &str) -> Option<&Asset> {
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return self.assets.get("index.html");
        }
        self.assets
            .get(path)
            .or_else(|| self.assets.get(&format!("{path}.html")))
    }
}

fn collect(dir: &Dir<'static>, assets: &mut BTreeMap<String, Asset>) {
    for file in dir.files() {
        let path = file.path().to_string_lossy().replace('\\', "/");
        let text = format!("\"{}\"", &Digest::of(file.contents()).to_hex()[..32]);
        let Ok(etag) = HeaderValue::try_from(text) else {
            continue;
        };
        let asset = Asset {
            bytes: file.contents(),
            media_type: media_type(&path),
            etag,
            immutable: path.starts_with("assets/"),
        };
        assets.insert(path, asset);
    }
    for dir in dir.dirs() {
        collect(dir, assets);
    }
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "geojson" => "application/geo+json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "pbf" => "application/x-protobuf",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Everything that no route takes: a file of the console, or nothing.
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
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{method} is not a method of this file"),
        ));
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
