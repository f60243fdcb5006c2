//! The raw side of the bus: what a transport must do with bytes, so that all that is typed, bounded and
//! counted is written once above it.

use std::{error::Error, pin::Pin, sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use sovereign_disk::Found;
use thiserror::Error;

use crate::{
    Key, Retention,
    topic::{self, SubjectError},
};
pub use crate::{mailbox::MailboxSink, metrics::TopicCounters};

/// A boxed future: the trait below is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What travels beside every payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Node that published the message.
    pub node: Arc<str>,
    /// Identifies the message; for durable topics the id that the publisher gave.
    pub message_id: String,
    /// W3C trace context of the publisher, when it had one.
    pub traceparent: Option<String>,
}

/// A message as transports see it.
#[derive(Debug, Clone)]
pub struct RawMessage {
    /// Full subject, no wildcard.
    pub subject: Arc<str>,
    /// Headers of the message.
    pub headers: Headers,
    /// Encoded message, shared and never copied after encoding.
    pub payload: Bytes,
}

/// The subjects that a subscription wants: all of a pattern, or one key of it.
#[derive(Debug, Clone)]
pub struct Filter {
    pattern: &'static str,
    exact: Option<String>,
}

impl Filter {
    pub(crate) fn all(pattern: &'static str) -> Self {
        let exact = (!pattern.contains('*')).then(|| pattern.to_owned());
        Self { pattern, exact }
    }

    pub(crate) fn key(pattern: &'static str, key: &Key) -> Result<Self, SubjectError> {
        let exact = Some(topic::subject(pattern, Some(key))?);
        Ok(Self { pattern, exact })
    }

    /// The subject to subscribe to, with `*` where every key is wanted.
    pub fn subject(&self) -> &str {
        self.exact.as_deref().unwrap_or(self.pattern)
    }

    /// True when the subscription wants this subject.
    pub fn matches(&self, subject: &str) -> bool {
        match &self.exact {
            Some(exact) => exact == subject,
            None => topic::key_of(self.pattern, subject).is_some(),
        }
    }
}

/// A durable topic as transports see it.
#[derive(Debug, Clone)]
pub struct DurableSpec {
    /// Pattern of its subjects.
    pub pattern: &'static str,
    /// How long messages are kept.
    pub retention: Retention,
    /// Where a transport counts what was lost.
    pub counters: Arc<TopicCounters>,
}

impl DurableSpec {
    /// The key inside a subject of the topic; `None` where the topic has none.
    pub fn key_of(&self, subject: &str) -> Option<Key> {
        topic::key_of(self.pattern, subject)
    }
}

/// What `append` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The message is on disk.
    Stored,
    /// A message of this id was on disk before; nothing was added.
    Duplicate,
}

/// A failure below the typed bus.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// What is stored takes all of its room, and not all of it was read. Says what is full.
    #[error("{0}")]
    Full(String),
    /// The operation did not finish in its time.
    #[error("{operation} did not finish within {limit:?}")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The operation failed.
    #[error("{operation} failed")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl TransportError {
    /// An error of `operation` with its cause.
    pub fn failed(operation: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed {
            operation,
            cause: cause.into(),
        }
    }
}

/// Who asks to own something, alone among all that use a bus.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What is owned: the name of a service.
    pub service: &'static str,
    /// Who asks, for people: node, process, machine.
    pub holder: String,
    /// Names what one living process has at a time: who asks with the same comes after a holder that is
    /// gone, and need not wait. `None` where nothing of the kind is known.
    pub lock: Option<String>,
}

/// Another has it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{service} is run by {holder}")]
pub struct Held {
    /// What is owned.
    pub service: &'static str,
    /// Who has it.
    pub holder: String,
}

/// Something could not be owned.
#[derive(Debug, Error)]
pub enum OwnError {
    /// Another has it.
    #[error(transparent)]
    Held(#[from] Held),
    /// The transport failed.
    #[error("claim it on the transport")]
    Transport(#[from] TransportError),
}

/// A running subscription; dropping it ends it.
///
/// A transport either pushes into the sink as messages arrive, and leaves both methods as they are, or
/// lets the reader fetch what arrived while it waits, which saves a switch of tasks per message.
pub trait Subscription: Send + Sync {
    /// Moves all that arrived into the sink with [`MailboxSink::fill`], and has `context` woken when
    /// more comes.
    fn poll_fill(&self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// The reader does not wait any more: until it polls again, the transport fills the sink.
    fn reader_left(&self) {}
}

/// A subscription that is never fed and has nothing to end.
impl Subscription for () {}

/// A subscription as mailboxes hold it.
pub type SubscriptionGuard = Box<dyn Subscription>;

/// Moves bytes. Two implementations: memory with an embedded journal, and NATS.
pub trait Transport: Send + Sync + 'static {
    /// Largest payload in bytes.
    fn payload_limit(&self) -> usize;

    /// Bytes that [`Transport::write_trailer`] adds.
    fn trailer_length(&self, headers: &Headers) -> usize {
        let _ = headers;
        0
    }

    /// Adds the headers of a live message behind its encoded payload, where the transport carries them
    /// there: so the payload is written once.
    fn write_trailer(&self, headers: &Headers, payload: &mut Vec<u8>) {
        let _ = (headers, payload);
    }

    /// Hands a live message to all that subscribed to its subject, without waiting for any of them. Its
    /// payload has the trailer.
    fn publish(&self, message: RawMessage) -> BoxFuture<'_, Result<(), TransportError>>;

    /// Puts every message that matches into `sink`. What is published after the future is ready is
    /// seen; the sink is closed when the bus closes.
    fn subscribe(
        &self,
        filter: Filter,
        sink: MailboxSink,
    ) -> BoxFuture<'_, Result<SubscriptionGuard, TransportError>>;

    /// Stores a message; ready when it is on disk.
    fn append<'a>(
        &'a self,
        topic: &'a DurableSpec,
        key: Option<&'a Key>,
        message: RawMessage,
    ) -> BoxFuture<'a, Result<Appended, TransportError>>;

    /// Adds one member to `group`.
    fn consume<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn RawConsumer>, TransportError>>;

    /// Makes a group without members forget what it has acknowledged.
    fn rewind<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<(), TransportError>>;

    /// What was found of the file that it stores in; `None` where it has none.
    fn found(&self) -> Option<&Found> {
        None
    }

    /// Owns what `claim` names until the bus is closed; [`Transport::failed`] is ready when another took
    /// it. A transport that no second process can open grants it.
    fn own(&self, claim: Claim) -> BoxFuture<'_, Result<(), OwnError>> {
        let _ = claim;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Ready when the transport can store nothing any more until it is opened again, or when what it owned
    /// is another's. One that recovers by itself never says so.
    fn failed(&self) -> BoxFuture<'_, TransportError> {
        Box::pin(std::future::pending())
    }

    /// Writes what is pending and ends all subscriptions and members.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One member of a group. Dropping it gives its keys to the other members.
pub trait RawConsumer: Send {
    /// The next message that this member may work on; `None` when the bus closed. Dropping the future
    /// loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>>;
}

/// A message that waits for its acknowledgement.
pub struct RawDelivery {
    /// The message.
    pub message: RawMessage,
    /// True when it may have been delivered before.
    pub redelivered: bool,
    /// Acknowledges it, or gives it back when dropped.
    pub receipt: Box<dyn Receipt>,
}

/// The right to acknowledge one delivery. Dropping it gives the message back.
pub trait Receipt: Send + Sync {
    /// Marks the message as done for the group.
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), TransportError>>;
}
