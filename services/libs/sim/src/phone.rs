//! A person who walks around a block with a phone.

use std::time::Duration;

use sovereign_model::geo::{Enu, Geodetic};

use crate::World;

/// A closed walk around a rectangle.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Centre of the rectangle, metres east of the world's origin.
    pub centre_east_m: f64,
    /// Centre of the rectangle, metres north of the world's origin.
    pub centre_north_m: f64,
    /// Side of the rectangle, metres.
    pub side_m: f64,
    /// Walking speed, metres per second.
    pub speed_mps: f64,
}

/// Where a phone truly is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhoneTruth {
    /// Position, 1.5 m above the ground.
    pub position: Geodetic,
    /// Walking direction, degrees clockwise from north.
    pub heading_deg: f64,
    /// Specific force in the phone's frame (x right, y forward, z up), metres per second squared.
    pub acceleration_mps2: [f64; 3],
}

const CARRIED_AT_M: f64 = 1.5;
const CADENCE_HZ: f64 = 1.8;
const GRAVITY_MPS2: f64 = 9.806_65;

impl Walk {
    /// Truth `elapsed` after the start.
    pub fn truth(&self, world: &World, elapsed: Duration) -> PhoneTruth {
        let seconds = elapsed.as_secs_f64();
        let along = (seconds * self.speed_mps).rem_euclid(self.side_m * 4.0);
        let half = self.side_m / 2.0;
        let (leg, rest) = ((along / self.side_m) as u32, along % self.side_m - half);
        let (east, north, heading_deg) = match leg {
            0 => (rest, half, 90.0),
            1 => (half, -rest, 180.0),
            2 => (-rest, -half, 270.0),
            _ => (-half, rest, 0.0),
        };
        let enu = Enu {
            east: self.centre_east_m + east,
            north: self.centre_north_m + north,
            up: CARRIED_AT_M,
        };
        let bounce = (seconds * CADENCE_HZ * std::f64::consts::TAU).sin();
        PhoneTruth {
            position: world.frame().geodetic_from_enu(&enu),
            heading_deg,
            acceleration_mps2: [0.0, 0.4 * bounce, GRAVITY_MPS2 + 1.8 * bounce],
        }
    }
}
