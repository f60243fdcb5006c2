//! What every event loop of a gateway is made from.

use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::sync::watch;

use super::client::State;
use super::dial::Wanted;
use crate::config::Settings;
use crate::domain::rate::Rate;
use crate::metrics::Metrics;
use crate::topics::TopicNames;

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) keypair: Keypair,
    pub(crate) node_id: String,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) pace: Rate,
    pub(super) settings: Settings,
    pub(super) identity: Identity,
    pub(super) names: TopicNames,
    pub(super) book_seed: (Wanted, Vec<Multiaddr>),
    pub(super) metrics: Metrics,
    pub(super) state: watch::Sender<State>,
}
