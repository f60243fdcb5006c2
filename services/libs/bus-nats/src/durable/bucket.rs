//! The entries of one group in the bucket, as one member writes them.

use async_nats::jetstream::kv;
use futures::{StreamExt, stream};

use super::limited;
use crate::transport::REMOVAL_MARKER_AGE;

/// Requests of one member that the server has at the same time.
pub(super) const MAX_REQUESTS: usize = 32;

pub(super) struct Bucket {
    pub(super) store: kv::Store,
    /// `STREAM.group.`
    pub(super) prefix: String,
    /// The member.
    pub(super) me: String,
}

/// What became of an attempt to take a key.
pub(super) enum Claim {
    /// It is ours, by this revision.
    Taken(u64),
    /// It is as the bucket says.
    Refused(Option<kv::Entry>),
    /// Nobody answered.
    Unknown(async_nats::Error),
}

/// A key, and the revision by which a member knows its owner; `None` when it has none.
pub(super) type Known = (String, Option<u64>);

impl Bucket {
    /// Everything that is there, and what comes.
    pub(super) async fn watch(&self) -> Result<kv::Watch, async_nats::Error> {
        let entries = format!("{}>", self.prefix);
        limited(self.store.watch_with_history(entries)).await
    }

    /// How far the group had seen the stream.
    pub(super) async fn seen(&self) -> Result<Option<u64>, async_nats::Error> {
        let recorded = limited(self.store.get(format!("{}seen", self.prefix))).await?;
        Ok(recorded.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
    }

    pub(super) async fn record_seen(&self, seen: u64) -> Result<u64, async_nats::Error> {
        let entry = format!("{}seen", self.prefix);
        limited(self.store.put(entry, seen.to_string().into())).await
    }

    /// Says that the member is there.
    pub(super) async fn announce(&self, seen: u64) -> Result<u64, async_nats::Error> {
        let entry = format!("{}member.{}", self.prefix, self.me);
        limited(self.store.put(entry, seen.to_string().into())).await
    }

    pub(super) async fn remove_member(&self, member: &str) -> Result<(), async_nats::Error> {
        let entry = format!("{}member.{member}", self.prefix);
        limited(self.store.purge_with_ttl(entry, REMOVAL_MARKER_AGE)).await
    }

    /// Takes keys, each unless it changed since it was known.
    pub(super) async fn claim(&self, keys: Vec<Known>) -> Vec<(String, Claim)> {
        let claims = keys.into_iter().map(|(key, revision)| async move {
            let claim = self.claim_one(&key, revision).await;
            (key, claim)
        });
        stream::iter(claims)
            .buffer_unordered(MAX_REQUESTS)
            .collect()
            .await
    }

    async fn claim_one(&self, key: &str, revision: Option<u64>) -> Claim {
        let entry = format!("{}key.{key}", self.prefix);
        let value = self.me.clone().into();
        let claimed = match revision {
            Some(revision) => limited(self.store.update(&entry, value, revision)).await,
            None => limited(self.store.create(&entry, value)).await,
        };
        match claimed {
            Ok(revision) => Claim::Taken(revision),
            // Whatever the reason was, the entry says what to do next.
            Err(_refused) => match limited(self.store.entry(entry)).await {
                Ok(entry) => Claim::Refused(entry),
                Err(error) => Claim::Unknown(error),
            },
        }
    }

    /// Takes the entries of keys back, each unless it changed since it was known. Returns those that are
    /// no more.
    pub(super) async fn release(&self, keys: Vec<(String, u64)>) -> Vec<String> {
        let releases = keys.into_iter().map(|(key, revision)| async move {
            let entry = format!("{}key.{key}", self.prefix);
            let purge =
                self.store
                    .purge_expect_revision_with_ttl(&entry, revision, REMOVAL_MARKER_AGE);
            match limited(purge).await {
                Ok(()) => Some(key),
                Err(error) => {
                    tracing::debug!(key, %error, "a key is not given back");
                    None
                }
            }
        });
        stream::iter(releases)
            .buffer_unordered(MAX_REQUESTS)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}
