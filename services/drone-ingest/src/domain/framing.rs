//! Finds MAVLink 1 and 2 frames in bytes that may hold anything else as well.
//!
//! Pipeline: magic byte -> header -> length -> incompatibility flags -> message id -> checksum. What
//! fails is given up byte by byte, so that a false magic byte never swallows a true frame behind it.
//! Every byte belongs to exactly one item, and the items are in the order of the bytes:
//!
//! * a [`Frame`] whose checksum is right;
//! * a refused candidate: from its magic byte to the length it claims, or to the next true frame inside
//!   it, or to the end;
//! * garbage: bytes before the next magic byte.
//!
//! Degenerate cases: a message that the dialect does not define is refused, because its checksum cannot
//! be verified; a payload shorter or longer than the definition is fine (MAVLink 2 cuts trailing zeros,
//! newer senders append fields), the decoder pads and ignores. Input made to be expensive (one candidate
//! inside another) ends the search: see [`WORK_PER_BYTE`].

use super::definition::{self, Definition};
use super::reject::Reject;

#[cfg(test)]
mod tests;

/// First byte of a MAVLink 1 frame.
pub(crate) const MAGIC_V1: u8 = 0xFE;
/// First byte of a MAVLink 2 frame.
pub(crate) const MAGIC_V2: u8 = 0xFD;
/// The only incompatibility flag we know: the frame carries a signature.
pub(crate) const INCOMPAT_SIGNED: u8 = 0x01;
/// Bytes of a signature: link id, 48-bit time, 48 bits of SHA-256.
pub(crate) const SIGNATURE_LEN: usize = 13;
/// Bytes of checksum that may be computed for each byte of input. Real traffic needs two or three; when
/// it is spent, the rest of the input is refused as garbage.
pub(crate) const WORK_PER_BYTE: usize = 16;

const HEADER_V1: usize = 6;
const HEADER_V2: usize = 10;
const CHECKSUM_LEN: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A frame whose checksum is right. Borrows the bytes it was found in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) version: Version,
    /// Sequence number of the sending component.
    pub(crate) sequence: u8,
    pub(crate) system_id: u8,
    pub(crate) component_id: u8,
    pub(crate) definition: &'static Definition,
    /// Payload as sent: MAVLink 2 leaves out trailing zero bytes.
    pub(crate) payload: &'a [u8],
    /// Signature, unverified; `None` when the frame carries none.
    pub(crate) signature: Option<&'a [u8; SIGNATURE_LEN]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    Frame(Frame<'a>),
    Refused { reason: Reject, bytes: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    position: usize,
    work_left: usize,
}

impl<'a> Frames<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Frames<'a> {
        Frames {
            bytes,
            position: 0,
            work_left: bytes.len().saturating_mul(WORK_PER_BYTE),
        }
    }

    fn candidate(&mut self, at: usize) -> Candidate<'a> {
        let rest = &self.bytes[at..];
        let parsed = match rest[0] {
            MAGIC_V1 => header_v1(rest),
            _ => header_v2(rest),
        };
        let head = match parsed {
            Ok(head) => head,
            Err(refused) => return refused,
        };
        let Some(bytes) = rest.get(..head.len) else {
            return Candidate::Refused {
                reason: Reject::Truncated,
                claimed: rest.len(),
            };
        };
        let refused = |reason| Candidate::Refused {
            reason,
            claimed: head.len,
        };
        let Some(definition) = definition::of(head.message_id) else {
            return refused(Reject::UnknownMessage);
        };
        let payload_end = head.header + head.payload;
        self.work_left = self.work_left.saturating_sub(payload_end);
        let sent = u16::from_le_bytes([bytes[payload_end], bytes[payload_end + 1]]);
        if checksum(&bytes[1..payload_end], definition.crc_extra) != sent {
            return refused(Reject::BadChecksum);
        }
        Candidate::Frame(Frame {
            bytes,
            version: head.version,
            sequence: head.sequence,
            system_id: head.system_id,
            component_id: head.component_id,
            definition,
            payload: &bytes[head.header..payload_end],
            signature: bytes[payload_end + CHECKSUM_LEN..].first_chunk(),
        })
    }

    /// Where the refused candidate at `at` ends: at the next true frame, or at its claimed end.
    fn end_of_refused(&mut self, at: usize, claimed: usize) -> usize {
        let end = at + claimed;
        let mut inner = at + 1;
        while inner < end && self.work_left > 0 {
            let Some(offset) = self.bytes[inner..end].iter().position(|b| is_magic(*b)) else {
                break;
            };
            inner += offset;
            if matches!(self.candidate(inner), Candidate::Frame(_)) {
                return inner;
            }
            inner += 1;
        }
        end
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let start = self.position;
        let first = *self.bytes.get(start)?;
        let (item, end) = if self.work_left == 0 {
            (None, self.bytes.len())
        } else if is_magic(first) {
            match self.candidate(start) {
                Candidate::Frame(frame) => (Some(Item::Frame(frame)), start + frame.bytes.len()),
                Candidate::Refused { reason, claimed } => {
                    let end = self.end_of_refused(start, claimed);
                    let bytes = end - start;
                    (Some(Item::Refused { reason, bytes }), end)
                }
            }
        } else {
            let rest = &self.bytes[start..];
            let length = rest.iter().position(|b| is_magic(*b));
            (None, start + length.unwrap_or(rest.len()))
        };
        self.position = end;
        Some(item.unwrap_or(Item::Refused {
            reason: Reject::Garbage,
            bytes: end - start,
        }))
    }
}

enum Candidate<'a> {
    Frame(Frame<'a>),
    Refused { reason: Reject, claimed: usize },
}

struct Head {
    version: Version,
    header: usize,
    payload: usize,
    len: usize,
    sequence: u8,
    system_id: u8,
    component_id: u8,
    message_id: u32,
}

fn is_magic(byte: u8) -> bool {
    byte == MAGIC_V1 || byte == MAGIC_V2
}

fn truncated<'a>(rest: &[u8]) -> Candidate<'a> {
    Candidate::Refused {
        reason: Reject::Truncated,
        claimed: rest.len(),
    }
}

fn header_v1<'a>(rest: &[u8]) -> Result<Head, Candidate<'a>> {
    let Some(&[_, length, sequence, system_id, component_id, message_id]) =
        rest.first_chunk::<HEADER_V1>()
    else {
        return Err(truncated(rest));
    };
    let payload = usize::from(length);
    Ok(Head {
        version: Version::V1,
        header: HEADER_V1,
        payload,
        len: HEADER_V1 + payload + CHECKSUM_LEN,
        sequence,
        system_id,
        component_id,
        message_id: u32::from(message_id),
    })
}

fn header_v2<'a>(rest: &[u8]) -> Result<Head, Candidate<'a>> {
    let Some(
        &[
            _,
            length,
            incompat,
            _compat,
            sequence,
            system_id,
            component_id,
            id0,
            id1,
            id2,
        ],
    ) = rest.first_chunk::<HEADER_V2>()
    else {
        return Err(truncated(rest));
    };
    let payload = usize::from(length);
    let signature = if incompat & INCOMPAT_SIGNED == 0 {
        0
    } else {
        SIGNATURE_LEN
    };
    let len = HEADER_V2 + payload + CHECKSUM_LEN + signature;
    if incompat & !INCOMPAT_SIGNED != 0 {
        return Err(Candidate::Refused {
            reason: Reject::UnknownIncompatFlag,
            claimed: len.min(rest.len()),
        });
    }
    Ok(Head {
        version: Version::V2,
        header: HEADER_V2,
        payload,
        len,
        sequence,
        system_id,
        component_id,
        message_id: u32::from_le_bytes([id0, id1, id2, 0]),
    })
}

/// CRC-16/MCRF4XX over `bytes` and then the seed of the message.
///
/// Eight bytes at a time, because every byte of every frame passes here.
pub(crate) fn checksum(bytes: &[u8], crc_extra: u8) -> u16 {
    let mut crc = 0xFFFF_u16;
    let (blocks, tail) = bytes.as_chunks::<8>();
    for block in blocks {
        let [low, high] = crc.to_le_bytes();
        crc = CRC[7][usize::from(block[0] ^ low)]
            ^ CRC[6][usize::from(block[1] ^ high)]
            ^ CRC[5][usize::from(block[2])]
            ^ CRC[4][usize::from(block[3])]
            ^ CRC[3][usize::from(block[4])]
            ^ CRC[2][usize::from(block[5])]
            ^ CRC[1][usize::from(block[6])]
            ^ CRC[0][usize::from(block[7])];
    }
    for &byte in tail.iter().chain(&[crc_extra]) {
        crc = crc_step(crc, byte);
    }
    crc
}

fn crc_step(crc: u16, byte: u8) -> u16 {
    let [low, high] = crc.to_le_bytes();
    CRC[0][usize::from(low ^ byte)] ^ u16::from(high)
}

/// `CRC[n][b]`: checksum of byte `b` followed by `n` zero bytes, starting from zero.
static CRC: [[u16; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u16; 256]; 8] {
    const POLYNOMIAL: u16 = 0x8408;
    let mut tables = [[0_u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}
