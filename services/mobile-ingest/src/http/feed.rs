//! Server-sent events: the live feed, and the client list of `av-v1`.
//!
//! A stream lives as long as its reader and this process; a comment every now and then keeps proxies
//! from cutting it and finds readers that are gone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use serde_json::json;
use sovereign_model::Timestamp;
use sovereign_service::{Code, Stop};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::auth::Reader;
use super::edge::Edge;
use super::problem::Problem;
use crate::events::{self, EventReader};
use crate::feed::KEYFRAMES_PAGE;
use crate::metrics::Metrics;
use crate::views::Keyframes;

/// Readers of events at once; one more is told to come back.
pub(crate) const MAX_READERS: usize = 2048;
/// A stream without news carries a comment this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The client list of `av-v1` is sent this often.
const CLIENTS_BEAT: Duration = Duration::from_secs(5);
/// What a browser waits before it connects again, milliseconds.
const RETRY_MS: u32 = 2000;

/// A browser sends the number of the last event that it had.
const LAST_EVENT_ID: &str = "last-event-id";

struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Place {
    fn take(edge: &Edge) -> Result<Self, Problem> {
        let permit = edge.readers.clone().try_acquire_owned().map_err(|_| {
            Problem::from_code(
                Code::Unavailable,
                format!("{MAX_READERS} event streams are open, which is the limit"),
            )
        })?;
        edge.metrics.event_readers.inc();
        Ok(Self {
            _permit: permit,
            metrics: edge.metrics.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.event_readers.dec();
    }
}

pub(crate) async fn events(
    _: Reader,
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Place::take(&edge)?;
    let news = edge.events.subscribe();
    let missed = missed(&edge, &headers).await;
    let hello = json!({"node": edge.node, "resumed": missed.is_some()});
    let mut first = format!("retry: {RETRY_MS}\n").into_bytes();
    first.extend_from_slice(&events::private("hello", &hello));
    if let Some(missed) = missed {
        first.extend_from_slice(&events::private_numbered(
            "keyframes",
            missed.position,
            &missed,
        ));
    }
    let reader = FeedReader {
        _place: place,
        news,
        first: Some(first.into()),
        stop: edge.stop.clone(),
    };
    Ok(answer(stream::unfold(reader, FeedReader::next)))
}

/// What a reader that comes back was not told, by the `Last-Event-ID` that it sends; `None` when it sends none,
/// when it was away for too long, and when nobody can say.
async fn missed(edge: &Edge, headers: &HeaderMap) -> Option<Keyframes> {
    let last: u64 = headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse().ok()?;
    let missed = edge
        .upstream
        .keyframes(String::new(), KEYFRAMES_PAGE, Some(last))
        .await
        .ok()?;
    (missed.keyframes.len() < KEYFRAMES_PAGE as usize).then_some(missed)
}

struct FeedReader {
    _place: Place,
    news: EventReader,
    first: Option<Bytes>,
    stop: Stop,
}

impl FeedReader {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let event = tokio::select! {
            biased;
            () = self.stop.requested() => return None,
            news = self.news.next() => news?,
            () = sleep(KEEP_ALIVE) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok(event), self))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedClient {
    registered: bool,
    #[serde(rename = "ClientID")]
    client_id: String,
    last_seen: String,
    data_streams: Vec<String>,
}

/// `/api/v1/stream`: the client list, now and every five seconds.
pub(crate) async fn clients(_: Reader, State(edge): State<Arc<Edge>>) -> Result<Response, Problem> {
    let mut beat = interval(CLIENTS_BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = ClientsReader {
        _place: Place::take(&edge)?,
        beat,
        edge,
    };
    Ok(answer(stream::unfold(reader, ClientsReader::next)))
}

struct ClientsReader {
    _place: Place,
    beat: Interval,
    edge: Arc<Edge>,
}

impl ClientsReader {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        tokio::select! {
            biased;
            () = self.edge.stop.requested() => return None,
            _ = self.beat.tick() => {}
        }
        let listed: BTreeMap<String, ListedClient> = self
            .edge
            .intake
            .clients()
            .iter()
            .map(|(id, client)| {
                let last_seen = client.last_seen.unwrap_or(client.registered);
                let listed = ListedClient {
                    registered: true,
                    client_id: id.to_string(),
                    last_seen: rfc3339_from_timestamp(last_seen),
                    data_streams: client.announcement.streams.clone(),
                };
                (id.to_string(), listed)
            })
            .collect();
        // Strings and flags always encode.
        let json = serde_json::to_string(&listed).unwrap_or_default();
        let line = Bytes::from(format!("data: {json}\n\n"));
        Some((Ok(line), self))
    }
}

fn rfc3339_from_timestamp(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.as_unix_nanos()))
        .map_or_else(|_| String::new(), |time| time.to_string())
}

fn answer<S>(stream: S) -> Response
where
    S: stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
{
    (
        [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        Body::from_stream(stream),
    )
        .into_response()
}
