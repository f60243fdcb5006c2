//! The phones known to this door, and the order of what each of them sent.
//!
//! Bounded: at most [`MAX_CLIENTS`]; one that is silent for [`CLIENT_EXPIRY`] is forgotten and has to
//! register again. A stream's newest timestamp is remembered only once its sample is durably queued,
//! so a sample that could not be queued may be sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sovereign_model::{SensorId, Timestamp};

use super::frame::{Place, Reject, RejectCode, Stream};

/// Phones known at once; past it a new one is told to come back later.
pub(crate) const MAX_CLIENTS: usize = 10_000;
/// A phone that neither registers nor gets a sample accepted for this long is forgotten.
pub(crate) const CLIENT_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// A sample that arrived so far ahead of now, or further, arrived before the clock of this server was set
/// back: its times say nothing about what comes after. Less is the disorder of tasks that run side by side.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Streams a phone may announce; a registration with more is refused.
const MAX_STREAMS: usize = 16;
/// Longest name of a stream or device, bytes; a registration with a longer one is refused.
const MAX_TEXT: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) device_model: String,
    pub(crate) streams: Vec<String>,
}

impl Announcement {
    /// Checks the bounds.
    pub(crate) fn check(self) -> Result<Self, String> {
        if self.device_model.len() > MAX_TEXT {
            return Err(format!("device_model is longer than {MAX_TEXT} bytes"));
        }
        if self.streams.len() > MAX_STREAMS {
            return Err(format!("streams has more than {MAX_STREAMS} entries"));
        }
        if self.streams.iter().any(|name| name.len() > MAX_TEXT) {
            return Err(format!("streams has a name longer than {MAX_TEXT} bytes"));
        }
        let texts = [("device_model", &self.device_model)]
            .into_iter()
            .chain(self.streams.iter().map(|name| ("streams", name)));
        for (field, text) in texts {
            // These texts reach terminals.
            if text.contains(char::is_control) {
                return Err(format!("{field} has a control character"));
            }
        }
        Ok(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_CLIENTS} clients are registered, which is the limit")]
pub(crate) struct TableFull;

#[derive(Debug, Clone, Copy)]
struct Newest {
    observed: Timestamp,
    arrived: Timestamp,
}

fn before_clock_step(arrived: Timestamp, now: Timestamp) -> bool {
    arrived.since(now) > CLOCK_STEP
}

#[derive(Debug)]
pub(crate) struct Client<L> {
    pub(crate) announcement: Announcement,
    pub(crate) registered: Timestamp,
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) accepted: u64,
    /// Last known place, with the time it was observed, at most that of its arrival.
    pub(crate) place: Option<(Place, Timestamp)>,
    pub(crate) simulated: bool,
    /// Newest accepted sample of each stream, by [`Stream::index`].
    newest: [Option<Newest>; Stream::ALL.len()],
    last_received: Option<Timestamp>,
    lanes: Arc<L>,
}

impl<L> Client<L> {
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        let observed = self.newest.iter().flatten().map(|newest| newest.observed);
        observed.max()
    }

    fn newest_of(&self, stream: Stream, now: Timestamp) -> Option<Timestamp> {
        self.newest[stream.index()]
            .filter(|newest| !before_clock_step(newest.arrived, now))
            .map(|newest| newest.observed)
    }

    fn last_active(&self) -> Timestamp {
        self.last_seen
            .unwrap_or(self.registered)
            .max(self.registered)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    /// The stream and its new newest timestamp; absent for pictures without a promise of order.
    pub(crate) order: Option<(Stream, Timestamp)>,
    pub(crate) place: Option<(Place, Timestamp)>,
    pub(crate) simulated: bool,
}

#[derive(Debug)]
pub(crate) struct ClientTable<L> {
    clients: BTreeMap<SensorId, Client<L>>,
    /// Phones with news since [`ClientTable::take_changed`]; a subset of `clients`.
    changed: BTreeSet<SensorId>,
}

impl<L: Default> ClientTable<L> {
    pub(crate) fn new() -> Self {
        Self {
            clients: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Adds a phone, or renews one: its order and place stay.
    pub(crate) fn register(
        &mut self,
        id: SensorId,
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<(), TableFull> {
        if let Some(client) = self.clients.get_mut(&id) {
            client.announcement = announcement;
            client.registered = now;
        } else {
            if self.clients.len() >= MAX_CLIENTS {
                self.expire(now);
            }
            if self.clients.len() >= MAX_CLIENTS {
                return Err(TableFull);
            }
            self.clients.insert(
                id.clone(),
                Client {
                    announcement,
                    registered: now,
                    last_seen: None,
                    accepted: 0,
                    place: None,
                    simulated: false,
                    newest: [None; Stream::ALL.len()],
                    last_received: None,
                    lanes: Arc::new(L::default()),
                },
            );
        }
        self.changed.insert(id);
        Ok(())
    }

    /// What the owner keeps with a phone.
    pub(crate) fn lanes(&self, id: &SensorId) -> Result<Arc<L>, Reject> {
        self.client(id).map(|client| client.lanes.clone())
    }

    /// Whether a sample of this time may follow what was accepted on its stream.
    pub(crate) fn check_order(
        &self,
        id: &SensorId,
        stream: Stream,
        observed: Timestamp,
        now: Timestamp,
    ) -> Result<(), Reject> {
        match self.client(id)?.newest_of(stream, now) {
            Some(newest) if observed == newest => Err(duplicate(stream)),
            Some(newest) if observed < newest => Err(Reject::new(
                RejectCode::OutOfOrderFrame,
                format!(
                    "timestamp is before the last accepted one of stream {}",
                    stream.as_str()
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The time of a sample whose sender said none: now, but later than what was accepted on its stream.
    pub(crate) fn next_observed(
        &self,
        id: &SensorId,
        stream: Stream,
        now: Timestamp,
    ) -> Result<Timestamp, Reject> {
        let newest = self.client(id)?.newest_of(stream, now);
        Ok(newest.map_or(now, |newest| now.max(just_after(newest))))
    }

    /// The arrival time to stamp on a picture: now, but later than the one before whatever the clock did.
    pub(crate) fn next_received(&mut self, id: &SensorId, now: Timestamp) -> Timestamp {
        let Some(client) = self.clients.get_mut(id) else {
            return now;
        };
        let received = match client.last_received {
            Some(last) => now.max(just_after(last)),
            None => now,
        };
        client.last_received = Some(received);
        received
    }

    pub(crate) fn accept(&mut self, id: &SensorId, accepted: Accepted, now: Timestamp) {
        self.remember_order(id, accepted.order, now);
        // The phone may have been forgotten while its sample was being queued; the sample is safe.
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.last_seen = Some(client.last_seen.map_or(now, |last| last.max(now)));
        client.accepted += 1;
        client.simulated = accepted.simulated;
        if let Some((place, observed)) = accepted.place {
            // A clock that is ahead must not keep later places out.
            let observed = observed.min(now);
            let is_newer = client
                .place
                .is_none_or(|(_, known)| known <= observed || before_clock_step(known, now));
            if place.position.is_some() && is_newer {
                client.place = Some((place, observed));
            }
        }
        self.changed.insert(id.clone());
    }

    /// Remembers only the order: of a sample that turns out to have been queued before.
    pub(crate) fn remember_order(
        &mut self,
        id: &SensorId,
        order: Option<(Stream, Timestamp)>,
        now: Timestamp,
    ) {
        if let (Some(client), Some((stream, observed))) = (self.clients.get_mut(id), order) {
            let known = client.newest_of(stream, now);
            client.newest[stream.index()] = Some(Newest {
                observed: known.map_or(observed, |known| known.max(observed)),
                arrived: now,
            });
        }
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.clients
            .retain(|_, client| now.since(client.last_active()) <= CLIENT_EXPIRY);
        self.changed.retain(|id| self.clients.contains_key(id));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SensorId, &Client<L>)> {
        self.clients.iter()
    }

    pub(crate) fn get(&self, id: &SensorId) -> Option<&Client<L>> {
        self.clients.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn take_changed(&mut self) -> BTreeSet<SensorId> {
        std::mem::take(&mut self.changed)
    }

    fn client(&self, id: &SensorId) -> Result<&Client<L>, Reject> {
        self.clients.get(id).ok_or_else(|| {
            Reject::new(
                RejectCode::ClientNotRegistered,
                format!("client_id {id} is not registered"),
            )
        })
    }
}

fn just_after(time: Timestamp) -> Timestamp {
    time.checked_add(Duration::from_nanos(1)).unwrap_or(time)
}

pub(crate) fn duplicate(stream: Stream) -> Reject {
    Reject::new(
        RejectCode::DuplicateFrame,
        format!(
            "timestamp was already accepted on stream {}",
            stream.as_str()
        ),
    )
}

#[cfg(test)]
mod tests;
