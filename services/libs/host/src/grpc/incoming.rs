//! Connections of the gRPC door: bounded in number, and cut together at the end of a drain.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use prometheus_client::metrics::gauge::Gauge;
use sovereign_service::StopSource;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::metrics::HostMetrics;

/// Connections open at once; further ones wait in the accept queue of the system.
const MAX_CONNECTIONS: usize = 1024;
/// Wait after the system refused to hand over a connection (no file descriptors, for example).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Ends every connection at once, whatever is still on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut {
    source: StopSource,
}

impl Cut {
    pub(crate) fn now(&self) {
        self.source.request();
    }
}

pub(super) fn incoming(
    listener: TcpListener,
    cut: Cut,
    metrics: HostMetrics,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    futures::stream::unfold(
        (listener, permits, cut, metrics),
        |(listener, permits, cut, metrics)| async move {
            let permit = permits.clone().acquire_owned().await.ok()?;
            let socket = accept(&listener, &metrics).await;
            metrics.grpc_accepted.inc();
            metrics.grpc_connections.inc();
            let stop = cut.source.stop();
            let connection = Connection {
                socket,
                cut: Box::pin(async move { stop.requested().await }),
                gauge: metrics.grpc_connections.clone(),
                _permit: permit,
            };
            Some((Ok(connection), (listener, permits, cut, metrics)))
        },
    )
}

async fn accept(listener: &TcpListener, metrics: &HostMetrics) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Without it small answers wait for an acknowledgement; the connection still works.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "set TCP_NODELAY");
                }
                return socket;
            }
            Err(error) => {
                metrics.grpc_accept_errors.inc();
                tracing::warn!(%error, "accept a gRPC connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

pub(super) struct Connection {
    socket: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always reads, so polling the cut here is enough to notice it.
        if self.cut.as_mut().poll(context).is_ready() {
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
