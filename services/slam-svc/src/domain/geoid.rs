//! The geoid: how high mean sea level stands above the WGS 84 ellipsoid.
//!
//! EGM96 from its coefficients to degree and order 360 (NIMA TR8350.2), bilinear between nodes a twentieth of a
//! degree apart, which is exact to a centimetre. Heights of EGM2008 are taken as heights of EGM96: the two
//! differ by a decimetre or two over most land, by a metre in high mountains, and by less than altitudes from
//! GPS are off.

use egm96::egm96_compute_altitude_offset;
use moka::sync::Cache;

const NODES_A_DEGREE: f64 = 20.0;
/// Nodes that are kept, each a few bytes; a site has a handful.
const MAX_NODES: u64 = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Geoid {
    nodes: Cache<(i32, i32), f64>,
}

impl Default for Geoid {
    fn default() -> Self {
        Self {
            nodes: Cache::new(MAX_NODES),
        }
    }
}

impl Geoid {
    /// Metres of mean sea level above the ellipsoid.
    pub(crate) fn height(&self, latitude_deg: f64, longitude_deg: f64) -> f64 {
        let (row, column) = (
            latitude_deg * NODES_A_DEGREE,
            longitude_deg * NODES_A_DEGREE,
        );
        let (up, right) = (row - row.floor(), column - column.floor());
        let at = |rows: f64, columns: f64| self.node(row.floor() + rows, column.floor() + columns);
        let lower = at(0.0, 0.0) * (1.0 - right) + at(0.0, 1.0) * right;
        let upper = at(1.0, 0.0) * (1.0 - right) + at(1.0, 1.0) * right;
        lower * (1.0 - up) + upper * up
    }

    fn node(&self, row: f64, column: f64) -> f64 {
        // Degrees times twenty fit easily.
        self.nodes.get_with((row as i32, column as i32), || {
            egm96_compute_altitude_offset(row / NODES_A_DEGREE, column / NODES_A_DEGREE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geoid_stands_where_its_publisher_says() {
        let geoid = Geoid::default();
        // The check values that NGA gives with its program for EGM96.
        for (latitude, longitude, metres) in [
            (38.628_155, 269.779_155 - 360.0, -31.628),
            (-14.621_217, 305.021_114 - 360.0, -2.969),
            (46.874_319, 102.448_729, -43.575),
            (-23.617_446, 133.874_712, 15.871),
            (38.625_473, 359.999_500 - 360.0, 50.066),
            (-0.466_744, 0.002_300, 17.329),
        ] {
            let height = geoid.height(latitude, longitude);
            assert!(
                (height - metres).abs() < 0.05,
                "{latitude}, {longitude}: {height}"
            );
        }
    }
}
