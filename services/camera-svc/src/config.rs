//! What may be written about cameras, and what is used.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use sovereign_bus::Key;
use sovereign_service::BuildError;
use sovereign_vision::Source;

/// Cameras of one service at most: each needs a thread and a decoder.
const MAX_CAMERAS: usize = 64;
/// Slowest rate, frames per second: a frame in 100 s. A file that claims less is played at the
/// configured rate.
pub(crate) const MIN_FPS: f64 = 0.01;
const MAX_FPS: f64 = 240.0;

/// Section `camera-svc`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The cameras; none by default.
    pub cameras: Vec<CameraConfig>,
}

/// One camera as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// 1 to 64 of letters, digits, `-`, `_`.
    pub id: String,
    /// Kind of source.
    pub source: SourceKind,
    /// Device number of a `webcam`, default 0.
    pub device_id: Option<u32>,
    /// URL of an `rtsp` or `mobile-ip` source.
    pub rtsp_url: Option<String>,
    /// Path of a `file`.
    pub file_path: Option<PathBuf>,
    /// Frames per second to publish at most, 0.01 to 240, default 30.
    #[serde(default = "default_fps")]
    pub fps: f64,
    /// Frames are scaled down to this width, default 1280.
    #[serde(default = "default_width")]
    pub width: u32,
    /// Frames are scaled down to this height, default 720.
    #[serde(default = "default_height")]
    pub height: u32,
    /// JPEG quality, 1 to 100, default 85.
    #[serde(default = "default_quality")]
    pub quality: u8,
}

/// Kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A V4L2 device.
    Webcam,
    /// An RTSP stream.
    Rtsp,
    /// A phone that serves an RTSP stream.
    MobileIp,
    /// A video file, played once.
    File,
}

fn default_fps() -> f64 {
    30.0
}
fn default_width() -> u32 {
    1280
}
fn default_height() -> u32 {
    720
}
fn default_quality() -> u8 {
    85
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) key: Key,
    pub(crate) source: Source,
    pub(crate) fps: f64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) quality: u8,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) cameras: Vec<Plan>,
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        plans_from_config(self).map(|cameras| Settings { cameras })
    }
}

/// Turns what was written into what is used; the error names the key.
fn plans_from_config(config: Config) -> Result<Vec<Plan>, BuildError> {
    if config.cameras.len() > MAX_CAMERAS {
        return Err(BuildError::config(
            "cameras",
            format!("lists more than {MAX_CAMERAS} cameras"),
        ));
    }
    let mut seen = BTreeSet::new();
    let mut plans = Vec::with_capacity(config.cameras.len());
    for (index, camera) in config.cameras.into_iter().enumerate() {
        let field = |name: &str| format!("cameras[{index}].{name}");
        if !seen.insert(camera.id.clone()) {
            return Err(BuildError::config(field("id"), "is used twice"));
        }
        if !(MIN_FPS..=MAX_FPS).contains(&camera.fps) {
            let why = format!("is {}, must be {MIN_FPS} to {MAX_FPS}", camera.fps);
            return Err(BuildError::config(field("fps"), why));
        }
        if camera.width == 0 || camera.height == 0 {
            return Err(BuildError::config(
                field("width"),
                "and height must be above 0",
            ));
        }
        if !(1..=100).contains(&camera.quality) {
            return Err(BuildError::config(field("quality"), "must be 1 to 100"));
        }
        plans.push(Plan {
            key: Key::parse(&camera.id)
                .map_err(|error| BuildError::config(field("id"), error.to_string()))?,
            source: source_from_config(&camera, field)?,
            fps: camera.fps,
            width: camera.width,
            height: camera.height,
            quality: camera.quality,
        });
    }
    Ok(plans)
}

fn source_from_config(
    camera: &CameraConfig,
    field: impl Fn(&str) -> String,
) -> Result<Source, BuildError> {
    let alien = match camera.source {
        SourceKind::Webcam => [
            ("rtsp_url", camera.rtsp_url.is_some()),
            ("file_path", camera.file_path.is_some()),
        ],
        SourceKind::Rtsp | SourceKind::MobileIp => [
            ("device_id", camera.device_id.is_some()),
            ("file_path", camera.file_path.is_some()),
        ],
        SourceKind::File => [
            ("device_id", camera.device_id.is_some()),
            ("rtsp_url", camera.rtsp_url.is_some()),
        ],
    };
    if let Some((name, _)) = alien.iter().find(|(_, present)| *present) {
        return Err(BuildError::config(
            field(name),
            "does not belong to this kind of source",
        ));
    }
    match camera.source {
        SourceKind::Webcam => Ok(Source::Device(camera.device_id.unwrap_or(0))),
        SourceKind::Rtsp | SourceKind::MobileIp => match &camera.rtsp_url {
            Some(url) if url.starts_with("rtsp://") || url.starts_with("rtsps://") => {
                Ok(Source::Stream(url.clone()))
            }
            _ => Err(BuildError::config(
                field("rtsp_url"),
                "must be given and start with rtsp:// or rtsps://",
            )),
        },
        SourceKind::File => camera
            .file_path
            .clone()
            .map(Source::File)
            .ok_or_else(|| BuildError::config(field("file_path"), "must be given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(id: &str) -> CameraConfig {
        CameraConfig {
            id: id.to_owned(),
            source: SourceKind::File,
            device_id: None,
            rtsp_url: None,
            file_path: Some("video.mp4".into()),
            fps: 30.0,
            width: 1280,
            height: 720,
            quality: 85,
        }
    }

    #[test]
    fn a_bad_camera_is_refused_and_the_key_is_named() {
        let cases: [(&str, CameraConfig); 8] = [
            ("cameras[0].id", camera("a b")),
            (
                "cameras[0].fps",
                CameraConfig {
                    fps: 0.0,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].fps",
                CameraConfig {
                    fps: 1e-20,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].fps",
                CameraConfig {
                    fps: f64::NAN,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].quality",
                CameraConfig {
                    quality: 0,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].width",
                CameraConfig {
                    width: 0,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].file_path",
                CameraConfig {
                    file_path: None,
                    ..camera("a")
                },
            ),
            (
                "cameras[0].rtsp_url",
                CameraConfig {
                    rtsp_url: Some("rtsp://x".into()),
                    ..camera("a")
                },
            ),
        ];
        for (key, camera) in cases {
            let error = plans_from_config(Config {
                cameras: vec![camera],
            })
            .unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
        let twice = Config {
            cameras: vec![camera("a"), camera("a")],
        };
        assert!(
            plans_from_config(twice)
                .unwrap_err()
                .to_string()
                .contains("cameras[1].id")
        );
    }
}
