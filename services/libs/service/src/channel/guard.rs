//! What every call passes on the serving side, local or remote: its deadline, which also covers a
//! stream that is being answered, a panic, which becomes an internal error of this one call, and a request
//! that is no message, which is its caller's mistake.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt, layer::layer_fn};

use crate::stop::text_from_panic;

/// Routes whose calls end at their deadline (`grpc-timeout`) and survive a panic of their handler.
/// A host serves guarded routes; [`Channel::local`](crate::Channel::local) guards by itself.
#[must_use]
pub fn guarded(routes: Routes) -> Routes {
    Routes::from(
        routes
            .into_axum_router()
            .layer(layer_fn(|inner| Guard { inner })),
    )
}

#[derive(Clone)]
struct Guard<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = deadline_from_headers(request.headers());
        let method = request.uri().path().to_owned();
        let call = AssertUnwindSafe(self.inner.clone().oneshot(request)).catch_unwind();
        Box::pin(async move {
            let result = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, call).await {
                    Ok(result) => result,
                    Err(_) => return Ok(deadline_exceeded().into_http()),
                },
                None => call.await,
            };
            Ok(match result {
                Ok(Ok(response)) if is_undecodable(response.headers()) => undecodable().into_http(),
                Ok(Ok(response)) => {
                    response.map(|body| Body::new(Guarded::new(Body::new(body), deadline)))
                }
                Ok(Err(never)) => match never {},
                Err(payload) => {
                    let panic = text_from_panic(&*payload);
                    tracing::error!(method, panic, "the handler of a call panicked");
                    panicked().into_http()
                }
            })
        })
    }
}

/// Whether the answer is tonic's own to bytes that are no message of the type that the method takes. Its codec, which
/// reads requests and answers alike, calls them an internal error.
fn is_undecodable(answer: &HeaderMap) -> bool {
    Status::from_header_map(answer).is_some_and(|status| {
        status.code() == tonic::Code::Internal
            && status
                .message()
                .starts_with("failed to decode Protobuf message")
    })
}

fn undecodable() -> Status {
    Status::invalid_argument("the request is not a message of the type that the method takes")
}

/// An answer that ends at the deadline of its call, with the status in its trailers.
pub(super) struct Guarded {
    inner: Option<Body>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(super) fn new(inner: Body, deadline: Option<Instant>) -> Self {
        Self {
            inner: Some(inner),
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    fn end_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.inner = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        // The clock is read for every frame: where frames are always ready nothing waits, and a timer
        // would not be told.
        if let Some(deadline) = &this.deadline
            && deadline.deadline() <= Instant::now()
        {
            return this.end_with(&deadline_exceeded());
        }
        let polled =
            std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(context)));
        match polled {
            Ok(Poll::Ready(Some(Ok(frame))))
                if frame.trailers_ref().is_some_and(is_undecodable) =>
            {
                return this.end_with(&undecodable());
            }
            Ok(Poll::Ready(frame)) => return Poll::Ready(frame),
            Ok(Poll::Pending) => {}
            Err(payload) => {
                let panic = text_from_panic(&*payload);
                tracing::error!(panic, "the stream that answers a call panicked");
                return this.end_with(&panicked());
            }
        }
        match &mut this.deadline {
            Some(deadline) => match deadline.as_mut().poll(context) {
                Poll::Ready(()) => this.end_with(&deadline_exceeded()),
                Poll::Pending => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner
            .as_ref()
            .map_or(http_body::SizeHint::with_exact(0), Body::size_hint)
    }
}

pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("not finished within the deadline of the call")
}

fn panicked() -> Status {
    Status::internal("internal error")
}

pub(super) fn deadline_from_headers(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(timeout_from_text(text)?)
}

/// `<at most 8 digits><unit>`, as in the gRPC protocol; anything else is no timeout, as in tonic.
fn timeout_from_text(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("3H", Some(Duration::from_secs(10_800))),
            ("2M", Some(Duration::from_secs(120))),
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("82n", Some(Duration::from_nanos(82))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1ü", None),
        ] {
            assert_eq!(timeout_from_text(text), expected, "{text}");
        }
    }
}
