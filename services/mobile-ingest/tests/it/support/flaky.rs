//! A bus that takes appends, or refuses them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sovereign_bus::transport::{
    BoxFuture, DurableSpec, Filter, MailboxSink, RawConsumer, RawMessage, SubscriptionGuard,
    Transport, TransportError,
};
use sovereign_bus::{Appended, Key};

use super::LIMIT;

pub(crate) struct FlakyTransport {
    fail: Arc<AtomicBool>,
    stored: Mutex<BTreeSet<String>>,
    sinks: Mutex<Vec<MailboxSink>>,
}

impl FlakyTransport {
    pub(crate) fn new(fail: Arc<AtomicBool>) -> Self {
        Self {
            fail,
            stored: Mutex::default(),
            sinks: Mutex::default(),
        }
    }
}

impl Transport for FlakyTransport {
    fn payload_limit(&self) -> usize {
        LIMIT
    }

    fn publish(&self, _: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async { Ok(()) })
    }

    fn subscribe(
        &self,
        _: Filter,
        sink: MailboxSink,
    ) -> BoxFuture<'_, Result<SubscriptionGuard, TransportError>> {
        self.sinks.lock().unwrap().push(sink);
        Box::pin(async { Ok(Box::new(()) as SubscriptionGuard) })
    }

    fn append<'a>(
        &'a self,
        _: &'a DurableSpec,
        _: Option<&'a Key>,
        message: RawMessage,
    ) -> BoxFuture<'a, Result<Appended, TransportError>> {
        Box::pin(async move {
            if self.fail.load(Ordering::SeqCst) {
                return Err(TransportError::failed(
                    "store a message",
                    "the disk is full",
                ));
            }
            let stored = self
                .stored
                .lock()
                .unwrap()
                .insert(message.headers.message_id);
            Ok(if stored {
                Appended::Stored
            } else {
                Appended::Duplicate
            })
        })
    }

    fn consume<'a>(
        &'a self,
        _: &'a DurableSpec,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn RawConsumer>, TransportError>> {
        Box::pin(async { Err(TransportError::Closed) })
    }

    fn rewind<'a>(
        &'a self,
        _: &'a DurableSpec,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async { Err(TransportError::Closed) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for sink in self.sinks.lock().unwrap().iter() {
                sink.close();
            }
        })
    }
}
