//! What may be configured.

use serde::Deserialize;
use sovereign_service::BuildError;

/// Section `[checkpoint-svc]`. Every value has a default; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of checkpoints kept at most, uploads under way included, but for those of what is there
    /// already; default 8 GiB, at least 1. A checkpoint that does not fit is refused.
    pub max_bytes: u64,
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 8 << 30 }
    }
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        if self.max_bytes == 0 {
            return Err(BuildError::config("max_bytes", "must be at least 1"));
        }
        Ok(Settings {
            max_bytes: self.max_bytes,
        })
    }
}
