//! The transport of one process: live messages in memory, durable ones in the journal.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sovereign_disk::Found;
use thiserror::Error;

use crate::{
    DEFAULT_PAYLOAD_LIMIT, Key,
    journal::Journal,
    mailbox::MailboxSink,
    transport::{
        self, Appended, BoxFuture, DurableSpec, Filter, RawConsumer, RawMessage, SubscriptionGuard,
        Transport, TransportError,
    },
};

/// The journal could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its folder could not be made.
    #[error("make the folder of the journal {path}")]
    Folder {
        /// Path of the journal.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file could not be opened: another process has it, or it is damaged.
    #[error("open the journal")]
    Open(#[from] sovereign_disk::OpenDatabaseError),
    /// The file was opened and does not hold what a journal holds.
    #[error("read the journal {path}")]
    Read {
        /// Path of the journal.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<redb::Error>,
    },
    /// The writer's thread could not be started.
    #[error("start the journal's writer")]
    Writer(#[source] std::io::Error),
}

pub(crate) struct MemoryTransport {
    live: Arc<Live>,
    journal: Arc<Journal>,
}

#[derive(Default)]
struct Live {
    subscriptions: RwLock<Vec<Subscription>>,
    next_id: AtomicU64,
    closed: AtomicBool,
}

struct Subscription {
    id: u64,
    filter: Filter,
    sink: MailboxSink,
}

struct Guard {
    live: Arc<Live>,
    id: u64,
}

impl MemoryTransport {
    pub(crate) fn open(journal_path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            live: Arc::default(),
            journal: Arc::new(Journal::open(journal_path)?),
        })
    }
}

impl Transport for MemoryTransport {
    fn payload_limit(&self) -> usize {
        DEFAULT_PAYLOAD_LIMIT
    }

    fn publish(&self, message: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        let result = self.live.publish(&message);
        Box::pin(std::future::ready(result))
    }

    fn subscribe(
        &self,
        filter: Filter,
        sink: MailboxSink,
    ) -> BoxFuture<'_, Result<SubscriptionGuard, TransportError>> {
        let result = self.live.subscribe(filter, sink);
        Box::pin(std::future::ready(result))
    }

    fn append<'a>(
        &'a self,
        topic: &'a DurableSpec,
        key: Option<&'a Key>,
        message: RawMessage,
    ) -> BoxFuture<'a, Result<Appended, TransportError>> {
        Box::pin(self.journal.append(topic, key, message))
    }

    fn consume<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn RawConsumer>, TransportError>> {
        let result = self.journal.consume(topic, group);
        Box::pin(std::future::ready(result))
    }

    fn rewind<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        let result = self.journal.rewind(topic, group);
        Box::pin(std::future::ready(result))
    }

    fn found(&self) -> Option<&Found> {
        Some(self.journal.found())
    }

    fn failed(&self) -> BoxFuture<'_, TransportError> {
        Box::pin(self.journal.failed())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.live.close();
            self.journal.close().await;
        })
    }
}

impl Live {
    fn publish(&self, message: &RawMessage) -> Result<(), TransportError> {
        let subscriptions = self
            .subscriptions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(TransportError::Closed);
        }
        for subscription in subscriptions.iter() {
            if subscription.filter.matches(&message.subject) {
                subscription.sink.push(message.clone());
            }
        }
        Ok(())
    }

    fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        sink: MailboxSink,
    ) -> Result<SubscriptionGuard, TransportError> {
        let mut subscriptions = self
            .subscriptions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(TransportError::Closed);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        subscriptions.push(Subscription { id, filter, sink });
        Ok(Box::new(Guard {
            live: Arc::clone(self),
            id,
        }))
    }

    fn close(&self) {
        let mut subscriptions = self
            .subscriptions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        for subscription in subscriptions.drain(..) {
            subscription.sink.close();
        }
    }
}

impl transport::Subscription for Guard {}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut subscriptions = self
            .live
            .subscriptions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        subscriptions.retain(|subscription| subscription.id != self.id);
    }
}
