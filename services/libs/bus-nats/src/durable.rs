//! Consumer groups over `JetStream`.
//!
//! A group has one durable consumer per key, named after both, with one unacknowledged message at most:
//! the server itself keeps the order of a key. Which member asks for which key is agreed on in a
//! key-value bucket ([`coordinator`]); each owned key has a [`worker`] that fetches, keeps the delivery
//! alive while it is held, and acknowledges. [`pending`] knows what a key still has to deliver, from the
//! headers of the stream, and so what retention removed before it was read.

mod bucket;
mod coordinator;
mod pending;
mod presence;
mod worker;

use std::{sync::Arc, time::Duration};

use sovereign_bus::transport::{
    BoxFuture, DurableSpec, RawConsumer, RawDelivery, RawMessage, Receipt, TransportError,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::coordinator::Coordinator;
use crate::transport::{Alive, REQUEST_LIMIT, Shared, Stream};

/// Unacknowledged deliveries that one member may hold. At the bound it fetches no more.
const MAX_HELD: usize = 1024;

/// Messages that were fetched and wait for `next`: bounds the payloads in memory.
const MAX_READY: usize = 8;

/// What the coordinator and the workers of one member share.
struct Member {
    shared: Arc<Shared>,
    spec: DurableSpec,
    stream: Stream,
    group: String,
    ready: mpsc::Sender<Ready>,
    held: Arc<Semaphore>,
    room: Arc<Semaphore>,
    /// Cancelled when the member leaves or the bus closes.
    stop: CancellationToken,
}

/// A fetched message on its way to `next`. Dropping it is giving it back unseen.
struct Ready {
    message: RawMessage,
    redelivered: bool,
    settle: oneshot::Sender<Settle>,
    _room: OwnedSemaphorePermit,
}

/// What the reader says about a delivery.
enum Settle {
    Ack(oneshot::Sender<Result<(), TransportError>>),
    GiveBack,
}

/// Makes a member of a group. When it returns, the group exists and sees all that is retained.
pub(crate) async fn join(
    shared: Arc<Shared>,
    alive: Arc<Alive>,
    spec: &DurableSpec,
    group: &str,
) -> Result<NatsConsumer, TransportError> {
    let stream = shared.make_stream(spec).await?;
    let (sender, ready) = mpsc::channel(MAX_READY);
    let stop = shared.stop.child_token();
    let member = Arc::new(Member {
        shared: Arc::clone(&shared),
        spec: spec.clone(),
        stream,
        group: group.to_owned(),
        ready: sender,
        held: Arc::new(Semaphore::new(MAX_HELD)),
        room: Arc::new(Semaphore::new(MAX_READY)),
        stop: stop.clone(),
    });
    let coordinator = Coordinator::start(member).await?;
    shared.tasks.spawn(coordinator.run());
    Ok(NatsConsumer {
        ready,
        closed: shared.stop.clone(),
        _leave: stop.drop_guard(),
        _alive: alive,
    })
}

/// One member of a group.
pub(crate) struct NatsConsumer {
    ready: mpsc::Receiver<Ready>,
    closed: CancellationToken,
    _leave: DropGuard,
    _alive: Arc<Alive>,
}

impl RawConsumer for NatsConsumer {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(async {
            let ready = tokio::select! {
                () = self.closed.cancelled() => return None,
                ready = self.ready.recv() => ready?,
            };
            Some(RawDelivery {
                message: ready.message,
                redelivered: ready.redelivered,
                receipt: Box::new(NatsReceipt {
                    settle: Some(ready.settle),
                }),
            })
        })
    }
}

struct NatsReceipt {
    settle: Option<oneshot::Sender<Settle>>,
}

impl Receipt for NatsReceipt {
    fn ack(mut self: Box<Self>) -> BoxFuture<'static, Result<(), TransportError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .settle
            .take()
            .is_some_and(|settle| settle.send(Settle::Ack(reply)).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(TransportError::Closed);
            }
            answer.await.unwrap_or(Err(TransportError::Closed))
        })
    }
}

impl Drop for NatsReceipt {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            // Without a worker the server gives it to someone else after its acknowledgement time.
            drop(settle.send(Settle::GiveBack));
        }
    }
}

/// How long an operation that failed rests before it is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// An answer of the server, or an error after [`REQUEST_LIMIT`]: the client bounds its wait for the
/// answer, and not its wait for room to ask.
async fn limited<T, E: Into<async_nats::Error>>(
    request: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, async_nats::Error> {
    timeout(REQUEST_LIMIT, request).await?.map_err(Into::into)
}
