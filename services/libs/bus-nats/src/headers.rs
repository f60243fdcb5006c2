//! Headers of the bus on NATS.
//!
//! Durable messages carry them as NATS headers. A live message carries them as a trailer of its payload:
//! one protobuf field of the highest number, which every decoder of the message skips. NATS headers cost
//! a fifth of the throughput at 128 bytes, and the trailer fits into the buffer that the message was
//! encoded into, so the payload is not copied. A live message of another program has NATS headers or
//! none, and both are read.

use async_nats::{HeaderMap, HeaderName, header::NATS_MESSAGE_ID};
use bytes::{BufMut, Bytes, BytesMut};
use sovereign_bus::Headers;

/// Node that published the message.
const NODE: HeaderName = HeaderName::from_static("Sovereign-Node");

/// W3C trace context.
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Bytes that the headers of one message may take beside its payload: an id, a node name of reason, the
/// trace context, and the names.
pub(crate) const HEADER_ROOM: usize = 4096;

/// The key of field 2^29 - 1 with bytes in it.
const TRAILER_KEY: [u8; 5] = [0xFA, 0xFF, 0xFF, 0xFF, 0x0F];

/// The key, and the length in the two-byte form of a varint, whatever it is.
const TRAILER_START: usize = TRAILER_KEY.len() + 2;

/// The length once more, for the reader that comes from the end.
const TRAILER_END: usize = 2;

/// What two bytes of a varint can say.
const MAX_TRAILER_TEXT: usize = (1 << 14) - 1 - TRAILER_END;

/// Between message id, node and trace context; none of them has control characters.
const SEPARATOR: char = '\n';

/// Headers of a message that is stored once per id.
pub(crate) fn nats_from_headers(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(NATS_MESSAGE_ID, headers.message_id.as_str());
    map.insert(NODE, headers.node.as_str());
    if let Some(traceparent) = &headers.traceparent {
        map.insert(TRACE, traceparent.as_str());
    }
    map
}

/// Headers of the bus; of a foreign message what it has.
pub(crate) fn headers_from_nats(map: Option<&HeaderMap>) -> Headers {
    let Some(map) = map else {
        return Headers::default();
    };
    let text = |name| map.get(name).map(|value| value.as_str().to_owned());
    Headers {
        node: text(NODE).unwrap_or_default(),
        message_id: text(NATS_MESSAGE_ID).unwrap_or_default(),
        traceparent: text(TRACE),
    }
}

/// The payload with its headers behind it, in the same buffer where that has room.
pub(crate) fn with_trailer(payload: Bytes, headers: &Headers) -> Bytes {
    let trace = headers.traceparent.as_deref().unwrap_or_default();
    let text = headers.message_id.len() + headers.node.len() + trace.len() + 2;
    if text > MAX_TRAILER_TEXT {
        // A node name of 16 KiB: the message goes, its headers do not.
        return payload;
    }
    let mut buffer = payload.try_into_mut().unwrap_or_else(|shared| {
        let mut copy = BytesMut::with_capacity(shared.len() + TRAILER_START + text + TRAILER_END);
        copy.extend_from_slice(&shared);
        copy
    });
    let length = (text + TRAILER_END) as u16;
    buffer.put_slice(&TRAILER_KEY);
    buffer.put_slice(&varint(length));
    buffer.put_slice(headers.message_id.as_bytes());
    buffer.put_u8(SEPARATOR as u8);
    buffer.put_slice(headers.node.as_bytes());
    buffer.put_u8(SEPARATOR as u8);
    buffer.put_slice(trace.as_bytes());
    buffer.put_u16_le(length);
    buffer.freeze()
}

/// The payload without its trailer, and the headers of the message.
pub(crate) fn without_trailer(mut payload: Bytes, map: Option<&HeaderMap>) -> (Bytes, Headers) {
    match read_trailer(&payload) {
        Some((headers, length)) => {
            payload.truncate(payload.len() - length);
            (payload, headers)
        }
        None => (payload, headers_from_nats(map)),
    }
}

/// Headers and whole length of the trailer that the payload ends with.
fn read_trailer(payload: &[u8]) -> Option<(Headers, usize)> {
    let (before, end) = payload.split_last_chunk::<TRAILER_END>()?;
    let length = u16::from_le_bytes(*end);
    let text = usize::from(length).checked_sub(TRAILER_END)?;
    let (start, text) = before.split_at_checked(before.len().checked_sub(text)?)?;
    if !start.ends_with(&varint(length)) || !start[..start.len() - 2].ends_with(&TRAILER_KEY) {
        return None;
    }
    let mut fields = std::str::from_utf8(text).ok()?.splitn(3, SEPARATOR);
    let headers = Headers {
        message_id: fields.next()?.to_owned(),
        node: fields.next()?.to_owned(),
        traceparent: Some(fields.next()?)
            .filter(|trace| !trace.is_empty())
            .map(str::to_owned),
    };
    Some((headers, TRAILER_START + text.len() + TRAILER_END))
}

/// A number below 2^14 as a varint of always two bytes.
fn varint(number: u16) -> [u8; 2] {
    [(number & 0x7F) as u8 | 0x80, (number >> 7) as u8]
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sovereign_bus::contract::Probe;

    use super::*;

    fn headers(traceparent: Option<&str>) -> Headers {
        Headers {
            node: "a node / with spaces".to_owned(),
            message_id: "3f/9".to_owned(),
            traceparent: traceparent.map(str::to_owned),
        }
    }

    #[test]
    fn headers_come_back_as_they_were() {
        for headers in [headers(None), headers(Some("00-aa-bb-01"))] {
            let map = nats_from_headers(&headers);
            assert_eq!(headers_from_nats(Some(&map)), headers);
            let sent = with_trailer(Bytes::from_static(b"payload"), &headers);
            let (payload, read) = without_trailer(sent, None);
            assert_eq!((&payload[..], read), (&b"payload"[..], headers));
        }
    }

    #[test]
    fn a_foreign_message_has_what_it_has() {
        let headers = Headers {
            message_id: "7".to_owned(),
            ..Headers::default()
        };
        let map = nats_from_headers(&headers);
        for payload in [&b""[..], b"x", b"ends like a length \x04\x00", &[0xFF; 64]] {
            let payload = Bytes::copy_from_slice(payload);
            let read = without_trailer(payload.clone(), Some(&map));
            assert_eq!(read, (payload.clone(), headers.clone()));
            assert_eq!(
                without_trailer(payload.clone(), None),
                (payload, Headers::default())
            );
        }
    }

    #[test]
    fn a_decoder_that_knows_nothing_of_the_trailer_skips_it() {
        let probe = Probe {
            number: 7,
            body: Bytes::from_static(b"body"),
        };
        let long = Headers {
            node: "n".repeat(5000),
            ..headers(None)
        };
        for headers in [headers(None), long] {
            let sent = with_trailer(probe.encode_to_vec().into(), &headers);
            assert_eq!(Probe::decode(sent.clone()).unwrap(), probe);
            assert_eq!(without_trailer(sent, None).1, headers);
        }
    }

    #[test]
    fn a_payload_with_room_behind_it_is_not_copied() {
        let mut buffer = BytesMut::with_capacity(256);
        buffer.put_slice(b"payload");
        let payload = buffer.freeze();
        let before = payload.as_ptr();
        assert_eq!(with_trailer(payload, &headers(None)).as_ptr(), before);
    }
}
