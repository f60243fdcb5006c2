//! What may be written about the site and its cameras, and what is used.

use std::path::PathBuf;

use serde::Deserialize;
use sovereign_service::BuildError;

use crate::domain::attitude::{self, Heading, PitchFrom, Reading};
use crate::domain::camera::{self, CameraModel};
use crate::domain::georeference::Site;
use crate::terrain::{TerrainSettings, VerticalDatum};

/// Camera calibrations of one configuration at most; each picture is compared with all of them.
const MAX_CAMERAS: usize = 256;

/// Section `slam-svc`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Altitude of the ground, metres above mean sea level, -500 to 9000. When set, height above ground
    /// is the altitude of a picture minus this, whatever relative altitude it reports. Not set by default.
    pub ground_elevation_m: Option<f64>,
    /// Terrain model: height above ground is the altitude of a picture above it, and the map lies on it.
    /// Not set by default.
    pub terrain: Option<TerrainConfig>,
    /// Whether a picture with a position and no attitude is taken to look straight down, the top in the
    /// direction of flight. Its source says `assumed`. Default false: it waits as a position.
    pub assume_nadir: bool,
    /// What is known of cameras, before what is built in; none by default.
    pub cameras: Vec<CameraConfig>,
}

/// A terrain model, or a model of the surface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerrainConfig {
    /// A GeoTIFF, or a folder of them.
    pub path: PathBuf,
    /// Coordinate system, `EPSG:` and a number or a PROJ string, where the files do not name theirs.
    #[serde(default)]
    pub crs: Option<String>,
    /// What its heights count from, where the files do not say; mean sea level when nobody does.
    #[serde(default)]
    pub vertical_datum: Option<DatumConfig>,
}

/// What heights count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatumConfig {
    /// The WGS 84 ellipsoid, as GPS does.
    Ellipsoid,
    /// Mean sea level by EGM96, as SRTM does.
    Egm96,
    /// Mean sea level by EGM2008, as Copernicus does.
    Egm2008,
}

/// One camera model: its lens, how its pictures are to be read, or both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Model as the pictures' Exif says it; spaces around it do not count. Of a DJI drone with
    /// several cameras the XMP's `ImageSource` follows: `M3T InfraredCamera`.
    pub model: String,
    /// Focal length divided by the longer side of the picture, 0.1 to 20. Not set, the pictures say it.
    #[serde(default)]
    pub focal_px_per_width: Option<f64>,
    /// First radial distortion coefficient as in OpenCV, -1 to 1, default 0.
    #[serde(default)]
    pub k1: f64,
    /// Second radial distortion coefficient, -1 to 1, default 0.
    #[serde(default)]
    pub k2: f64,
    /// Which heading in the pictures' XMP to believe, default `gimbal`.
    #[serde(default)]
    pub heading: HeadingConfig,
    /// What `Camera:Pitch` 0 means in the pictures' XMP, for the models of which it is not known.
    #[serde(default)]
    pub camera_pitch: Option<PitchConfig>,
}

/// What a pitch of 0 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PitchConfig {
    /// The camera looks straight down; 90 is the horizon.
    StraightDown,
    /// The camera looks to the horizon; -90 is straight down.
    Horizon,
}

/// Headings in a picture's XMP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadingConfig {
    /// The gimbal's.
    #[default]
    Gimbal,
    /// The airframe's.
    Flight,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) site: Site,
    pub(crate) terrain: Option<TerrainSettings>,
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        let terrain = self.terrain.clone().map(|written| TerrainSettings {
            path: written.path,
            crs: written.crs,
            vertical_datum: written.vertical_datum.map(|datum| match datum {
                DatumConfig::Ellipsoid => VerticalDatum::Ellipsoid,
                DatumConfig::Egm96 | DatumConfig::Egm2008 => VerticalDatum::Geoid,
            }),
        });
        Ok(Settings {
            site: site_from_config(self)?,
            terrain,
        })
    }
}

fn site_from_config(config: Config) -> Result<Site, BuildError> {
    if let Some(metres) = config.ground_elevation_m
        && !(-500.0..=9000.0).contains(&metres)
    {
        return Err(BuildError::config(
            "ground_elevation_m",
            "must be -500 to 9000",
        ));
    }
    if config.cameras.len() > MAX_CAMERAS {
        return Err(BuildError::config(
            "cameras",
            format!("lists more than {MAX_CAMERAS} cameras"),
        ));
    }
    let mut cameras: Vec<CameraModel> = Vec::new();
    let mut readings: Vec<Reading> = Vec::new();
    for (index, written) in config.cameras.into_iter().enumerate() {
        let refuse = |name: &str, why: &str| {
            Err(BuildError::config(format!("cameras[{index}].{name}"), why))
        };
        // Exif pads models, and what is read from it is trimmed.
        let model = written.model.trim().to_owned();
        if readings.iter().any(|other| other.model == model) {
            return refuse("model", "is listed twice");
        }
        if written.focal_px_per_width.is_none() && (written.k1 != 0.0 || written.k2 != 0.0) {
            return refuse("focal_px_per_width", "must be set beside k1 and k2");
        }
        let camera = CameraModel {
            model: model.clone(),
            // Checked like one that is set, and not used.
            focal_px_per_width: written.focal_px_per_width.unwrap_or(1.0),
            k1: written.k1,
            k2: written.k2,
        };
        if let Some((name, why)) = camera.fault() {
            return refuse(name, why);
        }
        if written.focal_px_per_width.is_some() {
            cameras.push(camera);
        }
        readings.push(Reading {
            model,
            heading: match written.heading {
                HeadingConfig::Gimbal => Heading::Gimbal,
                HeadingConfig::Flight => Heading::Flight,
            },
            camera_pitch: written.camera_pitch.map(|from| match from {
                PitchConfig::StraightDown => PitchFrom::StraightDown,
                PitchConfig::Horizon => PitchFrom::Horizon,
            }),
        });
    }
    cameras.extend(camera::built_in());
    readings.extend(attitude::built_in());
    Ok(Site {
        ground_elevation_m: config.ground_elevation_m,
        cameras,
        readings,
        assume_nadir: config.assume_nadir,
        ..Site::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(model: &str) -> CameraConfig {
        CameraConfig {
            model: model.to_owned(),
            focal_px_per_width: Some(0.7),
            k1: 0.0,
            k2: 0.0,
            heading: HeadingConfig::Gimbal,
            camera_pitch: None,
        }
    }

    #[test]
    fn a_configured_camera_comes_before_the_built_in_one() {
        let config = Config {
            ground_elevation_m: Some(153.0),
            cameras: vec![camera(" FC300S ")],
            ..Config::default()
        };
        let site = site_from_config(config).unwrap();
        assert_eq!(site.ground_elevation_m, Some(153.0));
        let first = site.cameras.iter().find(|c| c.model == "FC300S").unwrap();
        assert_eq!(first.focal_px_per_width, 0.7);
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_by_its_key() {
        let cameras = |cameras| Config {
            cameras,
            ..Config::default()
        };
        let cases = [
            (
                "ground_elevation_m",
                Config {
                    ground_elevation_m: Some(f64::NAN),
                    ..Config::default()
                },
            ),
            ("cameras[0].model", cameras(vec![camera(" ")])),
            (
                "cameras[0].focal_px_per_width",
                cameras(vec![CameraConfig {
                    focal_px_per_width: None,
                    k1: 0.1,
                    ..camera("a")
                }]),
            ),
            ("cameras[1].model", cameras(vec![camera("a"), camera("a ")])),
            (
                "cameras[0].focal_px_per_width",
                cameras(vec![CameraConfig {
                    focal_px_per_width: Some(0.0),
                    ..camera("a")
                }]),
            ),
            (
                "cameras[0].k1",
                cameras(vec![CameraConfig {
                    k1: f64::INFINITY,
                    ..camera("a")
                }]),
            ),
            ("cameras", cameras(vec![camera("a"); MAX_CAMERAS + 1])),
        ];
        for (key, config) in cases {
            let error = site_from_config(config).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
        }
    }
}
