//! One vehicle: everything that was heard of it, merged into one state.
//!
//! A part that was never heard is absent, and a part whose sender says "unknown" becomes absent again.
//! A heartbeat alone is never a place.
//!
//! Time: what arrives over MAVLink is observed at its arrival. For the history, which pictures are
//! matched with, a message that says when it was measured (`time_boot_ms`) is put at that time once
//! SYSTEM_TIME has said when the vehicle started, provided the result is within the allowed clock skew
//! of the arrival; otherwise at its arrival. When a vehicle changes from one to the other its history
//! starts anew, because the two cannot be compared. What does not say when it was measured, or says it on
//! a clock that started apart (cameras and gimbals boot by themselves), is put as long after the last
//! dated message as it arrived after that one.

mod state;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::Duration;

use sovereign_model::geo::{Attitude, Position};
use sovereign_model::{SensorId, Timestamp};

use super::framing::Version;
use super::history::{History, Place};
use super::sample::Sample;
use super::telemetry::{Telemetry, YawFrame, wrap_360};

pub(crate) use state::{LinkCounts, Snapshot, Source};

/// GPS_RAW_INT is the place only while the better GLOBAL_POSITION_INT has been silent for this long;
/// height above the take-off point and velocity, which only the latter says, are unknown then.
const GPS_TAKES_OVER_AFTER: Duration = Duration::from_secs(2);
/// A gimbal's yaw relative to the body is resolved with a body attitude at most this old.
const BODY_YAW_AGE: Duration = Duration::from_secs(1);
/// A clock that steps back by more than this makes old history useless, and arrivals that are farther
/// ahead of it than this count no longer.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// A frame this far behind the newest came late; farther behind, the sender started anew.
const REORDER_WINDOW: u8 = 16;

#[derive(Clone, Debug)]
pub(crate) struct Vehicle {
    state: Snapshot,
    last_heard: Timestamp,
    position_heard: Option<Timestamp>,
    attitude_heard: Option<Timestamp>,
    gps_fix: bool,
    hud_altitude_m: Option<f64>,
    battery_of_system: Option<f64>,
    carries_payload: bool,
    sequences: Vec<(u8, u8)>,
    boot_unix_nanos: Option<i64>,
    time_base: TimeBase,
    /// Of the last message that was put at the vehicle's time.
    last_dated: Option<Dated>,
    max_clock_skew: Duration,
    history: History,
    last_sample: Option<AcceptedSample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeBase {
    Arrival,
    Vehicle,
}

#[derive(Clone, Copy, Debug)]
struct Dated {
    measured: Timestamp,
    arrived: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct AcceptedSample {
    timestamp: Timestamp,
    arrived: Timestamp,
}

impl Vehicle {
    pub(crate) fn new(
        vehicle_id: SensorId,
        source: Source,
        now: Timestamp,
        max_clock_skew: Duration,
    ) -> Vehicle {
        Vehicle {
            state: Snapshot {
                vehicle_id,
                observed: now,
                position: None,
                relative_altitude_m: None,
                attitude: None,
                velocity: None,
                ground_speed_mps: None,
                heading_deg: None,
                battery_percent: None,
                flight_mode: Cow::Borrowed(""),
                source,
                confidence: 0.0,
                armed: None,
                link: LinkCounts::default(),
                simulated: false,
                sensor_health: Cow::Borrowed("healthy"),
            },
            last_heard: now,
            position_heard: None,
            attitude_heard: None,
            gps_fix: false,
            hud_altitude_m: None,
            battery_of_system: None,
            carries_payload: false,
            sequences: Vec::new(),
            boot_unix_nanos: None,
            time_base: TimeBase::Arrival,
            last_dated: None,
            max_clock_skew,
            history: History::default(),
            last_sample: None,
        }
    }

    pub(crate) fn id(&self) -> &SensorId {
        &self.state.vehicle_id
    }

    pub(crate) fn last_heard(&self) -> Timestamp {
        self.last_heard
    }

    pub(crate) fn simulated(&self) -> bool {
        self.state.simulated
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut state = self.state.clone();
        state.battery_percent = state.battery_percent.or(self.battery_of_system);
        if let Some(position) = &mut state.position {
            position.altitude_m = position.altitude_m.or(self.hud_altitude_m);
        }
        state.confidence = self.confidence(&state);
        state
    }

    pub(crate) fn count_message(&mut self, version: Version, signed: bool) {
        self.state.source = Source::from_version(version);
        self.state.link.messages += 1;
        self.state.link.signed += u64::from(signed);
    }

    /// Counts what is missing before a message, accepted or not: it arrived.
    pub(crate) fn follow_sequence(&mut self, component_id: u8, sequence: u8) {
        let known = self.sequences.iter_mut().find(|(c, _)| *c == component_id);
        let Some((_, last)) = known else {
            self.sequences.push((component_id, sequence));
            return;
        };
        let lost = &mut self.state.link.lost;
        match sequence.wrapping_sub(*last) {
            0 => {}
            behind if behind > u8::MAX - REORDER_WINDOW => {
                // It was counted as lost when its successor came.
                *lost = lost.saturating_sub(1);
            }
            ahead => {
                *lost += u64::from(ahead - 1);
                *last = sequence;
            }
        }
    }

    pub(crate) fn hear(&mut self, now: Timestamp) {
        if self.last_heard.since(now) > CLOCK_STEP {
            self.history.clear();
        }
        self.last_heard = now;
    }

    pub(crate) fn carry_payload(&mut self) {
        self.carries_payload = true;
    }

    /// For how long nothing arrived. After the clock stepped back that is counted anew, or the silence of
    /// a vehicle that is gone would begin only when the old time is reached.
    pub(crate) fn silence(&mut self, now: Timestamp) -> Duration {
        if self.last_heard.since(now) > CLOCK_STEP {
            self.hear(now);
        }
        now.since(self.last_heard)
    }

    /// Merges what a message says. A time since boot in it is on the autopilot's clock, see
    /// [`Telemetry::undated`].
    pub(crate) fn merge(&mut self, telemetry: Telemetry, now: Timestamp) {
        self.state.observed = now;
        match telemetry {
            Telemetry::Heartbeat {
                is_vehicle,
                flight_mode,
                armed,
                simulated,
            } => {
                if is_vehicle {
                    self.state.flight_mode = flight_mode;
                    self.state.armed = Some(armed);
                    self.state.simulated = simulated;
                }
            }
            Telemetry::SystemStatus { battery_percent } => {
                self.battery_of_system = battery_percent;
            }
            Telemetry::Battery { battery_percent } => {
                self.state.battery_percent = battery_percent;
            }
            Telemetry::SystemTime {
                unix_nanos,
                boot_ms,
            } => self.learn_boot_time(unix_nanos, boot_ms, now),
            Telemetry::Gps {
                fix,
                position,
                ground_speed_mps,
            } => {
                self.gps_fix = fix;
                if self.better_is_silent(now) {
                    // It does not say these, and what was last said of them is of another place.
                    self.state.relative_altitude_m = None;
                    self.state.velocity = None;
                    self.state.ground_speed_mps = ground_speed_mps.or(self.state.ground_speed_mps);
                    self.set_position(self.undated(now), position);
                }
            }
            Telemetry::GlobalPosition {
                boot_ms,
                position,
                relative_altitude_m,
                velocity,
                heading_deg,
            } => {
                let time = self.measured(boot_ms, now);
                self.position_heard = Some(now);
                self.state.relative_altitude_m = Some(relative_altitude_m);
                self.state.velocity = Some(velocity);
                self.state.ground_speed_mps = Some(velocity.north_mps.hypot(velocity.east_mps));
                self.state.heading_deg = heading_deg.or(self.state.heading_deg);
                self.set_position(time, position);
            }
            Telemetry::Attitude { boot_ms, attitude } => {
                let time = self.measured(boot_ms, now);
                self.attitude_heard = Some(now);
                self.state.attitude = Some(attitude);
                self.history.add_body(time, attitude);
            }
            Telemetry::Hud {
                ground_speed_mps,
                heading_deg,
                altitude_m,
            } => {
                self.state.ground_speed_mps = Some(ground_speed_mps);
                self.state.heading_deg = heading_deg.or(self.state.heading_deg);
                self.hud_altitude_m = Some(altitude_m);
            }
            Telemetry::HighLatency {
                position,
                ground_speed_mps,
                heading_deg,
                battery_percent,
                flight_mode,
            } => {
                self.state.flight_mode = flight_mode;
                self.battery_of_system = battery_percent.or(self.battery_of_system);
                if self.better_is_silent(now) {
                    self.state.relative_altitude_m = None;
                    self.state.velocity = None;
                    self.state.ground_speed_mps = Some(ground_speed_mps);
                    self.state.heading_deg = heading_deg.or(self.state.heading_deg);
                    self.set_position(self.undated(now), position);
                }
            }
            Telemetry::Gimbal {
                component_id,
                boot_ms,
                attitude,
                yaw_frame,
            } => {
                let time = match boot_ms {
                    Some(boot_ms) => self.measured(boot_ms, now),
                    None => self.undated(now),
                };
                if let Some(attitude) = self.in_earth_frame(attitude, yaw_frame, now) {
                    self.history.add_gimbal(component_id, time, attitude);
                }
            }
            Telemetry::ImageCaptured {
                unix_nanos,
                boot_ms,
                position,
                relative_altitude_m: _,
                attitude,
            } => {
                // It may come long after the exposure, so it says nothing of other messages' times.
                let time = self
                    .near(unix_nanos, now)
                    .or_else(|| self.near(self.since_boot(boot_ms?), now))
                    .unwrap_or_else(|| self.undated(now));
                // Its altitude is above ground, ours above the take-off point: not the same thing.
                if let Some(position) = position.filter(|p| self.gps_fix || !p.is_zero()) {
                    let last_known = self.state.relative_altitude_m;
                    let relative_altitude_m = last_known.filter(|_| !self.better_is_silent(now));
                    self.history.add_place(
                        time,
                        Place {
                            position,
                            relative_altitude_m,
                        },
                    );
                }
                if let Some(attitude) = attitude {
                    self.history.add_exposure(time, attitude);
                }
            }
        }
    }

    /// How a sample of this time stands to the last accepted one.
    ///
    /// The last one is forgotten `forget_after` its arrival: a drone whose clock stepped back is heard
    /// again, at the latest then. One that arrived in what is the future now, because our clock stepped
    /// back, is forgotten at once.
    pub(crate) fn order(
        &self,
        timestamp: Timestamp,
        now: Timestamp,
        forget_after: Duration,
    ) -> Ordering {
        match self.last_sample {
            Some(last)
                if now.since(last.arrived) <= forget_after
                    && last.arrived.since(now) <= CLOCK_STEP =>
            {
                timestamp.cmp(&last.timestamp)
            }
            Some(_) | None => Ordering::Greater,
        }
    }

    pub(crate) fn merge_sample(&mut self, sample: &Sample, arrived: Timestamp) {
        let timestamp = sample.timestamp.unwrap_or(arrived);
        self.hear(arrived);
        self.last_sample = Some(AcceptedSample { timestamp, arrived });
        let state = &mut self.state;
        state.observed = timestamp;
        state.source = Source::Json;
        state.link.messages += 1;
        state.simulated = sample.simulated;
        state.ground_speed_mps = sample.ground_speed_mps.or(state.ground_speed_mps);
        state.heading_deg = sample.heading_deg.or(state.heading_deg);
        state.battery_percent = sample.battery_percent.or(state.battery_percent);
        if let Some(flight_mode) = &sample.flight_mode {
            state.flight_mode = Cow::Owned(flight_mode.clone());
        }
        state.sensor_health = match &sample.sensor_health {
            Some(health) => Cow::Owned(health.clone()),
            None => Cow::Borrowed("healthy"),
        };
        if let Some(position) = sample.position {
            state.position = Some(position);
            let place = Place {
                position,
                relative_altitude_m: None,
            };
            self.history.add_place(timestamp, place);
        }
        self.carries_payload |= sample.image.is_some() || sample.lidar_points.is_some();
    }

    fn set_position(&mut self, time: Timestamp, position: Option<Position>) {
        self.state.position = position.filter(|p| self.gps_fix || !p.is_zero());
        if let Some(position) = self.state.position {
            let place = Place {
                position,
                relative_altitude_m: self.state.relative_altitude_m,
            };
            self.history.add_place(time, place);
        }
    }

    /// Whether GLOBAL_POSITION_INT is not heard, or no longer.
    fn better_is_silent(&self, now: Timestamp) -> bool {
        self.position_heard
            .is_none_or(|heard| now.since(heard) > GPS_TAKES_OVER_AFTER)
    }

    fn learn_boot_time(&mut self, unix_nanos: Option<i64>, boot_ms: u32, now: Timestamp) {
        self.boot_unix_nanos = self
            .near(unix_nanos, now)
            .map(|time| time.as_unix_nanos() - i64::from(boot_ms) * 1_000_000);
    }

    fn measured(&mut self, boot_ms: u32, now: Timestamp) -> Timestamp {
        let (base, time) = match self.near(self.since_boot(boot_ms), now) {
            Some(time) => (TimeBase::Vehicle, time),
            None => (TimeBase::Arrival, now),
        };
        if base != self.time_base {
            self.time_base = base;
            self.history.clear();
        }
        self.last_dated = match base {
            TimeBase::Vehicle => Some(Dated {
                measured: time,
                arrived: now,
            }),
            TimeBase::Arrival => None,
        };
        time
    }

    fn undated(&self, now: Timestamp) -> Timestamp {
        self.last_dated
            .and_then(|last| last.measured.checked_add(now.since(last.arrived)))
            .and_then(|time| self.near(Some(time.as_unix_nanos()), now))
            .unwrap_or(now)
    }

    fn since_boot(&self, boot_ms: u32) -> Option<i64> {
        let boot = self.boot_unix_nanos?;
        boot.checked_add(i64::from(boot_ms) * 1_000_000)
    }

    fn near(&self, unix_nanos: Option<i64>, now: Timestamp) -> Option<Timestamp> {
        let time = Timestamp::from_unix_nanos(unix_nanos?);
        let apart = time.since(now).max(now.since(time));
        (apart <= self.max_clock_skew).then_some(time)
    }

    /// The camera's attitude with yaw from true north; `None` when the body's heading is not known.
    fn in_earth_frame(
        &self,
        attitude: Attitude,
        yaw_frame: YawFrame,
        now: Timestamp,
    ) -> Option<Attitude> {
        match yaw_frame {
            YawFrame::Earth => Some(attitude),
            YawFrame::Vehicle => {
                let heard = self.attitude_heard?;
                let body = self.state.attitude?;
                (now.since(heard) <= BODY_YAW_AGE).then(|| Attitude {
                    yaw_deg: wrap_360(attitude.yaw_deg + body.yaw_deg),
                    ..attitude
                })
            }
        }
    }

    fn confidence(&self, state: &Snapshot) -> f64 {
        // In tenths, so that the sum is exact.
        let mut tenths = 4;
        if let Some(position) = state.position {
            tenths += 2 + u8::from(position.altitude_m.is_some());
        }
        tenths += u8::from(state.heading_deg.is_some());
        tenths += u8::from(state.ground_speed_mps.is_some());
        tenths += u8::from(self.carries_payload);
        f64::from(tenths) / 10.0
    }
}

#[cfg(test)]
mod tests;
