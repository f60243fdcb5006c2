//! Recorded telemetry (`.tlog`): an 8-byte big-endian Unix time in microseconds before each MAVLink frame.
//!
//! Radios damage bytes, and a recorder writes down what it heard. Where no record can begin, the bytes up
//! to the next place where one can are a record of their own: the door is sent them too, and has to cope.

use std::time::Duration;

/// What was heard at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Time of day.
    pub at: Duration,
    /// One frame, or damaged bytes.
    pub bytes: Vec<u8>,
}

const TIME: usize = 8;
const V1: u8 = 0xFE;
const V2: u8 = 0xFD;
/// Records of one log are no further apart than this: a day. A clock that was set may be: then its time is at
/// least one of this century.
const PLAUSIBLE_GAP: Duration = Duration::from_secs(24 * 3600);
const THIS_CENTURY: std::ops::Range<Duration> =
    Duration::from_secs(946_684_800)..Duration::from_secs(4_102_444_800);

/// Cuts a log into records, in order. Bytes that belong to no record are kept as records of their own,
/// with the time of the record before them, or of the first when there is none before.
pub fn records_from_tlog(log: &[u8]) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut previous = None;
    let mut start = 0;
    while start + TIME < log.len() {
        let Some((at, end)) = record_at(log, start, previous) else {
            let next = (start + 1..log.len())
                .find(|&place| record_at(log, place, previous).is_some())
                .unwrap_or(log.len());
            records.push(Record {
                at: previous.unwrap_or_default(),
                bytes: log[start..next].to_vec(),
            });
            start = next;
            continue;
        };
        if previous.is_none()
            && let Some(damaged) = records.first_mut()
        {
            damaged.at = at;
        }
        records.push(Record {
            at,
            bytes: log[start + TIME..end].to_vec(),
        });
        previous = Some(at);
        start = end;
    }
    records
}

/// Time and end of the record at `start`, when one is there: a plausible time, a whole frame, and behind
/// it the end of the log or another plausible time and start byte.
fn record_at(log: &[u8], start: usize, previous: Option<Duration>) -> Option<(Duration, usize)> {
    let at = time_at(log, start, previous)?;
    let end = frame_end(log, start + TIME)?;
    let followed = end == log.len()
        || (time_at(log, end, Some(at)).is_some()
            && matches!(log.get(end + TIME), Some(&(V1 | V2))));
    followed.then_some((at, end))
}

fn time_at(log: &[u8], start: usize, previous: Option<Duration>) -> Option<Duration> {
    let bytes = log.get(start..start + TIME)?;
    let micros = u64::from_be_bytes(bytes.try_into().expect("the slice has eight bytes"));
    let at = Duration::from_micros(micros);
    let plausible = previous.is_none_or(|previous| at.abs_diff(previous) < PLAUSIBLE_GAP)
        || THIS_CENTURY.contains(&at);
    plausible.then_some(at)
}

fn frame_end(log: &[u8], start: usize) -> Option<usize> {
    const SIGNED: u8 = 0x01;
    let payload = usize::from(*log.get(start + 1)?);
    let length = match *log.get(start)? {
        V1 => 6 + payload + 2,
        V2 if log.get(start + 2)? & SIGNED != 0 => 10 + payload + 2 + 13,
        V2 => 10 + payload + 2,
        _ => return None,
    };
    (start + length <= log.len()).then_some(start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(micros: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = micros.to_be_bytes().to_vec();
        bytes.extend([V1, payload.len() as u8, 0, 1, 1, 0]);
        bytes.extend(payload);
        bytes.extend([0xAA, 0xBB]);
        bytes
    }

    #[test]
    fn records_are_cut_at_their_times() {
        let log = [record(1_000_000, b"one"), record(2_000_000, b"second")].concat();
        let records = records_from_tlog(&log);
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].at, Duration::from_secs(1));
        assert_eq!(records[1].bytes[6..12], *b"second");
    }

    #[test]
    fn damaged_bytes_are_kept_and_the_next_record_is_found() {
        let log = [
            record(1_000_000, b"one"),
            vec![0x11; 37],
            record(2_000_000, b"two"),
            record(3_000_000, b"three"),
        ]
        .concat();
        let records = records_from_tlog(&log);
        let total: usize = records.iter().map(|record| record.bytes.len()).sum();
        assert_eq!(records.last().unwrap().at, Duration::from_secs(3));
        assert!(records.iter().any(|r| r.bytes.contains(&0x11)));
        assert!(total >= log.len() - 4 * TIME);
    }

    #[test]
    fn a_clock_that_was_set_damages_nothing() {
        let day = 86_400_000_000;
        let start = 1_780_315_200_000_000;
        let log = [
            start,
            start + 1,
            start + day + 2,
            start + 3,
            start + 40 * day,
        ]
        .map(|micros| record(micros, b"one"))
        .concat();
        let records = records_from_tlog(&log);
        assert_eq!(records.len(), 5);
        assert!(records.iter().all(|record| record.bytes.len() == 11));
    }

    #[test]
    fn a_log_that_begins_with_damage_is_cut_all_the_same() {
        let log = [
            vec![0x11; 37],
            record(1_780_315_200_000_000, b"one"),
            record(1_780_315_201_000_000, b"two"),
        ]
        .concat();
        let records = records_from_tlog(&log);
        let times: Vec<u64> = records.iter().map(|record| record.at.as_secs()).collect();
        assert_eq!(times, [1_780_315_200, 1_780_315_200, 1_780_315_201]);
        assert_eq!(records[0].bytes, [0x11; 37]);
    }
}
