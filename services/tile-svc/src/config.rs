//! What an operator may choose.

use serde::Deserialize;
use sovereign_model::geo::TileCoord;
use sovereign_service::BuildError;

use crate::domain::plan::ZoomRange;
use crate::domain::sight::SightLimits;

/// Section `tile-svc` of the configuration, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Coarsest zoom that is kept, 0 to `max_zoom`. Default 10: a pixel is about 150 m there, so that a
    /// flight still shows as a dot. A map keeps the value that it was begun with: another is refused.
    pub min_zoom: u8,
    /// Finest zoom that is painted, at most 24. Default 22: a pixel is about 37 mm at the equator.
    pub max_zoom: u8,
    /// Rays further from straight down than this are not painted, degrees, above 0, at most 85. Default 60.
    pub max_view_angle_deg: f64,
    /// Ground further from below the camera than this is not painted, metres, above 0. Default 2,000.
    pub max_view_distance_m: f64,
    /// Quality of tiles served as JPEG or as lossy WebP, 1 to 100. Default 80.
    pub lossy_quality: u8,
    /// Memory for tiles that are painted over and over, MiB, 1 to 65,536. Default 48.
    pub paint_cache_mib: usize,
    /// Memory for encoded tiles being served, MiB, 1 to 65,536. Default 64.
    pub serve_cache_mib: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_zoom: 10,
            max_zoom: 22,
            max_view_angle_deg: 60.0,
            max_view_distance_m: 2_000.0,
            lossy_quality: 80,
            paint_cache_mib: 48,
            serve_cache_mib: 64,
        }
    }
}

/// What is used, checked.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(crate) zooms: ZoomRange,
    pub(crate) limits: SightLimits,
    pub(crate) lossy_quality: u8,
    pub(crate) paint_cache_bytes: usize,
    pub(crate) serve_cache_bytes: usize,
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        let check = |holds: bool, field: &str, why: &str| {
            if holds {
                Ok(())
            } else {
                Err(BuildError::config(field, why))
            }
        };
        check(
            self.max_zoom <= TileCoord::MAX_ZOOM,
            "max_zoom",
            "must be at most 24",
        )?;
        check(
            self.min_zoom <= self.max_zoom,
            "min_zoom",
            "must be at most `max_zoom`",
        )?;
        check(
            self.max_view_angle_deg > 0.0 && self.max_view_angle_deg <= 85.0,
            "max_view_angle_deg",
            "must be above 0 and at most 85",
        )?;
        check(
            self.max_view_distance_m > 0.0 && self.max_view_distance_m.is_finite(),
            "max_view_distance_m",
            "must be above 0",
        )?;
        check(
            (1..=100).contains(&self.lossy_quality),
            "lossy_quality",
            "must be 1 to 100",
        )?;
        for (field, mib) in [
            ("paint_cache_mib", self.paint_cache_mib),
            ("serve_cache_mib", self.serve_cache_mib),
        ] {
            check((1..=65_536).contains(&mib), field, "must be 1 to 65,536")?;
        }
        Ok(Settings {
            zooms: ZoomRange {
                min: self.min_zoom,
                max: self.max_zoom,
            },
            limits: SightLimits {
                max_view_angle_deg: self.max_view_angle_deg,
                max_distance_m: self.max_view_distance_m,
            },
            lossy_quality: self.lossy_quality,
            paint_cache_bytes: self.paint_cache_mib << 20,
            serve_cache_bytes: self.serve_cache_mib << 20,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_usable() {
        assert!(Config::default().settings().is_ok());
    }

    #[test]
    fn each_unusable_value_is_refused_by_name() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 8] = [
            ("max_zoom", |c| c.max_zoom = 25),
            ("min_zoom", |c| c.min_zoom = 23),
            ("max_view_angle_deg", |c| c.max_view_angle_deg = f64::NAN),
            ("max_view_distance_m", |c| c.max_view_distance_m = 0.0),
            ("lossy_quality", |c| c.lossy_quality = 0),
            ("lossy_quality", |c| c.lossy_quality = 101),
            ("paint_cache_mib", |c| c.paint_cache_mib = 0),
            ("serve_cache_mib", |c| c.serve_cache_mib = usize::MAX),
        ];
        for (field, spoil) in cases {
            let mut config = Config::default();
            spoil(&mut config);
            let error = config.settings().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
