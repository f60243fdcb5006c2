//! Live subscriptions: from the client's queue into the mailbox, without a task in between while the
//! reader waits.
//!
//! A waiting reader is woken by the client itself and fetches all that is there. While it works, the
//! sweep does it, at most once per [`SWEEP_PERIOD`], so that nothing stays in the client's queue, which
//! refuses the newest when it is full. Who may poll is decided under the queue's lock: the sweep never
//! takes the wake-up of a reader that waits.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_nats::Subscriber;
use futures::{Stream, future::poll_fn};
use sovereign_bus::transport::{MailboxSink, RawMessage, Subscription};
use tokio::{sync::Notify, task::unconstrained};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{connection::Alive, headers::without_trailer};

/// How long messages may lie in the client's queue while the reader works: at the fastest rate that was
/// measured, a few thousand of the smallest.
const SWEEP_PERIOD: Duration = Duration::from_millis(5);

pub(crate) struct Feed {
    queue: Mutex<Queue>,
    reader_waits: AtomicBool,
    reader_left: Notify,
    sink: MailboxSink,
}

struct Queue {
    subscriber: Subscriber,
    /// Subject of the last message: most come in runs of one subject.
    last_subject: Arc<str>,
    last_node: Arc<str>,
    ended: bool,
}

/// What the mailbox holds: dropping it ends the subscription.
pub(crate) struct LiveSubscription {
    feed: Arc<Feed>,
    _stop: DropGuard,
    _alive: Arc<Alive>,
}

impl LiveSubscription {
    pub(crate) fn new(feed: Arc<Feed>, stop: CancellationToken, alive: Arc<Alive>) -> Self {
        Self {
            feed,
            _stop: stop.drop_guard(),
            _alive: alive,
        }
    }
}

impl Subscription for LiveSubscription {
    fn poll_fill(&self, context: &mut Context<'_>) {
        let mut queue = self
            .feed
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.feed.reader_waits.store(true, Ordering::Relaxed);
        queue.drain(context, &self.feed.sink);
    }

    fn reader_left(&self) {
        self.feed.reader_waits.store(false, Ordering::Relaxed);
        self.feed.reader_left.notify_one();
    }
}

impl Feed {
    pub(crate) fn new(subscriber: Subscriber, sink: MailboxSink) -> Self {
        Self {
            queue: Mutex::new(Queue {
                subscriber,
                last_subject: Arc::from(""),
                last_node: Arc::from(""),
                ended: false,
            }),
            reader_waits: AtomicBool::new(false),
            reader_left: Notify::new(),
            sink,
        }
    }

    /// Ready when something was moved or the queue ended, unless the reader does it itself.
    fn poll_sweep(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if self.reader_waits.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if queue.drain(context, &self.sink) > 0 || queue.ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn has_ended(&self) -> bool {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended
    }
}

impl Queue {
    /// Moves all that is there, and registers the waker for more. Returns how many it moved.
    fn drain(&mut self, context: &mut Context<'_>, sink: &MailboxSink) -> usize {
        let mut moved = 0;
        // Unconstrained: giving way with messages left would let the connection fill the queue.
        let mut everything = pin!(unconstrained(poll_fn(|context| {
            sink.fill(std::iter::from_fn(|| self.take(context)).inspect(|_| moved += 1));
            Poll::<()>::Pending
        })));
        let _: Poll<()> = everything.as_mut().poll(context);
        if self.ended {
            sink.close();
        }
        moved
    }

    fn take(&mut self, context: &mut Context<'_>) -> Option<RawMessage> {
        let message = match pin!(&mut self.subscriber).poll_next(context) {
            Poll::Ready(Some(message)) => message,
            Poll::Ready(None) => {
                self.ended = true;
                return None;
            }
            Poll::Pending => return None,
        };
        if *self.last_subject != *message.subject {
            self.last_subject = Arc::from(&*message.subject);
        }
        let map = message.headers.as_ref();
        let (payload, headers) = without_trailer(message.payload, map, &mut self.last_node);
        Some(RawMessage {
            subject: Arc::clone(&self.last_subject),
            headers,
            payload,
        })
    }
}

pub(crate) async fn sweep(feed: Arc<Feed>, stop: CancellationToken) {
    while !feed.has_ended() {
        tokio::select! {
            () = stop.cancelled() => break,
            // The permit of a reader that left costs one look; what arrives later wakes the sweep.
            () = feed.reader_left.notified() => {}
            () = poll_fn(|context| feed.poll_sweep(context)) => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(SWEEP_PERIOD) => {}
        }
    }
    feed.sink.close();
}
