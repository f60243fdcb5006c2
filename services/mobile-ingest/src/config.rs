//! Configuration: as it is written, and as it is used.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use serde::Deserialize;
use sovereign_service::{BuildError, chain};

use crate::domain::frame::Limits;
use crate::secrets;
use crate::tls::{self, Certificate};

/// Room in an upload for what is written beside a picture.
const FRAME_OVERHEAD: usize = 64 << 10;

/// Section `mobile-ingest`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTPS listener. Default `127.0.0.1:8443`.
    pub listen: String,
    /// Certificate chain, PEM. Default: a self-signed certificate made at first start.
    pub tls_cert: Option<PathBuf>,
    /// Private key of `tls_cert`, PEM; both or neither.
    pub tls_key: Option<PathBuf>,
    /// File with the access token. Default: `token` in the data folder, made at first start.
    pub token_file: Option<PathBuf>,
    /// Who may read without the token. Default `loopback`.
    pub read_access: ReadAccess,
    /// Origins (`https://map.example`) of other sites whose pages may read. Default none.
    pub cors_origins: Vec<String>,
    /// Largest upload, MiB, 1 to 1024. Default 90, which is a picture of 64 MiB within `av-v1`; a larger
    /// picture is never taken.
    pub max_upload_mb: u32,
    /// How far a phone's clock may be ahead, seconds, at most 86400. Default 5.
    pub max_clock_skew_secs: u32,
    /// How old a sample may be, seconds, at most 31536000. Default 30.
    pub max_frame_age_secs: u32,
}

/// Who may read without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadAccess {
    /// Peers on this machine that do not speak for somebody else (no `Forwarded` header).
    Loopback,
    /// Everybody.
    Public,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8443".to_owned(),
            tls_cert: None,
            tls_key: None,
            token_file: None,
            read_access: ReadAccess::Loopback,
            cors_origins: Vec::new(),
            max_upload_mb: 90,
            max_clock_skew_secs: 5,
            max_frame_age_secs: 30,
        }
    }
}

/// The configuration as it is used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: Certificate,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) read_access: ReadAccess,
    pub(crate) cors_origins: Vec<HeaderValue>,
    /// Largest `av-v1` upload, bytes.
    pub(crate) max_upload: usize,
    pub(crate) limits: Limits,
}

impl Config {
    pub(crate) fn settings(self) -> Result<Settings, BuildError> {
        let listen = self.listen.parse().map_err(|_| {
            BuildError::config(
                "listen",
                format!(
                    "must be an address and port such as 127.0.0.1:8443, not `{}`",
                    self.listen
                ),
            )
        })?;
        let certificate = match (self.tls_cert, self.tls_key) {
            (None, None) => Certificate::SelfSigned,
            (Some(cert), Some(key)) => {
                // A file that cannot be used is found before anything is bound.
                tls::check_files(&cert, &key).map_err(|(field, error)| {
                    BuildError::config(field, format!("cannot be used: {}", chain(&error)))
                })?;
                Certificate::Files { cert, key }
            }
            (Some(_), None) => {
                return Err(BuildError::config(
                    "tls_key",
                    "is needed when tls_cert is set",
                ));
            }
            (None, Some(_)) => {
                return Err(BuildError::config(
                    "tls_cert",
                    "is needed when tls_key is set",
                ));
            }
        };
        if let Some(file) = &self.token_file {
            secrets::read_token(file).map_err(|error| {
                BuildError::config("token_file", format!("cannot be used: {}", chain(&error)))
            })?;
        }
        let cors_origins = self
            .cors_origins
            .iter()
            .map(|origin| origin_from_text(origin))
            .collect::<Result<_, _>>()?;
        let max_upload_mb = in_range("max_upload_mb", self.max_upload_mb, 1, 1024)?;
        let max_clock_skew = in_range("max_clock_skew_secs", self.max_clock_skew_secs, 0, 86_400)?;
        let max_frame_age = in_range("max_frame_age_secs", self.max_frame_age_secs, 1, 31_536_000)?;
        let configured = usize::try_from(max_upload_mb).unwrap_or(usize::MAX) << 20;
        let largest = usize::try_from(sovereign_picture::MAX_BYTES).unwrap_or(usize::MAX);
        let max_picture = largest.min(configured);
        Ok(Settings {
            listen,
            certificate,
            token_file: self.token_file,
            read_access: self.read_access,
            cors_origins,
            // Base64 with line breaks adds two fifths at most.
            max_upload: configured.min(max_picture / 5 * 7 + FRAME_OVERHEAD),
            limits: Limits {
                max_clock_skew: Duration::from_secs(u64::from(max_clock_skew)),
                max_frame_age: Duration::from_secs(u64::from(max_frame_age)),
                max_picture,
            },
        })
    }
}

fn in_range(field: &str, value: u32, low: u32, high: u32) -> Result<u32, BuildError> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(BuildError::config(
            field,
            format!("must be {low} to {high}, not {value}"),
        ))
    }
}

fn origin_from_text(text: &str) -> Result<HeaderValue, BuildError> {
    let wrong = || {
        BuildError::config(
            "cors_origins",
            format!("must hold origins such as https://map.example, not `{text}`"),
        )
    };
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or_else(wrong)?;
    if host.is_empty() || !host.bytes().all(is_authority_byte) {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

/// Whether a byte may stand in `host` or `host:port`.
pub(crate) fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sovereign_disk::{Readers, write_whole};

    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn the_default_listens_on_loopback_and_closes_cors() {
        let settings = Config::default().settings().unwrap();
        assert_eq!(settings.listen, "127.0.0.1:8443".parse().unwrap());
        assert_eq!(settings.certificate, Certificate::SelfSigned);
        assert_eq!(settings.read_access, ReadAccess::Loopback);
        assert!(settings.cors_origins.is_empty());
        assert_eq!(settings.limits.max_picture, 64 << 20);
        assert!(settings.max_upload > settings.limits.max_picture);
    }

    #[test]
    fn each_wrong_value_is_refused_by_name() {
        let cases: [(&str, Config); 11] = [
            ("listen", config(|c| c.listen = "8443".to_owned())),
            ("listen", config(|c| c.listen = "localhost:8443".to_owned())),
            ("tls_key", config(|c| c.tls_cert = Some("a".into()))),
            ("tls_cert", config(|c| c.tls_key = Some("a".into()))),
            (
                "cors_origins",
                config(|c| c.cors_origins = vec!["*".to_owned()]),
            ),
            (
                "cors_origins",
                config(|c| c.cors_origins = vec!["https://".to_owned()]),
            ),
            (
                "cors_origins",
                config(|c| c.cors_origins = vec!["https://a/b".to_owned()]),
            ),
            ("max_upload_mb", config(|c| c.max_upload_mb = 0)),
            ("max_upload_mb", config(|c| c.max_upload_mb = 1025)),
            (
                "max_clock_skew_secs",
                config(|c| c.max_clock_skew_secs = 86_401),
            ),
            ("max_frame_age_secs", config(|c| c.max_frame_age_secs = 0)),
        ];
        for (field, config) in cases {
            let error = config.settings().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }

    #[test]
    fn a_token_file_without_a_token_is_a_mistake_and_one_that_is_not_there_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let with = |file: &Path| config(|c| c.token_file = Some(file.to_owned())).settings();
        assert!(with(&file).is_ok());
        write_whole(&file, b"\n", Readers::Owner).unwrap();
        let error = with(&file).unwrap_err().to_string();
        assert!(error.contains("`token_file`"), "{error}");
        assert!(error.contains("does not hold a token"), "{error}");
    }

    #[test]
    fn each_value_has_its_effect() {
        let settings = config(|c| {
            c.listen = "[::1]:9".to_owned();
            c.token_file = Some("t".into());
            c.read_access = ReadAccess::Public;
            c.cors_origins = vec!["https://map.example:8080".to_owned()];
            c.max_upload_mb = 1;
            c.max_clock_skew_secs = 7;
            c.max_frame_age_secs = 8;
        })
        .settings()
        .unwrap();
        assert_eq!(settings.listen, "[::1]:9".parse().unwrap());
        assert_eq!(settings.token_file, Some("t".into()));
        assert_eq!(settings.read_access, ReadAccess::Public);
        assert_eq!(settings.cors_origins, ["https://map.example:8080"]);
        assert_eq!(settings.max_upload, 1 << 20);
        assert_eq!(settings.limits.max_picture, 1 << 20);
        assert_eq!(settings.limits.max_clock_skew, Duration::from_secs(7));
        assert_eq!(settings.limits.max_frame_age, Duration::from_secs(8));
    }
}
