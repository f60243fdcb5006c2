//! Records that were taken from the bus and that no peer is known to have: on disk, in order.
//!
//! A record goes in before it is acknowledged to the bus, and leaves when its publication is
//! confirmed. So the bus hands out the next record of a key at once, and neither a dead link nor a
//! restart loses what was sent over it.

use std::time::Duration;

use sovereign_service::RunError;

use crate::domain::unconfirmed::Unconfirmed;
use crate::error::StoreError;
use crate::store::Store;

/// Records kept; while there are as many no more are taken from the bus, where they wait as well.
const CAPACITY: u64 = 4096;

/// One queue of records; the numbers of the records go up.
#[derive(Debug)]
pub(crate) struct Outbox {
    store: Store,
    queue: &'static str,
    first: u64,
    /// The one to be published next.
    unsent: u64,
    end: u64,
    unconfirmed: Unconfirmed<u64>,
}

impl Outbox {
    /// The queue as it was left: everything in it is published again.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails.
    pub(crate) fn open(store: Store, queue: &'static str) -> Result<Self, StoreError> {
        let kept = store.records(queue)?;
        Ok(Self {
            store,
            queue,
            first: kept.start,
            unsent: kept.start,
            end: kept.end,
            unconfirmed: Unconfirmed::new(),
        })
    }

    /// Whether another record may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.end - self.first < CAPACITY
    }

    /// Puts a record behind the others; on disk when it returns.
    ///
    /// # Errors
    ///
    /// When the store fails, as in the methods below.
    pub(crate) async fn push(&mut self, record: Vec<u8>) -> Result<(), RunError> {
        let number = self.end;
        self.blocking(move |store, queue| store.keep_record(queue, number, &record))
            .await?;
        self.end += 1;
        Ok(())
    }

    /// The record to be published next, if there is one; an error when it is gone from the store, which
    /// would block those behind it for ever and unseen.
    pub(crate) async fn unsent(&mut self) -> Result<Option<Vec<u8>>, RunError> {
        if self.unsent == self.end {
            return Ok(None);
        }
        let number = self.unsent;
        let record = self.blocking(move |store, queue| store.record(queue, number));
        record.await.map(Some)
    }

    /// It was published, at `at` or later.
    pub(crate) fn published(&mut self, at: Duration) {
        self.unconfirmed.published(at, self.unsent);
        self.unsent += 1;
    }

    /// Drops what is confirmed at `now`, and goes back to what is lost; true when something is.
    /// `linked_since` is since when some peer has been subscribed without interruption.
    pub(crate) async fn settle(
        &mut self,
        now: Duration,
        linked_since: Option<Duration>,
    ) -> Result<bool, RunError> {
        let settled = self.unconfirmed.settle(now, linked_since);
        if let Some(through) = settled.confirmed {
            self.blocking(move |store, queue| store.delete_records(queue, through))
                .await?;
            self.first = through + 1;
        }
        if settled.lost {
            self.unsent = self.first;
        }
        Ok(settled.lost)
    }

    /// When [`Self::settle`] has something to drop if every link holds; absent when it has not.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.unconfirmed.next()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(Store, &'static str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, RunError> {
        let (store, queue) = (self.store.clone(), self.queue);
        tokio::task::spawn_blocking(move || call(store, queue))
            .await
            .map_err(|error| RunError::new("use the export store", error))?
            .map_err(|error| RunError::new("export records", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::unconfirmed::CONFIRMATION;

    fn open(dir: &std::path::Path) -> Outbox {
        Outbox::open(Store::open(dir, "north").unwrap(), "rounds").unwrap()
    }

    /// Publishes everything there is at `at` and says what that was.
    async fn publish_all(outbox: &mut Outbox, at: Duration) -> Vec<u8> {
        let mut published = Vec::new();
        while let Some(record) = outbox.unsent().await.unwrap() {
            published.extend(record);
            outbox.published(at);
        }
        published
    }

    #[tokio::test]
    async fn what_a_dead_link_took_is_published_again_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = open(dir.path());
        for record in 1..=3 {
            outbox.push(vec![record]).await.unwrap();
        }
        let at = Duration::from_secs(10);
        let linked = Some(Duration::from_secs(5));
        assert_eq!(publish_all(&mut outbox, at).await, [1, 2, 3]);
        assert!(!outbox.settle(at, linked).await.unwrap());
        assert_eq!(outbox.unsent().await.unwrap(), None);
        outbox.push(vec![4]).await.unwrap();
        assert!(outbox.settle(at, None).await.unwrap());
        assert_eq!(publish_all(&mut outbox, at).await, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn only_what_is_not_confirmed_is_published_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = open(dir.path());
        let linked = Some(Duration::ZERO);
        for (record, second) in [(1, 10), (2, 20)] {
            outbox.push(vec![record]).await.unwrap();
            publish_all(&mut outbox, Duration::from_secs(second)).await;
        }
        let now = Duration::from_secs(10) + CONFIRMATION;
        assert_eq!(outbox.next(), Some(now));
        assert!(!outbox.settle(now, linked).await.unwrap());
        drop(outbox);
        let mut outbox = open(dir.path());
        assert_eq!(publish_all(&mut outbox, now).await, [2]);
        assert!(!outbox.settle(now + CONFIRMATION, linked).await.unwrap());
        drop(outbox);
        assert!(publish_all(&mut open(dir.path()), now).await.is_empty());
    }

    #[tokio::test]
    async fn it_is_full_until_something_is_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "north").unwrap();
        store.keep_record("rounds", 5, &[5]).unwrap();
        let last = 5 + CAPACITY - 1;
        store.keep_record("rounds", last, &[6]).unwrap();
        let mut outbox = Outbox::open(store, "rounds").unwrap();
        assert!(!outbox.has_room());
        assert_eq!(outbox.unsent().await.unwrap(), Some(vec![5]));
        outbox.published(Duration::ZERO);
        let linked = Some(Duration::ZERO);
        assert!(!outbox.settle(CONFIRMATION, linked).await.unwrap());
        assert!(outbox.has_room());
        // The sixth is missing in this store, and that is no end of the queue.
        assert!(outbox.unsent().await.is_err());
    }
}
