//! What can go wrong, and the status a caller sees.

use std::io;
use std::path::PathBuf;

use libp2p::{Multiaddr, TransportError};
use sovereign_disk::{OpenDatabaseError, PrivateFileError};
use sovereign_service::{Code, HasCode};

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("read the key of this node")]
    Read(#[from] PrivateFileError),
    #[error("write the key file {path}")]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("decode the key file {path}")]
    Decode {
        path: PathBuf,
        #[source]
        cause: libp2p::identity::DecodingError,
    },
    #[error("encode the key")]
    Encode(#[source] libp2p::identity::DecodingError),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SwarmError {
    #[error("set up the TCP transport")]
    Tcp(#[source] libp2p::noise::Error),
    #[error("read the DNS configuration of the system")]
    Dns(#[source] io::Error),
    #[error("set up gossip: {0}")]
    Gossip(String),
    #[error("join the topic")]
    Subscribe(#[source] libp2p::gossipsub::SubscriptionError),
    #[error("set up multicast DNS")]
    Mdns(#[source] io::Error),
    #[error("listen on {addr}")]
    Listen {
        addr: Multiaddr,
        #[source]
        cause: TransportError<io::Error>,
    },
    #[error("wait for {addr} to listen: nothing within {seconds} s")]
    NotListening { addr: Multiaddr, seconds: u64 },
    #[error("keep listening: every listener closed")]
    ListenersClosed,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("open the export store")]
    Open(#[from] OpenDatabaseError),
    #[error("{operation}")]
    Use {
        operation: &'static str,
        #[source]
        cause: Box<redb::Error>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishRefused {
    #[error("no peer is subscribed to `{topic}`")]
    NoSubscriber { topic: String },
    #[error(
        "the send queues of all subscribed peers are full; the message may arrive all the same"
    )]
    Busy,
    #[error("the message has {size} bytes with its envelope, the limit is {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the node publishes more than {per_second} messages a second")]
    TooFast { per_second: u32 },
    #[error("sign the message")]
    Sign(#[source] libp2p::gossipsub::PublishError),
    #[error("the mesh is restarting")]
    Restarting,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("topic `{topic}` is not joined; joined are {}", joined.join(", "))]
    UnknownTopic { topic: String, joined: Vec<String> },
    #[error("topic `{topic}` carries tile changes only, which the gateway exports by itself")]
    MapTopic { topic: String },
    #[error("payload is empty")]
    EmptyPayload,
    #[error("publish on `{topic}`")]
    Publish {
        topic: String,
        #[source]
        cause: PublishRefused,
    },
    #[error("more than {limit} subscriptions at a time")]
    TooManySubscriptions { limit: usize },
    #[error("the subscriber was too slow and missed {missed} messages")]
    Lagged { missed: u64 },
    #[error("the mesh is restarting")]
    Restarting,
}

impl HasCode for CallError {
    fn code(&self) -> Code {
        match self {
            CallError::UnknownTopic { .. }
            | CallError::MapTopic { .. }
            | CallError::EmptyPayload => Code::InvalidArgument,
            CallError::Publish { cause, .. } => match cause {
                PublishRefused::NoSubscriber { .. } | PublishRefused::Restarting => {
                    Code::Unavailable
                }
                PublishRefused::Busy
                | PublishRefused::TooLarge { .. }
                | PublishRefused::TooFast { .. } => Code::ResourceExhausted,
                PublishRefused::Sign(_) => Code::Internal,
            },
            CallError::TooManySubscriptions { .. } | CallError::Lagged { .. } => {
                Code::ResourceExhausted
            }
            CallError::Restarting => Code::Unavailable,
        }
    }
}
