//! How many connections may be open at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer as _;

use crate::metrics::Metrics;

/// Open connections; one more is closed at once and counted.
pub(crate) const MAX_CONNECTIONS: usize = 4096;

#[derive(Clone)]
pub(crate) struct Bounded<A> {
    inner: A,
    room: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl<A> Bounded<A> {
    pub(crate) fn new(inner: A, connections: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            inner,
            room: Arc::new(Semaphore::new(connections)),
            metrics,
        }
    }
}

/// The service of a connection; it holds the connection's place as long as it lives.
type Placed<S> = AddExtension<S, Arc<OwnedSemaphorePermit>>;

impl<A, S> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Placed<A::Service>;
    type Future =
        Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send + 'static>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            self.metrics.connections_refused.inc();
            return Box::pin(async { Err(io::Error::other("too many connections")) });
        };
        let accepting = self.inner.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            Ok((stream, Extension(Arc::new(place)).layer(service)))
        })
    }
}

#[cfg(test)]
mod tests {
    use axum_server::accept::DefaultAcceptor;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_its_place_is_free_later() {
        let metrics = Metrics::for_tests();
        let bounded = Bounded::new(DefaultAcceptor::new(), 1, metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async || {
            let connecting = TcpStream::connect(address);
            let (connected, accepted) = tokio::join!(connecting, listener.accept());
            (connected.unwrap(), accepted.unwrap().0)
        };
        let (_first, stream) = connect().await;
        let held = bounded.accept(stream, ()).await.unwrap();
        let (_second, stream) = connect().await;
        assert!(bounded.accept(stream, ()).await.is_err());
        assert_eq!(metrics.connections_refused.get(), 1);
        drop(held);
        let (_third, stream) = connect().await;
        assert!(bounded.accept(stream, ()).await.is_ok());
    }
}
