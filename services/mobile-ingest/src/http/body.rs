//! Request bodies, bounded in size, time and in what all of them hold together.
//!
//! A request may be refused before its body has arrived. Most clients send all of it before they look for the
//! answer, and lose the answer when the connection is closed meanwhile: what is left of a body is read and
//! thrown away, up to a bound.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body::{Frame, SizeHint};
use scopeguard::{ScopeGuard, guard};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::error::{BodyFault, PAUSE};

/// Memory that bodies being read or handled may hold together, KiB. A request past it waits for
/// [`ROOM_TIMEOUT`], then is told to come back.
pub(crate) const BODY_BUDGET_KIB: usize = 256 << 10;
/// Patience of a request without room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole body of `av-v1`; a sender that needs longer is cut off.
const READ_TIMEOUT: Duration = PAUSE;
/// Time for a whole picture: 64 MiB over a weak link.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(300);
/// Memory reserved at once for a body of announced size; the rest as it arrives.
const FIRST_RESERVATION: usize = 1 << 20;
/// Memory that a picture takes on its way, however large it is: what is in the hands of the sender's
/// connection, of the inspection and of the content store's.
const ON_THE_WAY: usize = 4 << 20;

/// A body in memory, with its share of the budget.
pub(crate) struct Held<'a> {
    pub(crate) bytes: Bytes,
    pub(crate) room: SemaphorePermit<'a>,
}

pub(crate) async fn read<'a>(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    budget: &'a Semaphore,
) -> Result<Held<'a>, BodyFault> {
    let announced = announced(headers);
    let expected = announced.unwrap_or(limit);
    if expected > limit {
        return Err(BodyFault::TooLarge { limit });
    }
    let room = room(expected, budget).await?;
    let mut pieces = std::pin::pin!(bounded(body, limit, READ_TIMEOUT));
    let mut whole = BytesMut::new();
    whole.reserve(announced.unwrap_or(0).min(FIRST_RESERVATION));
    while let Some(piece) = pieces.try_next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(Held {
        bytes: whole.freeze(),
        room,
    })
}

/// A picture as it arrives, with its share of the budget.
pub(crate) async fn pieces<'a>(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    budget: &'a Semaphore,
) -> Result<
    (
        impl Stream<Item = Result<Bytes, BodyFault>> + Send + use<>,
        SemaphorePermit<'a>,
    ),
    BodyFault,
> {
    let expected = announced(headers).unwrap_or(limit);
    if expected > limit {
        return Err(BodyFault::TooLarge { limit });
    }
    let room = room(expected.min(ON_THE_WAY), budget).await?;
    Ok((bounded(body, limit, PICTURE_TIMEOUT), room))
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    length.parse().ok()
}

async fn room(bytes: usize, budget: &Semaphore) -> Result<SemaphorePermit<'_>, BodyFault> {
    let share = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX);
    match timeout(ROOM_TIMEOUT, budget.acquire_many(share)).await {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(_)) | Err(_) => Err(BodyFault::NoRoom),
    }
}

/// The answer to a request, with what is refused counted. A sender that goes away takes the handler of its
/// request with it, wherever that waits: it broke off, and counts too.
pub(crate) async fn counted<T>(
    handling: impl Future<Output = Result<T, Problem>>,
    count: impl FnOnce(&Problem),
) -> Result<T, Problem> {
    let unanswered = guard(count, |count| count(&BodyFault::BrokeOff.into()));
    let answer = handling.await;
    answer.inspect_err(ScopeGuard::into_inner(unanswered))
}

/// Most of a refused body that is thrown away, bytes, and the time for it: beyond it the connection is cut.
const MAX_DRAINED: usize = 96 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A handler that is done gives its body back within this time.
const HANDED_BACK: Duration = Duration::from_millis(100);

/// A body that comes back when it is dropped.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for the body of a request that is over.
            let _ = back.send(body);
        }
    }
}

/// Lends the body of a request to its handler; [`drain`] takes what is left of it.
pub(crate) fn lend(request: Request) -> (Request, Option<oneshot::Receiver<Body>>) {
    let (parts, body) = request.into_parts();
    // A client that asks whether it may send is told by the answer that it may not.
    if body.is_end_stream() || parts.headers.contains_key(header::EXPECT) {
        return (Request::from_parts(parts, body), None);
    }
    let (back, lent) = oneshot::channel();
    let body = Lent {
        body: Some(body),
        back: Some(back),
    };
    (Request::from_parts(parts, Body::new(body)), Some(lent))
}

/// Throws away what a handler left of a body.
pub(crate) async fn drain(lent: oneshot::Receiver<Body>) {
    let Ok(Ok(body)) = timeout(HANDED_BACK, lent).await else {
        return;
    };
    let mut pieces = std::pin::pin!(bounded(body, MAX_DRAINED, DRAIN_TIMEOUT));
    while let Some(Ok(_)) = pieces.next().await {}
}

struct Arriving {
    body: BodyDataStream,
    left: usize,
    limit: usize,
    ends: Instant,
}

fn bounded(
    body: Body,
    limit: usize,
    time: Duration,
) -> impl Stream<Item = Result<Bytes, BodyFault>> + Send + use<> {
    let arriving = Arriving {
        body: body.into_data_stream(),
        left: limit,
        limit,
        ends: Instant::now() + time,
    };
    stream::try_unfold(arriving, |mut arriving| async {
        let patience = arriving.ends.min(Instant::now() + PAUSE);
        match timeout_at(patience, arriving.body.next()).await {
            Ok(Some(Ok(piece))) => {
                let left = arriving.left.checked_sub(piece.len());
                arriving.left = left.ok_or(BodyFault::TooLarge {
                    limit: arriving.limit,
                })?;
                Ok(Some((piece, arriving)))
            }
            Ok(Some(Err(_))) => Err(BodyFault::BrokeOff),
            Ok(None) => Ok(None),
            Err(_) => Err(BodyFault::TooSlow),
        }
    })
}
