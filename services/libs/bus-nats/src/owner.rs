//! Who owns the state of a service: one process at a time, by name.
//!
//! ```text
//! claim -> look -> nobody has it, or a process that is gone ---------> write, then renew until the end
//!               -> another has it -> watch -> silent for a lease ----> write
//!                                          -> renewed -> refused, with who has it
//! ```
//!
//! Whoever writes says which revision it writes over, and the server takes the first of two. How long another
//! is silent is measured here, so no clock of another machine matters.
//!
//! A holder that does not reach the server does not know whether it still holds, and goes on asking: what
//! would be split comes from that server. Once it is back, it is told within [`RENEW_PERIOD`]. An entry that
//! an operator deletes, or that a server loses with its disk, is written again by whoever held it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use bytes::Bytes;
use sovereign_bus::{Claim, Held, OwnError, transport::TransportError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::connection::Connection;

/// Where the server keeps who owns what: one entry for each service.
const BUCKET: &str = "sovereign-owners";

/// Room of the bucket: a thousand times what the services need.
const MAX_BUCKET_BYTES: i64 = 1 << 20;

/// How often a holder says that it is there.
const RENEW_PERIOD: Duration = Duration::from_secs(1);

/// A holder that was silent for so long is gone for others. A server that starts again fits in.
const LEASE: Duration = Duration::from_secs(8);

/// How often one who waits looks.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Longest time that the server may take to answer: a holder asks several times within [`LEASE`].
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Something that this process owns.
pub(crate) struct Owner {
    connection: Arc<Connection>,
    store: kv::Store,
    claim: Claim,
    /// Tells this run from every other.
    token: String,
    /// Of the entry that was written last.
    revision: u64,
}

/// What the server has under a name.
struct Seen {
    /// What to write over; 0 where there is nothing.
    revision: u64,
    holder: Option<Holder>,
}

struct Holder {
    token: String,
    lock: String,
    name: String,
}

impl Owner {
    /// Waits until it is free, for a lease at most.
    pub(crate) async fn claim(connection: Arc<Connection>, claim: Claim) -> Result<Self, OwnError> {
        connection.check_open()?;
        let failed = |error: async_nats::Error| TransportError::failed("claim an ownership", error);
        let store = open(&connection).await.map_err(failed)?;
        let mut owner = Self {
            connection,
            store,
            claim,
            token: uuid::Uuid::new_v4().simple().to_string(),
            revision: 0,
        };
        let mut watched: Option<(u64, Instant)> = None;
        loop {
            let seen = owner.look().await.map_err(failed)?;
            let is_free = match (&seen.holder, watched) {
                (None, _) => true,
                (Some(holder), _) if holder.came_before(&owner.claim) => true,
                (Some(holder), None) => {
                    let (service, holder) = (owner.claim.service, &holder.name);
                    tracing::info!(
                        service,
                        holder,
                        "another has it: waiting for a sign of life"
                    );
                    watched = Some((seen.revision, Instant::now()));
                    false
                }
                (Some(holder), Some((revision, _))) if revision != seen.revision => {
                    return Err(owner.held_by(holder).into());
                }
                (Some(_), Some((_, since))) => since.elapsed() >= LEASE,
            };
            if !is_free {
                sleep(LOOK_PERIOD).await;
            } else if owner.write(seen.revision).await.map_err(failed)? {
                return Ok(owner);
            }
        }
    }

    /// Renews until the bus closes, and gives it back then; or returns who has it now.
    pub(crate) async fn hold(mut self) -> Option<Held> {
        let stop = self.connection.stop.clone();
        let mut beats = interval(RENEW_PERIOD);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(beats.tick()).await.is_some() {
            match self.renew().await {
                Ok(None) => {}
                Ok(held) => return held,
                Err(error) => {
                    let service = self.claim.service;
                    tracing::debug!(service, %error, "an ownership was not renewed");
                    // The server may have lost the bucket.
                    if let Ok(store) = open(&self.connection).await {
                        self.store = store;
                    }
                }
            }
        }
        let (service, revision) = (self.claim.service, Some(self.revision));
        if let Err(error) = answered(self.store.delete_expect_revision(service, revision)).await {
            tracing::debug!(service, %error, "the next one waits until the lease is over");
        }
        None
    }

    async fn renew(&mut self) -> Result<Option<Held>, async_nats::Error> {
        if self.write(self.revision).await? {
            return Ok(None);
        }
        let seen = self.look().await?;
        match seen.holder {
            Some(holder) if holder.token != self.token => Ok(Some(self.held_by(&holder))),
            // Written by this one, whose answer was lost, or gone: written over at the next beat.
            Some(_) | None => {
                self.revision = seen.revision;
                Ok(None)
            }
        }
    }

    async fn look(&self) -> Result<Seen, async_nats::Error> {
        let entry = answered(self.store.entry(self.claim.service)).await?;
        Ok(entry.map_or(
            Seen {
                revision: 0,
                holder: None,
            },
            |entry| Seen {
                revision: entry.revision,
                holder: (entry.operation == Operation::Put)
                    .then(|| Holder::read(&String::from_utf8_lossy(&entry.value))),
            },
        ))
    }

    /// False where another wrote since that revision.
    async fn write(&mut self, over: u64) -> Result<bool, async_nats::Error> {
        let lock = self.claim.lock.as_deref().unwrap_or_default();
        let value = format!("{}\n{lock}\n{}", self.token, self.claim.holder);
        let update = self
            .store
            .update(self.claim.service, Bytes::from(value), over);
        match timeout(ANSWER_LIMIT, update).await? {
            Ok(revision) => {
                self.revision = revision;
                Ok(true)
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn held_by(&self, holder: &Holder) -> Held {
        Held {
            service: self.claim.service,
            holder: holder.name.clone(),
        }
    }
}

impl Holder {
    fn read(text: &str) -> Self {
        let mut lines = text.splitn(3, '\n').map(ToOwned::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Self {
            token: next(),
            lock: next(),
            name: next(),
        }
    }

    fn came_before(&self, claim: &Claim) -> bool {
        claim.lock.as_ref().is_some_and(|lock| *lock == self.lock)
    }
}

async fn open(connection: &Connection) -> Result<kv::Store, async_nats::Error> {
    let config = kv::Config {
        bucket: BUCKET.to_owned(),
        description: "which process owns the state of which service".to_owned(),
        history: 1,
        max_bytes: MAX_BUCKET_BYTES,
        num_replicas: connection.replicas,
        ..kv::Config::default()
    };
    answered(connection.jetstream.create_or_update_key_value(config)).await
}

async fn answered<T, E: Into<async_nats::Error>>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, async_nats::Error> {
    timeout(ANSWER_LIMIT, request).await?.map_err(Into::into)
}
