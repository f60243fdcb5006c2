//! A survey flight: parallel lines over an area, flown as a closed loop, with a little sway.

use std::time::Duration;

use sovereign_model::geo::{Attitude, Enu, Geodetic};

use crate::World;

/// The rectangle to survey, metres from the world's origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurveyArea {
    /// Western edge.
    pub west: f64,
    /// Eastern edge.
    pub east: f64,
    /// Southern edge.
    pub south: f64,
    /// Northern edge.
    pub north: f64,
}

/// A flight plan.
#[derive(Debug, Clone)]
pub struct Survey {
    waypoints: Vec<[f64; 2]>,
    /// Length from the first waypoint to each, metres; the last entry closes the loop.
    lengths: Vec<f64>,
    height_m: f64,
    speed_mps: f64,
}

/// Where a vehicle truly is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VehicleTruth {
    /// Position; the altitude is above mean sea level.
    pub position: Geodetic,
    /// Position in metres from the world's origin.
    pub enu: Enu,
    /// Metres above the ground, which is also the take-off point.
    pub height_m: f64,
    /// Body attitude.
    pub attitude: Attitude,
    /// Velocity north, east, down, metres per second.
    pub velocity_ned_mps: [f64; 3],
}

/// Half the stretch of path that the heading looks over, metres: corners are turned smoothly.
const HEADING_REACH_M: f64 = 5.0;
const SWAY_DEG: f64 = 1.8;

impl Survey {
    /// Lines along east-west, at most `spacing_m` apart, at `height_m` above the ground and `speed_mps`.
    /// Their number is even, so that the way back to the start runs along the western edge.
    ///
    /// # Panics
    /// When the area, spacing, height or speed is not positive.
    pub fn lawnmower(area: SurveyArea, spacing_m: f64, height_m: f64, speed_mps: f64) -> Self {
        assert!(
            area.east > area.west && area.north > area.south,
            "the survey area has no extent"
        );
        assert!(
            spacing_m > 0.0 && height_m > 0.0 && speed_mps > 0.0,
            "spacing, height and speed are positive"
        );
        let extent = area.north - area.south;
        let lines = ((extent / spacing_m).ceil() as usize + 1).next_multiple_of(2);
        let spacing_m = extent / (lines - 1) as f64;
        let mut waypoints = Vec::with_capacity(lines * 2);
        for line in 0..lines {
            let north = area.south + line as f64 * spacing_m;
            let (from, to) = if line % 2 == 0 {
                (area.west, area.east)
            } else {
                (area.east, area.west)
            };
            waypoints.push([from, north]);
            waypoints.push([to, north]);
        }
        let mut lengths = vec![0.0];
        let mut total = 0.0;
        for (index, from) in waypoints.iter().enumerate() {
            let to = waypoints[(index + 1) % waypoints.len()];
            total += (to[0] - from[0]).hypot(to[1] - from[1]);
            lengths.push(total);
        }
        Self {
            waypoints,
            lengths,
            height_m,
            speed_mps,
        }
    }

    /// Time for one loop, the way back to the start included.
    pub fn loop_duration(&self) -> Duration {
        Duration::from_secs_f64(self.total_m() / self.speed_mps)
    }

    /// Truth `elapsed` after the start; after a loop the next one begins.
    pub fn truth(&self, world: &World, elapsed: Duration) -> VehicleTruth {
        let seconds = elapsed.as_secs_f64();
        let along = seconds * self.speed_mps;
        let [east, north] = self.point(along);
        let behind = self.point(along - HEADING_REACH_M);
        let ahead = self.point(along + HEADING_REACH_M);
        let yaw_deg = (ahead[0] - behind[0])
            .atan2(ahead[1] - behind[1])
            .to_degrees();
        let before = self.point(along - 0.05);
        let after = self.point(along + 0.05);
        let scale = self.speed_mps / 0.1;
        let enu = Enu {
            east,
            north,
            up: self.height_m,
        };
        VehicleTruth {
            position: world.frame().geodetic_from_enu(&enu),
            enu,
            height_m: self.height_m,
            attitude: Attitude {
                roll_deg: SWAY_DEG * (seconds * 0.9).sin(),
                pitch_deg: SWAY_DEG * (seconds * 0.7 + 1.0).sin(),
                yaw_deg,
            },
            velocity_ned_mps: [
                (after[1] - before[1]) * scale,
                (after[0] - before[0]) * scale,
                0.0,
            ],
        }
    }

    fn total_m(&self) -> f64 {
        self.lengths[self.waypoints.len()]
    }

    fn point(&self, along: f64) -> [f64; 2] {
        let along = along.rem_euclid(self.total_m());
        let leg = self
            .lengths
            .partition_point(|&length| length <= along)
            .clamp(1, self.waypoints.len())
            - 1;
        let from = self.waypoints[leg];
        let to = self.waypoints[(leg + 1) % self.waypoints.len()];
        let length = self.lengths[leg + 1] - self.lengths[leg];
        let fraction = if length > 0.0 {
            (along - self.lengths[leg]) / length
        } else {
            0.0
        };
        [
            from[0] + (to[0] - from[0]) * fraction,
            from[1] + (to[1] - from[1]) * fraction,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorldConfig;

    fn world() -> World {
        World::generate(WorldConfig {
            width_m: 40.0,
            height_m: 40.0,
            metres_per_pixel: 1.0,
            ..WorldConfig::default()
        })
    }

    fn survey() -> Survey {
        let area = SurveyArea {
            west: -100.0,
            east: 100.0,
            south: -60.0,
            north: 60.0,
        };
        Survey::lawnmower(area, 30.0, 60.0, 8.0)
    }

    #[test]
    fn the_flight_is_continuous_and_flown_at_its_speed() {
        let (world, survey) = (world(), survey());
        let step = Duration::from_millis(50);
        let mut elapsed = Duration::ZERO;
        while elapsed < survey.loop_duration() * 2 {
            let now = survey.truth(&world, elapsed);
            let next = survey.truth(&world, elapsed + step);
            let moved = (next.enu.east - now.enu.east).hypot(next.enu.north - now.enu.north);
            assert!(
                moved <= 8.0 * 0.05 + 1e-9,
                "jumped {moved} m at {elapsed:?}"
            );
            let turn = (next.attitude.yaw_deg - now.attitude.yaw_deg + 540.0).rem_euclid(360.0);
            assert!((turn - 180.0).abs() < 12.0, "spun at {elapsed:?}");
            elapsed += step;
        }
    }

    #[test]
    fn every_corner_of_the_area_is_visited() {
        let (world, survey) = (world(), survey());
        let mut nearest = [f64::MAX; 4];
        let mut elapsed = Duration::ZERO;
        while elapsed < survey.loop_duration() {
            let at = survey.truth(&world, elapsed).enu;
            for (slot, corner) in [(-100., -60.), (100., -60.), (100., 60.), (-100., 60.)]
                .iter()
                .enumerate()
            {
                let distance = (at.east - corner.0).hypot(at.north - corner.1);
                nearest[slot] = nearest[slot].min(distance);
            }
            elapsed += Duration::from_millis(100);
        }
        assert!(
            nearest.iter().all(|&distance| distance < 1.0),
            "{nearest:?}"
        );
    }
}
