//! What this node tells its peers: what its logs of map changes, checkpoints and rounds say, and hello.
//!
//! Only these four, and only of this node: the logs are those of its own services, and
//! [`crate::import`] writes to none of them. Nothing is skipped while the node is an island, because the
//! logs keep it; live topics only say that there is more. What GossipSub took is not done yet, because the
//! link may be dead: the position on disk stays where it was until [`crate::domain::unconfirmed`] calls it
//! confirmed, and what comes after it is published again when the link or the process ends before. It
//! carries the same message id then, and peers that have it drop it.

use std::time::Duration;

use futures::FutureExt as _;
use sovereign_bus::Mailbox;
use sovereign_service::{Clock, RunError, Stop, chain};
use uuid::Uuid;

use crate::domain::cursor::{Cursor, Page, Position, Resumed};
use crate::domain::envelope::{Kind, MAX_HELLO_ADDRS, Topic};
use crate::error::{PublishRefused, StoreError};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::swarm::Client;
use crate::wire::{Body, Hello, Log, seal, seal_content};

const PAGE: u32 = 100;
/// Without a hint the owner of a log is asked this often, so that a lost hint costs a minute at most.
const UNHINTED: Duration = Duration::from_secs(60);
/// Wait after the first refusal or failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A hello is repeated this often, so that nodes find each other again after the network was split.
const HELLO_INTERVAL: Duration = Duration::from_secs(60);

/// The gateway is stopping; what was being exported is exported after the next start.
#[derive(Debug)]
struct Stopping;

#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    pub(crate) client: Client,
    pub(crate) node_id: String,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
}

impl Exporter {
    /// Exports a log from where the store says, now and whenever a hint says that there is more.
    pub(crate) async fn follow<L: Log, M: prost::Message + Default>(
        self,
        mut log: L,
        mut hints: Mailbox<M>,
    ) -> Result<(), RunError> {
        let position = self.blocking(|store| store.position(L::NAME)).await?;
        let mut cursor = Cursor::new(position);
        let mut state = self.client.watch();
        loop {
            // An island asks for nothing: what it would say is safe in the log.
            if self.wait_for_subscriber(L::KIND.topic()).await.is_err() {
                return Ok(());
            }
            let linked_since = state.borrow_and_update().linked_since(L::KIND.topic());
            let settled = cursor.settle(self.client.now(), linked_since);
            if let Some(through) = settled.confirmed {
                self.keep::<L>(through).await?;
            }
            if settled.lost {
                self.metrics.export_rewinds.inc();
            }
            let Ok(page) = self.page(&mut log, cursor.after()).await else {
                return Ok(());
            };
            let entries = match cursor.resume(page) {
                Resumed::At { entries, missed } => {
                    if missed > 0 {
                        self.metrics.export_missed.inc_by(missed);
                        let log = L::NAME;
                        tracing::warn!(log, missed, "entries were gone before they were exported");
                    }
                    entries
                }
                Resumed::Anew => {
                    tracing::warn!(
                        log = L::NAME,
                        "the log began anew, exporting it from its start"
                    );
                    self.keep::<L>(cursor.confirmed()).await?;
                    continue;
                }
            };
            if entries.is_empty() {
                let wait = cursor.next().map_or(UNHINTED, |next| {
                    next.saturating_sub(self.client.now()).min(UNHINTED)
                });
                tokio::select! {
                    open = hinted(&mut hints) => if !open { return Ok(()) },
                    changed = state.changed() => if changed.is_err() { return Ok(()) },
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.requested() => return Ok(()),
                }
                continue;
            }
            for entry in entries {
                let Ok(published) = self.publish_all(L::KIND, entry.content).await else {
                    return Ok(());
                };
                cursor.published(published, entry.position);
                self.metrics.exported(L::NAME, entry.position);
                // Perhaps the link is lost, and what went over it comes first.
                if state.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }

    pub(crate) async fn hello(self, mode: &'static str) {
        loop {
            if self.wait_for_subscriber(Topic::Rounds).await.is_err() {
                return;
            }
            let listen = self.client.state().listen;
            let listen = listen.iter().take(MAX_HELLO_ADDRS);
            let body = Body::Hello(Hello {
                mode: mode.to_owned(),
                listen_addrs: listen.map(ToString::to_string).collect(),
            });
            let id = Uuid::new_v4().to_string();
            let data = seal(&self.node_id, id, body, self.clock.now());
            let published = self.publish(Topic::Rounds, Kind::Hello, data).await;
            if published.is_err() {
                return;
            }
            // Alone again means new peers later, who have not heard it.
            let mut state = self.client.watch();
            tokio::select! {
                () = tokio::time::sleep(HELLO_INTERVAL) => {}
                _ = state.wait_for(|state| state.subscribers(Topic::Rounds) == 0) => {}
                () = self.stop.requested() => return,
            }
        }
    }

    async fn publish_all(&self, kind: Kind, bodies: Vec<Body>) -> Result<Duration, Stopping> {
        let mut first = None;
        for body in bodies {
            let data = seal_content(&self.node_id, body, self.clock.now());
            let published = self.publish(kind.topic(), kind, data).await?;
            first.get_or_insert(published);
        }
        Ok(first.unwrap_or_else(|| self.client.now()))
    }

    async fn publish(&self, topic: Topic, kind: Kind, data: Vec<u8>) -> Result<Duration, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            self.wait_for_subscriber(topic).await?;
            if let Some(published) = self.attempt(topic, kind, data.clone()).await {
                return Ok(published);
            }
            self.wait(&mut wait).await?;
        }
    }

    /// Publishes once. When GossipSub took it, or later; absent when it is to be tried again.
    async fn attempt(&self, topic: Topic, kind: Kind, data: Vec<u8>) -> Option<Duration> {
        // Before it is sent: whoever subscribes in between may not get it.
        let at = self.client.now();
        let Err(refused) = self.client.publish(topic, data).await else {
            self.metrics.count_published(kind);
            return Some(at);
        };
        match refused {
            // Trying again cannot help; counted and said, so that it does not block what follows.
            PublishRefused::TooLarge { size, limit } => {
                self.metrics.export_too_large.inc();
                tracing::error!(
                    kind = kind.label(),
                    size,
                    limit,
                    "an export fits no message"
                );
                Some(at)
            }
            PublishRefused::NoSubscriber { .. }
            | PublishRefused::Busy
            | PublishRefused::TooFast { .. }
            | PublishRefused::Sign(_)
            | PublishRefused::Restarting => {
                self.metrics.export_retries.inc();
                tracing::debug!(reason = %chain(&refused), "an export waits");
                None
            }
        }
    }

    async fn wait_for_subscriber(&self, topic: Topic) -> Result<(), Stopping> {
        let mut state = self.client.watch();
        tokio::select! {
            found = state.wait_for(|state| state.subscribers(topic) > 0) => {
                found.map(|_| ()).map_err(|_| Stopping)
            }
            () = self.stop.requested() => Err(Stopping),
        }
    }

    async fn page<L: Log>(&self, log: &mut L, after: u64) -> Result<Page<Vec<Body>>, Stopping> {
        let mut wait = FIRST_WAIT;
        loop {
            // One more than is new: the last one that was exported.
            match log.page(after, PAGE + 1).await {
                Ok(page) => return Ok(page),
                Err(status) => {
                    self.metrics.export_retries.inc();
                    let (log, code) = (L::NAME, status.code());
                    tracing::warn!(
                        log,
                        ?code,
                        message = status.message(),
                        "the owner of a log did not answer, exports wait"
                    );
                }
            }
            self.wait(&mut wait).await?;
        }
    }

    async fn wait(&self, wait: &mut Duration) -> Result<(), Stopping> {
        let this = *wait;
        *wait = (this * 2).min(LONGEST_WAIT);
        tokio::select! {
            () = tokio::time::sleep(this) => Ok(()),
            () = self.stop.requested() => Err(Stopping),
        }
    }

    async fn keep<L: Log>(&self, position: Position) -> Result<(), RunError> {
        self.blocking(move |store| store.keep_position(L::NAME, position))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, RunError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || call(store))
            .await
            .map_err(|error| RunError::new("use the export store", error))?
            .map_err(|error| RunError::new("export a log", error))
    }
}

/// Waits for a hint and passes over those that wait behind it. False when the bus is closed.
async fn hinted<M: prost::Message + Default>(hints: &mut Mailbox<M>) -> bool {
    let mut open = hints.recv().await.is_some();
    while open && let Some(next) = hints.recv().now_or_never() {
        open = next.is_some();
    }
    open
}
