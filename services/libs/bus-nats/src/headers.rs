//! Headers of the bus as headers of NATS.
//!
//! Node and message id share one header: at 128 bytes a message, each further header costs a share of
//! the throughput that shows.

use async_nats::{HeaderMap, HeaderName, header::NATS_MESSAGE_ID};
use sovereign_bus::Headers;

/// Message id and node, separated by the first space: an id has none.
const ORIGIN: HeaderName = HeaderName::from_static("Sovereign-Origin");

/// W3C trace context.
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Bytes that the headers of one message may take beside its payload: an id, a node name of reason, the
/// trace context, and the names.
pub(crate) const HEADER_ROOM: usize = 4096;

/// Headers of a live message.
pub(crate) fn nats_from_headers(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut origin = String::with_capacity(headers.message_id.len() + 1 + headers.node.len());
    origin.push_str(&headers.message_id);
    origin.push(' ');
    origin.push_str(&headers.node);
    map.insert(ORIGIN, origin);
    if let Some(traceparent) = &headers.traceparent {
        map.insert(TRACE, traceparent.as_str());
    }
    map
}

/// Headers of a message that is stored once per id.
pub(crate) fn nats_from_durable_headers(headers: &Headers) -> HeaderMap {
    let mut map = nats_from_headers(headers);
    map.insert(NATS_MESSAGE_ID, headers.message_id.as_str());
    map
}

/// Headers of the bus; of a foreign message what it has.
pub(crate) fn headers_from_nats(map: Option<&HeaderMap>) -> Headers {
    let Some(map) = map else {
        return Headers::default();
    };
    let text = |name| map.get(name).map(async_nats::HeaderValue::as_str);
    let (message_id, node) = match text(ORIGIN).and_then(|origin| origin.split_once(' ')) {
        Some(origin) => origin,
        None => (text(NATS_MESSAGE_ID).unwrap_or_default(), ""),
    };
    Headers {
        node: node.to_owned(),
        message_id: message_id.to_owned(),
        traceparent: text(TRACE).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        for traceparent in [None, Some("00-aa-bb-01".to_owned())] {
            let headers = Headers {
                node: "a node / with spaces".to_owned(),
                message_id: "3f/9".to_owned(),
                traceparent,
            };
            assert_eq!(
                headers_from_nats(Some(&nats_from_headers(&headers))),
                headers
            );
            assert_eq!(
                headers_from_nats(Some(&nats_from_durable_headers(&headers))),
                headers
            );
        }
    }

    #[test]
    fn a_foreign_message_has_what_it_has() {
        assert_eq!(headers_from_nats(None), Headers::default());
        let mut map = HeaderMap::new();
        map.insert(NATS_MESSAGE_ID, "7");
        assert_eq!(headers_from_nats(Some(&map)).message_id, "7");
    }
}
