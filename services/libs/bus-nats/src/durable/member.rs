//! One member of a group, as its tasks share it.

use std::{sync::Arc, time::Duration};

use sovereign_bus::transport::{DurableSpec, RawMessage, TransportError};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, REQUEST_LIMIT, Stream};

/// How long an operation that failed rests before it is tried again.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(250);

pub(super) struct Member {
    pub(super) connection: Arc<Connection>,
    pub(super) spec: DurableSpec,
    pub(super) stream: Stream,
    pub(super) group: String,
    pub(super) ready: mpsc::Sender<Ready>,
    /// Cancelled when the member leaves or the bus closes.
    pub(super) stop: CancellationToken,
}

pub(super) struct Ready {
    pub(super) message: RawMessage,
    pub(super) redelivered: bool,
    pub(super) settle: oneshot::Sender<Settle>,
}

pub(super) enum Settle {
    Ack(oneshot::Sender<Result<(), TransportError>>),
    GiveBack,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    pub(super) place: usize,
    /// Zero until it is known who is there.
    pub(super) members: usize,
}

impl View {
    pub(super) fn wants(&self, partition: u16) -> bool {
        self.members > 0 && usize::from(partition) % self.members == self.place
    }
}

/// An answer of the server, or an error after [`REQUEST_LIMIT`]: the client bounds its wait for the
/// answer, and not its wait for room to ask.
pub(super) async fn limited<T, E: Into<async_nats::Error>>(
    request: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, async_nats::Error> {
    timeout(REQUEST_LIMIT, request).await?.map_err(Into::into)
}
