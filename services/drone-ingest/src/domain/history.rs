//! The last half minute of a vehicle, to say where it was when a picture was taken.
//!
//! Tracks of places, of attitudes of the body, of the camera at its exposures and of each gimbal, each sorted by
//! time. A camera looked as it says of the exposure itself, else as its gimbal did; of several gimbals the one
//! of the lowest component carries the camera. A moment
//! between two samples is interpolated, angles along the shorter arc; a moment outside takes the nearest
//! sample. Nothing is said when the nearest sample is farther away than the caller allows.

use std::collections::VecDeque;
use std::time::Duration;

use sovereign_model::Timestamp;
use sovereign_model::geo::{Attitude, Position};

use super::telemetry::{wrap_180, wrap_360};

/// How far back a picture can be matched.
pub(crate) const DEPTH: Duration = Duration::from_secs(30);
/// Of three samples within this time the middle one is dropped, so that a fast sender does not fill a
/// track: samples stay at least half of it apart, a thousand in all.
pub(crate) const SPACING: Duration = Duration::from_millis(60);
/// Samples in one track; the oldest goes first. Reached only by samples inserted between others.
pub(crate) const MAX_SAMPLES: usize = 1_024;

/// An exposure that is reported for a moment this near is that of the picture.
const SAME_EXPOSURE: Duration = Duration::from_millis(50);
/// Gimbals of one vehicle; the protocol has six components for them, and autopilots speak for one more.
const MAX_GIMBALS: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// Metres above the take-off point.
    pub(crate) relative_altitude_m: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Looking {
    Camera(Attitude),
    /// The body's; how the camera sits on it is not known here.
    Body(Attitude),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fix {
    pub(crate) place: Place,
    /// How it looked; `None` when no attitude was near enough.
    pub(crate) looking: Option<Looking>,
    /// From the moment to the nearest sample of the place.
    pub(crate) offset: Duration,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    places: Track<Place>,
    body: Track<Attitude>,
    exposures: Track<Attitude>,
    /// By component, in order.
    gimbals: Vec<(u8, Track<Attitude>)>,
}

impl History {
    pub(crate) fn add_place(&mut self, time: Timestamp, place: Place) {
        self.places.add(time, place);
    }

    pub(crate) fn add_body(&mut self, time: Timestamp, attitude: Attitude) {
        self.body.add(time, attitude);
    }

    pub(crate) fn add_exposure(&mut self, time: Timestamp, attitude: Attitude) {
        self.exposures.add(time, attitude);
    }

    pub(crate) fn add_gimbal(&mut self, component_id: u8, time: Timestamp, attitude: Attitude) {
        let place = match self
            .gimbals
            .binary_search_by_key(&component_id, |(id, _)| *id)
        {
            Ok(place) => place,
            Err(_) if self.gimbals.len() >= MAX_GIMBALS => return,
            Err(place) => {
                self.gimbals.insert(place, (component_id, Track::default()));
                place
            }
        };
        self.gimbals[place].1.add(time, attitude);
    }

    /// Forgets everything: times before and after cannot be compared.
    pub(crate) fn clear(&mut self) {
        *self = History::default();
    }

    pub(crate) fn newest_place(&self) -> Option<Timestamp> {
        self.places.samples.back().map(|(time, _)| *time)
    }

    /// Where the vehicle was at `time`; `None` when no place was heard within `max_offset` of it.
    pub(crate) fn at(&self, time: Timestamp, max_offset: Duration) -> Option<Fix> {
        let (place, offset) = self.places.at(time, max_offset)?;
        let exposure = self.exposures.at(time, SAME_EXPOSURE.min(max_offset));
        let mut gimbals = self.gimbals.iter();
        let camera = exposure.or_else(|| gimbals.find_map(|(_, track)| track.at(time, max_offset)));
        let body = self.body.at(time, max_offset);
        Some(Fix {
            place,
            looking: camera
                .map(|(attitude, _)| Looking::Camera(attitude))
                .or_else(|| body.map(|(attitude, _)| Looking::Body(attitude))),
            offset,
        })
    }
}

trait Interpolate {
    /// `self` at fraction 0, `later` at fraction 1.
    fn towards(&self, later: &Self, fraction: f64) -> Self;
}

impl Interpolate for Place {
    fn towards(&self, later: &Place, fraction: f64) -> Place {
        let both = |a: Option<f64>, b: Option<f64>| Some(linear(a?, b?, fraction));
        let (a, b) = (&self.position, &later.position);
        Place {
            position: Position {
                latitude_deg: linear(a.latitude_deg, b.latitude_deg, fraction),
                // Across the date line the short way as well.
                longitude_deg: wrap_180(arc(a.longitude_deg, b.longitude_deg, fraction)),
                altitude_m: both(a.altitude_m, b.altitude_m),
            },
            relative_altitude_m: both(self.relative_altitude_m, later.relative_altitude_m),
        }
    }
}

impl Interpolate for Attitude {
    fn towards(&self, later: &Attitude, fraction: f64) -> Attitude {
        Attitude {
            roll_deg: wrap_180(arc(self.roll_deg, later.roll_deg, fraction)),
            pitch_deg: linear(self.pitch_deg, later.pitch_deg, fraction),
            yaw_deg: wrap_360(arc(self.yaw_deg, later.yaw_deg, fraction)),
        }
    }
}

fn linear(a: f64, b: f64, fraction: f64) -> f64 {
    a + (b - a) * fraction
}

fn arc(a: f64, b: f64, fraction: f64) -> f64 {
    a + wrap_180(b - a) * fraction
}

#[derive(Clone, Debug)]
struct Track<T> {
    samples: VecDeque<(Timestamp, T)>,
}

impl<T> Default for Track<T> {
    fn default() -> Track<T> {
        Track {
            samples: VecDeque::new(),
        }
    }
}

impl<T: Interpolate + Copy> Track<T> {
    fn add(&mut self, time: Timestamp, value: T) {
        let after = self.samples.partition_point(|(t, _)| *t <= time);
        if after < self.samples.len() {
            // Late, or an exposure reported after the fact: it belongs between the others.
            self.samples.insert(after, (time, value));
        } else {
            // The newest sample always stays, so the one before it decides whether it is too close.
            let crowded = self.samples.len() >= 2
                && time.since(self.samples[self.samples.len() - 2].0) < SPACING;
            if crowded {
                self.samples.pop_back();
            }
            self.samples.push_back((time, value));
        }
        let newest = self.samples.back().map_or(time, |(t, _)| *t);
        while self.samples.len() > MAX_SAMPLES
            || self
                .samples
                .front()
                .is_some_and(|(oldest, _)| newest.since(*oldest) > DEPTH)
        {
            self.samples.pop_front();
        }
    }

    fn at(&self, time: Timestamp, max_offset: Duration) -> Option<(T, Duration)> {
        let after = self.samples.partition_point(|(t, _)| *t <= time);
        let before = after.checked_sub(1).and_then(|i| self.samples.get(i));
        let (value, offset) = match (before, self.samples.get(after)) {
            (Some((t0, a)), Some((t1, b))) => {
                let (passed, whole) = (time.since(*t0), t1.since(*t0));
                let fraction = passed.as_secs_f64() / whole.as_secs_f64();
                (a.towards(b, fraction), passed.min(t1.since(time)))
            }
            (Some((t0, a)), None) => (*a, time.since(*t0)),
            (None, Some((t1, b))) => (*b, t1.since(time)),
            (None, None) => return None,
        };
        (offset <= max_offset).then_some((value, offset))
    }
}

#[cfg(test)]
mod tests;
