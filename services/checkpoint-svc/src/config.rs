//! What may be configured.

use std::time::Duration;

use serde::Deserialize;
use sovereign_service::BuildError;

use crate::domain::Retention;
use crate::store::{Limits, MAX_VERSIONS};

const GIB: u64 = 1 << 30;
const DAY_HOURS: u64 = 24;

/// Section `[checkpoint-svc]`. Every value has a default; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pictures; default 16 GiB, and two days once the map does not need one.
    pub pictures: Room,
    /// LiDAR scans; default 4 GiB, and two days.
    pub scans: Room,
    /// Model checkpoints, which do not age; default 8 GiB. One that does not fit is refused.
    pub checkpoints: CheckpointRoom,
}

/// Room of a class of objects that age.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Bytes kept at most, uploads under way included; what nobody pinned goes first, the oldest first.
    pub max_bytes: u64,
    /// Hours after which it goes although there is room, counted from when the last pin went.
    pub max_age_hours: u64,
}

/// Room of the checkpoints.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRoom {
    /// Bytes kept at most, uploads under way included, but for those of what is there already.
    pub max_bytes: u64,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let room = |gib| Room {
            max_bytes: gib * GIB,
            max_age_hours: 2 * DAY_HOURS,
        };
        Self {
            pictures: room(16),
            scans: room(4),
            checkpoints: CheckpointRoom { max_bytes: 8 * GIB },
        }
    }
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        let checked = |field, max_bytes, max_age_hours: Option<u64>| {
            let least =
                |what: &str| BuildError::config(format!("{field}.{what}"), "must be at least 1");
            if max_bytes == 0 {
                return Err(least("max_bytes"));
            }
            if max_age_hours == Some(0) {
                return Err(least("max_age_hours"));
            }
            let max_age =
                max_age_hours.map(|hours| Duration::from_secs(hours.saturating_mul(3600)));
            Ok(Retention { max_bytes, max_age })
        };
        let aging = |field, room: Room| checked(field, room.max_bytes, Some(room.max_age_hours));
        Ok(Settings {
            limits: Limits {
                retention: [
                    aging("pictures", self.pictures)?,
                    aging("scans", self.scans)?,
                    checked("checkpoints", self.checkpoints.max_bytes, None)?,
                ],
                max_versions: MAX_VERSIONS,
            },
        })
    }
}
