//! The listener: TLS, HTTP/2 and HTTP/1.1, and its orderly end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsAcceptor;
use sovereign_service::RunError;

use super::connections::{Bounded, MAX_CONNECTIONS};
use super::edge::Edge;
use super::router;

/// Time for a TLS handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests one HTTP/2 connection may have open; more wait.
const MAX_STREAMS: u32 = 128;
/// An HTTP/2 peer is probed this often, and is gone when it does not answer as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Time for open requests after a stop; what is still open then is cut.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves `edge` on `listener` until its stop, then finishes what is open.
pub(crate) async fn serve(edge: Arc<Edge>, listener: TcpListener) -> Result<(), RunError> {
    let handle = Handle::<SocketAddr>::new();
    let serving = listen(edge.clone(), listener, handle.clone());
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = edge.stop.requested() => {
            handle.graceful_shutdown(Some(DRAIN));
            serving.await
        }
    };
    served.map_err(|error| RunError::new("serve https", error))
}

async fn listen(
    edge: Arc<Edge>,
    listener: TcpListener,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let acceptor = RustlsAcceptor::new(edge.certificate.rustls()).handshake_timeout(HEAD_TIMEOUT);
    let acceptor = Bounded::new(acceptor, MAX_CONNECTIONS, edge.metrics.clone());
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle)
        .first_request_timeout(HEAD_TIMEOUT)
        .acceptor(acceptor);
    server
        .http_builder()
        .http1()
        .header_read_timeout(HEAD_TIMEOUT);
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let service = router(edge).into_make_service_with_connect_info::<SocketAddr>();
    server.serve(service).await
}
