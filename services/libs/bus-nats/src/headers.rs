//! Headers of the bus on NATS.
//!
//! Durable messages carry them as NATS headers. A live message carries them as a trailer of its payload:
//! one protobuf field of the highest number, which every decoder of the message skips. NATS headers cost
//! a fifth of the throughput at 128 bytes, and the trailer fits into the buffer that the message was
//! encoded into, so the payload is not copied. A live message of another program has NATS headers or
//! none, and both are read.

use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use sovereign_bus::Headers;

const NODE: HeaderName = HeaderName::from_static("Sovereign-Node");

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
const SEPARATOR: u8 = b'\n';

pub(crate) fn nats_from_headers(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(NATS_MESSAGE_ID, headers.message_id.as_str());
    map.insert(NODE, &*headers.node);
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
    let text = |name| map.get(name).map(async_nats::HeaderValue::as_str);
    Headers {
        node: text(NODE).unwrap_or_default().into(),
        message_id: text(NATS_MESSAGE_ID).unwrap_or_default().to_owned(),
        traceparent: text(TRACE).map(str::to_owned),
    }
}

/// Bytes that the headers take behind a payload.
pub(crate) fn trailer_length(headers: &Headers) -> usize {
    match text_length(headers) {
        Some(text) => TRAILER_START + text + TRAILER_END,
        None => 0,
    }
}

pub(crate) fn write_trailer(headers: &Headers, payload: &mut Vec<u8>) {
    let Some(text) = text_length(headers) else {
        return;
    };
    let length = (text + TRAILER_END) as u16;
    payload.extend_from_slice(&TRAILER_KEY);
    payload.extend_from_slice(&varint(length));
    payload.extend_from_slice(headers.message_id.as_bytes());
    payload.push(SEPARATOR);
    payload.extend_from_slice(headers.node.as_bytes());
    payload.push(SEPARATOR);
    payload.extend_from_slice(
        headers
            .traceparent
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    );
    payload.extend_from_slice(&length.to_le_bytes());
}

/// `None` when they do not fit, with a node name of 16 KiB: then the message goes without.
fn text_length(headers: &Headers) -> Option<usize> {
    let trace = headers.traceparent.as_deref().unwrap_or_default();
    let text = headers.message_id.len() + headers.node.len() + trace.len() + 2;
    (text <= MAX_TRAILER_TEXT).then_some(text)
}

/// The payload without its trailer, and the headers of the message. `last_node` is the node of the last
/// message: most are of one node.
pub(crate) fn without_trailer(
    mut payload: Bytes,
    map: Option<&HeaderMap>,
    last_node: &mut Arc<str>,
) -> (Bytes, Headers) {
    match read_trailer(&payload, last_node) {
        Some((headers, length)) => {
            payload.truncate(payload.len() - length);
            (payload, headers)
        }
        None => (payload, headers_from_nats(map)),
    }
}

fn read_trailer(payload: &[u8], last_node: &mut Arc<str>) -> Option<(Headers, usize)> {
    let (before, end) = payload.split_last_chunk::<TRAILER_END>()?;
    let length = u16::from_le_bytes(*end);
    let text = usize::from(length).checked_sub(TRAILER_END)?;
    let (start, text) = before.split_at_checked(before.len().checked_sub(text)?)?;
    let (start, said) = start.split_last_chunk::<2>()?;
    if *said != varint(length) || !start.ends_with(&TRAILER_KEY) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let (message_id, rest) = text.split_once(char::from(SEPARATOR))?;
    let (node, trace) = rest.split_once(char::from(SEPARATOR))?;
    if **last_node != *node {
        *last_node = node.into();
    }
    let headers = Headers {
        message_id: message_id.to_owned(),
        node: Arc::clone(last_node),
        traceparent: (!trace.is_empty()).then(|| trace.to_owned()),
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
            node: "a node / with spaces".into(),
            message_id: "3f/9".to_owned(),
            traceparent: traceparent.map(str::to_owned),
        }
    }

    fn sent(payload: &[u8], headers: &Headers) -> Bytes {
        let mut sent = payload.to_vec();
        write_trailer(headers, &mut sent);
        assert_eq!(sent.len(), payload.len() + trailer_length(headers));
        sent.into()
    }

    fn received(payload: Bytes, map: Option<&HeaderMap>) -> (Bytes, Headers) {
        without_trailer(payload, map, &mut Arc::from("another node"))
    }

    #[test]
    fn headers_come_back_as_they_were() {
        for headers in [headers(None), headers(Some("00-aa-bb-01"))] {
            let map = nats_from_headers(&headers);
            assert_eq!(headers_from_nats(Some(&map)), headers);
            let (payload, read) = received(sent(b"payload", &headers), None);
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
            let read = received(payload.clone(), Some(&map));
            assert_eq!(read, (payload.clone(), headers.clone()));
            assert_eq!(
                received(payload.clone(), None),
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
            node: "n".repeat(5000).into(),
            ..headers(None)
        };
        for headers in [headers(None), long] {
            let sent = sent(&probe.encode_to_vec(), &headers);
            assert_eq!(Probe::decode(sent.clone()).unwrap(), probe);
            assert_eq!(received(sent, None).1, headers);
        }
    }

    #[test]
    fn headers_that_do_not_fit_are_left_out() {
        let headers = Headers {
            node: "n".repeat(20_000).into(),
            ..headers(None)
        };
        assert_eq!(sent(b"payload", &headers), &b"payload"[..]);
    }
}
