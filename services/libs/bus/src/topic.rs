//! Names of the bus: keys, subjects, and typed topics.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use thiserror::Error;

/// Longest key in bytes: subjects stay short enough for every transport and file name.
const MAX_KEY_LENGTH: usize = 64;

/// What order is promised for: a vehicle, camera, phone or peer. One token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A text that cannot be a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a key is 1 to 64 of A-Z a-z 0-9 _ -, not {0:?}")]
pub struct InvalidKey(String);

impl Key {
    /// Takes 1 to 64 of `[A-Za-z0-9_-]`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=MAX_KEY_LENGTH).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidKey(text.chars().take(MAX_KEY_LENGTH + 1).collect()))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A key given where the topic has none, or the reverse.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubjectError {
    /// The pattern has a `*` and no key was given.
    #[error("topic {pattern} needs a key")]
    KeyMissing {
        /// Pattern of the topic.
        pattern: &'static str,
    },
    /// The pattern has no `*` and a key was given.
    #[error("topic {pattern} takes no key")]
    KeyUnexpected {
        /// Pattern of the topic.
        pattern: &'static str,
    },
}

/// What a durable topic carries; each class has its [`Retention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Facts that the store of a reader can be made from again.
    Records,
    /// Measurements: many, and of use for a moment.
    Samples,
}

/// How long a durable topic keeps messages. What a group has not acknowledged is never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A message stays this long after the last group has acknowledged it, by a clock that nobody sets;
    /// a restart begins the time anew.
    pub keep_read: Duration,
    /// While the topic takes more bytes, bookkeeping included, what every group has acknowledged goes
    /// earlier; where that is not enough, `append` is refused.
    pub max_bytes: u64,
}

/// The retention of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retentions {
    /// Of [`Class::Records`]. Default: a week, 512 MiB.
    pub records: Retention,
    /// Of [`Class::Samples`]. Default: 15 minutes, 256 MiB.
    pub samples: Retention,
}

impl Default for Retentions {
    fn default() -> Self {
        Self {
            records: Retention {
                keep_read: Duration::from_secs(7 * 24 * 3600),
                max_bytes: 512 << 20,
            },
            samples: Retention {
                keep_read: Duration::from_secs(15 * 60),
                max_bytes: 256 << 20,
            },
        }
    }
}

impl Retentions {
    pub(crate) const fn of(&self, class: Class) -> Retention {
        match class {
            Class::Records => self.records,
            Class::Samples => self.samples,
        }
    }
}

/// A topic whose events may be lost: at most once, the newest kept.
pub struct LiveTopic<M> {
    pattern: &'static str,
    mailbox: usize,
    message: PhantomData<fn() -> M>,
}

/// A topic whose messages are stored before `append` returns, and delivered at least once per group.
pub struct DurableTopic<M> {
    pattern: &'static str,
    class: Class,
    message: PhantomData<fn() -> M>,
}

impl<M> LiveTopic<M> {
    /// A topic of subjects like `pattern`, of which a slow reader keeps the `mailbox` newest each.
    ///
    /// # Panics
    /// At compile time for a constant: when the pattern is not of tokens `[A-Za-z0-9_-]` with at most
    /// one `*` token, or the mailbox is empty.
    pub const fn new(pattern: &'static str, mailbox: usize) -> Self {
        check_pattern(pattern);
        assert!(mailbox > 0, "a mailbox keeps at least one message");
        Self {
            pattern,
            mailbox,
            message: PhantomData,
        }
    }

    /// The pattern of its subjects.
    pub const fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// Messages that a slow reader keeps per subject.
    pub const fn mailbox(&self) -> usize {
        self.mailbox
    }

    /// The subject of a key, or of the whole topic when it has no `*`.
    ///
    /// # Errors
    /// A key that is missing or not wanted.
    pub fn subject(&self, key: Option<&Key>) -> Result<String, SubjectError> {
        subject(self.pattern, key)
    }

    /// The key inside a subject of this topic.
    pub fn key_of(&self, subject: &str) -> Option<Key> {
        key_of(self.pattern, subject)
    }
}

impl<M> DurableTopic<M> {
    /// A topic of subjects like `pattern`, kept as its class is.
    ///
    /// # Panics
    /// At compile time for a constant: when the pattern is not of tokens `[A-Za-z0-9_-]` with at most
    /// one `*` token.
    pub const fn new(pattern: &'static str, class: Class) -> Self {
        check_pattern(pattern);
        Self {
            pattern,
            class,
            message: PhantomData,
        }
    }

    /// The pattern of its subjects.
    pub const fn pattern(&self) -> &'static str {
        self.pattern
    }

    /// What it carries.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The subject of a key, or of the whole topic when it has no `*`.
    ///
    /// # Errors
    /// A key that is missing or not wanted.
    pub fn subject(&self, key: Option<&Key>) -> Result<String, SubjectError> {
        subject(self.pattern, key)
    }

    /// The key inside a subject of this topic.
    pub fn key_of(&self, subject: &str) -> Option<Key> {
        key_of(self.pattern, subject)
    }
}

impl<M> Clone for LiveTopic<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M> Copy for LiveTopic<M> {}
impl<M> fmt::Debug for LiveTopic<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LiveTopic({})", self.pattern)
    }
}

impl<M> Clone for DurableTopic<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M> Copy for DurableTopic<M> {}
impl<M> fmt::Debug for DurableTopic<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DurableTopic({})", self.pattern)
    }
}

pub(crate) fn subject(pattern: &'static str, key: Option<&Key>) -> Result<String, SubjectError> {
    match (pattern.split_once('*'), key) {
        (Some((before, after)), Some(key)) => {
            let mut subject = String::with_capacity(before.len() + key.0.len() + after.len());
            subject.push_str(before);
            subject.push_str(&key.0);
            subject.push_str(after);
            Ok(subject)
        }
        (None, None) => Ok(pattern.to_owned()),
        (Some(_), None) => Err(SubjectError::KeyMissing { pattern }),
        (None, Some(_)) => Err(SubjectError::KeyUnexpected { pattern }),
    }
}

/// The key of `subject` under `pattern`; `None` for a keyless pattern or a foreign subject.
pub(crate) fn key_of(pattern: &str, subject: &str) -> Option<Key> {
    let (before, after) = pattern.split_once('*')?;
    let key = subject.strip_prefix(before)?.strip_suffix(after)?;
    Key::parse(key).ok()
}

const fn check_pattern(pattern: &str) {
    let bytes = pattern.as_bytes();
    let mut stars = 0;
    let mut token_length = 0;
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'.' => {
                assert!(token_length > 0, "a token of the pattern is empty");
                token_length = 0;
            }
            b'*' => {
                let last = index + 1 == bytes.len() || bytes[index + 1] == b'.';
                assert!(token_length == 0 && last, "`*` stands for a whole token");
                stars += 1;
                token_length += 1;
            }
            byte => {
                assert!(
                    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-',
                    "a pattern is made of A-Z a-z 0-9 _ - . *"
                );
                token_length += 1;
            }
        }
        index += 1;
    }
    assert!(token_length > 0, "a token of the pattern is empty");
    assert!(stars <= 1, "a pattern has at most one `*`");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: LiveTopic<()> = LiveTopic::new("drone.*.state", 1);
    const PLAIN: LiveTopic<()> = LiveTopic::new("tile.changed", 8);

    #[test]
    fn a_subject_carries_its_key_and_gives_it_back() {
        let key = Key::parse("uav-7_a").unwrap();
        let subject = KEYED.subject(Some(&key)).unwrap();
        assert_eq!(subject, "drone.uav-7_a.state");
        assert_eq!(KEYED.key_of(&subject), Some(key));
        assert_eq!(KEYED.key_of("camera.x.state"), None);
        assert_eq!(KEYED.key_of("drone.a.b.state"), None);
    }

    #[test]
    fn a_key_is_required_exactly_where_the_pattern_has_one() {
        let key = Key::parse("a").unwrap();
        assert!(matches!(
            KEYED.subject(None),
            Err(SubjectError::KeyMissing { .. })
        ));
        assert!(matches!(
            PLAIN.subject(Some(&key)),
            Err(SubjectError::KeyUnexpected { .. })
        ));
        assert_eq!(PLAIN.subject(None).unwrap(), "tile.changed");
        assert_eq!(PLAIN.key_of("tile.changed"), None);
    }

    #[test]
    fn keys_that_could_change_a_subject_are_refused() {
        for text in ["", "a.b", "*", ">", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
        assert!(Key::parse(&"x".repeat(64)).is_ok());
    }
}
