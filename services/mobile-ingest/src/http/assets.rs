//! The files of the console, embedded in the binary.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use include_dir::{Dir, File, include_dir};
use sovereign_model::Digest;

static WEB: Dir<'static> = include_dir!("$OUT_DIR/web");
/// Ends the name of a file that is another one, packed.
const PACKED: &str = ".br";

#[derive(Debug, Clone)]
pub(crate) struct Asset {
    pub(crate) bytes: &'static [u8],
    /// The same in brotli, where the build has packed it.
    pub(crate) brotli: Option<&'static [u8]>,
    pub(crate) media_type: &'static str,
    pub(crate) etag: HeaderValue,
    /// Its name changes with its content.
    pub(crate) immutable: bool,
}

#[derive(Debug)]
pub(crate) struct Console {
    assets: BTreeMap<String, Asset>,
}

impl Console {
    pub(crate) fn embedded() -> Self {
        let mut assets = BTreeMap::new();
        collect(&WEB, &mut assets);
        Self { assets }
    }

    /// The file of a URL path: itself, the index, or a page named without `.html`.
    pub(crate) fn find(&self, path: &str) -> Option<&Asset> {
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
        if path.ends_with(PACKED) {
            continue;
        }
        let text = format!("\"{}\"", &Digest::of(file.contents()).to_hex()[..32]);
        let Ok(etag) = HeaderValue::try_from(text) else {
            continue;
        };
        let asset = Asset {
            bytes: file.contents(),
            brotli: WEB.get_file(format!("{path}{PACKED}")).map(File::contents),
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
