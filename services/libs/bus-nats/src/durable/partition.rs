//! One partition: fetch its messages, deliver each key in order, keep alive what is held, settle.
//!
//! The server gives at most [`WINDOW`] unacknowledged messages of a partition, to the one member that it
//! pins. A member that becomes the pinned one is in doubt: what its predecessor had is still
//! outstanding, and older than what comes new. It delivers nothing until all that is outstanding is in
//! its hands. It is in doubt again whenever it cannot know that it still is the pinned one.
//!
//! What was given back is delivered again from here, without the server, so the other keys go on.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::{
    connection::State,
    header::NATS_PIN_ID,
    jetstream::{
        AckKind,
        consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, pull},
        message::Acker,
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use sovereign_bus::transport::{RawMessage, TransportError};
use tokio::{
    sync::{
        mpsc,
        oneshot::{self, error::RecvError},
        watch,
    },
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::member::{Member, RETRY_DELAY, Ready, Settle, View, limited};
use crate::{connection::REQUEST_LIMIT, headers::headers_from_nats};

/// Unacknowledged messages of a partition. When so many wait behind a key that is held, the partition
/// rests until that one is acknowledged.
const WINDOW: usize = 16;

/// The server delivers again what was not acknowledged or reported as in progress for this long: so long
/// a partition rests after its member crashed.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// How often what is in hand is reported as in progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(3);

/// How long one request for messages waits at the server: what a partition without messages costs.
const PULL_TIME: Duration = Duration::from_secs(20);

/// A member that asked for nothing in this time loses its partitions. The client asks again at the
/// latest five seconds after [`PULL_TIME`].
const PIN_LIMIT: Duration = Duration::from_secs(27);

/// A partition without messages for so long goes to the member that it falls to.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// A message that was given back is delivered again after this, doubled each time up to 32 times.
const REDELIVERY_DELAY: Duration = Duration::from_millis(100);

/// The server pins per group of a consumer; each consumer has this one.
const PIN_GROUP: &str = "members";

type Consumer = async_nats::jetstream::consumer::Consumer<pull::Config>;

fn consumer_name(group: &str, partition: u16) -> String {
    format!("{group}={partition}")
}

/// What [`consumer_name`] made; `None` of another consumer.
pub(super) fn group_and_partition(name: &str) -> Option<(&str, u16)> {
    let (group, partition) = name.rsplit_once('=')?;
    Some((group, partition.parse().ok()?))
}

/// The subjects that a partition has on its stream.
pub(super) fn filter_subject(pattern: &str, partition: impl std::fmt::Display) -> String {
    if pattern.contains('*') {
        format!("{partition}.{pattern}")
    } else {
        pattern.to_owned()
    }
}

pub(super) async fn open_consumer(
    member: &Member,
    partition: u16,
) -> Result<Consumer, async_nats::Error> {
    let pattern = member.spec.pattern;
    let created = member.stream.create_consumer(pull::Config {
        durable_name: Some(consumer_name(&member.group, partition)),
        filter_subject: filter_subject(pattern, partition),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: WINDOW as i64,
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec![PIN_GROUP.to_owned()],
        priority_timeout: PIN_LIMIT,
        ..pull::Config::default()
    });
    limited(created).await
}

pub(super) struct Partition {
    member: Arc<Member>,
    number: u16,
    view: watch::Receiver<View>,
    in_hand: BTreeMap<u64, InHand>,
    settling: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// When to ask whether an older message than those in hand is with somebody else; `None` when it is
    /// known that none is.
    doubt: Option<Instant>,
    /// When the server could last be told what is in hand.
    reported: Instant,
    /// When a message came or was settled last.
    active: Instant,
    /// What the server calls this member while it is the pinned one.
    pin: Option<String>,
    /// When the consumer was made: another one knows nothing of what is in hand.
    made: i128,
    /// Connections that the client had had when the consumer was opened.
    connects: u64,
}

struct InHand {
    message: RawMessage,
    acker: Arc<Acker>,
    deliveries: i64,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting(Instant),
    Out,
}

enum Settled {
    Said(u64, Result<Settle, RecvError>),
    Acknowledged(u64, bool),
}

enum End {
    Yielded,
    Reconnected,
}

impl Partition {
    pub(super) fn new(member: Arc<Member>, number: u16, view: watch::Receiver<View>) -> Self {
        let now = Instant::now();
        Self {
            member,
            number,
            view,
            in_hand: BTreeMap::new(),
            settling: FuturesUnordered::new(),
            doubt: Some(now),
            reported: now,
            active: now,
            pin: None,
            made: 0,
            connects: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.member.stop.clone();
        while !stop.is_cancelled() {
            if !self.is_kept() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    changed = self.view.changed() => if changed.is_err() {
                        stop.cancelled().await;
                    }
                }
                continue;
            }
            match self.serve().await {
                Ok(End::Yielded) => self.unpin().await,
                Ok(End::Reconnected) => {}
                Err(error) => {
                    tracing::debug!(partition = self.number, %error, "a partition is opened again");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(RETRY_DELAY) => {}
                    }
                    // Where the server has the stream, this changes nothing.
                    if let Err(error) = self.member.connection.make_stream(&self.member.spec).await
                    {
                        tracing::debug!(%error, "the stream cannot be made");
                    }
                }
            }
        }
        self.leave().await;
    }

    fn is_kept(&self) -> bool {
        self.view.borrow().wants(self.number)
            || !self.in_hand.is_empty()
            || (self.pin.is_some() && self.active.elapsed() < IDLE_LIMIT)
    }

    async fn serve(&mut self) -> Result<End, async_nats::Error> {
        self.connects = self.connections();
        let consumer = open_consumer(&self.member, self.number).await?;
        let made = consumer.cached_info().created.unix_timestamp_nanos();
        if made != self.made {
            self.in_hand.clear();
            self.settling.clear();
            self.made = made;
        }
        self.pin = None;
        self.begin_to_doubt();
        let messages = consumer
            .stream()
            .max_messages_per_batch(WINDOW)
            .expires(PULL_TIME)
            .heartbeat(Duration::ZERO)
            .group(PIN_GROUP)
            .messages();
        let mut messages = limited(messages).await?;
        let stop = self.member.stop.clone();
        let ready = self.member.ready.clone();
        let mut progress = progress_interval();
        while self.is_kept() && !stop.is_cancelled() {
            if self.connections() != self.connects {
                return Ok(End::Reconnected);
            }
            let now = Instant::now();
            let next = self.next_to_deliver(now);
            let wake = self.wake_time(now);
            tokio::select! {
                () = stop.cancelled() => {}
                changed = self.view.changed() => match changed {
                    Ok(()) => {}
                    Err(_closed) => stop.cancelled().await,
                },
                message = messages.next() => {
                    let message = message.ok_or("the server ended the partition")??;
                    if self.connections() != self.connects {
                        return Ok(End::Reconnected);
                    }
                    self.take(message).await?;
                }
                Ok(permit) = ready.reserve(), if next.is_some() => {
                    if let Some(next) = next {
                        self.deliver(next, permit);
                    }
                }
                Some(settled) = self.settling.next() => self.settle(settled)?,
                _ = progress.tick() => self.report().await,
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {
                    if self.doubt.is_some() {
                        let info = limited(consumer.get_info()).await?;
                        let is_over = info.num_ack_pending <= self.in_hand.len();
                        if is_over {
                            self.end_doubt();
                        } else {
                            self.doubt = Some(Instant::now() + RETRY_DELAY);
                        }
                    }
                }
            }
        }
        Ok(End::Yielded)
    }

    fn connections(&self) -> u64 {
        let statistics = self.member.connection.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// What waits here may by now have been given to somebody else: the server delivers it again to whom
    /// it should.
    fn begin_to_doubt(&mut self) {
        self.doubt = Some(Instant::now());
        self.in_hand
            .retain(|_, message| message.place == Place::Out);
    }

    fn end_doubt(&mut self) {
        self.doubt = None;
        let mut keys: Vec<Arc<str>> = Vec::with_capacity(WINDOW);
        for message in self.in_hand.values_mut() {
            if keys.contains(&message.message.subject) {
                message.deliveries = 1;
            } else {
                keys.push(Arc::clone(&message.message.subject));
            }
        }
    }

    async fn take(
        &mut self,
        message: async_nats::jetstream::Message,
    ) -> Result<(), async_nats::Error> {
        let info = message.info()?;
        let (sequence, deliveries) = (info.stream_sequence, info.delivered);
        let headers = message.headers.as_ref();
        let pin = headers.and_then(|headers| headers.get(NATS_PIN_ID));
        let pin = pin.map(|pin| pin.as_str().to_owned());
        let now = Instant::now();
        if pin != self.pin {
            self.pin = pin;
            self.reported = now;
            self.begin_to_doubt();
        } else if self.doubt.is_some() {
            self.doubt = Some(now);
        }
        self.active = now;
        let spec = &self.member.spec;
        let stored = &*message.subject;
        let subject = match stored.split_once('.') {
            Some((_partition, subject)) if spec.pattern.contains('*') => subject,
            _ => stored,
        };
        if subject != spec.pattern && spec.key_of(subject).is_none() {
            // Another program stored it under a key that is none: no group can read it.
            return limited(message.ack_with(AckKind::Term)).await;
        }
        let subject: Arc<str> = subject.into();
        let headers = headers_from_nats(headers);
        let (message, acker) = message.split();
        let acker = Arc::new(acker);
        if let Some(known) = self.in_hand.get_mut(&sequence) {
            known.acker = acker;
            return Ok(());
        }
        self.in_hand.insert(
            sequence,
            InHand {
                message: RawMessage {
                    subject,
                    headers,
                    payload: message.payload,
                },
                acker,
                deliveries,
                place: Place::Waiting(now),
            },
        );
        Ok(())
    }

    /// The oldest message whose time has come and whose key has no older one in hand.
    fn next_to_deliver(&mut self, now: Instant) -> Option<u64> {
        if self.in_hand.is_empty() {
            self.reported = now;
        } else if self.doubt.is_none() && now.duration_since(self.reported) > ACK_WAIT {
            self.begin_to_doubt();
        }
        if self.doubt.is_some() {
            return None;
        }
        let mut waiting = self.oldest_of_keys();
        waiting.find_map(|(sequence, at)| (at <= now).then_some(sequence))
    }

    /// What waits and has no older one of its key before it, with its time.
    fn oldest_of_keys(&self) -> impl Iterator<Item = (u64, Instant)> {
        let mut keys: Vec<&str> = Vec::with_capacity(WINDOW);
        self.in_hand.iter().filter_map(move |(sequence, message)| {
            let key = &*message.message.subject;
            if keys.contains(&key) {
                return None;
            }
            keys.push(key);
            match message.place {
                Place::Waiting(at) => Some((*sequence, at)),
                Place::Out => None,
            }
        })
    }

    /// When there is something to do that nothing else announces.
    fn wake_time(&self, now: Instant) -> Option<Instant> {
        // Who is not the pinned one has nothing to deliver.
        match self.doubt {
            Some(ask) => self.pin.is_some().then_some(ask),
            None => {
                let times = self.oldest_of_keys().map(|(_, at)| at);
                times.filter(|at| *at > now).min()
            }
        }
    }

    fn deliver(&mut self, sequence: u64, permit: mpsc::Permit<'_, Ready>) {
        let Some(message) = self.in_hand.get_mut(&sequence) else {
            return;
        };
        message.place = Place::Out;
        let (settle, settled) = oneshot::channel();
        permit.send(Ready {
            message: message.message.clone(),
            redelivered: message.deliveries > 1,
            settle,
        });
        let said = settled.map(move |said| Settled::Said(sequence, said));
        self.settling.push(said.boxed());
    }

    /// Where an acknowledgement was not answered, it may have been lost with a connection: the error
    /// makes the consumer be opened again, which says whether it arrived.
    fn settle(&mut self, settled: Settled) -> Result<(), async_nats::Error> {
        self.active = Instant::now();
        match settled {
            Settled::Said(sequence, said) => {
                let Some(message) = self.in_hand.get_mut(&sequence) else {
                    return Ok(());
                };
                match said {
                    Ok(Settle::Ack(reply)) => {
                        // What was done needs no memory.
                        message.message.payload = Bytes::new();
                        let done = acknowledge(Arc::clone(&message.acker), reply);
                        let done = done.map(move |done| Settled::Acknowledged(sequence, done));
                        self.settling.push(done.boxed());
                    }
                    Ok(Settle::GiveBack) => {
                        let delay = redelivery_delay(message.deliveries);
                        message.deliveries += 1;
                        message.place = Place::Waiting(self.active + delay);
                    }
                    Err(_unseen) => message.place = Place::Waiting(self.active),
                }
                Ok(())
            }
            Settled::Acknowledged(sequence, done) => {
                self.in_hand.remove(&sequence);
                if done {
                    return Ok(());
                }
                Err("an acknowledgement was not answered".into())
            }
        }
    }

    async fn report(&mut self) {
        if self.member.connection.client.connection_state() != State::Connected {
            return;
        }
        if self.reported.elapsed() < ACK_WAIT {
            self.reported = Instant::now();
        }
        for message in self.in_hand.values() {
            if let Err(error) = limited(message.acker.ack_with(AckKind::Progress)).await {
                tracing::debug!(partition = self.number, %error, "progress was not reported");
            }
        }
    }

    /// Gives back what waits here, and then the partition; keeps what the reader still has.
    async fn leave(mut self) {
        let closed = self.member.connection.stop.clone();
        let mut progress = progress_interval();
        self.give_back_waiting().await;
        self.unpin().await;
        while !self.in_hand.is_empty() && !closed.is_cancelled() {
            tokio::select! {
                () = closed.cancelled() => {}
                Some(settled) = self.settling.next() => {
                    if let Err(error) = self.settle(settled) {
                        tracing::debug!(partition = self.number, %error, "a delivery may come again");
                    }
                    self.give_back_waiting().await;
                }
                _ = progress.tick() => self.report().await,
            }
        }
        self.give_up(AckKind::Nak(None), |_, _| true).await;
    }

    async fn give_back_waiting(&mut self) {
        let waits = |_, message: &InHand| message.place != Place::Out;
        self.give_up(AckKind::Nak(None), waits).await;
    }

    /// Tells the server what is to become of what it gave, and forgets it. Returns how many these were.
    async fn give_up(&mut self, word: AckKind, which: impl Fn(u64, &InHand) -> bool) -> u64 {
        let mut count = 0;
        let given_up = self
            .in_hand
            .extract_if(.., |sequence, message| which(*sequence, message));
        for (_, message) in given_up {
            count += 1;
            if let Err(error) = limited(message.acker.ack_with(word)).await {
                tracing::debug!(partition = self.number, %error, "the server learns it after its time");
            }
        }
        count
    }

    /// Says that another member may have the partition; silence says it too, later.
    async fn unpin(&mut self) {
        if self.pin.take().is_none() {
            return;
        }
        let name = consumer_name(&self.member.group, self.number);
        if let Err(error) = limited(self.member.stream.unpin_consumer(&name, PIN_GROUP)).await {
            tracing::debug!(partition = self.number, %error, "a partition moves after its time");
        }
    }
}

fn progress_interval() -> tokio::time::Interval {
    let mut progress = interval(PROGRESS_PERIOD);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress.reset();
    progress
}

/// Waits for the server to confirm: what `ack` said is done is never delivered again.
async fn acknowledge(
    acker: Arc<Acker>,
    reply: oneshot::Sender<Result<(), TransportError>>,
) -> bool {
    let result = match timeout(REQUEST_LIMIT, acker.double_ack()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(TransportError::failed("acknowledge", error)),
        Err(_elapsed) => Err(TransportError::TimedOut {
            operation: "acknowledge",
            limit: REQUEST_LIMIT,
        }),
    };
    let done = result.is_ok();
    // A reader that went away does not want its answer.
    drop(reply.send(result));
    done
}

fn redelivery_delay(deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries.clamp(1, 6) - 1).unwrap_or(0);
    REDELIVERY_DELAY * 2_u32.pow(doublings)
}
