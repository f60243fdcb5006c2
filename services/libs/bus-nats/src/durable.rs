//! Consumer groups over `JetStream`.
//!
//! A stream stores each message under the partition of its key, and a group has one durable consumer per
//! partition. The server pins a partition to one member ([`partition`]), which delivers its keys side
//! by side and each in order. Members tell each other that they are there, so that each asks for its
//! share of the partitions ([`group`]). What all groups have read is removed by [`keeper`].

mod group;
mod keeper;
mod member;
mod partition;

use std::sync::Arc;

use futures::TryStreamExt;
use sovereign_bus::transport::{
    BoxFuture, DurableSpec, RawConsumer, RawDelivery, Receipt, TransportError,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    group::Group,
    member::{Member, Ready, Settle, limited},
    partition::group_and_partition,
};
use crate::connection::{Alive, Connection};

pub(crate) use keeper::Keepers;

/// Messages that wait for `next`. At the bound they wait in their partitions, which are served in turn.
const MAX_READY: usize = 8;

/// Makes a member of a group. When it returns, the group exists and sees all that is retained.
pub(crate) async fn join(
    connection: Arc<Connection>,
    alive: Arc<Alive>,
    spec: &DurableSpec,
    group: &str,
) -> Result<NatsConsumer, TransportError> {
    let stream = connection.make_stream(spec).await?;
    let (sender, ready) = mpsc::channel(MAX_READY);
    let stop = connection.stop.child_token();
    let member = Arc::new(Member {
        connection: Arc::clone(&connection),
        spec: spec.clone(),
        stream,
        group: group.to_owned(),
        ready: sender,
        stop: stop.clone(),
    });
    let group = Group::enter(member).await?;
    connection.tasks.spawn(group.run());
    Ok(NatsConsumer {
        ready,
        closed: connection.stop.clone(),
        _leave: stop.drop_guard(),
        _alive: alive,
    })
}

/// Makes a group forget what it has read.
pub(crate) async fn rewind(
    connection: &Connection,
    spec: &DurableSpec,
    group: &str,
) -> Result<(), TransportError> {
    let failed = |error: async_nats::Error| TransportError::failed("rewind a group", error);
    let stream = connection.make_stream(spec).await?;
    let mut mine = Vec::new();
    let mut names = stream.consumer_names();
    while let Some(name) = limited(names.try_next()).await.map_err(failed)? {
        if group_and_partition(&name).is_some_and(|(of, _)| of == group) {
            mine.push(name);
        }
    }
    for name in mine {
        limited(stream.delete_consumer(&name))
            .await
            .map_err(failed)?;
    }
    Ok(())
}

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
