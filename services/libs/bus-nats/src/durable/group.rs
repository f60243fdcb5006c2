//! Who asks for which partition, and what retention removed unread.
//!
//! Members say on a subject of their group that they are there; each sorts whom it heard, and asks for
//! the partitions that fall to its place. What is wrong here costs balance and time, never order: the
//! server pins a partition to one member, whoever asks.
//!
//! Sequences of a stream have no holes before retention, so all that was ever stored, less what the
//! consumers have before them, less what they were given, is what was removed unread. Deliveries that
//! the server repeats make that sum smaller, never larger.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Subscriber;
use futures::{StreamExt, TryStreamExt, stream};
use sovereign_bus::transport::TransportError;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    member::{Member, View, limited},
    partition::{Partition, consumer_prefix, open_consumer},
};
use crate::connection::stream_name;

/// How often a member says that it is there, and looks at what retention removed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A member that was silent for so long is gone for the others.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// How long a new member waits for the others to answer before it asks for partitions.
const ANSWER_TIME: Duration = Duration::from_millis(150);

const OPENED_AT_ONCE: usize = 16;

/// Members that one knows of; more do not get a share.
const MAX_MEMBERS: usize = 1024;

const HERE: &[u8] = b"+";
const LEAVING: &[u8] = b"-";

pub(super) struct Group {
    member: Arc<Member>,
    me: String,
    subject: String,
    heard: Subscriber,
    others: BTreeMap<String, Instant>,
    view: watch::Sender<View>,
    accounts: Accounts,
}

#[derive(Default)]
struct Accounts {
    made: i128,
    first: u64,
    /// The last sum; `None` before there was a quiet moment to draw one.
    removed: Option<i128>,
}

impl Group {
    pub(super) async fn enter(member: Arc<Member>) -> Result<Self, TransportError> {
        let failed = |error: async_nats::Error| TransportError::failed("join the group", error);
        let partitions = member.connection.partitions(member.spec.pattern);
        stream::iter((0..partitions).map(|number| open_consumer(&member, number)))
            .buffer_unordered(OPENED_AT_ONCE)
            .try_for_each(|_consumer| async { Ok(()) })
            .await
            .map_err(failed)?;
        // No topic has a token with `$`, so no message is taken for one of these.
        let stream = stream_name(member.spec.pattern);
        let subject = format!("$SOVEREIGN.members.{stream}.{}", member.group);
        let client = &member.connection.client;
        let heard = limited(client.subscribe(subject.clone()))
            .await
            .map_err(failed)?;
        let mut group = Self {
            me: uuid::Uuid::new_v4().simple().to_string(),
            subject,
            heard,
            others: BTreeMap::new(),
            view: watch::Sender::default(),
            accounts: Accounts::default(),
            member,
        };
        group.audit().await.map_err(failed)?;
        group.say(HERE).await.map_err(failed)?;
        let member = &group.member;
        limited(member.connection.client.flush())
            .await
            .map_err(failed)?;
        for number in 0..partitions {
            let partition = Partition::new(Arc::clone(member), number, group.view.subscribe());
            member.connection.tasks.spawn(partition.run());
        }
        Ok(group)
    }

    pub(super) async fn run(mut self) {
        let stop = self.member.stop.clone();
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        let mut answered = false;
        let answers = sleep(ANSWER_TIME);
        tokio::pin!(answers);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                message = self.heard.next() => match message {
                    Some(message) => self.hear(&message.payload).await,
                    None => break,
                },
                () = &mut answers, if !answered => answered = true,
                _ = beats.tick() => {
                    if let Err(error) = self.say(HERE).await {
                        tracing::debug!(group = %self.member.group, %error, "a heartbeat failed");
                    }
                    self.others.retain(|_, heard| heard.elapsed() < SILENCE_LIMIT);
                    if let Err(error) = self.audit().await {
                        tracing::debug!(%error, "the stream's state is unknown");
                    }
                }
            }
            if answered {
                self.share();
            }
        }
        if let Err(error) = self.say(LEAVING).await {
            tracing::debug!(%error, "the others notice by themselves that a member left");
        }
    }

    async fn say(&self, what: &[u8]) -> Result<(), async_nats::Error> {
        let payload = [what, self.me.as_bytes()].concat();
        let client = &self.member.connection.client;
        limited(client.publish(self.subject.clone(), payload.into())).await
    }

    async fn hear(&mut self, said: &[u8]) {
        let Some((what, other)) = said.split_at_checked(HERE.len()) else {
            return;
        };
        let other = String::from_utf8_lossy(other).into_owned();
        if other == self.me {
            return;
        }
        if what == LEAVING {
            self.others.remove(&other);
        } else if self.others.contains_key(&other) || self.others.len() < MAX_MEMBERS {
            let is_new = self.others.insert(other, Instant::now()).is_none();
            if is_new && let Err(error) = self.say(HERE).await {
                tracing::debug!(%error, "a new member was not answered");
            }
        }
    }

    fn share(&self) {
        let place = self.others.range(..self.me.clone()).count();
        let members = self.others.len() + 1;
        self.view.send_if_modified(|view| {
            let is_other = (view.place, view.members) != (place, members);
            (view.place, view.members) = (place, members);
            is_other
        });
    }

    /// Looks at what retention removed, and counts what of it was not read. Every member draws the sum,
    /// so that any may go on; the first of them counts it.
    async fn audit(&mut self) -> Result<(), async_nats::Error> {
        let member = &self.member;
        let before = limited(member.stream.get_info()).await?;
        let made = before.created.unix_timestamp_nanos();
        let before = before.state;
        if made != self.accounts.made {
            self.accounts = Accounts {
                made,
                ..Accounts::default()
            };
        }
        let first = before.first_sequence;
        self.view.send_if_modified(|view| {
            let is_other = view.first != first;
            view.first = first;
            is_other
        });
        if self.accounts.removed.is_some() && self.accounts.first == first {
            return Ok(());
        }
        let prefix = consumer_prefix(&member.group);
        let mut partitions = 0;
        let mut sum = i128::from(before.last_sequence);
        let mut consumers = member.stream.consumers();
        while let Some(info) = limited(consumers.try_next()).await? {
            if info.name.starts_with(&prefix) {
                partitions += 1;
                sum -= i128::from(info.num_pending) + i128::from(info.delivered.consumer_sequence);
            }
        }
        let after = limited(member.stream.get_info()).await?.state;
        let is_quiet = (after.first_sequence, after.last_sequence) == (first, before.last_sequence);
        if !is_quiet || partitions != member.connection.partitions(member.spec.pattern) {
            // Drawn at a later heartbeat: the sum only grows until then.
            return Ok(());
        }
        if let Some(removed) = self.accounts.removed
            && self.others.range(..self.me.clone()).next().is_none()
        {
            let unread = u64::try_from(sum - removed).unwrap_or(0);
            let counters = &member.spec.counters;
            counters.retention_removed_unread.inc_by(unread);
        }
        self.accounts.first = first;
        self.accounts.removed = Some(sum);
        Ok(())
    }
}
