//! What it is to be a service here.
//!
//! A service is a library that is built, then run: [`Service::build`] binds sockets, opens stores and
//! subscribes; [`Service::run`] works until it is told to [`Stop`], drains, and returns.
//!
//! In: a configuration section, finished [`Channel`]s to the services it calls, and a [`Context`] with
//! the bus, its own data folder, metrics and readiness latches.
//! Out: gRPC [`Routes`](tonic::service::Routes), and the addresses of any other sockets.
//!
//! Invariants:
//! * A service cannot tell a local [`Channel`] from a remote one: status codes, message limits,
//!   deadlines and what a panic looks like are the same.
//! * No task without an owner: what runs in the background runs in [`Tasks`], whose first error, or
//!   panic, ends the service with the name of the task.
//! * A status code is chosen from [`Code`] in one place a service ([`HasCode`]).
//!
//! Absent on purpose: the wire contract, any transport of events, process-wide state (environment,
//! signals, exit codes): those belong to the contract crate, the bus, and the host.

mod calls;
mod channel;
mod clock;
mod code;
mod consume;
mod context;
mod errors;
mod listen;
mod metrics;
mod stop;

pub use calls::{Called, Calls};
pub use channel::{Channel, InvalidAddress, MAX_MESSAGE_BYTES, guarded};
pub use clock::Clock;
pub use code::{Code, HasCode, chain, status_of};
pub use consume::{acknowledge, settle_each};
pub use context::{Context, Readiness, ReadinessBoard, ReadyLatch};
pub use errors::{BuildError, RunError};
pub use listen::Listen;
pub use metrics::Metrics;
pub use stop::{Stop, StopSource, Tasks};

use std::future::Future;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use tonic::service::Routes;

/// How many of a service may work on one bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// One: events of the bus make its state, and of two each would get a part of them. The host refuses a
    /// second by name.
    One,
    /// Any number: what each has is its own, and it says so.
    Any,
}

/// A service: built from its configuration, then run until it is told to stop.
pub trait Service: Sized + Send + 'static {
    /// Name in configuration, calls, logs and on disk, for example `tile-svc`.
    const NAME: &'static str;
    /// Full name of its gRPC service, for example `sovereign.tile.v1.Tiles` (the generated
    /// `tiles_server::SERVICE_NAME`); health is reported under it.
    const GRPC_SERVICE: &'static str;
    /// Encoded `FileDescriptorSet` that describes its gRPC service, served by reflection.
    const DESCRIPTOR_SET: &'static [u8];
    /// How many of it may work on one bus.
    const REPLICAS: Replicas;
    /// Its section of the configuration, as written; every field has a default and unknown keys are refused.
    type Config: DeserializeOwned + Default + Send;
    /// The same, understood.
    type Settings: Send;
    /// Channels to the services it calls; `()` when there are none.
    type Calls: Calls;

    /// Understands its section; may look at the files that it names, and changes nothing. The host calls it
    /// before anything is bound, and for `--check-config`.
    fn settings(config: Self::Config) -> Result<Self::Settings, BuildError>;

    /// Sockets that it is going to bind beside gRPC.
    fn listens(_: &Self::Settings) -> Vec<Listen> {
        Vec::new()
    }

    /// Binds sockets, opens stores, subscribes. Nothing runs yet.
    fn build(
        settings: Self::Settings,
        calls: Self::Calls,
        context: Context,
    ) -> impl Future<Output = Result<Self, BuildError>> + Send;

    /// Its gRPC service. Health and reflection are added by the host.
    fn routes(&self) -> Routes;

    /// Sockets it bound beside gRPC, by short name (`udp`, `https`).
    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        Vec::new()
    }

    /// Works until `stop` is requested, then stops accepting, finishes what it holds and returns.
    fn run(self, stop: Stop) -> impl Future<Output = Result<(), RunError>> + Send;
}

/// Gives a generated client or server the one message limit, [`MAX_MESSAGE_BYTES`].
#[macro_export]
macro_rules! limited {
    ($generated:expr) => {
        $generated
            .max_decoding_message_size($crate::MAX_MESSAGE_BYTES)
            .max_encoding_message_size($crate::MAX_MESSAGE_BYTES)
    };
}
