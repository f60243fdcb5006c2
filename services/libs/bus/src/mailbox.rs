//! The one bounded mailbox above every transport.
//!
//! It keeps the newest messages of each subject in arrival order, so a slow reader misses the same
//! messages whichever transport feeds it: received = taken + replaced + dropped + waiting, exactly. A
//! message is replaced by a newer one of its subject, which is what the topic asks for; one that had to go
//! for another subject is dropped, which is loss.

use std::{
    collections::HashMap,
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
    lines: Vec<Line>,
    line_of: HashMap<Arc<str>, usize>,
    /// Waiting messages, oldest first, linked through their slots.
    slots: Vec<Slot>,
    free_slots: Vec<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
    last_line: usize,
    waiting: usize,
    waiting_bytes: usize,
    received: u64,
    replaced: u64,
    dropped: u64,
    closed: bool,
}

/// The waiting messages of one subject; kept when empty for its next message, until room is needed.
struct Line {
    subject: Arc<str>,
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

struct Slot {
    message: Option<RawMessage>,
    line: usize,
    older: Option<usize>,
    newer: Option<usize>,
    next_of_subject: Option<usize>,
}

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
        let before = (state.replaced, state.dropped);
        for message in messages {
            state.push(message, self.shared.per_subject);
        }
        // Under the lock: whoever sees that a message arrived sees what it pushed out counted too.
        let counters = &self.shared.counters;
        counters.replaced.inc_by(state.replaced - before.0);
        counters.dropped.inc_by(state.dropped - before.1);
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

    pub(crate) fn received(&self) -> u64 {
        self.shared.lock().received
    }

    pub(crate) fn replaced(&self) -> u64 {
        self.shared.lock().replaced
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

enum Found {
    Message(RawMessage),
    End,
    Notice,
}

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
        let line = self.line(&message.subject);
        self.waiting_bytes += message.payload.len();
        self.append(line, message);
        if self.lines[line].length > per_subject
            && let Some(oldest) = self.lines[line].first
        {
            self.remove(oldest);
            self.replaced += 1;
        }
        while self.waiting_bytes > MAX_WAITING_BYTES && self.waiting > 1 {
            self.drop_oldest();
        }
    }

    fn pop(&mut self) -> Option<RawMessage> {
        let oldest = self.oldest?;
        self.remove(oldest)
    }

    fn drop_oldest(&mut self) {
        if self.pop().is_some() {
            self.dropped += 1;
        }
    }

    fn line(&mut self, subject: &Arc<str>) -> usize {
        // Most messages come in runs of one subject.
        if let Some(line) = self.lines.get(self.last_line)
            && Arc::ptr_eq(&line.subject, subject)
        {
            return self.last_line;
        }
        let line = match self.line_of.get(subject) {
            Some(line) => *line,
            None => self.new_line(subject),
        };
        self.last_line = line;
        line
    }

    fn new_line(&mut self, subject: &Arc<str>) -> usize {
        let fresh = Line {
            subject: Arc::clone(subject),
            first: None,
            last: None,
            length: 0,
        };
        let line = if self.lines.len() < MAX_SUBJECTS {
            self.lines.push(fresh);
            self.lines.len() - 1
        } else {
            let empty = loop {
                match self.lines.iter().position(|line| line.length == 0) {
                    Some(empty) => break empty,
                    None => self.drop_oldest(),
                }
            };
            let before = std::mem::replace(&mut self.lines[empty], fresh);
            self.line_of.remove(&before.subject);
            empty
        };
        self.line_of.insert(Arc::clone(subject), line);
        line
    }

    fn append(&mut self, line: usize, message: RawMessage) {
        let slot = Slot {
            message: Some(message),
            line,
            older: self.newest,
            newer: None,
            next_of_subject: None,
        };
        let place = match self.free_slots.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        match self.newest.replace(place) {
            Some(before) => self.slots[before].newer = Some(place),
            None => self.oldest = Some(place),
        }
        match self.lines[line].last.replace(place) {
            Some(before) => self.slots[before].next_of_subject = Some(place),
            None => self.lines[line].first = Some(place),
        }
        self.lines[line].length += 1;
        self.waiting += 1;
    }

    /// Takes the first message of a line out. The oldest of all is always the first of its line.
    fn remove(&mut self, place: usize) -> Option<RawMessage> {
        let slot = &mut self.slots[place];
        let message = slot.message.take()?;
        let (line, older, newer) = (slot.line, slot.older, slot.newer);
        let next_of_subject = slot.next_of_subject;
        match older {
            Some(older) => self.slots[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[newer].older = older,
            None => self.newest = older,
        }
        let line = &mut self.lines[line];
        line.first = next_of_subject;
        if next_of_subject.is_none() {
            line.last = None;
        }
        line.length -= 1;
        self.waiting -= 1;
        self.waiting_bytes -= message.payload.len();
        self.free_slots.push(place);
        Some(message)
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
        let counts = (source.received(), source.replaced(), source.dropped());
        assert_eq!(counts, (10, 7, 0));
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
        assert_eq!((source.replaced(), source.dropped()), (0, 3));
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

    #[test]
    fn what_a_mailbox_replaced_is_counted_at_once() {
        const MESSAGES: u64 = 200_000;
        let counters = Arc::<TopicCounters>::default();
        let (sink, source) = mailbox(1, Arc::clone(&counters));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..MESSAGES).for_each(|_| sink.push(message("a", 0))));
            while source.received() < MESSAGES {
                let replaced = source.replaced();
                assert!(counters.replaced.get() >= replaced, "one is not counted");
            }
        });
        assert_eq!(counters.replaced.get(), MESSAGES - 1);
    }

    proptest! {
        #[test]
        fn received_is_taken_plus_replaced_plus_dropped_plus_waiting(
            steps in proptest::collection::vec((0u8..4, 0u8..3), 0..250),
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
            let waiting = source.shared.lock().waiting as u64;
            prop_assert_eq!(sent, taken + source.replaced() + source.dropped() + waiting);
            prop_assert_eq!(source.received(), sent);
            prop_assert_eq!(counters.replaced.get(), source.replaced());
            prop_assert_eq!(counters.dropped.get(), source.dropped());
            // What is kept is the newest of each subject, in the order of arrival.
            let kept = drain(&source);
            prop_assert_eq!(kept.len() as u64, waiting);
            prop_assert!(kept.windows(2).all(|pair| pair[0].1 < pair[1].1));
            for (subject, number) in newest {
                let of_subject: Vec<_> = kept.iter().filter(|(kept, _)| *kept == subject).collect();
                prop_assert!(of_subject.len() <= per_subject);
                prop_assert!(of_subject.last().is_none_or(|last| last.1 == number));
            }
        }
    }
}
