//! Points in time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, without leap seconds; covers the years 1678 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Timestamp = Timestamp(0);

    /// From nanoseconds since the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_unix_nanos(self) -> i64 {
        self.0
    }

    /// From a clock reading; a reading outside the range becomes the nearest end of it.
    pub fn from_system_time(time: SystemTime) -> Timestamp {
        let saturated = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(saturated(after)),
            Err(before) => Timestamp(saturated(before.duration()).saturating_neg()),
        }
    }

    /// Later by `duration`; `None` past the end of the range.
    pub fn checked_add(self, duration: Duration) -> Option<Timestamp> {
        let nanos = i64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Timestamp)
    }

    /// Earlier by `duration`; `None` before the start of the range.
    pub fn checked_sub(self, duration: Duration) -> Option<Timestamp> {
        let nanos = i64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(nanos).map(Timestamp)
    }

    /// Time passed since `earlier`; zero when that is later than this.
    pub fn since(self, earlier: Timestamp) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Signed nanoseconds from `other` to this, saturating.
    pub const fn nanos_since(self, other: Timestamp) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_or_says_so() {
        let t = Timestamp::from_unix_nanos(1_000);
        let d = Duration::from_nanos(250);
        assert_eq!(t.checked_add(d), Some(Timestamp::from_unix_nanos(1_250)));
        assert_eq!(t.checked_sub(d), Some(Timestamp::from_unix_nanos(750)));
        assert_eq!(Timestamp::from_unix_nanos(i64::MAX).checked_add(d), None);
        assert_eq!(Timestamp::from_unix_nanos(i64::MIN).checked_sub(d), None);
        assert_eq!(t.checked_add(Duration::MAX), None);
        assert_eq!(t.since(Timestamp::UNIX_EPOCH), Duration::from_nanos(1_000));
        assert_eq!(Timestamp::UNIX_EPOCH.since(t), Duration::ZERO);
        let (first, last) = (
            Timestamp::from_unix_nanos(i64::MIN),
            Timestamp::from_unix_nanos(i64::MAX),
        );
        assert_eq!(last.since(first), Duration::from_nanos(u64::MAX));
        assert_eq!(first.nanos_since(last), i64::MIN);
        assert_eq!(Timestamp::UNIX_EPOCH.nanos_since(t), -1_000);
    }

    #[test]
    fn clock_readings_before_and_after_the_epoch_convert() {
        let d = Duration::from_nanos(1_500_000_000_000_000_001);
        let after = Timestamp::from_system_time(UNIX_EPOCH + d);
        assert_eq!(after.as_unix_nanos(), 1_500_000_000_000_000_001);
        let before = Timestamp::from_system_time(UNIX_EPOCH - Duration::from_nanos(7));
        assert_eq!(before.as_unix_nanos(), -7);
    }
}
