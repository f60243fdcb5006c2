//! Who asks for which partition.
//!
//! Members say on a subject of their group that they are there; each sorts whom it heard, and asks for
//! the partitions that fall to its place. What is wrong here costs balance and time, never order: the
//! server pins a partition to one member, whoever asks.

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
    partition::{Partition, open_consumer},
};
use crate::connection::stream_name;

/// How often a member says that it is there.
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
        let group = Self {
            me: uuid::Uuid::new_v4().simple().to_string(),
            subject,
            heard,
            others: BTreeMap::new(),
            view: watch::Sender::default(),
            member,
        };
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
}
