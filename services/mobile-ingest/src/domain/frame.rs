//! The `av-v1` frame: what a phone sends, and whether it may enter.
//!
//! Pipeline: JSON -> [`Written`] (types checked, nothing copied but escapes) -> [`Frame`] (every value
//! checked). The first fault in the order of the contract decides the answer.
//!
//! Degenerate cases:
//! * Senders in Go always write `latitude` and `longitude`, as 0 when they have none: on any stream but
//!   `gps`, exactly 0 and 0 means "no position".
//! * A sender in Go writes an unset time as year 1: that means "on arrival", as an absent one does.
//! * Base64 may carry line breaks (Android's default encoder puts them in).

mod reject;
mod values;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use sovereign_model::geo::Position;
use sovereign_model::{SensorId, Timestamp};

use super::json;
pub(crate) use reject::{Reject, RejectCode};
use values::Values;

pub(crate) const CONTRACT_VERSION: &str = "av-v1";

/// How Go writes a time that was never set.
const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Standard alphabet; padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A kind of sample; order is promised within one stream of one phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    Camera,
    Gps,
    Accelerometer,
    Gyroscope,
    Magnetometer,
    Barometer,
}

impl Stream {
    pub(crate) const ALL: [Self; 6] = [
        Self::Camera,
        Self::Gps,
        Self::Accelerometer,
        Self::Gyroscope,
        Self::Magnetometer,
        Self::Barometer,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Gps => "gps",
            Self::Accelerometer => "accelerometer",
            Self::Gyroscope => "gyroscope",
            Self::Magnetometer => "magnetometer",
            Self::Barometer => "barometer",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WrittenPlace {
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) altitude: Option<f64>,
    pub(crate) accuracy_m: Option<f64>,
    pub(crate) heading_deg: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) position: Option<Position>,
    /// Radius, metres.
    pub(crate) accuracy_m: Option<f64>,
    /// Clockwise from true north, 0 to below 360.
    pub(crate) heading_deg: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    Picture(Vec<u8>),
    Fix,
    Values(BTreeMap<String, f64>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) client: SensorId,
    pub(crate) stream: Stream,
    /// Absent when it is that of the arrival, which is decided in the order of the stream.
    pub(crate) observed: Option<Timestamp>,
    pub(crate) place: Place,
    pub(crate) payload: Payload,
    pub(crate) simulated: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_clock_skew: Duration,
    pub(crate) max_frame_age: Duration,
    pub(crate) max_picture: usize,
}

impl Limits {
    /// Checks that a time is not ahead of `now` by more than a phone's clock may be.
    pub(crate) fn check_skew(&self, time: Timestamp, now: Timestamp) -> Result<(), Reject> {
        if time.since(now) > self.max_clock_skew {
            return Err(Reject::new(
                RejectCode::FutureTimestamp,
                format!(
                    "timestamp is more than {} s ahead of this server",
                    self.max_clock_skew.as_secs()
                ),
            ));
        }
        Ok(())
    }
}

/// A frame as it was written. Unknown fields are ignored: senders of the contract may add their own.
#[derive(Debug, Deserialize)]
pub(crate) struct Written<'a> {
    #[serde(borrow, default)]
    contract_version: Option<Text<'a>>,
    #[serde(borrow, default)]
    client_id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "type")]
    stream: Option<Text<'a>>,
    #[serde(borrow, default)]
    timestamp: Option<Text<'a>>,
    #[serde(default)]
    latitude: Option<f64>,
    #[serde(default)]
    longitude: Option<f64>,
    #[serde(default)]
    altitude: Option<f64>,
    #[serde(borrow, default)]
    image_data: Option<Text<'a>>,
    #[serde(default)]
    imu_data: Option<Values>,
    #[serde(default)]
    accuracy_m: Option<f64>,
    #[serde(default)]
    heading_deg: Option<f64>,
    #[serde(default)]
    simulated: Option<bool>,
}

/// A JSON string that stays in the request body when it has no escapes: a picture is most of the body.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Reads a frame.
pub(crate) fn parse(body: &[u8]) -> Result<Written<'_>, Reject> {
    json::read_object(body, "frame")
        .map_err(|message| Reject::new(RejectCode::InvalidPayload, message))
}

impl Written<'_> {
    /// Checks every value, in the order of the contract.
    pub(crate) fn check(self, now: Timestamp, limits: &Limits) -> Result<Frame, Reject> {
        let version = self.contract_version.as_ref().map_or("", |text| &text.0);
        if version != CONTRACT_VERSION {
            return Err(Reject::new(
                RejectCode::UnsupportedContractVersion,
                format!("contract_version must be {CONTRACT_VERSION}"),
            ));
        }
        let client = client_id_from_text(self.client_id.as_ref().map_or("", |text| &text.0))?;
        let stream = self
            .stream
            .as_ref()
            .and_then(|text| Stream::parse(&text.0))
            .ok_or_else(|| {
                Reject::new(
                    RejectCode::UnsupportedSensorType,
                    "type must be camera, gps, accelerometer, gyroscope, magnetometer or barometer",
                )
            })?;
        let observed = match self.timestamp.as_ref().map(|text| text.0.as_ref()) {
            None | Some(GO_ZERO_TIME) => None,
            Some(text) => {
                let observed = timestamp_from_rfc3339(text)
                    .map_err(|message| Reject::new(RejectCode::InvalidPayload, message))?;
                check_age(observed, now, limits)?;
                Some(observed)
            }
        };
        let place = WrittenPlace {
            latitude: self.latitude,
            longitude: self.longitude,
            altitude: self.altitude,
            accuracy_m: self.accuracy_m,
            heading_deg: self.heading_deg,
        }
        .check(stream)?;
        let payload = match stream {
            Stream::Gps => Payload::Fix,
            Stream::Camera => Payload::Picture(picture_from_text(
                self.image_data.as_ref().map_or("", |text| &text.0),
                limits.max_picture,
            )?),
            Stream::Accelerometer
            | Stream::Gyroscope
            | Stream::Magnetometer
            | Stream::Barometer => match self.imu_data {
                Some(Values(values)) if !values.is_empty() => Payload::Values(values),
                Some(_) | None => {
                    return Err(Reject::new(
                        RejectCode::MissingImuData,
                        format!(
                            "imu_data needs at least one number for type {}",
                            stream.as_str()
                        ),
                    ));
                }
            },
        };
        Ok(Frame {
            client,
            stream,
            observed,
            place,
            payload,
            simulated: self.simulated.unwrap_or(false),
        })
    }
}

impl WrittenPlace {
    /// Checks ranges, and that a position is whole.
    pub(crate) fn check(self, stream: Stream) -> Result<Place, Reject> {
        let payload = |message: &str| Err(Reject::new(RejectCode::InvalidPayload, message));
        let latitude = |message: &str| Err(Reject::new(RejectCode::InvalidLatitude, message));
        let longitude = |message: &str| Err(Reject::new(RejectCode::InvalidLongitude, message));
        if self
            .latitude
            .is_some_and(|value| !(-90.0..=90.0).contains(&value))
        {
            return latitude("latitude must be -90 to 90 degrees");
        }
        if self
            .longitude
            .is_some_and(|value| !(-180.0..=180.0).contains(&value))
        {
            return longitude("longitude must be -180 to 180 degrees");
        }
        if self
            .altitude
            .is_some_and(|value| !(-1e6..=1e6).contains(&value))
        {
            return payload("altitude must be -1000000 to 1000000 metres");
        }
        if self
            .accuracy_m
            .is_some_and(|value| !(0.0..=1e7).contains(&value))
        {
            return payload("accuracy_m must be 0 to 10000000 metres");
        }
        let position = match (self.latitude, self.longitude) {
            (Some(latitude_deg), Some(longitude_deg)) => Some(Position {
                latitude_deg,
                longitude_deg,
                altitude_m: self.altitude,
            }),
            (None, None) => None,
            (Some(_), None) => return longitude("longitude is missing beside latitude"),
            (None, Some(_)) => return latitude("latitude is missing beside longitude"),
        };
        let position = match (stream, position) {
            (Stream::Gps, None) => {
                return latitude("latitude and longitude are required for type gps");
            }
            (Stream::Gps, Some(position)) => Some(position),
            (
                Stream::Camera
                | Stream::Accelerometer
                | Stream::Gyroscope
                | Stream::Magnetometer
                | Stream::Barometer,
                position,
            ) => position.filter(|at| at.latitude_deg != 0.0 || at.longitude_deg != 0.0),
        };
        Ok(Place {
            position,
            accuracy_m: self.accuracy_m,
            // 360 is north written another way. Phones write -1, 511 or 655.35 for a heading that they do not
            // know: that costs the heading, not the place.
            heading_deg: self
                .heading_deg
                .filter(|deg| (0.0..=360.0).contains(deg))
                .map(|deg| if deg == 360.0 { 0.0 } else { deg }),
        })
    }
}

/// Checks a client id.
pub(crate) fn client_id_from_text(text: &str) -> Result<SensorId, Reject> {
    if text.is_empty() {
        return Err(Reject::new(
            RejectCode::MissingClientId,
            "client_id is required",
        ));
    }
    SensorId::parse(text)
        .map_err(|error| Reject::new(RejectCode::InvalidClientId, format!("client_id: {error}")))
}

/// Reads an RFC 3339 time.
pub(crate) fn timestamp_from_rfc3339(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error| format!("timestamp is not an RFC 3339 time: {error}"))?;
    i64::try_from(time.as_nanosecond())
        .map(Timestamp::from_unix_nanos)
        .map_err(|_| "timestamp must be within the years 1678 to 2262".to_owned())
}

fn check_age(observed: Timestamp, now: Timestamp, limits: &Limits) -> Result<(), Reject> {
    limits.check_skew(observed, now)?;
    if now.since(observed) > limits.max_frame_age {
        return Err(Reject::new(
            RejectCode::StaleTimestamp,
            format!(
                "timestamp is more than {} s old",
                limits.max_frame_age.as_secs()
            ),
        ));
    }
    Ok(())
}

fn picture_from_text(text: &str, max_picture: usize) -> Result<Vec<u8>, Reject> {
    if text.is_empty() {
        return Err(Reject::new(
            RejectCode::MissingImageData,
            "image_data is required for type camera",
        ));
    }
    let invalid = |message: String| Reject::new(RejectCode::InvalidPayload, message);
    let compact: Cow<'_, str> = if text.contains(['\n', '\r']) {
        Cow::Owned(text.replace(['\n', '\r'], ""))
    } else {
        Cow::Borrowed(text)
    };
    if compact.len() / 4 * 3 > max_picture + 3 {
        return Err(invalid(format!(
            "image_data is larger than {max_picture} bytes"
        )));
    }
    let picture = BASE64
        .decode(compact.as_bytes())
        .map_err(|error| invalid(format!("image_data is not base64: {error}")))?;
    if picture.len() > max_picture {
        return Err(invalid(format!(
            "image_data is larger than {max_picture} bytes"
        )));
    }
    Ok(picture)
}
