//! MAVLink 2 message signing: who may speak, and never twice.
//!
//! A signature is the first 48 bits of SHA-256 over the key, the frame up to its checksum, the link id
//! and a 48-bit time in units of 10 microseconds since 2015. The time grows with every frame of a stream
//! (link, system, component); a first frame may be at most a minute older than our clock. The newest times are kept
//! over a restart, as the text on message signing asks for: a minute is long enough to send again what was heard.

use std::collections::HashMap;
use std::fmt;

use sovereign_model::{Digest, Timestamp};

use super::framing::Frame;
use super::reject::Reject;

/// Streams remembered; a further one is refused. Only holders of the key get here.
pub(crate) const MAX_STREAMS: usize = 4_096;

/// 2015-01-01T00:00:00Z, where signature time begins.
const EPOCH_UNIX_NANOS: i64 = 1_420_070_400_000_000_000;
const NANOS_PER_UNIT: i64 = 10_000;
/// A minute, in units of signature time.
const FIRST_FRAME_AGE: u64 = 6_000_000;
/// Three seconds, in the same: what passed and was not kept yet when a process is killed. Times are kept every second
/// and not with each frame, so after a kill a stream is deaf for so long; after an ordinary end it is not.
const UNSAVED: u64 = 300_000;

/// Link, system and component.
pub(crate) type Stream = (u8, u8, u8);

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SigningKey(pub [u8; 32]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignaturePolicy {
    /// No key: signatures are not looked at.
    Unchecked,
    /// Signatures are verified, and what is unsigned passes.
    Verified(SigningKey),
    Required(SigningKey),
}

#[derive(Debug)]
pub(crate) struct Signatures {
    policy: SignaturePolicy,
    streams: HashMap<Stream, u64>,
    /// Times of before the start that streams have to pass which were not heard since.
    before: HashMap<Stream, u64>,
    changed: bool,
}

impl Signatures {
    pub(crate) fn new(policy: SignaturePolicy) -> Signatures {
        Signatures {
            policy,
            streams: HashMap::new(),
            before: HashMap::new(),
            changed: false,
        }
    }

    /// Takes the times of before a restart; `exact` when none was missing, as after an ordinary end.
    pub(crate) fn remember(&mut self, times: impl IntoIterator<Item = (Stream, u64)>, exact: bool) {
        let slack = if exact { 0 } else { UNSAVED };
        let times = times.into_iter().take(MAX_STREAMS);
        self.before
            .extend(times.map(|(stream, time)| (stream, time.saturating_add(slack))));
    }

    /// The times to be kept, when any has changed since they were asked for.
    pub(crate) fn changed(&mut self, now: Timestamp) -> Option<Vec<(Stream, u64)>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        // The rule for first frames refuses what is older.
        let oldest = signature_time(now).saturating_sub(FIRST_FRAME_AGE + UNSAVED);
        self.before.retain(|_, time| *time >= oldest);
        let times = self.before.iter().chain(&self.streams);
        Some(times.map(|(stream, time)| (*stream, *time)).collect())
    }

    /// What was asked for could not be kept.
    pub(crate) fn not_kept(&mut self) {
        self.changed = true;
    }

    pub(crate) fn admits_unsigned(&self) -> bool {
        match self.policy {
            SignaturePolicy::Unchecked | SignaturePolicy::Verified(_) => true,
            SignaturePolicy::Required(_) => false,
        }
    }

    /// Whether the frame may pass; true when its signature was verified.
    pub(crate) fn admit(&mut self, frame: &Frame<'_>, now: Timestamp) -> Result<bool, Reject> {
        let key = match (&self.policy, frame.signature) {
            (SignaturePolicy::Unchecked, _) | (SignaturePolicy::Verified(_), None) => {
                return Ok(false);
            }
            (SignaturePolicy::Required(_), None) => return Err(Reject::Unsigned),
            (SignaturePolicy::Verified(key) | SignaturePolicy::Required(key), Some(_)) => key,
        };
        // The last six bytes are the signature itself; all before it is signed.
        let (signed, signature) = frame.bytes.split_at(frame.bytes.len() - 6);
        if expected(key, signed) != signature {
            return Err(Reject::BadSignature);
        }
        let (link, time) = link_and_time(signed);
        let stream = (link, frame.system_id, frame.component_id);
        match self.streams.get(&stream) {
            Some(&last) if time <= last => return Err(Reject::ReplayedSignature),
            Some(_) => {}
            None if time.saturating_add(FIRST_FRAME_AGE) < signature_time(now)
                || self.before.get(&stream).is_some_and(|last| time <= *last) =>
            {
                return Err(Reject::ReplayedSignature);
            }
            None if self.streams.len() >= MAX_STREAMS => return Err(Reject::TooManySigners),
            None => {}
        }
        self.streams.insert(stream, time);
        self.before.remove(&stream);
        self.changed = true;
        Ok(true)
    }
}

pub(crate) fn signature_time(now: Timestamp) -> u64 {
    let since_epoch = now.as_unix_nanos().saturating_sub(EPOCH_UNIX_NANOS);
    u64::try_from(since_epoch / NANOS_PER_UNIT).unwrap_or(0)
}

/// The six bytes that sign `signed` (frame, link id and time).
pub(crate) fn expected(key: &SigningKey, signed: &[u8]) -> [u8; 6] {
    let mut digest = sovereign_model::DigestBuilder::new();
    digest.update(&key.0);
    digest.update(signed);
    let digest: Digest = digest.finish();
    let mut first = [0; 6];
    first.copy_from_slice(&digest.as_bytes()[..6]);
    first
}

fn link_and_time(signed: &[u8]) -> (u8, u64) {
    let tail = &signed[signed.len() - 7..];
    let mut time = [0; 8];
    time[..6].copy_from_slice(&tail[1..]);
    (tail[0], u64::from_le_bytes(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::definition;
    use crate::domain::framing::Version;

    const SECOND: u64 = 100_000;

    fn door() -> Signatures {
        Signatures::new(SignaturePolicy::Required(SigningKey([7; 32])))
    }

    fn at(time: u64) -> Timestamp {
        let nanos = i64::try_from(time).unwrap() * NANOS_PER_UNIT;
        Timestamp::from_unix_nanos(EPOCH_UNIX_NANOS + nanos)
    }

    /// Sends a frame of the stream (1, 2, 3) that was signed at `time`.
    fn send(door: &mut Signatures, time: u64) -> Result<bool, Reject> {
        let mut bytes = vec![0xFD, 0, 1, 0, 0, 2, 3, 0, 0, 0, 0, 0, 1];
        bytes.extend(&time.to_le_bytes()[..6]);
        let signature = expected(&SigningKey([7; 32]), &bytes);
        bytes.extend(signature);
        let frame = Frame {
            bytes: &bytes,
            version: Version::V2,
            sequence: 0,
            system_id: 2,
            component_id: 3,
            definition: definition::of(0).unwrap(),
            payload: &[],
            signature: bytes.last_chunk(),
        };
        door.admit(&frame, at(NOW))
    }

    const NOW: u64 = 1_000 * SECOND;

    #[test]
    fn a_frame_of_before_a_restart_never_passes_again() {
        let mut first = door();
        assert_eq!(first.changed(at(NOW)), None);
        assert_eq!(send(&mut first, NOW), Ok(true));
        let kept = first.changed(at(NOW)).unwrap();
        assert_eq!(kept, [((1, 2, 3), NOW)]);
        assert_eq!(first.changed(at(NOW)), None, "nothing is new");
        first.not_kept();
        assert!(first.changed(at(NOW)).is_some());

        let mut ended = door();
        ended.remember(kept.clone(), true);
        assert_eq!(send(&mut ended, NOW), Err(Reject::ReplayedSignature));
        assert_eq!(send(&mut ended, NOW + 1), Ok(true));

        // What passed within the last seconds before a kill may not have been kept.
        let mut killed = door();
        killed.remember(kept.clone(), false);
        assert_eq!(
            send(&mut killed, NOW + 2 * SECOND),
            Err(Reject::ReplayedSignature)
        );
        assert_eq!(send(&mut killed, NOW + 3 * SECOND + 1), Ok(true));

        // Those that are not heard again are kept for the next restart, and no longer than it matters.
        let mut silent = door();
        silent.remember([((9, 9, 9), NOW), ((8, 8, 8), NOW - 70 * SECOND)], true);
        assert_eq!(send(&mut silent, NOW), Ok(true));
        let mut kept = silent.changed(at(NOW)).unwrap();
        kept.sort_unstable();
        assert_eq!(kept, [((1, 2, 3), NOW), ((9, 9, 9), NOW)]);
    }
}
