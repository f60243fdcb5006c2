//! The one owner of the libp2p swarm.
//!
//! [`start`] binds the listeners and returns a [`Client`] for the rest of the gateway, the stream of
//! accepted messages, and a [`Supervisor`] to run. Every peer message is held against the contract
//! ([`Inspector`]) before GossipSub may forward it. While the receiver of messages is behind, the swarm
//! is not polled, so a slow import slows its peers instead of losing messages; commands are still
//! answered.
//!
//! The event loop is supervised: when it panics or loses its listeners a new swarm is built with the
//! same identity and seeds; what was delivered already and who waits for messages is kept. Until then
//! commands are refused.

mod build;
mod client;
mod dial;
mod dialling;
mod event_loop;
mod shared;
mod state;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use sovereign_service::Stop;
use tokio::sync::{mpsc, watch};

use crate::config::Settings;
use crate::domain::rate::Rate;
use crate::error::SwarmError;
use crate::import::{Inspector, Received};
use crate::metrics::Metrics;
use crate::topics::TopicNames;
use client::Command;
pub(crate) use client::{Client, PeerInfo, State};
use dial::Wanted;
use event_loop::EventLoop;
pub(crate) use shared::Identity;
use shared::Shared;

/// Commands waiting for the event loop; senders wait when it is full.
const COMMANDS: usize = 64;
/// Accepted messages waiting for import; the swarm is not polled when it is full.
const MESSAGES: usize = 256;
/// Peers a node connects to by itself when it knows that many: enough for GossipSub to choose its
/// mesh of six from, and for the network to hold when the seed is gone.
const WANTED_PEERS: usize = 10;
const RESTART_WAIT: Duration = Duration::from_millis(500);

/// Binds every listener of the settings and waits until each has an address. The node publishes no
/// more than `pace`.
pub(crate) async fn start(
    settings: Settings,
    identity: Identity,
    pace: Rate,
    inspector: Inspector,
    metrics: Metrics,
) -> Result<(Client, mpsc::Receiver<Box<Received>>, Supervisor), SwarmError> {
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (messages, received) = mpsc::channel(MESSAGES);
    let (state, state_receiver) = watch::channel(State::default());
    let peer_id = identity.keypair.public().to_peer_id();
    let wanted = Wanted {
        min_peers: settings.min_peers as usize,
        peers: WANTED_PEERS
            .max(settings.min_peers as usize)
            .min(settings.max_peers as usize),
    };
    let started = Instant::now();
    let shared = Arc::new(Shared {
        started,
        pace,
        names: TopicNames::new(settings.topic.clone()),
        book_seed: (wanted, settings.bootstrap.clone()),
        settings,
        identity,
        metrics,
        state,
    });
    let event_loop = EventLoop::start(shared.clone()).await?;
    let supervisor = Supervisor {
        event_loop: Some(event_loop),
        shared,
        inspector,
        commands,
        messages,
    };
    let client = Client {
        peer_id,
        started,
        commands: command_sender,
        state: state_receiver,
    };
    Ok((client, received, supervisor))
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    event_loop: Option<EventLoop>,
    shared: Arc<Shared>,
    inspector: Inspector,
    commands: mpsc::Receiver<Command>,
    messages: mpsc::Sender<Box<Received>>,
}

impl Supervisor {
    /// Works until `stop` is requested, then a moment longer for what is on its way out. The end
    /// closes the stream of accepted messages.
    pub(crate) async fn run(mut self, stop: Stop) {
        loop {
            if let Some(mut event_loop) = self.event_loop.take() {
                let running = event_loop.run(
                    &mut self.inspector,
                    &mut self.commands,
                    &self.messages,
                    &stop,
                );
                match AssertUnwindSafe(running).catch_unwind().await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(error = %sovereign_service::chain(&error), "the swarm ended, building it again");
                    }
                    Err(_panic) => tracing::error!("the swarm panicked, building it again"),
                }
                self.shared.metrics.swarm_restarts.inc();
            }
            // What is known about peers died with the swarm.
            self.shared.state.send_replace(State::default());
            match self.rebuild(&stop).await {
                Some(Ok(event_loop)) => self.event_loop = Some(event_loop),
                Some(Err(error)) => {
                    tracing::error!(error = %sovereign_service::chain(&error), "the swarm cannot be built, trying again");
                }
                None => return,
            }
        }
    }

    /// Builds a new event loop after a wait; absent when `stop` was requested before. Meanwhile every
    /// command is refused by dropping it, so that nobody waits for a swarm that may not come.
    async fn rebuild(&mut self, stop: &Stop) -> Option<Result<EventLoop, SwarmError>> {
        let building = async {
            tokio::time::sleep(RESTART_WAIT).await;
            EventLoop::start(self.shared.clone()).await
        };
        tokio::pin!(building);
        loop {
            tokio::select! {
                built = &mut building => return Some(built),
                () = stop.requested() => return None,
                Some(command) = self.commands.recv() => drop(command),
            }
        }
    }
}

#[cfg(test)]
mod tests;
