//! The typed bus: encoding, headers, limits and counting above a raw transport.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    marker::PhantomData,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::registry::Registry;
use prost::Message;
use sovereign_disk::Found;
use thiserror::Error;

use crate::{
    DurableTopic, Key, LiveTopic, Retentions, SubjectError,
    mailbox::{MailboxSource, mailbox},
    memory::{MemoryTransport, OpenError},
    metrics::{BusMetrics, TopicCounters, TopicCounts},
    topic,
    transport::{
        Appended, Claim, DurableSpec, Filter, Headers, OwnError, RawConsumer, RawMessage, Receipt,
        SubscriptionGuard, Transport, TransportError,
    },
};

/// Largest payload in bytes where the transport does not ask for less.
pub const DEFAULT_PAYLOAD_LIMIT: usize = 8 << 20;

/// Longest message id in bytes: it is kept in memory as long as its message is retained.
pub const MAX_MESSAGE_ID_LENGTH: usize = 256;

/// Subjects of which an undecodable message is logged; above it they are only counted.
const MAX_LOGGED_SUBJECTS: usize = 256;

/// Says the W3C trace context of the caller; installed by whoever runs the tracing pipeline.
pub type TraceSource = fn() -> Option<String>;

/// A handle on the bus; clones are cheap and the same bus.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
    trace: Option<TraceSource>,
    retentions: Retentions,
}

struct Inner {
    transport: Arc<dyn Transport>,
    node: Arc<str>,
    /// Makes ids of live messages unique between runs of one node.
    run: String,
    published: AtomicU64,
    metrics: BusMetrics,
}

/// Which subjects of a live topic are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those of one key.
    Key(Key),
}

/// A message could not be published or stored.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The encoded message is larger than the bus carries.
    #[error("the message has {size} bytes, more than the payload limit of {limit}")]
    TooLarge {
        /// Largest payload in bytes.
        limit: usize,
        /// Size of this one in bytes.
        size: usize,
    },
    /// The message id is empty, too long, or not printable ASCII.
    #[error("a message id is 1 to {MAX_MESSAGE_ID_LENGTH} printable ASCII characters")]
    InvalidMessageId,
    /// The key does not fit the topic.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// There is no room to store it, and nothing was stored.
    #[error("there is no room to store it: {0}")]
    Full(String),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// The transport failed.
    #[error("publish on the transport")]
    Transport(#[source] TransportError),
}

/// A subscription or group member could not be made.
#[derive(Debug, Error)]
pub enum SubscribeError {
    /// The key does not fit the topic.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The group's name is not 1 to 64 of `[A-Za-z0-9_-]`.
    #[error("invalid group name")]
    Group(#[source] crate::InvalidKey),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// The transport failed.
    #[error("subscribe on the transport")]
    Transport(#[source] TransportError),
}

/// A delivery could not be acknowledged: it will be delivered again.
#[derive(Debug, Error)]
#[error("acknowledge a delivery")]
pub struct AckError(#[source] TransportError);

impl Bus {
    /// Live topics in memory, durable topics in the journal file at `journal_path`, which is made
    /// together with its folder when absent.
    ///
    /// # Errors
    /// The journal cannot be opened: another process has it, or the disk fails.
    pub fn memory(journal_path: &Path, node: &str) -> Result<Self, OpenError> {
        let transport = MemoryTransport::open(journal_path)?;
        Ok(Self::with_transport(Arc::new(transport), node))
    }

    /// A bus over any transport. Control characters of `node` are left out.
    pub fn with_transport(transport: Arc<dyn Transport>, node: &str) -> Self {
        let mut run = uuid::Uuid::new_v4().simple().to_string();
        run.truncate(12);
        Self {
            inner: Arc::new(Inner {
                transport,
                node: node
                    .chars()
                    .filter(|char| !char.is_control())
                    .collect::<String>()
                    .into(),
                run,
                published: AtomicU64::new(0),
                metrics: BusMetrics::default(),
            }),
            trace: None,
            retentions: Retentions::default(),
        }
    }

    /// The same bus, whose messages carry the trace context that `source` says.
    #[must_use]
    pub fn with_trace(mut self, source: TraceSource) -> Self {
        self.trace = Some(source);
        self
    }

    /// The same bus, whose durable topics are kept as `retentions` says.
    #[must_use]
    pub fn with_retentions(mut self, retentions: Retentions) -> Self {
        self.retentions = retentions;
        self
    }

    /// The node whose name its messages carry.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// Largest payload in bytes.
    pub fn payload_limit(&self) -> usize {
        self.inner.transport.payload_limit()
    }

    /// Publishes a live event; never waits for a subscriber.
    ///
    /// # Errors
    /// A message above [`Bus::payload_limit`], a key that does not fit, a closed bus.
    pub async fn publish<M: Message>(
        &self,
        topic: &LiveTopic<M>,
        key: Option<&Key>,
        message: &M,
    ) -> Result<(), PublishError> {
        let subject = topic.subject(key)?;
        let size = self.encoded_size(message)?;
        let transport = &self.inner.transport;
        let headers = self.headers(self.live_message_id());
        let mut payload = Vec::with_capacity(size + transport.trailer_length(&headers));
        message
            .encode(&mut payload)
            .expect("a vector has room for all that was not refused");
        transport.write_trailer(&headers, &mut payload);
        let message = RawMessage {
            subject: subject.into(),
            headers,
            payload: payload.into(),
        };
        transport.publish(message).await?;
        self.inner.metrics.topic(topic.pattern()).published.inc();
        Ok(())
    }

    /// Subscribes to a live topic; what is published after this returns is seen.
    ///
    /// # Errors
    /// A key that does not fit, a closed bus, a transport that fails.
    pub async fn subscribe<M: Message + Default>(
        &self,
        topic: &LiveTopic<M>,
        select: Select,
    ) -> Result<Mailbox<M>, SubscribeError> {
        let filter = match select {
            Select::All => Filter::all(topic.pattern()),
            Select::Key(key) => Filter::key(topic.pattern(), &key)?,
        };
        let counters = self.inner.metrics.topic(topic.pattern());
        let (sink, source) = mailbox(topic.mailbox(), Arc::clone(&counters));
        let subscription = self.inner.transport.subscribe(filter, sink).await?;
        Ok(Mailbox {
            source,
            decoder: Decoder::new(topic.pattern(), counters),
            subscription,
        })
    }

    /// Stores a message of a durable topic; returns when it is on disk. The same `message_id` again,
    /// while the first is retained, stores nothing. Over NATS this holds for a day at most, because the
    /// server keeps the ids in memory: after it the message is stored again.
    ///
    /// # Errors
    /// A message above [`Bus::payload_limit`], an id or key that does not fit, no room, a closed bus, a
    /// transport that could not store it: then it may or may not be stored, and appending it again with
    /// the same id is safe.
    pub async fn append<M: Message>(
        &self,
        topic: &DurableTopic<M>,
        key: Option<&Key>,
        message_id: &str,
        message: &M,
    ) -> Result<Appended, PublishError> {
        let printable = message_id.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=MAX_MESSAGE_ID_LENGTH).contains(&message_id.len()) || !printable {
            return Err(PublishError::InvalidMessageId);
        }
        self.encoded_size(message)?;
        let message = RawMessage {
            subject: topic.subject(key)?.into(),
            payload: message.encode_to_vec().into(),
            headers: self.headers(message_id.to_owned()),
        };
        let spec = self.durable_spec(topic);
        let appended = self.inner.transport.append(&spec, key, message).await?;
        match appended {
            Appended::Stored => spec.counters.published.inc(),
            Appended::Duplicate => spec.counters.duplicates.inc(),
        };
        Ok(appended)
    }

    /// Adds one member to the consumer group named `group`. A new group starts with the oldest retained
    /// message; a known one where it left off.
    ///
    /// # Errors
    /// A group name that is no key, a closed bus, a transport that fails.
    pub async fn consume<M: Message + Default>(
        &self,
        topic: &DurableTopic<M>,
        group: &str,
    ) -> Result<Consumer<M>, SubscribeError> {
        let group = Key::parse(group).map_err(SubscribeError::Group)?;
        let spec = self.durable_spec(topic);
        let raw = self.inner.transport.consume(&spec, group.as_str()).await?;
        Ok(Consumer {
            raw,
            decoder: Decoder::new(topic.pattern(), spec.counters),
        })
    }

    /// Lets a group start again with the oldest retained message; for a reader that lost what it had made of
    /// them. The group must have no member.
    ///
    /// # Errors
    /// As of [`Bus::consume`].
    pub async fn rewind<M: Message + Default>(
        &self,
        topic: &DurableTopic<M>,
        group: &str,
    ) -> Result<(), SubscribeError> {
        let group = Key::parse(group).map_err(SubscribeError::Group)?;
        let spec = self.durable_spec(topic);
        Ok(self.inner.transport.rewind(&spec, group.as_str()).await?)
    }

    /// Owns what `claim` names until the bus is closed, alone among all that use this bus.
    ///
    /// # Errors
    /// Another has it, or it cannot be known whether.
    pub async fn own(&self, claim: Claim) -> Result<(), OwnError> {
        self.inner.transport.own(claim).await
    }

    /// What was counted so far, by topic pattern.
    pub fn metrics_snapshot(&self) -> BTreeMap<&'static str, TopicCounts> {
        self.inner.metrics.snapshot()
    }

    /// Adds the counters to a registry, under the prefix `sovereign_bus`.
    pub fn register(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
    }

    /// What was found of its journal; `None` where it has none.
    pub fn found(&self) -> Option<&Found> {
        self.inner.transport.found()
    }

    /// Ready when the bus can store nothing any more, or what was owned on it is another's, with the
    /// reason: the process should end and be started again.
    pub async fn failed(&self) -> TransportError {
        self.inner.transport.failed().await
    }

    /// Writes what is pending and ends every mailbox and consumer of this bus.
    pub async fn close(&self) {
        self.inner.transport.close().await;
    }

    fn encoded_size(&self, message: &impl Message) -> Result<usize, PublishError> {
        let (size, limit) = (message.encoded_len(), self.payload_limit());
        if size > limit {
            return Err(PublishError::TooLarge { limit, size });
        }
        Ok(size)
    }

    /// Unique among the messages of this node: its run, and a number. Written by hand, because it is
    /// made for every frame and state.
    fn live_message_id(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.inner.published.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(self.inner.run.len() + 17);
        id.push_str(&self.inner.run);
        id.push('-');
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            id.push(DIGITS[(number >> (4 * digit)) as usize & 0xF] as char);
        }
        id
    }

    fn headers(&self, message_id: String) -> Headers {
        Headers {
            node: Arc::clone(&self.inner.node),
            message_id,
            traceparent: self.trace.and_then(|source| source()),
        }
    }

    fn durable_spec<M>(&self, topic: &DurableTopic<M>) -> DurableSpec {
        DurableSpec {
            pattern: topic.pattern(),
            retention: self.retentions.of(topic.class()),
            counters: self.inner.metrics.topic(topic.pattern()),
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Bus({})", self.inner.node)
    }
}

impl From<TransportError> for PublishError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Closed => Self::Closed,
            TransportError::Full(why) => Self::Full(why),
            error @ (TransportError::TimedOut { .. } | TransportError::Failed { .. }) => {
                Self::Transport(error)
            }
        }
    }
}

impl From<TransportError> for SubscribeError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Closed => Self::Closed,
            error @ (TransportError::TimedOut { .. }
            | TransportError::Full(_)
            | TransportError::Failed { .. }) => Self::Transport(error),
        }
    }
}

/// The newest events of a live subscription.
pub struct Mailbox<M> {
    source: MailboxSource,
    decoder: Decoder<M>,
    subscription: SubscriptionGuard,
}

/// An event of a live topic.
#[derive(Debug, Clone)]
pub struct Event<M> {
    /// Key of its subject.
    pub key: Option<Key>,
    /// The event.
    pub message: M,
    /// What travelled beside it.
    pub headers: Headers,
}

impl<M: Message + Default> Mailbox<M> {
    /// The oldest event that waits; `None` when the bus closed. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Event<M>> {
        loop {
            let raw = self.source.recv(&*self.subscription).await?;
            if let Some((key, message)) = self.decoder.decode(&raw) {
                self.decoder.counters.delivered.inc();
                return Some(Event {
                    key,
                    message,
                    headers: raw.headers,
                });
            }
        }
    }
}

impl<M> Mailbox<M> {
    /// Events that reached this mailbox: received = delivered + undecodable + replaced +
    /// dropped + waiting.
    pub fn received(&self) -> u64 {
        self.source.received()
    }

    /// Events in whose place a newer one of their subject came.
    pub fn replaced(&self) -> u64 {
        self.source.replaced()
    }

    /// Events that were lost because the mailbox was full of other subjects.
    pub fn dropped(&self) -> u64 {
        self.source.dropped()
    }

    /// Messages that did not decode and were skipped.
    pub fn undecodable(&self) -> u64 {
        self.decoder.undecodable
    }
}

/// One member of a consumer group. Dropping it gives its keys to the other members.
pub struct Consumer<M> {
    raw: Box<dyn RawConsumer>,
    decoder: Decoder<M>,
}

/// A message that waits for [`Delivery::ack`]. Dropping it gives it back: it is delivered again after a
/// short wait.
pub struct Delivery<M> {
    /// Key of its subject; no other message of it is delivered to the group meanwhile.
    pub key: Option<Key>,
    /// The message.
    pub message: M,
    /// What travelled beside it.
    pub headers: Headers,
    /// True when it may have been delivered before.
    pub redelivered: bool,
    receipt: Box<dyn Receipt>,
}

impl<M: Message + Default> Consumer<M> {
    /// The next message that this member may work on; `None` when the bus closed. Dropping the future
    /// loses nothing. Deliveries of other keys may be held meanwhile, for as long as the work takes.
    pub async fn next(&mut self) -> Option<Delivery<M>> {
        loop {
            let raw = self.raw.next().await?;
            let Some((key, message)) = self.decoder.decode(&raw.message) else {
                // It will not decode the next time either; holding it would stop its key for ever.
                if let Err(error) = raw.receipt.ack().await {
                    tracing::debug!(subject = %raw.message.subject, %error, "skip not acknowledged");
                }
                continue;
            };
            self.decoder.counters.delivered.inc();
            if raw.redelivered {
                self.decoder.counters.redelivered.inc();
            }
            return Some(Delivery {
                key,
                message,
                headers: raw.message.headers,
                redelivered: raw.redelivered,
                receipt: raw.receipt,
            });
        }
    }
}

impl<M> Delivery<M> {
    /// Marks the message as done for its group; the next one of its key may come.
    ///
    /// # Errors
    /// The transport could not take it; the message will be delivered again.
    pub async fn ack(self) -> Result<(), AckError> {
        self.receipt.ack().await.map_err(AckError)
    }
}

impl<M> fmt::Debug for Delivery<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Delivery({})", self.headers.message_id)
    }
}

struct Decoder<M> {
    pattern: &'static str,
    counters: Arc<TopicCounters>,
    undecodable: u64,
    logged: HashSet<Arc<str>>,
    /// The last subject and its key: most messages come in runs of one subject.
    last: Option<(Arc<str>, Option<Key>)>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Decoder<M> {
    fn new(pattern: &'static str, counters: Arc<TopicCounters>) -> Self {
        Self {
            pattern,
            counters,
            undecodable: 0,
            logged: HashSet::new(),
            last: None,
            message: PhantomData,
        }
    }

    fn decode(&mut self, raw: &RawMessage) -> Option<(Option<Key>, M)> {
        match M::decode(raw.payload.clone()) {
            Ok(message) => Some((self.key_of(&raw.subject), message)),
            Err(error) => {
                self.undecodable += 1;
                self.counters.undecodable.inc();
                if self.logged.len() < MAX_LOGGED_SUBJECTS
                    && self.logged.insert(Arc::clone(&raw.subject))
                {
                    tracing::warn!(subject = %raw.subject, %error, "messages that do not decode are skipped");
                }
                None
            }
        }
    }

    fn key_of(&mut self, subject: &Arc<str>) -> Option<Key> {
        if let Some((last, key)) = &self.last
            && **last == **subject
        {
            return key.clone();
        }
        let key = topic::key_of(self.pattern, subject);
        self.last = Some((Arc::clone(subject), key.clone()));
        key
    }
}
