//! What becomes of a stream: what every group has read goes after its time, and what the server lost is
//! stored again.
//!
//! Each process that uses a topic keeps the stream. How far a group has read is what its consumers say; the
//! time since is counted here, so neither a clock that is set nor one of the server matters. What this process
//! appended is remembered until it was read: a server that comes back without its disk gets it again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use sovereign_bus::{
    Appended,
    transport::{DurableSpec, RawMessage},
};
use tokio::time::{MissedTickBehavior, interval};

use super::member::limited;
use super::partition::{filter_subject, group_and_partition};
use crate::connection::{Connection, Stream};

/// Longest time between two looks at a stream, and the shortest.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
const SHORTEST_LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Bytes of own messages that are remembered of a topic, with [`MESSAGE_OVERHEAD_BYTES`] each; the oldest are
/// forgotten beyond, and counted as lost if the server loses them.
const MAX_OWN_BYTES: usize = 32 << 20;
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// How far the groups had read at earlier times; the oldest of too many makes way for the others.
const MAX_MARKS: usize = 64;

/// A stream that is fuller than this, in hundredths, loses what was read at once.
const FULL_PERCENT: u64 = 75;

/// What this process appended to a topic and was not read yet.
#[derive(Default)]
pub(crate) struct Own(Mutex<OwnState>);

#[derive(Default)]
struct OwnState {
    /// In the order in which they were appended, with their sequences.
    messages: VecDeque<(u64, RawMessage)>,
    bytes: usize,
    /// How many are not remembered any more, and the last of them.
    forgotten: u64,
    forgotten_up_to: u64,
}

impl Own {
    pub(crate) fn remember(&self, sequence: u64, message: RawMessage) {
        let mut own = self.lock();
        own.bytes += weight(&message);
        own.messages.push_back((sequence, message));
        while own.bytes > MAX_OWN_BYTES
            && let Some((sequence, message)) = own.messages.pop_front()
        {
            own.bytes -= weight(&message);
            own.forgotten += 1;
            own.forgotten_up_to = own.forgotten_up_to.max(sequence);
        }
    }

    /// Everything up to a sequence was read by all.
    fn read_up_to(&self, sequence: u64) {
        let mut own = self.lock();
        own.messages.retain(|(number, _)| *number > sequence);
        own.bytes = own
            .messages
            .iter()
            .map(|(_, message)| weight(message))
            .sum();
        if own.forgotten_up_to <= sequence {
            own.forgotten = 0;
        }
    }

    fn last(&self) -> u64 {
        self.lock()
            .messages
            .iter()
            .map(|(number, _)| *number)
            .max()
            .unwrap_or(0)
    }

    fn take(&self) -> OwnState {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OwnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(message: &RawMessage) -> usize {
    message.payload.len() + MESSAGE_OVERHEAD_BYTES
}

/// The topics that this process keeps; as many as there are constants.
#[derive(Default)]
pub(crate) struct Keepers(Mutex<HashMap<&'static str, Arc<Own>>>);

impl Keepers {
    /// Sees to it that the stream of a topic is kept. What this process appends is to be remembered there.
    pub(crate) fn keep(&self, connection: &Arc<Connection>, topic: &DurableSpec) -> Arc<Own> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = kept.entry(topic.pattern).or_insert_with(|| {
            let own = Arc::<Own>::default();
            let keeper = Keeper::new(Arc::clone(connection), topic, Arc::clone(&own));
            connection.tasks.spawn(keeper.run());
            own
        });
        Arc::clone(own)
    }
}

struct Keeper {
    connection: Arc<Connection>,
    spec: DurableSpec,
    own: Arc<Own>,
    /// When the stream was made, as far as known.
    made: Option<i128>,
    /// How far all groups had read, by partition, at earlier times.
    marks: VecDeque<(Instant, Vec<u64>)>,
    /// How far each partition was emptied.
    emptied: Vec<u64>,
}

impl Keeper {
    fn new(connection: Arc<Connection>, spec: &DurableSpec, own: Arc<Own>) -> Self {
        let partitions = usize::from(connection.partitions(spec.pattern));
        Self {
            connection,
            spec: spec.clone(),
            own,
            made: None,
            marks: VecDeque::new(),
            emptied: vec![0; partitions],
        }
    }

    async fn run(mut self) {
        let stop = self.connection.stop.clone();
        let period = self.spec.retention.keep_read / 2;
        let mut looks = interval(period.clamp(SHORTEST_LOOK_PERIOD, LOOK_PERIOD));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            if !self.connection.is_connected() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => if let Err(error) = looked {
                    tracing::debug!(topic = self.spec.pattern, %error, "the state of a stream is unknown");
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), async_nats::Error> {
        let stream = self.connection.stream(&self.spec).await?;
        let info = match limited(stream.get_info()).await {
            Ok(info) => info,
            Err(_gone) => {
                // A server that lost its disk has no stream.
                let stream = self.connection.make_stream(&self.spec).await?;
                limited(stream.get_info()).await?
            }
        };
        let made = info.created.unix_timestamp_nanos();
        let (first, last) = (info.state.first_sequence, info.state.last_sequence);
        let is_other = self.made.is_some_and(|before| before != made);
        self.made = Some(made);
        if is_other || last < self.own.last() {
            self.marks.clear();
            self.emptied.fill(0);
            return self.store_again().await;
        }
        let groups = self.read_by_groups(&stream, last).await?;
        // What no group reads may go, and is remembered for one that comes.
        let mut read = vec![last; self.emptied.len()];
        for group in groups.values() {
            for (all, read) in read.iter_mut().zip(group) {
                *all = (*all).min(*read);
            }
        }
        if !groups.is_empty() {
            let least = read.iter().copied().min().unwrap_or(0);
            self.own.read_up_to(least);
        }
        let is_full = info.state.bytes > self.spec.retention.max_bytes / 100 * FULL_PERCENT;
        let may_go = if is_full { read } else { self.long_read(read) };
        self.empty(&stream, first, &may_go).await
    }

    /// How far each group has read each partition, by sequence of the stream.
    async fn read_by_groups(
        &self,
        stream: &Stream,
        last: u64,
    ) -> Result<HashMap<String, Vec<u64>>, async_nats::Error> {
        let partitions = self.emptied.len();
        let mut groups: HashMap<String, Vec<u64>> = HashMap::new();
        let mut consumers = stream.consumers();
        while let Some(info) = limited(consumers.try_next()).await? {
            let Some((group, partition)) = group_and_partition(&info.name) else {
                continue;
            };
            let is_idle = info.num_pending == 0 && info.num_ack_pending == 0;
            let read = if is_idle {
                last
            } else {
                info.ack_floor.stream_sequence
            };
            let group = groups
                .entry(group.to_owned())
                .or_insert_with(|| vec![0; partitions]);
            if let Some(place) = group.get_mut(usize::from(partition)) {
                *place = read;
            }
        }
        Ok(groups)
    }

    /// Of what was read, what was so long ago. A group that came since has not read it.
    fn long_read(&mut self, read: Vec<u64>) -> Vec<u64> {
        let now = Instant::now();
        let keep_read = self.spec.retention.keep_read;
        let mut may_go = vec![0; read.len()];
        while let Some((at, _)) = self.marks.front()
            && now.duration_since(*at) >= keep_read
        {
            if let Some((_, mark)) = self.marks.pop_front() {
                may_go = mark;
            }
        }
        for (may_go, read) in may_go.iter_mut().zip(&read) {
            *may_go = (*may_go).min(*read);
        }
        let is_due = self.marks.back().is_none_or(|(at, _)| {
            now.duration_since(*at) >= keep_read / u32::try_from(MAX_MARKS).unwrap_or(u32::MAX)
        });
        if is_due {
            self.marks.push_back((now, read));
            if self.marks.len() > MAX_MARKS {
                self.marks.pop_front();
            }
        }
        may_go
    }

    async fn empty(
        &mut self,
        stream: &Stream,
        first: u64,
        may_go: &[u64],
    ) -> Result<(), async_nats::Error> {
        for (partition, &up_to) in may_go.iter().enumerate() {
            if up_to < first || up_to <= self.emptied[partition] {
                continue;
            }
            let filter = filter_subject(self.spec.pattern, partition);
            limited(stream.purge().filter(filter).sequence(up_to + 1)).await?;
            self.emptied[partition] = up_to;
        }
        Ok(())
    }

    /// The server came back without what it had: what this process appended is stored again, in its order.
    async fn store_again(&self) -> Result<(), async_nats::Error> {
        let own = self.own.take();
        if own.messages.is_empty() && own.forgotten == 0 {
            return Ok(());
        }
        let (messages, forgotten) = (own.messages.len(), own.forgotten);
        self.spec.counters.lost.inc_by(forgotten);
        let mut left = own.messages.into_iter();
        while let Some((sequence, message)) = left.next() {
            match self.connection.append(&self.spec, message.clone()).await {
                Ok((appended, sequence)) => {
                    self.own.remember(sequence, message);
                    if appended == Appended::Stored {
                        self.spec.counters.restored.inc();
                    }
                }
                Err(error) => {
                    // The rest goes with the next look: its numbers are of the stream that is gone.
                    self.own.remember(sequence, message);
                    left.for_each(|(sequence, message)| self.own.remember(sequence, message));
                    return Err(error.into());
                }
            }
        }
        tracing::error!(
            topic = self.spec.pattern,
            restored = messages,
            lost = forgotten,
            "the NATS server lost what it had stored: what was not read of it and is remembered here was stored again"
        );
        Ok(())
    }
}
