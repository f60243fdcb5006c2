//! Tiles and TileJSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use sovereign_model::geo::TileCoord;
use sovereign_service::Code;

use super::auth::Reader;
use super::edge::Edge;
use super::problem::Problem;
use crate::config::is_authority_byte;
use crate::upstream::{Tile, TileAnswer, TileFormat};
use crate::views::Layer;

pub(crate) async fn list(
    _: Reader,
    State(edge): State<Arc<Edge>>,
    request: Request,
) -> Result<Response, Problem> {
    let origin = origin(&edge, request.uri(), request.headers());
    let layers: Vec<Value> = edge
        .upstream
        .layers()
        .await?
        .into_iter()
        .map(|layer| {
            json!({
                "url": format!("{origin}/tiles/{}", layer.name),
                "name": layer.name,
                "minzoom": layer.min_zoom,
                "maxzoom": layer.max_zoom,
                "bounds": layer.bounds,
                "tiles": layer.tiles,
                "last_change": layer.last_change,
                "simulated": layer.simulated,
            })
        })
        .collect();
    Ok(([no_cache()], Json(json!({"layers": layers}))).into_response())
}

/// TileJSON, or a page for a person's browser.
pub(crate) async fn describe(
    _: Reader,
    State(edge): State<Arc<Edge>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = path?;
    let layer = edge
        .upstream
        .layers()
        .await?
        .into_iter()
        .find(|layer| layer.name == name)
        .ok_or_else(|| unknown_layer(&name))?;
    let origin = origin(&edge, request.uri(), request.headers());
    let vary = (header::VARY, HeaderValue::from_static("accept"));
    if prefers(request.headers(), &["text/html", "application/json"]) == Some("text/html") {
        return Ok(([no_cache(), vary], Html(page(&layer, &origin))).into_response());
    }
    let document = tile_json(&layer, &origin, &edge.node);
    Ok(([no_cache(), vary], Json(document)).into_response())
}

fn tile_json(layer: &Layer, origin: &str, node: &str) -> Value {
    let label = if layer.simulated {
        "Simulated data; node"
    } else {
        "Sovereign Map node"
    };
    let mut document = json!({
        "tilejson": "3.0.0",
        "name": layer.name,
        "scheme": "xyz",
        "tiles": [format!("{origin}/tiles/{}/{{z}}/{{x}}/{{y}}.png", layer.name)],
        "vector_layers": [],
        "minzoom": layer.min_zoom,
        "maxzoom": layer.max_zoom,
        "attribution": format!("{label} {}", html_from_text(node)),
        "simulated": layer.simulated,
        "last_change": layer.last_change,
        "tile_count": layer.tiles,
    });
    if let Some(object) = document.as_object_mut() {
        object.extend(
            layer
                .bounds
                .map(|bounds| ("bounds".to_owned(), json!(bounds))),
        );
        object.extend(
            layer
                .centre
                .map(|centre| ("center".to_owned(), json!(centre))),
        );
    }
    document
}

/// What a person needs who opened the address of a layer: how to use it, and where to see it.
fn page(layer: &Layer, origin: &str) -> String {
    let name = html_from_text(&layer.name);
    let origin = html_from_text(origin);
    let (zooms, tiles) = (
        format!("{} to {}", layer.min_zoom, layer.max_zoom),
        layer.tiles,
    );
    let bounds = layer.bounds.map_or_else(
        || "nothing is painted yet".to_owned(),
        |[west, south, east, north]| {
            format!("{west:.6}, {south:.6} to {east:.6}, {north:.6} (longitude, latitude)")
        },
    );
    let template = format!("{origin}/tiles/{name}/{{z}}/{{x}}/{{y}}");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{name}: Sovereign Map</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}}\
         code{{overflow-wrap:anywhere}}</style>\
         <h1>Layer {name}</h1><p><a href=\"/\">Open the live map</a></p>\
         <dl><dt>Zoom<dd>{zooms}<dt>Tiles<dd>{tiles}<dt>Bounds<dd>{bounds}</dl>\
         <h2>Use it elsewhere</h2><p>XYZ template for QGIS, MapLibre, OpenLayers and Leaflet, as .png, .webp or \
         .jpg, and with @2x for twice the pixels:</p><p><code>{template}.png</code><br>\
         <code>{template}@2x.webp</code></p><p>TileJSON: <code>{origin}/tiles/{name}</code> with \
         <code>Accept: application/json</code></p></html>"
    )
}

/// The one of `offered` that a client would rather have; nothing when it says nothing of any.
fn prefers<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut best: Option<(&str, f32)> = None;
    for range in accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
        let quality: f32 = quality.unwrap_or(1.0);
        let named = offered
            .iter()
            .find(|offer| offer.eq_ignore_ascii_case(media_type));
        if let Some(offer) = named
            && quality > best.map_or(0.0, |(_, best)| best)
        {
            best = Some((offer, quality));
        }
    }
    best.map(|(offer, _)| offer)
}

/// Map clients show an attribution as HTML.
fn html_from_text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

pub(crate) async fn tile(
    _: Reader,
    State(edge): State<Arc<Edge>>,
    path: Result<Path<(String, String, String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((layer, z, x, file)) = path?;
    let (name, extension) = match file.rsplit_once('.') {
        Some((name, extension)) => (name, Some(extension)),
        None => (file.as_str(), None),
    };
    let format = match extension {
        Some("png") => TileFormat::Png,
        Some("jpg" | "jpeg") => TileFormat::Jpeg,
        Some("webp") => TileFormat::Webp,
        // Without one the client says what it would rather have.
        None => match prefers(&headers, &["image/webp", "image/png", "image/jpeg"]) {
            Some("image/webp") => TileFormat::WebpLossy,
            Some("image/jpeg") => TileFormat::Jpeg,
            Some(_) | None => TileFormat::Png,
        },
        Some(other) => {
            return Err(Problem::field(
                "format",
                format!("{other:?} is not a format of tiles; use png, jpg or webp"),
            ));
        }
    };
    let (y, double) = match name.strip_suffix("@2x") {
        Some(y) => (y, true),
        None => (name, false),
    };
    let coord = coord_from_text(&z, &x, y)?;
    match edge.upstream.tile(&layer, coord, format, double).await? {
        TileAnswer::Tile(tile) => {
            let mut answer = tile_answer(tile, format, &headers)?;
            if extension.is_none() {
                let accept = HeaderValue::from_static("accept");
                answer.headers_mut().insert(header::VARY, accept);
            }
            Ok(answer)
        }
        TileAnswer::Empty => Ok((StatusCode::NO_CONTENT, [no_cache()]).into_response()),
        TileAnswer::UnknownLayer => Err(unknown_layer(&layer)),
    }
}

fn coord_from_text(z: &str, x: &str, y: &str) -> Result<[u32; 3], Problem> {
    let number = |name: &'static str, text: &str| {
        // A sign or a blank is no part of a tile's address.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse::<u32>().ok())
            .flatten()
            .ok_or_else(|| Problem::field(name, format!("{name} must be a whole number")))
    };
    let (zoom, column, row) = (number("z", z)?, number("x", x)?, number("y", y)?);
    u8::try_from(zoom)
        .ok()
        .and_then(|zoom| TileCoord::new(zoom, column, row))
        .ok_or_else(|| {
            Problem::field(
                "z,x,y",
                format!("there is no tile {zoom}/{column}/{row}: zoom is 0 to 24, x and y are below 2^zoom"),
            )
        })?;
    Ok([zoom, column, row])
}

fn tile_answer(tile: Tile, format: TileFormat, headers: &HeaderMap) -> Result<Response, Problem> {
    let suffix = match format {
        TileFormat::Png => "png",
        TileFormat::Jpeg => "jpg",
        TileFormat::Webp => "webp",
        TileFormat::WebpLossy => "lossy",
    };
    let text = format!("\"{}-{suffix}\"", tile.digest);
    let header_from = |text: String| {
        HeaderValue::try_from(text)
            .map_err(|_| Problem::from_code(Code::Internal, "tile-svc named the tile badly"))
    };
    if matches(headers, &text) {
        let etag = (header::ETAG, header_from(text)?);
        return Ok((StatusCode::NOT_MODIFIED, [etag, no_cache()]).into_response());
    }
    let media_type = (header::CONTENT_TYPE, header_from(tile.media_type)?);
    let etag = (header::ETAG, header_from(text)?);
    Ok(([media_type, etag, no_cache()], Body::from(tile.data)).into_response())
}

pub(crate) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held) == etag)
}

/// A tile may change at any moment: keep it, but ask each time.
fn no_cache() -> (HeaderName, HeaderValue) {
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
}

fn unknown_layer(name: &str) -> Problem {
    Problem::from_code(Code::NotFound, format!("there is no layer {name:?}"))
}

/// How the client calls this server: the name it used, or our address when it used none that can be one.
fn origin(edge: &Edge, uri: &Uri, headers: &HeaderMap) -> String {
    let asked = uri
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .or_else(|| headers.get(header::HOST)?.to_str().ok())
        .filter(|host| !host.is_empty() && host.bytes().all(is_authority_byte));
    match asked {
        Some(host) => format!("https://{host}"),
        None => format!("https://{}", edge.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tiles_that_exist_have_an_address() {
        assert!(coord_from_text("0", "0", "0").is_ok());
        assert!(coord_from_text("24", "16777215", "16777215").is_ok());
        for (z, x, y) in [
            ("25", "0", "0"),
            ("256", "0", "0"),
            ("1", "2", "0"),
            ("1", "0", "2"),
            ("0", "1", "0"),
            ("-1", "0", "0"),
            ("+1", "0", "0"),
            ("", "0", "0"),
            ("1", " 0", "0"),
            ("1", "0", "0@2x"),
            ("1", "0", "4294967296"),
        ] {
            assert!(coord_from_text(z, x, y).is_err(), "{z}/{x}/{y}");
        }
    }

    #[test]
    fn a_held_copy_is_recognised_however_it_is_listed() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            headers
        };
        for held in ["\"a-png\"", "W/\"a-png\"", "\"b\", \"a-png\"", "*"] {
            assert!(matches(&with(held), "\"a-png\""), "{held}");
        }
        for held in ["a-png", "\"a-jpg\"", ""] {
            assert!(!matches(&with(held), "\"a-png\""), "{held}");
        }
        assert!(!matches(&HeaderMap::new(), "\"a-png\""));
    }

    #[test]
    fn the_client_says_what_it_would_rather_have() {
        let preferred = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            prefers(&headers, &["image/webp", "image/png"])
        };
        assert_eq!(
            preferred("image/avif,image/webp,image/png,*/*;q=0.8"),
            Some("image/webp")
        );
        assert_eq!(preferred("image/webp;q=0.1, image/PNG"), Some("image/png"));
        assert_eq!(preferred("image/webp;q=0"), None);
        assert_eq!(preferred("*/*"), None);
    }

    #[test]
    fn an_empty_layer_has_no_bounds() {
        let mut layer = Layer {
            name: "imagery".to_owned(),
            min_zoom: 0,
            max_zoom: 0,
            bounds: None,
            centre: None,
            tiles: 0,
            last_change: 0,
            simulated: false,
        };
        let empty = tile_json(&layer, "https://h", "<node>");
        assert!(empty.get("bounds").is_none() && empty.get("center").is_none());
        assert_eq!(empty["attribution"], "Sovereign Map node &lt;node&gt;");
        layer.bounds = Some([1.0, 2.0, 3.0, 4.0]);
        layer.max_zoom = 20;
        layer.centre = Some((1.5, 2.5, 20));
        let full = tile_json(&layer, "https://h", "node");
        assert_eq!(full["bounds"], json!([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(full["center"], json!([1.5, 2.5, 20]));
        assert_eq!(full["tiles"][0], "https://h/tiles/imagery/{z}/{x}/{y}.png");
    }
}
