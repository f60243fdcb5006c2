//! The loop of a consumer: deliveries of different keys at the same time, those of one key in order.

use std::future::Future;
use std::pin::pin;

use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use prost::Message;
use sovereign_bus::{Consumer, Delivery};

use crate::{RunError, Stop, chain};

/// Settles deliveries until `stop` or the end of the bus, at most `limit` at the same time; then finishes
/// what it holds. The bus hands out one message of a key at a time, so order is kept.
///
/// # Errors
/// The first that `settle` returns; what else is held is given back.
pub async fn settle_each<M, F>(
    consumer: Consumer<M>,
    stop: Stop,
    limit: usize,
    settle: impl Fn(Delivery<M>) -> F,
) -> Result<(), RunError>
where
    M: Message + Default,
    F: Future<Output = Result<(), RunError>>,
{
    // A delivery may have to be read from disk: the reading goes on while others are settled.
    let mut deliveries = pin!(stream::unfold(consumer, |mut consumer| async {
        Some((consumer.next().await?, consumer))
    }));
    let mut held = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.requested() => break,
            Some(settled) = held.next() => settled?,
            delivery = deliveries.next(), if held.len() < limit => match delivery {
                Some(delivery) => held.push(settle(delivery)),
                None => break,
            },
        }
    }
    while let Some(settled) = held.next().await {
        settled?;
    }
    Ok(())
}

/// Acknowledges; a delivery whose acknowledgement fails comes again, and its reader knows it by then.
pub async fn acknowledge<M>(delivery: Delivery<M>) {
    let message_id = delivery.headers.message_id.clone();
    if let Err(error) = delivery.ack().await {
        tracing::debug!(message_id, error = %chain(&error), "a delivery will come again");
    }
}
