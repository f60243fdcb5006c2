//! What may be configured.

use std::time::Duration;

use serde::Deserialize;
use sovereign_service::BuildError;

use crate::domain::LONGEST_ROUND;

/// Section `[round-svc]`. Every value has a default; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds for which a round is open when the caller does not say; default 120, 1 to 604,800.
    pub default_timeout_secs: u64,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) default_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_timeout_secs: 120,
        }
    }
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        let timeout = Duration::from_secs(self.default_timeout_secs);
        if timeout.is_zero() || timeout > LONGEST_ROUND {
            let longest = LONGEST_ROUND.as_secs();
            let why = format!("is {}, must be 1 to {longest}", self.default_timeout_secs);
            return Err(BuildError::config("default_timeout_secs", why));
        }
        Ok(Settings {
            default_timeout: timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_has_bounds() {
        assert_eq!(
            Config::default().settings().unwrap().default_timeout,
            Duration::from_secs(120)
        );
        for default_timeout_secs in [0, 604_801, u64::MAX] {
            let config = Config {
                default_timeout_secs,
            };
            let error = config.settings().unwrap_err().to_string();
            assert!(error.starts_with("`default_timeout_secs`"), "{error}");
        }
    }
}
