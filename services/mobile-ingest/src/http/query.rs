//! Query strings: every key works, or is refused by name.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;
use sovereign_model::Timestamp;
use sovereign_service::Code;

use super::problem::Problem;
use crate::domain::frame::timestamp_from_rfc3339;

/// Reads `query`.
pub(crate) fn checked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(value)| value).map_err(|rejection| {
        let text = rejection.body_text();
        let detail = text
            .strip_prefix("Failed to deserialize query string: ")
            .unwrap_or(&text);
        match key(detail) {
            Some(key) => Problem::field(key, detail),
            None => Problem::from_code(Code::InvalidArgument, detail),
        }
    })
}

/// The key that a fault is about: ``fx: invalid float literal``, ``unknown field `fz`, expected ...``.
fn key(detail: &str) -> Option<String> {
    if let Some((_, after)) = detail.split_once("unknown field `") {
        return Some(after.split('`').next()?.to_owned());
    }
    let (key, _) = detail.split_once(": ")?;
    let plain = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !key.is_empty()).then(|| key.to_owned())
}

/// Reads an optional `timestamp`. The epoch itself and what is before it is no time of a picture: on the
/// wire it would read as unknown.
pub(crate) fn timestamp(text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let wrong = |message: String| Problem::field("timestamp", message);
    let time = text
        .map(timestamp_from_rfc3339)
        .transpose()
        .map_err(wrong)?;
    if time.is_some_and(|time| time <= Timestamp::UNIX_EPOCH) {
        return Err(wrong(
            "timestamp must be after 1970-01-01T00:00:00Z".to_owned(),
        ));
    }
    Ok(time)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyframesQuery {
    pub(crate) sensor: Option<String>,
    pub(crate) limit: Option<u32>,
    pub(crate) after: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PictureQuery {
    pub(crate) timestamp: Option<String>,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) altitude: Option<f64>,
    pub(crate) accuracy_m: Option<f64>,
    pub(crate) heading_deg: Option<f64>,
    pub(crate) simulated: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureQuery {
    pub(crate) timestamp: Option<String>,
    pub(crate) fx: Option<f64>,
    pub(crate) fy: Option<f64>,
    pub(crate) cx: Option<f64>,
    pub(crate) cy: Option<f64>,
    pub(crate) k1: Option<f64>,
    pub(crate) k2: Option<f64>,
    pub(crate) k3: Option<f64>,
    pub(crate) p1: Option<f64>,
    pub(crate) p2: Option<f64>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) mount_pitch: Option<f64>,
    pub(crate) simulated: Option<bool>,
}
