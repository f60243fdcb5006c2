//! What may be configured.

use std::time::Duration;

use serde::Deserialize;
use sovereign_service::BuildError;

use crate::domain::Retention;
use crate::store::{Limits, MAX_VERSIONS};

const DEFAULT_BYTES: u64 = 8 << 30;
const DEFAULT_HOURS: u64 = 48;

/// Section `[checkpoint-svc]`. Every value has a default; unknown keys are refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pictures.
    pub pictures: Room,
    /// LiDAR scans.
    pub scans: Room,
    /// Model checkpoints, which do not age. One that does not fit is refused.
    pub checkpoints: CheckpointRoom,
}

/// Room of a class of objects that age; default 8 GiB and two days.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Bytes kept at most, uploads under way included; what nobody pinned goes first, the oldest first.
    pub max_bytes: u64,
    /// Hours after which it goes although there is room, counted from when the last pin went.
    pub max_age_hours: u64,
}

/// Room of the checkpoints; default 8 GiB.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRoom {
    /// Bytes kept at most, uploads under way included, but for those of what is there already.
    pub max_bytes: u64,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) limits: Limits,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_BYTES,
            max_age_hours: DEFAULT_HOURS,
        }
    }
}

impl Default for CheckpointRoom {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_BYTES,
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
