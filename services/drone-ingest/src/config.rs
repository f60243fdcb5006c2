//! Section `[drone-ingest]`: what may be written, and what is used.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sovereign_disk::read_private;
use sovereign_model::Digest;
use sovereign_service::{BuildError, chain};

use crate::domain::door::Rules;
use crate::domain::signing::{SignaturePolicy, SigningKey};

/// The section as written. Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// UDP address that vehicles send to: MAVLink 1 and 2, and JSON samples. Default `127.0.0.1:14550`.
    /// Any address but loopback needs `signing_key_file` or `allow_unsigned`.
    pub listen: SocketAddr,
    /// File with the 32 bytes of the MAVLink 2 signing key, raw or as 64 hex digits. With a key, a wrong
    /// signature is refused, and what is not signed (MAVLink 1 and JSON cannot be) as well unless
    /// `allow_unsigned`. A file that is open to everybody is refused. Default: none, signatures are not
    /// looked at.
    pub signing_key_file: Option<PathBuf>,
    /// Take what is not signed even when listening beyond loopback or when there is a key. Default false.
    pub allow_unsigned: bool,
    /// States published for each vehicle in a second, at most; 0.1 to 100. Default 10.
    pub publish_hz: f64,
    /// Seconds of silence after which a vehicle is forgotten; 1 to 86,400. Default 30.
    pub idle_timeout_secs: u64,
    /// Seconds that a sender's clock may be ahead of ours; at most 3,600. Default 5.
    pub max_clock_skew_secs: u64,
    /// Seconds after which a JSON sample is too old; 1 to 86,400. Default 30.
    pub max_sample_age_secs: u64,
    /// Milliseconds that telemetry may be from the exposure it is matched with; 1 to 10,000. Default 500.
    pub telemetry_match_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 14_550)),
            signing_key_file: None,
            allow_unsigned: false,
            publish_hz: 10.0,
            idle_timeout_secs: 30,
            max_clock_skew_secs: 5,
            max_sample_age_secs: 30,
            telemetry_match_ms: 500,
        }
    }
}

/// What is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) rules: Rules,
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        self.check_exposure()?;
        Ok(Settings {
            listen: self.listen,
            rules: self.rules(self.signature_policy()?)?,
        })
    }

    fn rules(&self, signatures: SignaturePolicy) -> Result<Rules, BuildError> {
        if !(0.1..=100.0).contains(&self.publish_hz) {
            return Err(BuildError::config("publish_hz", "must be 0.1 to 100"));
        }
        let seconds = |key, value, range: std::ops::RangeInclusive<u64>| {
            if range.contains(&value) {
                Ok(Duration::from_secs(value))
            } else {
                let (least, most) = (range.start(), range.end());
                Err(BuildError::config(
                    key,
                    format!("must be {least} to {most}"),
                ))
            }
        };
        if !(1..=10_000).contains(&self.telemetry_match_ms) {
            return Err(BuildError::config(
                "telemetry_match_ms",
                "must be 1 to 10000",
            ));
        }
        Ok(Rules {
            publish_period: Duration::from_secs_f64(self.publish_hz.recip()),
            idle_timeout: seconds("idle_timeout_secs", self.idle_timeout_secs, 1..=86_400)?,
            max_clock_skew: seconds("max_clock_skew_secs", self.max_clock_skew_secs, 0..=3_600)?,
            max_sample_age: seconds("max_sample_age_secs", self.max_sample_age_secs, 1..=86_400)?,
            max_match_offset: Duration::from_millis(self.telemetry_match_ms),
            signatures,
        })
    }

    fn check_exposure(&self) -> Result<(), BuildError> {
        let local = self.listen.ip().to_canonical().is_loopback();
        if local || self.allow_unsigned || self.signing_key_file.is_some() {
            return Ok(());
        }
        let why = format!(
            "is {}, which others can reach: set signing_key_file, or allow_unsigned = true to believe \
             anyone",
            self.listen
        );
        Err(BuildError::config("listen", why))
    }

    fn signature_policy(&self) -> Result<SignaturePolicy, BuildError> {
        let Some(file) = &self.signing_key_file else {
            return Ok(SignaturePolicy::Unchecked);
        };
        let key = key_from_file(file)?;
        Ok(if self.allow_unsigned {
            SignaturePolicy::Verified(key)
        } else {
            SignaturePolicy::Required(key)
        })
    }
}

/// 32 bytes, raw or as 64 hex digits with space around them.
fn key_from_file(file: &Path) -> Result<SigningKey, BuildError> {
    let refused = |why: String| BuildError::config("signing_key_file", why);
    let bytes = read_private(file)
        .map_err(|error| refused(format!("cannot be used: {}", chain(&error))))?
        .ok_or_else(|| refused(format!("is {}, and there is no such file", file.display())))?;
    if let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(SigningKey(key));
    }
    let hex = std::str::from_utf8(&bytes).ok().map(str::trim);
    // A digest and a key are the same 64 hex digits to read.
    match hex.and_then(|hex| Digest::from_hex(hex).ok()) {
        Some(bytes) => Ok(SigningKey(*bytes.as_bytes())),
        None => Err(refused(format!(
            "is {}, which holds neither 32 bytes nor 64 hex digits",
            file.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<impl Sized, BuildError>) -> String {
        match result {
            Err(BuildError::Config { field, .. }) => field,
            Err(BuildError::Operation { operation, .. }) => panic!("{operation}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_by_its_key() {
        let rules = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.rules(SignaturePolicy::Unchecked)
        };
        assert!(rules(|_| {}).is_ok());
        assert_eq!(refused(rules(|c| c.publish_hz = 0.0)), "publish_hz");
        assert_eq!(refused(rules(|c| c.publish_hz = f64::NAN)), "publish_hz");
        assert_eq!(
            refused(rules(|c| c.idle_timeout_secs = 0)),
            "idle_timeout_secs"
        );
        assert_eq!(
            refused(rules(|c| c.max_clock_skew_secs = 9_999)),
            "max_clock_skew_secs"
        );
        assert_eq!(
            refused(rules(|c| c.max_sample_age_secs = 0)),
            "max_sample_age_secs"
        );
        assert_eq!(
            refused(rules(|c| c.telemetry_match_ms = 0)),
            "telemetry_match_ms"
        );
    }

    #[test]
    fn listening_beyond_loopback_needs_a_key_or_consent() {
        let config = |listen: &str| Config {
            listen: listen.parse().unwrap(),
            ..Config::default()
        };
        assert!(config("127.0.0.1:14550").check_exposure().is_ok());
        assert!(config("[::1]:14550").check_exposure().is_ok());
        for listen in ["0.0.0.0:14550", "[::]:14550", "192.0.2.1:14550"] {
            let config = config(listen);
            assert_eq!(refused(config.check_exposure()), "listen");
            let consent = Config {
                allow_unsigned: true,
                ..config.clone()
            };
            assert!(consent.check_exposure().is_ok());
            let key = Config {
                signing_key_file: Some("key".into()),
                ..config
            };
            assert!(key.check_exposure().is_ok());
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let parsed: Result<Config, _> = serde_json::from_str(r#"{"protocol": "json"}"#);
        assert!(parsed.unwrap_err().to_string().contains("protocol"));
    }
}
