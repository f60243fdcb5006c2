//! MAVLink 2 message signing: who may speak, and never twice.
//!
//! A signature is the first 48 bits of SHA-256 over the key, the frame up to its checksum, the link id
//! and a 48-bit time in units of 10 microseconds since 2015. The time grows with every frame of a stream
//! (link, system, component); a first frame may be at most a minute older than our clock, so that a
//! recording cannot be replayed after a restart.

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
    streams: HashMap<(u8, u8, u8), u64>,
}

impl Signatures {
    pub(crate) fn new(policy: SignaturePolicy) -> Signatures {
        Signatures {
            policy,
            streams: HashMap::new(),
        }
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
            None if time.saturating_add(FIRST_FRAME_AGE) < signature_time(now) => {
                return Err(Reject::ReplayedSignature);
            }
            None if self.streams.len() >= MAX_STREAMS => return Err(Reject::TooManySigners),
            None => {}
        }
        self.streams.insert(stream, time);
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
