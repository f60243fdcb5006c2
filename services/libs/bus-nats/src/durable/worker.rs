//! One owned key: fetch a message, keep it alive while its reader holds it, settle it, fetch the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind,
    consumer::{AckPolicy, DeliverPolicy, pull},
    message::Acker,
};
use futures::StreamExt;
use sovereign_bus::transport::{RawMessage, TransportError};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Member, RETRY_DELAY, Ready, Settle, limited, pending::Pending};
use crate::{headers::headers_from_nats, transport::REQUEST_LIMIT};

/// The server delivers again what was not acknowledged or reported as in progress for this long: so long
/// a key rests after its member crashed.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// How often a held delivery is reported as in progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(3);

/// A message that was given back is delivered again after this, doubled each time up to 32 times.
const REDELIVERY_DELAY: Duration = Duration::from_millis(100);

/// A key's consumer that nobody asked for longer than the retention is removed by the server: by then
/// all that it had acknowledged is gone. This is the margin.
const INACTIVE_MARGIN: Duration = Duration::from_secs(3600);

/// A key that waits for something while the server has nothing for so long asks what was acknowledged:
/// by then a delivery that nobody holds has come again.
const NOTHING_LIMIT: Duration = ACK_WAIT.saturating_mul(2);

type Consumer = async_nats::jetstream::consumer::Consumer<pull::Config>;

pub(super) struct Worker {
    pub(super) member: Arc<Member>,
    pub(super) key: String,
    pub(super) subject: String,
    pub(super) pending: Arc<Pending>,
    /// Cancelled when the key goes to someone else or the member leaves; a held delivery ends first.
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Serves the key until it is told to stop; returns the key.
    pub(super) async fn run(self) -> String {
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let served = match self.open_consumer().await {
                Ok(consumer) => self.serve(&consumer).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::debug!(subject = %self.subject, %error, "the key's consumer is tried again");
                self.rest(RETRY_DELAY).await;
            }
        }
        self.key
    }

    async fn open_consumer(&self) -> Result<Consumer, async_nats::Error> {
        // `=` is in no group and no key, so that two pairs never have one name.
        let name = format!("{}={}", self.member.group, self.key);
        let retention = self.member.spec.retention;
        let created = self.member.stream.create_consumer(pull::Config {
            durable_name: Some(name),
            filter_subject: self.subject.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1,
            inactive_threshold: retention.max_age.saturating_add(INACTIVE_MARGIN),
            ..pull::Config::default()
        });
        let consumer = limited(created).await?;
        let info = consumer.cached_info();
        self.pending.skip_to(info.ack_floor.stream_sequence);
        Ok(consumer)
    }

    /// Fetches and delivers until it stops, or until the consumer has to be opened again.
    async fn serve(&self, consumer: &Consumer) -> Result<(), async_nats::Error> {
        let mut nothing_since = None;
        loop {
            let permits = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                permits = self.turn() => permits,
            };
            let Some((held, room)) = permits else {
                return Ok(());
            };
            // Not cancelled by `stop`: a message that arrives for nobody rests for its whole time.
            match timeout(REQUEST_LIMIT, fetch(consumer)).await {
                Ok(Ok(Some(message))) => {
                    nothing_since = None;
                    self.deliver(message, held, room).await?;
                }
                Ok(Ok(None)) | Err(_) => {
                    drop((held, room));
                    let since = *nothing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > NOTHING_LIMIT {
                        return Ok(());
                    }
                    self.rest(RETRY_DELAY).await;
                }
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Waits until there is something to fetch, and room for it; `None` when the bus closed.
    async fn turn(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        self.pending.wait().await;
        let held = Arc::clone(&self.member.held).acquire_owned().await.ok()?;
        let room = Arc::clone(&self.member.room).acquire_owned().await.ok()?;
        Some((held, room))
    }

    /// Hands a message to the reader and waits until it is settled.
    async fn deliver(
        &self,
        message: async_nats::jetstream::Message,
        _held: OwnedSemaphorePermit,
        room: OwnedSemaphorePermit,
    ) -> Result<(), async_nats::Error> {
        let info = message.info()?;
        let (sequence, deliveries) = (info.stream_sequence, info.delivered);
        let removed = self.pending.fetched(sequence);
        let counters = &self.member.spec.counters;
        counters.retention_removed_unread.inc_by(removed);
        let (message, acker) = message.split();
        let (settle, mut settled) = oneshot::channel();
        let ready = Ready {
            message: RawMessage {
                subject: self.subject.as_str().into(),
                headers: headers_from_nats(message.headers.as_ref()),
                payload: message.payload,
            },
            redelivered: deliveries > 1,
            settle,
            _room: room,
        };
        // Never full: every message in it has one of as many permits. Closed, it is given back.
        drop(self.member.ready.try_send(ready));
        let mut progress = interval(PROGRESS_PERIOD);
        progress.reset();
        loop {
            tokio::select! {
                settle = &mut settled => {
                    match settle {
                        Ok(Settle::Ack(reply)) => return self.acknowledge(&acker, reply).await,
                        Ok(Settle::GiveBack) => {
                            let delay = redelivery_delay(deliveries);
                            self.give_back(&acker, Some(delay)).await;
                            self.rest(delay).await;
                        }
                        Err(_unseen) => self.give_back(&acker, None).await,
                    }
                    return Ok(());
                }
                _ = progress.tick() => {
                    if let Err(error) = limited(acker.ack_with(AckKind::Progress)).await {
                        tracing::debug!(subject = %self.subject, %error, "progress was not reported");
                    }
                }
                () = self.member.shared.stop.cancelled() => {
                    self.give_back(&acker, None).await;
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the server to confirm: what `ack` said is done is never delivered again, and the price
    /// is one round trip per message of a key, not of all.
    ///
    /// Where no answer came, it may have been lost with a connection: the error makes the consumer be
    /// opened again, which says whether it arrived.
    async fn acknowledge(
        &self,
        acker: &Acker,
        reply: oneshot::Sender<Result<(), TransportError>>,
    ) -> Result<(), async_nats::Error> {
        let result = match timeout(REQUEST_LIMIT, acker.double_ack()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TransportError::failed("acknowledge", error)),
            Err(_elapsed) => Err(TransportError::TimedOut {
                operation: "acknowledge",
                limit: REQUEST_LIMIT,
            }),
        };
        let arrived = result.is_ok();
        if arrived {
            self.pending.acknowledged();
        } else {
            self.pending.given_back();
        }
        // A reader that went away does not want its answer.
        drop(reply.send(result));
        if arrived {
            Ok(())
        } else {
            Err("an acknowledgement was not answered".into())
        }
    }

    async fn give_back(&self, acker: &Acker, delay: Option<Duration>) {
        self.pending.given_back();
        if let Err(error) = limited(acker.ack_with(AckKind::Nak(delay))).await {
            tracing::debug!(subject = %self.subject, %error, "a delivery returns after its time");
        }
    }

    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

async fn fetch(
    consumer: &Consumer,
) -> Result<Option<async_nats::jetstream::Message>, async_nats::Error> {
    let mut batch = consumer.fetch().max_messages(1).messages().await?;
    batch.next().await.transpose()
}

fn redelivery_delay(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries.clamp(1, 6) - 1).unwrap_or(0);
    REDELIVERY_DELAY * 2_u32.pow(doublings)
}
