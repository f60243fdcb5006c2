//! Versions of checkpoints.

use std::fmt;

/// A checkpoint's version: 1 to 128 of letters, digits, `.`, `-`, `_`, and not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(String);

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version must be 1 to {} of letters, digits, `.`, `-`, `_`",
    Version::MAX_BYTES
)]
pub struct InvalidVersion;

impl Version {
    /// Longest version, bytes.
    pub const MAX_BYTES: usize = 128;

    /// Takes a text that is a version.
    ///
    /// # Errors
    /// [`InvalidVersion`].
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let named = (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        // They would be a path to whoever uses versions as file names.
        if named && text != "." && text != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidVersion)
        }
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_names_and_never_paths() {
        for good in ["1", "v1.0.0-rc.1_x", "..a", &"x".repeat(128)] {
            assert_eq!(Version::parse(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(129);
        for bad in [
            "", ".", "..", "../x", "a/b", "a\\b", "a b", "a\0", "é", &long,
        ] {
            assert_eq!(Version::parse(bad), Err(InvalidVersion), "{bad:?}");
        }
    }
}
