//! The bus over NATS: the only crate that names `async-nats`.
//!
//! In: a server's address and credentials. Out: a [`Bus`] whose live topics are core NATS subjects of
//! the same name, and whose durable topics are `JetStream` streams on file storage.
//!
//! Invariants: everything received is moved into the bus's own mailbox at once, so a slow reader loses
//! the same messages as over memory; a durable append is acknowledged by the server or an error within
//! [`APPEND_LIMIT`]; a partition of a consumer group is one durable consumer that the server pins to one
//! member, and who takes it over delivers nothing before all that was outstanding came to it, so the order
//! of a key does not depend on who believes to have it; what is owned has one holder, whom the server knows.
//!
//! Limits: what is published after `subscribe` returns is seen when publisher and subscriber are on one
//! server; between servers of a cluster, interest travels on its own. Duplicate ids are known for the
//! retention of the topic, a day at most.

mod connection;
mod durable;
mod headers;
mod live;
mod owner;
mod transport;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{ConnectOptions, connection::State};
use sovereign_bus::Bus;
use thiserror::Error;

pub use self::connection::APPEND_LIMIT;
use self::transport::NatsTransport;

/// Longest wait between two attempts to connect again.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

const PING_PERIOD: Duration = Duration::from_secs(20);

/// Messages of one subscription between the socket and the mailbox. The client refuses the newest when
/// it is full, so it must hold what the connection reads in one turn: 128 reads of 64 KiB at most, 8 MiB
/// of whatever size of message. The reader, or the sweep while it is away, empties it in one turn.
const SUBSCRIPTION_CAPACITY: usize = 64 << 10;

/// Messages that wait for the socket: at 8 MiB each 2 GiB. When it is full a publisher waits, and then
/// gets an error.
const CLIENT_CAPACITY: usize = 256;

/// More partitions than this are refused: each group has a consumer for each.
pub const MAX_PARTITIONS: u16 = 1024;

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// Addresses of one deployment, separated by commas: `nats://` or `tls://`, host and port.
    pub url: String,
    /// File with the user's JWT and seed, when the server asks for one.
    pub credentials_file: Option<PathBuf>,
    /// Servers that hold a copy of each stream. Default: 1.
    pub replicas: usize,
    /// Partitions that the keys of a durable topic fall into, 1 to [`MAX_PARTITIONS`]. Default: 64. A
    /// stream keeps the number that it was made with, and another one is refused.
    pub partitions: u16,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            credentials_file: None,
            replicas: 1,
            partitions: 64,
        }
    }
}

/// The bus could not be connected.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The number of partitions is out of its range.
    #[error("a topic has 1 to {MAX_PARTITIONS} partitions, not {0}")]
    Partitions(u16),
    /// The credentials file cannot be read.
    #[error("read the NATS credentials {path}")]
    Credentials {
        /// Path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The address is not one of a NATS server.
    #[error("read the NATS address")]
    Address(#[source] std::io::Error),
    /// No server answers, or it refuses.
    #[error("connect to NATS at {hosts}")]
    Connect {
        /// Hosts and ports, without user and password.
        hosts: String,
        /// Why.
        #[source]
        cause: async_nats::ConnectError,
    },
    /// The server does not run `JetStream` for this account.
    #[error("find JetStream on NATS at {hosts}")]
    JetStream {
        /// Hosts and ports, without user and password.
        hosts: String,
        /// Why.
        #[source]
        cause: async_nats::jetstream::context::AccountError,
    },
}

/// Connects to NATS. Later the connection comes back by itself; what is published meanwhile is an error.
///
/// # Errors
/// Partitions out of range, no server, wrong credentials, a server without `JetStream`.
pub async fn connect(config: NatsConfig, node: &str) -> Result<Bus, ConnectError> {
    if !(1..=MAX_PARTITIONS).contains(&config.partitions) {
        return Err(ConnectError::Partitions(config.partitions));
    }
    let addresses = config
        .url
        .split(',')
        .map(|url| url.trim().parse::<async_nats::ServerAddr>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(ConnectError::Address)?;
    let hosts = addresses
        .iter()
        .map(|address| format!("{}:{}", address.host(), address.port()))
        .collect::<Vec<_>>()
        .join(", ");
    let client = options(&config, node)
        .await?
        .connect(addresses)
        .await
        .map_err(|cause| ConnectError::Connect {
            hosts: hosts.clone(),
            cause,
        })?;
    let transport = NatsTransport::new(client, config.replicas, config.partitions);
    transport
        .check_jetstream()
        .await
        .map_err(|cause| ConnectError::JetStream { hosts, cause })?;
    Ok(Bus::with_transport(Arc::new(transport), node))
}

async fn options(config: &NatsConfig, node: &str) -> Result<ConnectOptions, ConnectError> {
    let options = match &config.credentials_file {
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|cause| ConnectError::Credentials {
                path: path.clone(),
                cause,
            })?,
        None => ConnectOptions::new(),
    };
    Ok(options
        .name(node)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .ping_interval(PING_PERIOD)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            let doubled =
                Duration::from_millis(50) * 2_u32.pow(u32::try_from(attempt.min(8)).unwrap_or(8));
            doubled.min(MAX_RECONNECT_DELAY)
        })
        // Subjects are checked when topics and keys are made.
        .skip_subject_validation(true)
        .event_callback(|event| async move { log(&event) }))
}

fn log(event: &async_nats::Event) {
    use async_nats::Event;
    match event {
        Event::Connected => tracing::info!(state = %State::Connected, "NATS"),
        Event::Disconnected => tracing::warn!(state = %State::Disconnected, "NATS"),
        Event::SlowConsumer(subscription) => {
            tracing::error!(
                subscription,
                "messages were lost between socket and mailbox"
            );
        }
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
        Event::ClientError(error) => tracing::debug!(%error, "the NATS client reports an error"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::debug!(%event, "NATS");
        }
    }
}
