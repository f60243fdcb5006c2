//! The one bounded mailbox above every transport.
//!
//! It keeps the newest messages of each subject in arrival order and drops the oldest, so a slow reader
//! loses the same messages whichever transport feeds it: received = taken + dropped + waiting, exactly.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use tokio::sync::Notify;

use crate::{
    metrics::TopicCounters,
    transport::{RawMessage, Subscription},
};

/// Subjects with waiting messages. At one more, the oldest messages of all are dropped until a subject
/// is free.
const MAX_SUBJECTS: usize = 1024;

/// Payload bytes that wait. Above it the oldest messages of all are dropped; one message always fits.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// A reader that always finds something still asks the subscription this often, so that what arrives does
/// not wait in the transport, where the newest would be lost.
const FILL_PERIOD: u32 = 32;

/// The transport's end: never blocks.
#[derive(Clone)]
pub struct MailboxSink {
    shared: Arc<Shared>,
}

/// The reader's end.
pub(crate) struct MailboxSource {
    shared: Arc<Shared>,
    taken_since_fill: u32,
}

struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    per_subject: usize,
    counters: Arc<TopicCounters>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<u64, RawMessage>,
    /// Arrival numbers of the waiting messages; an empty queue is kept for the next message of its
    /// subject until room is needed.
    subjects: HashMap<Arc<str>, VecDeque<u64>>,
    next_arrival: u64,
    waiting_bytes: usize,
    received: u64,
    dropped: u64,
    closed: bool,
}

/// Both ends of a mailbox that keeps `per_subject` messages of each subject.
pub(crate) fn mailbox(
    per_subject: usize,
    counters: Arc<TopicCounters>,
) -> (MailboxSink, MailboxSource) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        arrived: Notify::new(),
        per_subject,
        counters,
    });
    let sink = MailboxSink {
        shared: Arc::clone(&shared),
    };
    let source = MailboxSource {
        shared,
        taken_since_fill: 0,
    };
    (sink, source)
}

impl MailboxSink {
    /// Adds a message and drops the oldest ones that no longer fit.
    pub fn push(&self, message: RawMessage) {
        self.push_all([message]);
    }

    /// Adds messages in order; the reader is woken once.
    pub fn push_all(&self, messages: impl IntoIterator<Item = RawMessage>) {
        self.fill(messages);
        self.shared.arrived.notify_one();
    }

    /// Adds messages in order without waking the reader: it is the one that asks.
    pub fn fill(&self, messages: impl IntoIterator<Item = RawMessage>) {
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        let dropped_before = state.dropped;
        for message in messages {
            state.push(message, self.shared.per_subject);
        }
        let dropped = state.dropped - dropped_before;
        drop(state);
        if dropped > 0 {
            self.shared.counters.dropped.inc_by(dropped);
        }
    }

    /// Ends the mailbox: the reader gets what waits, then `None`.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
    }
}

impl MailboxSource {
    /// The oldest waiting message; `None` when the mailbox is closed and empty.
    pub(crate) async fn recv(&mut self, subscription: &dyn Subscription) -> Option<RawMessage> {
        self.taken_since_fill += 1;
        if self.taken_since_fill < FILL_PERIOD
            && let Some(message) = self.shared.lock().pop()
        {
            return Some(message);
        }
        self.taken_since_fill = 0;
        let reading = Reading(subscription);
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            let found = poll_fn(|context| {
                reading.0.poll_fill(context);
                {
                    let mut state = self.shared.lock();
                    if let Some(message) = state.pop() {
                        return Poll::Ready(Found::Message(message));
                    }
                    if state.closed {
                        return Poll::Ready(Found::End);
                    }
                }
                arrived.as_mut().poll(context).map(|()| Found::Notice)
            });
            match found.await {
                Found::Message(message) => return Some(message),
                Found::End => return None,
                Found::Notice => {}
            }
        }
    }

    /// Messages that arrived.
    pub(crate) fn received(&self) -> u64 {
        self.shared.lock().received
    }

    /// Messages that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

/// What a waiting reader finds.
enum Found {
    Message(RawMessage),
    End,
    /// Something changed: look again.
    Notice,
}

/// Says that the reader left, however it does.
struct Reading<'a>(&'a dyn Subscription);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reader_left();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, message: RawMessage, per_subject: usize) {
        self.received += 1;
        if !self.subjects.contains_key(&message.subject) {
            self.free_a_subject();
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        let queue = self
            .subjects
            .entry(Arc::clone(&message.subject))
            .or_default();
        queue.push_back(arrival);
        let overflow = (queue.len() > per_subject)
            .then(|| queue.pop_front())
            .flatten();
        self.waiting_bytes += message.payload.len();
        self.waiting.insert(arrival, message);
        if let Some(oldest) = overflow
            && let Some(lost) = self.waiting.remove(&oldest)
        {
            self.waiting_bytes -= lost.payload.len();
            self.dropped += 1;
        }
        while self.waiting_bytes > MAX_WAITING_BYTES && self.waiting.len() > 1 {
            self.drop_oldest();
        }
    }

    fn pop(&mut self) -> Option<RawMessage> {
        let (_, message) = self.waiting.pop_first()?;
        self.waiting_bytes -= message.payload.len();
        // The oldest of all is the oldest of its subject.
        if let Some(queue) = self.subjects.get_mut(&message.subject) {
            queue.pop_front();
        }
        Some(message)
    }

    fn drop_oldest(&mut self) {
        if self.pop().is_some() {
            self.dropped += 1;
        }
    }

    fn free_a_subject(&mut self) {
        if self.subjects.len() < MAX_SUBJECTS {
            return;
        }
        self.subjects.retain(|_, queue| !queue.is_empty());
        while self.subjects.len() >= MAX_SUBJECTS {
            self.drop_oldest();
            self.subjects.retain(|_, queue| !queue.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::transport::Headers;

    struct Pushed;
    impl Subscription for Pushed {}

    fn message(subject: &str, number: u8) -> RawMessage {
        RawMessage {
            subject: subject.into(),
            headers: Headers::default(),
            payload: Bytes::from(vec![number]),
        }
    }

    fn drain(source: &MailboxSource) -> Vec<(String, u8)> {
        let mut state = source.shared.lock();
        std::iter::from_fn(|| state.pop())
            .map(|message| (message.subject.to_string(), message.payload[0]))
            .collect()
    }

    #[test]
    fn a_busy_subject_does_not_push_out_a_quiet_one() {
        let (sink, source) = mailbox(2, Arc::default());
        sink.push(message("quiet", 0));
        (1..=9).for_each(|number| sink.push(message("busy", number)));
        let kept = drain(&source);
        assert_eq!(
            kept,
            [("quiet".into(), 0), ("busy".into(), 8), ("busy".into(), 9)]
        );
        assert_eq!((source.received(), source.dropped()), (10, 7));
    }

    #[test]
    fn more_subjects_than_the_bound_drop_the_oldest_of_all() {
        let (sink, source) = mailbox(1, Arc::default());
        for number in 0..MAX_SUBJECTS + 3 {
            sink.push(message(&format!("s{number}"), 0));
        }
        let kept = drain(&source);
        assert_eq!(kept.len(), MAX_SUBJECTS);
        assert_eq!(kept[0].0, "s3");
        assert_eq!(source.dropped(), 3);
    }

    #[tokio::test]
    async fn a_closed_mailbox_gives_what_waits_and_then_ends() {
        let (sink, mut source) = mailbox(2, Arc::default());
        sink.push(message("a", 1));
        sink.close();
        sink.push(message("a", 2));
        assert!(source.recv(&Pushed).await.is_some());
        assert!(source.recv(&Pushed).await.is_none());
        assert_eq!(source.received(), 1);
    }

    proptest! {
        #[test]
        fn received_is_taken_plus_dropped_plus_waiting(
            steps in proptest::collection::vec((0u8..4, 0u8..3), 0..300),
            per_subject in 1usize..5,
        ) {
            let counters = Arc::<TopicCounters>::default();
            let (sink, source) = mailbox(per_subject, Arc::clone(&counters));
            let (mut sent, mut taken) = (0, 0);
            let mut newest = HashMap::new();
            for (subject, action) in steps {
                if action == 0 {
                    taken += u64::from(source.shared.lock().pop().is_some());
                } else {
                    sent += 1;
                    newest.insert(subject.to_string(), sent as u8);
                    sink.push(message(&subject.to_string(), sent as u8));
                }
            }
            let waiting = source.shared.lock().waiting.len() as u64;
            prop_assert_eq!(sent, taken + source.dropped() + waiting);
            prop_assert_eq!(source.received(), sent);
            prop_assert_eq!(counters.dropped.get(), source.dropped());
            let kept = drain(&source);
            for window in kept.windows(2) {
                prop_assert!(window[0].0 != window[1].0 || window[0].1 != window[1].1);
            }
        }
    }
}
