//! Calls: one client-side type for a service in this process and one across the network.
//!
//! A local call goes through the same generated client and server code and the same [`guarded`]
//! routes as a remote one; only the bytes do not pass a socket.

mod guard;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tower::{Service, ServiceExt};

pub use guard::guarded;
use guard::{Guarded, deadline_exceeded, deadline_from_headers};

/// Largest gRPC message either side accepts or sends. A picture on the bus is at most half of it.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A remote that does not accept a connection within this time counts as unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection with calls on it is probed this often, so that a peer that vanished is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A probe not answered within this time ends the connection; its calls fail as unavailable.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The transport's own timer reports an expired deadline as cancelled, and may be this much early.
const DEADLINE_SLACK: Duration = Duration::from_millis(5);

/// Where calls of a generated client go; cheap to clone.
#[derive(Clone)]
pub struct Channel {
    target: Target,
}

#[derive(Clone)]
enum Target {
    Local(Routes),
    Remote {
        channel: tonic::transport::Channel,
        address: String,
    },
}

/// An address that calls cannot go to.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is not an address to call; write it as http://host:port")]
pub struct InvalidAddress {
    address: String,
    #[source]
    cause: Option<tonic::transport::Error>,
}

impl Channel {
    /// Calls `routes` in this process.
    #[must_use]
    pub fn local(routes: Routes) -> Self {
        Self {
            target: Target::Local(guarded(routes).prepare()),
        }
    }

    /// Calls `address`, `http://host:port`, over TCP. The connection is made with the first call and
    /// again after it broke; while there is none, calls fail as unavailable.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`InvalidAddress`] when it does not parse.
    pub fn connect(address: &str) -> Result<Self, InvalidAddress> {
        let invalid = |cause| InvalidAddress {
            address: address.to_owned(),
            cause,
        };
        let endpoint =
            Endpoint::from_shared(address.to_owned()).map_err(|cause| invalid(Some(cause)))?;
        if endpoint.uri().scheme_str() != Some("http") || endpoint.uri().host().is_none() {
            return Err(invalid(None));
        }
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_lazy();
        Ok(Self {
            target: Target::Remote {
                channel,
                address: address.to_owned(),
            },
        })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Local(_) => f.write_str("Channel(local)"),
            Target::Remote { address, .. } => write!(f, "Channel({address})"),
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // A remote is waited for within the call, where the deadline of the call applies.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &self.target {
            Target::Local(routes) => {
                let call = routes.clone().oneshot(request);
                Box::pin(async move {
                    match call.await {
                        Ok(response) => Ok(response),
                        Err(never) => match never {},
                    }
                })
            }
            Target::Remote { channel, .. } => Box::pin(call_remote(channel.clone(), request)),
        }
    }
}

async fn call_remote(
    channel: tonic::transport::Channel,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let deadline = deadline_from_headers(request.headers());
    let call = channel.oneshot(request);
    let result = match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline, call).await {
            Ok(result) => result,
            Err(_) => return Err(deadline_exceeded()),
        },
        None => call.await,
    };
    let result = result.map_err(|error| Status::from_error(Box::new(error)));
    let expired = deadline.is_some_and(|deadline| Instant::now() + DEADLINE_SLACK >= deadline);
    let code = match &result {
        Ok(response) => {
            Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |s| s.code())
        }
        Err(status) => status.code(),
    };
    if expired && code == tonic::Code::Cancelled {
        return Err(deadline_exceeded());
    }
    result.map(|response| response.map(|body| Body::new(Guarded::new(body, deadline))))
}
