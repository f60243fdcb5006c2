//! Names of the things that observe: vehicles, cameras, phones.

use std::fmt;

use crate::{Digest, Timestamp};

/// Name of a vehicle, camera or phone: 1 to 64 of `A-Z a-z 0-9 _ -`.
///
/// The alphabet is that of one bus subject token and of one path segment, so an id never needs escaping.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SensorId(String);

/// Why a text is not a [`SensorId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSensorId {
    /// No characters at all.
    #[error("sensor id is empty")]
    Empty,
    /// More characters than [`SensorId::MAX_LEN`].
    #[error(
        "sensor id has {length} bytes, at most {} are allowed",
        SensorId::MAX_LEN
    )]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// A character outside the alphabet.
    #[error("sensor id contains {character:?}; letters, digits, '-' and '_' are allowed")]
    Character {
        /// The first one that is not allowed.
        character: char,
    },
}

impl SensorId {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Takes a text that is a valid id.
    ///
    /// # Errors
    /// Empty, too long, or a character outside the alphabet.
    pub fn parse(text: &str) -> Result<SensorId, InvalidSensorId> {
        if text.is_empty() {
            return Err(InvalidSensorId::Empty);
        }
        if text.len() > SensorId::MAX_LEN {
            return Err(InvalidSensorId::TooLong { length: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match text.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(InvalidSensorId::Character { character }),
            None => Ok(SensorId(text.to_owned())),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SensorId({})", self.0)
    }
}

impl AsRef<str> for SensorId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SensorId {
    type Err = InvalidSensorId;

    fn from_str(text: &str) -> Result<SensorId, InvalidSensorId> {
        SensorId::parse(text)
    }
}

/// Identity of one picture of one sensor: the same picture sent twice is one frame. `captured` is the
/// epoch when nobody knows.
pub fn frame_id(sensor: &SensorId, captured: Timestamp, picture: &Digest) -> Digest {
    Digest::of_parts(&[
        b"frame",
        sensor.as_str().as_bytes(),
        &captured.as_unix_nanos().to_le_bytes(),
        picture.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_and_both_lengths_are_accepted() {
        for text in ["a", "sys-1", "Phone_07", &"x".repeat(64)] {
            assert_eq!(SensorId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!(SensorId::parse(""), Err(InvalidSensorId::Empty));
        assert_eq!(
            SensorId::parse(&"x".repeat(65)),
            Err(InvalidSensorId::TooLong { length: 65 })
        );
        for (text, character) in [
            ("a.b", '.'),
            ("a b", ' '),
            ("a*", '*'),
            ("../x", '.'),
            ("é", 'é'),
            ("a\0", '\0'),
        ] {
            assert_eq!(
                SensorId::parse(text),
                Err(InvalidSensorId::Character { character })
            );
        }
    }

    #[test]
    fn one_picture_of_one_sensor_is_one_frame() {
        let sensor = SensorId::parse("phone-1").unwrap();
        let other = SensorId::parse("phone-2").unwrap();
        let picture = Digest::of(b"pixels");
        let at = Timestamp::from_unix_nanos(7);
        let id = frame_id(&sensor, at, &picture);
        assert_eq!(id, frame_id(&sensor, at, &picture));
        assert_ne!(id, frame_id(&other, at, &picture));
        assert_ne!(id, frame_id(&sensor, Timestamp::UNIX_EPOCH, &picture));
        assert_ne!(id, frame_id(&sensor, at, &Digest::of(b"other pixels")));
    }
}
