//! What is stored, and how long.

use std::time::Duration;

use sovereign_model::{Digest, Timestamp};

const MAX_PIN_NAME: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Class {
    Picture = 0,
    Scan = 1,
    Checkpoint = 2,
}

pub(crate) const CLASSES: [Class; 3] = [Class::Picture, Class::Scan, Class::Checkpoint];

impl Class {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Picture => "pictures",
            Self::Scan => "scans",
            Self::Checkpoint => "checkpoints",
        }
    }
}

/// How much an object is wanted: the strongest of its pins. What is wanted least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    Free = 0,
    Prefer = 1,
    Keep = 2,
}

impl Rank {
    pub(crate) fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Free,
            1 => Self::Prefer,
            _ => Self::Keep,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) digest: Digest,
    pub(crate) class: Class,
    pub(crate) size_bytes: u64,
    pub(crate) stored: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) max_bytes: u64,
    /// Age, counted from when the last pin went, after which it goes although there is room.
    pub(crate) max_age: Option<Duration>,
}

pub(crate) fn check_pin_name(name: &str) -> bool {
    (1..=MAX_PIN_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte))
}
