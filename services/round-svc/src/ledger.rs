//! Decides on rounds: opens those of this node, closes them when their time is over, and keeps what peers
//! say. A round is what the store says it is; the topic `round.<id>.record` only hints at its log.

use std::sync::Arc;
use std::time::Duration;

use sovereign_bus::{Bus, Delivery, Key};
use sovereign_proto::topics::ROUND_RECORD;
use sovereign_service::{Clock, RunError, Stop, acknowledge, chain};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::{Event, Round, Wanted};
use crate::error::{RoundError, StoreError};
use crate::metrics::Metrics;
use crate::store::{Kept, MAX_ROUNDS_PER_ORIGIN, Records, Store};
use crate::wire::{Models, PeerRound, record_from_round, round_from_record};

/// The clock is looked at this often, because it may be set while we wait for a round to close.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) models: Models,
    pub(crate) node_id: String,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// A round was opened, which may be the next to close.
    pub(crate) opened: Arc<Notify>,
}

impl Ledger {
    /// Opens a round; it is on disk when it returns.
    pub(crate) async fn open(&self, wanted: Wanted) -> Result<Round, RoundError> {
        self.models.check(wanted.model).await?;
        let (id, now) = (Uuid::new_v4().to_string(), self.clock.now());
        let terms = wanted
            .terms(id.clone(), self.node_id.clone(), now)
            .map_err(RoundError::Impossible)?;
        match self.apply(String::new(), id, Event::Opened(terms)).await? {
            Kept::Changed { round, .. } => {
                self.metrics.opened.inc();
                self.opened.notify_one();
                self.hint(&round).await;
                Ok(round)
            }
            // No other round has a new id, and this node is no peer.
            Kept::TooManyOpen | Kept::Known | Kept::TooManyPeers => Err(RoundError::TooManyOpen {
                limit: MAX_ROUNDS_PER_ORIGIN,
            }),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Round>, RoundError> {
        let store = self.store.clone();
        blocking(move || store.list()).await
    }

    pub(crate) async fn records(&self, after: u64, limit: usize) -> Result<Records, RoundError> {
        let store = self.store.clone();
        blocking(move || store.records(after, limit)).await
    }

    /// Closes the rounds of this node, each when its time is over, those first whose time was over before
    /// the start.
    pub(crate) async fn close_expired(self, stop: Stop) -> Result<(), RunError> {
        loop {
            let next = self
                .close_due()
                .await
                .map_err(|error| RunError::new("close rounds", error))?;
            let wait = next.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.opened.notified() => {}
                () = stop.requested() => return Ok(()),
            }
        }
    }

    async fn close_due(&self) -> Result<Option<Duration>, RoundError> {
        let store = self.store.clone();
        let (now, mut next) = (self.clock.now(), None);
        for (closes, id) in blocking(move || store.open_rounds()).await? {
            if closes > now {
                let wait = closes.since(now);
                next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
            } else if let Kept::Changed { round, .. } =
                self.apply(String::new(), id, Event::Expired).await?
            {
                self.metrics.closed.inc();
                tracing::info!(round = round.terms.round_id, "round closed");
                self.hint(&round).await;
            }
        }
        Ok(next)
    }

    pub(crate) async fn hear(self, delivery: Delivery<PeerRound>) -> Result<(), RunError> {
        let PeerRound { peer_id, record } = delivery.message.clone();
        // An empty origin would pass for this node.
        let record = record.filter(|_| !peer_id.is_empty());
        let said = record.and_then(|record| round_from_record(peer_id, record));
        let kept = match said.filter(|said| said.terms.check(self.clock.now()).is_ok()) {
            Some(said) => {
                let (origin, id) = (said.terms.origin.clone(), said.terms.round_id.clone());
                let kept = self.apply(origin, id, said.into()).await;
                Some(kept.map_err(|error| RunError::new("keep a round of a peer", error))?)
            }
            None => None,
        };
        match kept {
            Some(Kept::Changed { .. }) => {
                self.metrics.received.inc();
            }
            Some(Kept::Known) => {}
            Some(Kept::TooManyPeers | Kept::TooManyOpen) | None => {
                self.metrics.rejected.inc();
            }
        }
        acknowledge(delivery).await;
        Ok(())
    }

    async fn apply(&self, origin: String, id: String, event: Event) -> Result<Kept, RoundError> {
        let (store, now) = (self.store.clone(), self.clock.now());
        let kept = blocking(move || store.apply(&origin, &id, event, now)).await?;
        if let Kept::Changed { dropped, .. } = kept {
            self.metrics.dropped.inc_by(dropped as u64);
        }
        Ok(kept)
    }

    async fn hint(&self, round: &Round) {
        let key = Key::parse(&round.terms.round_id).ok();
        let record = record_from_round(round);
        let published = self.bus.publish(&ROUND_RECORD, key.as_ref(), &record).await;
        if let Err(error) = published {
            self.metrics.hints_lost.inc();
            tracing::debug!(error = %chain(&error), "a record is in the log without a hint");
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RoundError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(RoundError::Blocking(error)),
    }
}
