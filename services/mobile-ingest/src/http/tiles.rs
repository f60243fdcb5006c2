//! Tiles and TileJSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
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
    let document = tile_json(&layer, &origin, &edge.node);
    Ok(([no_cache()], Json(document)).into_response())
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
    });
    if let (Some(object), Some(bounds @ [west, south, east, north])) =
        (document.as_object_mut(), layer.bounds)
    {
        let centre = json!([
            f64::midpoint(west, east),
            f64::midpoint(south, north),
            layer.max_zoom
        ]);
        object.insert("bounds".to_owned(), json!(bounds));
        object.insert("center".to_owned(), centre);
    }
    document
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
    let (y, extension) = file
        .rsplit_once('.')
        .ok_or_else(|| Problem::field("format", "a tile ends in .png, .jpg or .webp"))?;
    let format = match extension {
        "png" => TileFormat::Png,
        "jpg" | "jpeg" => TileFormat::Jpeg,
        "webp" => TileFormat::Webp,
        other => {
            return Err(Problem::field(
                "format",
                format!("{other:?} is not a format of tiles; use png, jpg or webp"),
            ));
        }
    };
    let coord = coord_from_text(&z, &x, y)?;
    match edge.upstream.tile(&layer, coord, format).await? {
        TileAnswer::Tile(tile) => tile_answer(tile, format, &headers),
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
    fn an_empty_layer_has_no_bounds() {
        let mut layer = Layer {
            name: "imagery".to_owned(),
            min_zoom: 0,
            max_zoom: 0,
            bounds: None,
            tiles: 0,
            last_change: 0,
            simulated: false,
        };
        let empty = tile_json(&layer, "https://h", "<node>");
        assert!(empty.get("bounds").is_none() && empty.get("center").is_none());
        assert_eq!(empty["attribution"], "Sovereign Map node &lt;node&gt;");
        layer.bounds = Some([1.0, 2.0, 3.0, 4.0]);
        layer.max_zoom = 20;
        let full = tile_json(&layer, "https://h", "node");
        assert_eq!(full["bounds"], json!([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(full["center"], json!([2.0, 3.0, 20]));
        assert_eq!(full["tiles"][0], "https://h/tiles/imagery/{z}/{x}/{y}.png");
    }
}
