//! Consumer groups over `JetStream`.
//!
//! A stream stores each message under the partition of its key, and a group has one durable consumer per
//! partition. The server pins a partition to one member ([`partition`]), which delivers its keys side
//! by side and each in order. Members tell each other that they are there, so that each asks for its
//! share of the partitions, and they count what retention removed unread ([`group`]).

mod group;
mod partition;

use std::{sync::Arc, time::Duration};

use sovereign_bus::transport::{
    BoxFuture, DurableSpec, RawConsumer, RawDelivery, RawMessage, Receipt, TransportError,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::group::Group;
use crate::transport::{Alive, REQUEST_LIMIT, Shared, Stream};

/// Messages that wait for `next`. At the bound they wait in their partitions, which are served in turn.
const MAX_READY: usize = 8;

/// What the tasks of one member share.
struct Member {
    shared: Arc<Shared>,
    spec: DurableSpec,
    stream: Stream,
    group: String,
    ready: mpsc::Sender<Ready>,
    /// Cancelled when the member leaves or the bus closes.
    stop: CancellationToken,
}

/// A fetched message on its way to `next`. Dropping it is giving it back unseen.
struct Ready {
    message: RawMessage,
    redelivered: bool,
    settle: oneshot::Sender<Settle>,
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
        stop: stop.clone(),
    });
    let group = Group::enter(member).await?;
    shared.tasks.spawn(group.run());
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
            let ready = loop {
                let ready = tokio::select! {
                    () = self.closed.cancelled() => return None,
                    ready = self.ready.recv() => ready?,
                };
                // Else its partition has lost it since: the server delivers it again.
                if !ready.settle.is_closed() {
                    break ready;
                }
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
            // Without its partition's task the server gives it to someone else after its acknowledgement time.
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
