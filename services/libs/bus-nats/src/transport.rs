//! The transport: live messages over core NATS, durable ones through [`crate::durable`].

use std::sync::Arc;

use async_nats::{Client, jetstream::context::AccountError};
use sovereign_bus::{
    Appended, Claim, DEFAULT_PAYLOAD_LIMIT, Headers, Held, Key, OwnError,
    transport::{
        BoxFuture, DurableSpec, Filter, MailboxSink, RawConsumer, RawMessage, SubscriptionGuard,
        Transport, TransportError,
    },
};
use tokio::{sync::watch, task::unconstrained};

use crate::{
    connection::{Alive, Connection},
    durable::{self, Keepers},
    headers::{self, HEADER_ROOM},
    live::{self, Feed, LiveSubscription},
    owner::Owner,
};

pub(crate) struct NatsTransport {
    connection: Arc<Connection>,
    keepers: Keepers,
    alive: Arc<Alive>,
    /// What another took from this process.
    lost: watch::Sender<Option<Held>>,
}

impl NatsTransport {
    pub(crate) fn new(client: Client, replicas: usize, partitions: u16) -> Self {
        let connection = Connection::new(client, replicas, partitions);
        Self {
            alive: Arc::new(Alive::new(connection.stop.clone())),
            connection: Arc::new(connection),
            keepers: Keepers::default(),
            lost: watch::Sender::default(),
        }
    }

    pub(crate) async fn check_jetstream(&self) -> Result<(), AccountError> {
        self.connection.check_jetstream().await
    }
}

impl Transport for NatsTransport {
    fn payload_limit(&self) -> usize {
        let announced = self
            .connection
            .client
            .max_payload()
            .saturating_sub(HEADER_ROOM);
        announced.min(DEFAULT_PAYLOAD_LIMIT)
    }

    fn trailer_length(&self, headers: &Headers) -> usize {
        headers::trailer_length(headers)
    }

    fn write_trailer(&self, headers: &Headers, payload: &mut Vec<u8>) {
        headers::write_trailer(headers, payload);
    }

    fn publish(&self, message: RawMessage) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(self.connection.publish(message))
    }

    fn subscribe(
        &self,
        filter: Filter,
        sink: MailboxSink,
    ) -> BoxFuture<'_, Result<SubscriptionGuard, TransportError>> {
        Box::pin(async move {
            let subscriber = self.connection.subscribe(&filter).await?;
            let stop = self.connection.stop.child_token();
            let feed = Arc::new(Feed::new(subscriber, sink));
            let sweep = live::sweep(Arc::clone(&feed), stop.clone());
            self.connection.tasks.spawn(unconstrained(sweep));
            let subscription = LiveSubscription::new(feed, stop, Arc::clone(&self.alive));
            let subscription: SubscriptionGuard = Box::new(subscription);
            Ok(subscription)
        })
    }

    fn append<'a>(
        &'a self,
        topic: &'a DurableSpec,
        _key: Option<&'a Key>,
        message: RawMessage,
    ) -> BoxFuture<'a, Result<Appended, TransportError>> {
        Box::pin(async move {
            let own = self.keepers.keep(&self.connection, topic);
            let (appended, sequence) = self.connection.append(topic, message.clone()).await?;
            if appended == Appended::Stored {
                own.remember(sequence, message);
            }
            Ok(appended)
        })
    }

    fn consume<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn RawConsumer>, TransportError>> {
        Box::pin(async move {
            self.connection.check_open()?;
            let alive = Arc::clone(&self.alive);
            self.keepers.keep(&self.connection, topic);
            let consumer = durable::join(Arc::clone(&self.connection), alive, topic, group).await?;
            let consumer: Box<dyn RawConsumer> = Box::new(consumer);
            Ok(consumer)
        })
    }

    fn rewind<'a>(
        &'a self,
        topic: &'a DurableSpec,
        group: &'a str,
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(durable::rewind(&self.connection, topic, group))
    }

    fn own(&self, claim: Claim) -> BoxFuture<'_, Result<(), OwnError>> {
        Box::pin(async move {
            let owner = Owner::claim(Arc::clone(&self.connection), claim).await?;
            let lost = self.lost.clone();
            self.connection.tasks.spawn(async move {
                if let Some(held) = owner.hold().await {
                    lost.send_replace(Some(held));
                }
            });
            Ok(())
        })
    }

    fn failed(&self) -> BoxFuture<'_, TransportError> {
        Box::pin(async {
            let mut lost = self.lost.subscribe();
            match lost.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(held)) => TransportError::failed("keep what it owns", held.clone()),
                // The sender is in `self`, so this is not reached while anybody waits.
                Ok(None) | Err(_) => TransportError::Closed,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.connection.close())
    }
}
