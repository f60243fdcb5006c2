//! Events between services: typed topics over one raw transport.
//!
//! In: messages of live topics ([`Bus::publish`], at most once, newest kept) and of durable topics
//! ([`Bus::append`], on disk before it returns). Out: [`Mailbox`]es and consumer group members
//! ([`Consumer`]). The transport is memory with an embedded journal ([`Bus::memory`]), or any other
//! [`transport::Transport`].
//!
//! Invariants: a publisher of live events never waits for a reader; every mailbox, queue and cache is
//! bounded, and what a bound drops is counted; at most one unacknowledged message of a key per group;
//! what was acknowledged to a publisher is on disk, and stays until every group has read it. [`contract`] states all of it as a suite that every
//! transport runs. This crate knows no message type and no network.

mod bus;
pub mod contract;
mod journal;
mod mailbox;
mod memory;
mod metrics;
mod topic;
pub mod transport;

pub use bus::{
    AckError, Bus, Consumer, DEFAULT_PAYLOAD_LIMIT, Delivery, Event, MAX_MESSAGE_ID_LENGTH,
    Mailbox, PublishError, Select, SubscribeError, TraceSource,
};
pub use memory::OpenError;
pub use metrics::TopicCounts;
pub use topic::{
    Class, DurableTopic, InvalidKey, Key, LiveTopic, Retention, Retentions, SubjectError,
};
pub use transport::{Appended, Claim, Headers, Held, OwnError};
