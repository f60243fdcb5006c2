//! Durable topics of one process: one file, one writer.
//!
//! Appends queue up while the writer is in a commit, and the next commit takes them all: many share one
//! sync to disk, and each waits for about one. Acknowledgements are written with the next commit or
//! after [`ACK_DELAY`]; after a crash the messages whose acknowledgement was not written come again.
//!
//! A commit that fails refuses its appends. What the index did beside them, acknowledgements and removals, is
//! owed to the file, and goes with the next commit that succeeds. So a disk that is full for a while costs
//! nothing that was accepted, and the journal goes on once there is room.

mod file;
mod index;

use std::{
    collections::{HashMap, HashSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sovereign_disk::{Database, Found, Space};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SetOnce, oneshot};

use self::{
    file::{EntryRecord, Write},
    index::{Index, MemberId, Next, Outcome, Taken},
};
use crate::{
    Key, OpenError,
    transport::{
        Appended, BoxFuture, DurableSpec, RawConsumer, RawDelivery, RawMessage, Receipt,
        TransportError,
    },
};

/// Longest time that an acknowledgement waits for a commit to be written with.
const ACK_DELAY: Duration = Duration::from_millis(100);

/// How often retention is looked at, and a commit that failed is tried again.
const RETENTION_PERIOD: Duration = Duration::from_secs(1);

/// Payload KiB that wait for the writer. Above it `append` waits for room, in order.
const QUEUE_KIB: u32 = 64 << 10;

/// Appends in one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 1024;

pub(crate) struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    found: Found,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    room: Arc<Semaphore>,
    /// The disk of the file.
    space: Space,
    /// Why the writer ended before the journal closed.
    failure: SetOnce<Arc<redb::Error>>,
    /// For reading; taken away at close, so that the file is free although deliveries are still held.
    database: Mutex<Option<Database>>,
}

struct State {
    index: Index,
    queue: Vec<Pending>,
    unwritten_since: Option<Instant>,
    closing: bool,
}

struct Pending {
    topic: Arc<str>,
    key: String,
    message: RawMessage,
    reply: oneshot::Sender<Result<Appended, TransportError>>,
    /// Stays with the message although its publisher went away.
    _room: OwnedSemaphorePermit,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let (database, contents) = file::open(path)?;
        let found = database.found().clone();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                index: restore(contents),
                queue: Vec::new(),
                unwritten_since: None,
                closing: false,
            }),
            work: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            space: Space::of_file(path),
            failure: SetOnce::new(),
            database: Mutex::new(Some(database.clone())),
        });
        let writer = std::thread::Builder::new()
            .name("bus-journal".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.supervise(|| shared.write(&database))
            })
            .map_err(OpenError::Writer)?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(writer)),
            found,
        })
    }

    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    pub(crate) async fn append(
        &self,
        spec: &DurableSpec,
        key: Option<&Key>,
        message: RawMessage,
    ) -> Result<Appended, TransportError> {
        let full = |error: io::Error| TransportError::Full(error.to_string());
        self.shared.space.check_acceptable().map_err(full)?;
        let room = self.shared.room_for(message.payload.len()).await?;
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(TransportError::Closed);
            }
            if let Some(error) = self.shared.failure.get() {
                return Err(not_written(error));
            }
            let topic = state.index.use_topic(spec);
            state.queue.push(Pending {
                topic,
                key: key.map(Key::to_string).unwrap_or_default(),
                message,
                reply,
                _room: room,
            });
        }
        self.shared.work.notify_one();
        answer.await.map_err(|_closed| TransportError::Closed)?
    }

    pub(crate) async fn failed(&self) -> TransportError {
        not_written(self.shared.failure.wait().await)
    }

    pub(crate) fn consume(
        self: &Arc<Self>,
        spec: &DurableSpec,
        group: &str,
    ) -> Result<Box<dyn RawConsumer>, TransportError> {
        let mut state = self.shared.lock();
        if state.closing {
            return Err(TransportError::Closed);
        }
        let topic = state.index.use_topic(spec);
        let (id, wake) = state.index.join(&topic, group, Instant::now());
        state.note_unwritten();
        drop(state);
        self.shared.work.notify_one();
        Ok(Box::new(JournalConsumer {
            journal: Arc::clone(self),
            id,
            wake,
        }))
    }

    pub(crate) fn rewind(&self, spec: &DurableSpec, group: &str) -> Result<(), TransportError> {
        let mut state = self.shared.lock();
        if state.closing {
            return Err(TransportError::Closed);
        }
        let topic = state.index.use_topic(spec);
        if !state.index.rewind(&topic, group, Instant::now()) {
            let why = format!("the group {group} of {topic} has a member");
            return Err(TransportError::failed("rewind a group", why));
        }
        state.note_unwritten();
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    pub(crate) async fn close(self: &Arc<Self>) {
        let journal = Arc::clone(self);
        if let Err(error) = tokio::task::spawn_blocking(move || journal.stop()).await {
            tracing::error!(%error, "the journal did not close");
        }
    }

    fn stop(&self) {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.index.wake_all();
        }
        self.shared.work.notify_one();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
        self.shared.database().take();
    }
}

fn not_written(error: &Arc<redb::Error>) -> TransportError {
    if let redb::Error::Io(cause) = &**error
        && matches!(
            cause.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::ReadOnlyFilesystem
        )
    {
        return TransportError::Full(cause.to_string());
    }
    TransportError::failed("write to the journal", Arc::clone(error))
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

fn restore(contents: file::Contents) -> Index {
    let mut index = Index::default();
    for (topic, last_number) in contents.numbers {
        index.restore_number(&topic, last_number);
    }
    for (topic, group) in contents.groups {
        index.restore_group(&topic, group);
    }
    for (topic, group, key, acked) in contents.cursors {
        index.restore_cursor(&topic, group, &key, acked);
    }
    for (topic, number, record) in contents.entries {
        index.restore_message(
            &topic,
            number,
            &record.key,
            &record.message_id,
            record.payload_bytes,
        );
    }
    index.restored(Instant::now());
    index
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn room_for(&self, payload_bytes: usize) -> Result<OwnedSemaphorePermit, TransportError> {
        let kib = u32::try_from(payload_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.room)
            .acquire_many_owned(kib.clamp(1, QUEUE_KIB))
            .await
            .map_err(|_closed| TransportError::Closed)
    }

    /// The writer's thread. A panic is a failure as any other: nobody waits for a writer that is gone.
    fn supervise(&self, write: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(write)).is_err() {
            tracing::error!("the journal's writer panicked");
            let error = redb::Error::Io(io::Error::other("the writer panicked"));
            for (reply, answer) in self.fail(&Arc::new(error)) {
                // A publisher that went away does not want its answer.
                drop(reply.send(answer));
            }
        }
    }

    fn write(&self, database: &Database) {
        let mut next_look = Instant::now();
        let mut owed = Vec::new();
        let mut is_failing = false;
        loop {
            let mut state = self.wait_for_work(next_look);
            let closing = state.closing && state.queue.len() <= MAX_BATCH;
            let now = Instant::now();
            // While something is owed nothing is added to it.
            let is_settled = owed.is_empty();
            let mut writes = std::mem::take(&mut owed);
            if is_settled && state.index.retain(now, &mut writes) {
                next_look = now;
            } else if now >= next_look {
                next_look = now + RETENTION_PERIOD;
            }
            let batch_length = state.queue.len().min(MAX_BATCH);
            let batch: Vec<_> = state.queue.drain(..batch_length).collect();
            let acks_due = state.acks_due().is_some_and(|due| due <= now);
            if is_settled && (!batch.is_empty() || !writes.is_empty() || acks_due || closing) {
                state.index.take_unwritten(&mut writes);
                state.unwritten_since = None;
            }
            let prepared = prepare(&state.index, batch, &mut writes);
            drop(state);

            let result = if writes.is_empty() {
                Ok(())
            } else {
                file::commit(database, &writes).map_err(Arc::new)
            };
            if let Err(error) = &result {
                if !is_failing {
                    tracing::error!(%error, "the journal cannot be written");
                }
                is_failing = true;
                owed = writes;
                owed.retain(|write| !matches!(write, Write::Message { .. }));
            } else if is_failing && !writes.is_empty() {
                tracing::info!("the journal is written again");
                is_failing = false;
            }
            self.publish_results(&result, prepared);
            if closing {
                return;
            }
        }
    }

    fn wait_for_work(&self, next_look: Instant) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            let wake_at = state.acks_due().map_or(next_look, |due| due.min(next_look));
            let rest = wake_at.saturating_duration_since(Instant::now());
            if !state.queue.is_empty() || state.closing || rest.is_zero() {
                return state;
            }
            (state, _) = self
                .work
                .wait_timeout(state, rest)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn publish_results(&self, result: &Result<(), Arc<redb::Error>>, prepared: Vec<Prepared>) {
        let now = Instant::now();
        let mut replies = Vec::with_capacity(prepared.len());
        {
            let mut state = self.lock();
            for Prepared { pending, fate } in prepared {
                let answer = match (result, fate) {
                    (_, Fate::Full(limit)) => Err(TransportError::Full(format!(
                        "what was not read of {} takes all of its {} MiB",
                        pending.topic,
                        limit >> 20
                    ))),
                    (Err(error), _) => Err(not_written(error)),
                    (Ok(()), Fate::Duplicate) => Ok(Appended::Duplicate),
                    (Ok(()), Fate::Stored(number)) => {
                        state.index.add_message(
                            &pending.topic,
                            number,
                            &pending.key,
                            pending.message,
                            now,
                        );
                        Ok(Appended::Stored)
                    }
                };
                replies.push((pending.reply, answer));
            }
        }
        for (reply, answer) in replies {
            // A publisher that went away does not want its answer.
            drop(reply.send(answer));
        }
    }

    fn fail(&self, error: &Arc<redb::Error>) -> Vec<Reply> {
        let mut state = self.lock();
        // There is one writer, and it ends once.
        drop(self.failure.set(Arc::clone(error)));
        let refused = state.queue.drain(..);
        refused
            .map(|pending| (pending.reply, Err(not_written(error))))
            .collect()
    }
}

impl State {
    fn note_unwritten(&mut self) {
        self.unwritten_since.get_or_insert_with(Instant::now);
    }

    fn acks_due(&self) -> Option<Instant> {
        self.unwritten_since.map(|since| since + ACK_DELAY)
    }
}

type Reply = (
    oneshot::Sender<Result<Appended, TransportError>>,
    Result<Appended, TransportError>,
);

/// An append of the running batch, and what becomes of it when the commit succeeds.
struct Prepared {
    pending: Pending,
    fate: Fate,
}

enum Fate {
    Stored(u64),
    Duplicate,
    /// There is no room: all of so many bytes are taken by what was not read.
    Full(u64),
}

fn prepare(index: &Index, batch: Vec<Pending>, writes: &mut Vec<Write>) -> Vec<Prepared> {
    let mut added: HashMap<Arc<str>, Added> = HashMap::new();
    let mut prepared = Vec::with_capacity(batch.len());
    for pending in batch {
        let added = added
            .entry(Arc::clone(&pending.topic))
            .or_insert_with(|| Added::after(index.next_number(&pending.topic)));
        let id = &pending.message.headers.message_id;
        let payload_bytes = pending.message.payload.len() as u64;
        let fate = if index.has_message_id(&pending.topic, id) || added.ids.contains(id) {
            Fate::Duplicate
        } else if let Some(limit) = index.is_full(&pending.topic, added.bytes, payload_bytes) {
            Fate::Full(limit)
        } else {
            let number = added.next_number;
            added.next_number += 1;
            added.bytes += index::stored_bytes(payload_bytes);
            added.ids.insert(id.clone());
            writes.push(write_of(&pending, number));
            Fate::Stored(number)
        };
        prepared.push(Prepared { pending, fate });
    }
    prepared
}

/// What the running batch adds to a topic.
struct Added {
    next_number: u64,
    bytes: u64,
    ids: HashSet<String>,
}

impl Added {
    fn after(next_number: u64) -> Self {
        Self {
            next_number,
            bytes: 0,
            ids: HashSet::new(),
        }
    }
}

fn write_of(pending: &Pending, number: u64) -> Write {
    let headers = &pending.message.headers;
    Write::Message {
        topic: Arc::clone(&pending.topic),
        number,
        record: EntryRecord {
            subject: pending.message.subject.to_string(),
            key: pending.key.clone(),
            node: headers.node.to_string(),
            message_id: headers.message_id.clone(),
            traceparent: headers.traceparent.clone(),
            payload_bytes: pending.message.payload.len() as u64,
        },
        payload: pending.message.payload.clone(),
    }
}

struct JournalConsumer {
    journal: Arc<Journal>,
    id: MemberId,
    wake: Arc<Notify>,
}

impl RawConsumer for JournalConsumer {
    fn next(&mut self) -> BoxFuture<'_, Option<RawDelivery>> {
        Box::pin(self.next_delivery())
    }
}

impl JournalConsumer {
    async fn next_delivery(&mut self) -> Option<RawDelivery> {
        loop {
            let next = {
                let mut state = self.journal.shared.lock();
                if state.closing {
                    return None;
                }
                state.index.take(&self.id, Instant::now())
            };
            match next {
                Next::Take(taken) => {
                    if let Some(delivery) = self.deliver(taken).await {
                        return Some(delivery);
                    }
                }
                Next::Wait(None) => self.wake.notified().await,
                Next::Wait(Some(until)) => {
                    // Either way the member looks again.
                    drop(tokio::time::timeout_at(until.into(), self.wake.notified()).await);
                }
            }
        }
    }

    /// Loads a taken message; `None` when it cannot be read, and then it was given back.
    async fn deliver(&self, taken: Taken) -> Option<RawDelivery> {
        let mut receipt = JournalReceipt {
            journal: Arc::clone(&self.journal),
            id: self.id.clone(),
            key: taken.key,
            number: taken.number,
            outcome: Outcome::NotHandedOut,
        };
        let message = match taken.message {
            Some(message) => message,
            None => {
                let loaded = self.load(taken.number).await;
                // From here on what is missing must not be asked for again at once.
                receipt.outcome = Outcome::GivenBack;
                loaded?
            }
        };
        receipt.outcome = Outcome::GivenBack;
        let mut state = self.journal.shared.lock();
        state
            .index
            .handed_out(&self.id, &receipt.key, receipt.number);
        drop(state);
        Some(RawDelivery {
            message,
            redelivered: taken.redelivered,
            receipt: Box::new(receipt),
        })
    }

    async fn load(&self, number: u64) -> Option<RawMessage> {
        let database = self.journal.shared.database().clone()?;
        let topic = Arc::clone(&self.id.topic);
        let read = tokio::task::spawn_blocking(move || file::read(&database, &topic, number));
        match read.await {
            Ok(Ok(found)) => found.map(|(record, payload)| RawMessage {
                headers: record.headers(),
                subject: record.subject.into(),
                payload,
            }),
            Ok(Err(error)) => {
                tracing::error!(topic = %self.id.topic, number, %error, "a stored message cannot be read");
                None
            }
            Err(error) => {
                tracing::error!(topic = %self.id.topic, number, %error, "reading a stored message ended early");
                None
            }
        }
    }
}

impl Drop for JournalConsumer {
    fn drop(&mut self) {
        let mut state = self.journal.shared.lock();
        state.index.leave(&self.id, Instant::now());
    }
}

struct JournalReceipt {
    journal: Arc<Journal>,
    id: MemberId,
    key: Arc<str>,
    number: u64,
    outcome: Outcome,
}

impl Receipt for JournalReceipt {
    fn ack(mut self: Box<Self>) -> BoxFuture<'static, Result<(), TransportError>> {
        let closing = self.journal.shared.lock().closing;
        if !closing {
            self.outcome = Outcome::Done;
        }
        drop(self);
        Box::pin(std::future::ready(if closing {
            Err(TransportError::Closed)
        } else {
            Ok(())
        }))
    }
}

impl Drop for JournalReceipt {
    fn drop(&mut self) {
        let mut state = self.journal.shared.lock();
        let now = Instant::now();
        state
            .index
            .settle(&self.id, &self.key, self.number, self.outcome, now);
        if self.outcome == Outcome::Done {
            state.note_unwritten();
            drop(state);
            self.journal.shared.work.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Retention, transport::Headers};

    #[tokio::test]
    async fn a_writer_that_panics_is_a_failure_and_not_a_wait_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("bus.redb")).unwrap();
        journal.shared.supervise(|| panic!("as a bug would"));
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, journal.failed()).await.unwrap();
        let spec = DurableSpec {
            pattern: "test.*.journal",
            retention: Retention {
                keep_read: limit,
                max_bytes: 1 << 20,
            },
            counters: Arc::default(),
        };
        let message = RawMessage {
            subject: "test.a.journal".into(),
            headers: Headers::default(),
            payload: bytes::Bytes::new(),
        };
        let append = journal.append(&spec, None, message);
        let refused = tokio::time::timeout(limit, append).await.unwrap();
        assert!(
            matches!(refused, Err(TransportError::Failed { .. })),
            "{refused:?}"
        );
    }
}
