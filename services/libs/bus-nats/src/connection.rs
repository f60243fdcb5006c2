//! The connection to the server: live messages, streams and what is stored on them.

use std::{collections::HashMap, error::Error as _, pin::pin, task::Poll, time::Duration};

use async_nats::{
    Client, Subject, Subscriber,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{AccountError, ContextBuilder, PublishError, PublishErrorKind},
        stream,
    },
};
use futures::{StreamExt, poll};
use sovereign_bus::{
    Appended,
    transport::{DurableSpec, Filter, RawMessage, TransportError},
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::headers::nats_from_headers;

/// Longest time that storing a message may take, waiting for a reconnection included.
pub const APPEND_LIMIT: Duration = Duration::from_secs(5);

/// Longest time for a request to the server that is not an append.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Longest time that closing waits for tasks to give their deliveries back: after it, they wait until their
/// member counts as gone.
const TASKS_LIMIT: Duration = Duration::from_secs(2);

/// Longest time that closing waits until what was said has left, once before the tasks end and once
/// after. With [`TASKS_LIMIT`] it is less than the five seconds that a process gives its bus.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Longest time that a live message may wait for the connection, whose server reads too slowly.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// Appends that wait for their acknowledgement. At the bound `append` waits.
const MAX_APPENDS: usize = 4096;

/// Longest time that message ids of a stream are remembered: the server keeps them in memory.
const MAX_DUPLICATE_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The client and what is known of the server. Tasks hold it, and do not keep the bus open with it.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// For appends: many in flight, each acknowledged on its own.
    appends: jetstream::Context,
    /// For everything else.
    pub(crate) jetstream: jetstream::Context,
    pub(crate) replicas: usize,
    partitions: u16,
    streams: Mutex<HashMap<&'static str, Stream>>,
    /// Cancelled when the bus is closed, or its last handle is gone.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// A stream's handle; its state is asked for when needed.
pub(crate) type Stream = stream::Stream<()>;

/// What handles, mailboxes and consumers hold: the last one ends the tasks.
pub(crate) struct Alive {
    stop: CancellationToken,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Alive {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop }
    }
}

impl Connection {
    pub(crate) fn new(client: Client, replicas: usize, partitions: u16) -> Self {
        let appends = ContextBuilder::new()
            .timeout(APPEND_LIMIT)
            .ack_timeout(APPEND_LIMIT)
            .max_ack_inflight(MAX_APPENDS)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let jetstream = ContextBuilder::new()
            .timeout(REQUEST_LIMIT)
            .build(client.clone());
        Self {
            client,
            appends,
            jetstream,
            replicas,
            partitions,
            streams: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) async fn check_jetstream(&self) -> Result<(), AccountError> {
        self.jetstream.query_account().await.map(drop)
    }

    pub(crate) fn check_open(&self) -> Result<(), TransportError> {
        if self.stop.is_cancelled() {
            return Err(TransportError::Closed);
        }
        Ok(())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn check_connected(&self, operation: &'static str) -> Result<(), TransportError> {
        if self.is_connected() {
            return Ok(());
        }
        Err(TransportError::failed(operation, "NATS is not connected"))
    }

    pub(crate) async fn publish(&self, message: RawMessage) -> Result<(), TransportError> {
        const OPERATION: &str = "publish";
        self.check_open()?;
        // The client would queue it for the next connection, and then make publishers wait.
        self.check_connected(OPERATION)?;
        let subject = Subject::from(&*message.subject);
        let mut publish = pin!(self.client.publish(subject, message.payload));
        // Without a look at the clock where there is room, as there nearly always is.
        let published = match poll!(publish.as_mut()) {
            Poll::Ready(published) => published,
            Poll::Pending => {
                let waited = timeout(PUBLISH_LIMIT, publish).await;
                waited.map_err(|_elapsed| TransportError::TimedOut {
                    operation: OPERATION,
                    limit: PUBLISH_LIMIT,
                })?
            }
        };
        published.map_err(|error| TransportError::failed(OPERATION, error))
    }

    pub(crate) async fn subscribe(&self, filter: &Filter) -> Result<Subscriber, TransportError> {
        self.check_open()?;
        let subscriber = self
            .client
            .subscribe(filter.subject().to_owned())
            .await
            .map_err(|error| TransportError::failed("subscribe", error))?;
        self.round_trip().await?;
        Ok(subscriber)
    }

    /// Sends a message to itself: when it is back, the server has handled all that was sent before.
    async fn round_trip(&self) -> Result<(), TransportError> {
        const OPERATION: &str = "wait for the server";
        let inbox = self.client.new_inbox();
        let answer = async {
            let mut echo = self
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(|error| TransportError::failed(OPERATION, error))?;
            self.client
                .publish(inbox, bytes::Bytes::new())
                .await
                .map_err(|error| TransportError::failed(OPERATION, error))?;
            echo.next().await.map(drop).ok_or(TransportError::Closed)
        };
        timeout(REQUEST_LIMIT, answer)
            .await
            .map_err(|_elapsed| TransportError::TimedOut {
                operation: OPERATION,
                limit: REQUEST_LIMIT,
            })?
    }

    /// Stores a message; says its sequence on the stream too.
    pub(crate) async fn append(
        &self,
        topic: &DurableSpec,
        message: RawMessage,
    ) -> Result<(Appended, u64), TransportError> {
        const OPERATION: &str = "store on the stream";
        self.check_open()?;
        // The client would wait for the next connection.
        self.check_connected(OPERATION)?;
        let store = async {
            self.stream(topic).await?;
            let headers = nats_from_headers(&message.headers);
            let subject = message.subject.to_string();
            let acknowledgement = self
                .appends
                .publish_with_headers(subject, headers, message.payload)
                .await
                .map_err(|error| TransportError::failed(OPERATION, error))?;
            match acknowledgement.await {
                Ok(stored) => Ok(stored),
                Err(error) => {
                    if error.kind() == PublishErrorKind::StreamNotFound {
                        // A server that lost its disk: the next append makes the stream again.
                        self.streams.lock().await.remove(topic.pattern);
                    }
                    if is_full(&error) {
                        let why =
                            format!("the stream {} takes no more", stream_name(topic.pattern));
                        return Err(TransportError::Full(why));
                    }
                    Err(TransportError::failed(OPERATION, error))
                }
            }
        };
        let stored =
            timeout(APPEND_LIMIT, store)
                .await
                .map_err(|_elapsed| TransportError::TimedOut {
                    operation: OPERATION,
                    limit: APPEND_LIMIT,
                })??;
        let appended = if stored.duplicate {
            Appended::Duplicate
        } else {
            Appended::Stored
        };
        Ok((appended, stored.sequence))
    }

    pub(crate) async fn stream(&self, topic: &DurableSpec) -> Result<Stream, TransportError> {
        let mut streams = self.streams.lock().await;
        if let Some(stream) = streams.get(topic.pattern) {
            return Ok(stream.clone());
        }
        let stream = self.make_stream(topic).await?;
        streams.insert(topic.pattern, stream.clone());
        Ok(stream)
    }

    pub(crate) async fn make_stream(&self, topic: &DurableSpec) -> Result<Stream, TransportError> {
        const OPERATION: &str = "open the stream";
        let name = stream_name(topic.pattern);
        let subject_transform = self.transform(topic.pattern);
        // What is stored has its place: in other partitions the order of a key would be lost.
        if let Ok(stream) = self.jetstream.get_stream(&name).await
            && stream.cached_info().config.subject_transform != subject_transform
        {
            return Err(TransportError::failed(
                OPERATION,
                format!(
                    "the stream {name} was made with another number of partitions than {}: \
                     configure that number, or delete the stream",
                    self.partitions
                ),
            ));
        }
        self.jetstream
            .create_or_update_stream(stream::Config {
                name: name.clone(),
                subjects: vec![topic.pattern.to_owned()],
                subject_transform,
                max_bytes: i64::try_from(topic.retention.max_bytes).unwrap_or(i64::MAX),
                duplicate_window: topic.retention.keep_read.min(MAX_DUPLICATE_WINDOW),
                // What was not read is never removed by the server; see the keeper.
                discard: stream::DiscardPolicy::New,
                retention: stream::RetentionPolicy::Limits,
                storage: stream::StorageType::File,
                num_replicas: self.replicas,
                ..stream::Config::default()
            })
            .await
            .map_err(|error| TransportError::failed(OPERATION, error))?;
        let stream = self.jetstream.get_stream_no_info(&name).await;
        stream.map_err(|error| TransportError::failed(OPERATION, error))
    }

    /// Partitions of a topic: one where it has no keys.
    pub(crate) fn partitions(&self, pattern: &str) -> u16 {
        if pattern.contains('*') {
            self.partitions
        } else {
            1
        }
    }

    /// Stores `drone.7.capture` as `12.drone.7.capture`: publishers and live readers know nothing of it.
    fn transform(&self, pattern: &str) -> Option<stream::SubjectTransform> {
        pattern.contains('*').then(|| stream::SubjectTransform {
            source: pattern.to_owned(),
            destination: format!(
                "{{{{partition({},1)}}}}.{}",
                self.partitions,
                pattern.replacen('*', "{{wildcard(1)}}", 1)
            ),
        })
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        // First: what was published leaves also where giving deliveries back takes too long.
        said_within(FLUSH_LIMIT, async { Ok(self.client.flush().await?) }).await;
        if timeout(TASKS_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!(limit = ?TASKS_LIMIT, "deliveries were not given back in time");
        }
        let farewell = async {
            // Draining only asks for it: what was said has left when the flush is done.
            self.client.flush().await?;
            Ok(self.client.drain().await?)
        };
        said_within(FLUSH_LIMIT, farewell).await;
    }
}

/// Whether the server has no room: in the stream, or on its disk.
fn is_full(error: &PublishError) -> bool {
    const INSUFFICIENT_STORAGE: u64 = 10047;
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<jetstream::Error>());
    cause.is_some_and(|cause| {
        [
            ErrorCode::STREAM_STORE_FAILED,
            ErrorCode::INSUFFICIENT_RESOURCES,
        ]
        .contains(&cause.error_code())
            || cause.error_code().0 == INSUFFICIENT_STORAGE
    })
}

async fn said_within(
    limit: Duration,
    farewell: impl Future<Output = Result<(), async_nats::Error>>,
) {
    match timeout(limit, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the connection was gone before its end"),
        Err(_elapsed) => tracing::warn!(?limit, "NATS did not take in time what was said"),
    }
}

pub(crate) fn stream_name(pattern: &str) -> String {
    let tokens = pattern.split('.').filter(|token| *token != "*");
    tokens.collect::<Vec<_>>().join("_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_after_its_topic() {
        assert_eq!(stream_name("drone.*.capture"), "DRONE_CAPTURE");
        assert_eq!(stream_name("checkpoint.stored"), "CHECKPOINT_STORED");
    }
}
