//! The table of vehicles: who a sender is, what it may say, and what is due for publishing.
//!
//! MAVLink vehicles are told apart by system id and sender address, JSON drones by the id they give. The
//! first address of a system is `sys-<id>`; another one that is heard at the same time is `sys-<id>-2`,
//! and so on. A sender whose port changed (a NAT that bound it anew, a router that was restarted) goes on
//! as the vehicle it was, once the old port is silent. A vehicle that is silent for the idle time leaves
//! the table, and its name is free again.
//! Only autopilots make a vehicle: an autopilot's heartbeat does, and telemetry of component 1, which the
//! protocol keeps for the autopilot; ground stations, radios, cameras and gimbals do not. Component 1 is the
//! autopilot of its system as soon as it is heard, whoever was before. Cameras and gimbals belong to the
//! vehicle of their system, whatever address they send from.
//!
//! A frame that does not end with its datagram is finished by the next one of the same sender.
//!
//! Publishing is paced for each vehicle by itself: a change is due one period after the last publication,
//! so the last change is never left behind.

mod pacing;
mod tails;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use sovereign_model::{SensorId, Timestamp};

use self::tails::{MAX_FRAME, Tails};
use super::framing::{Frame, Frames, Item};
use super::history::Fix;
use super::reject::Reject;
use super::sample::Sample;
use super::signing::{SignaturePolicy, Signatures};
use super::stats::{Accepted, Stats};
use super::telemetry::{self, Telemetry};
use super::vehicle::{Snapshot, Source, Vehicle};

#[cfg(test)]
mod tests;

/// Vehicles in the table; what a further one sends is refused and counted.
pub(crate) const MAX_VEHICLES: usize = 4_096;
/// A vehicle that was silent for longer is not waited for.
const STILL_HEARD: Duration = Duration::from_secs(2);
/// A vehicle that was silent for longer goes on under another port of its host: three heartbeats are
/// missing then, so the old port is not heard any more.
const PORT_CHANGED_AFTER: Duration = Duration::from_secs(3);
/// The rest of a frame comes within this time, or not at all.
const UNFINISHED_AFTER: Duration = Duration::from_secs(5);
/// The component that the protocol keeps for the autopilot.
const AUTOPILOT_COMPONENT: u8 = 1;

#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Least time between two publications of one vehicle.
    pub(crate) publish_period: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_clock_skew: Duration,
    pub(crate) max_sample_age: Duration,
    /// How far telemetry may be from the exposure it is matched with.
    pub(crate) max_match_offset: Duration,
    pub(crate) signatures: SignaturePolicy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) telemetry: bool,
    /// A vehicle became due for publishing that was not waiting before.
    pub(crate) newly_due: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publication {
    pub(crate) state: Snapshot,
    /// Nothing of this vehicle was published before.
    pub(crate) first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newest {
    /// Nothing is heard of the vehicle, or nothing any more.
    Silent,
    /// All that was heard is from before the moment.
    Before,
    /// Something is from that moment or later.
    Reached,
}

#[derive(Debug)]
pub(crate) struct Door {
    rules: Rules,
    signatures: Signatures,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_sender: HashMap<(u8, SocketAddr), usize>,
    by_id: HashMap<SensorId, usize>,
    tails: Tails,
    due: BinaryHeap<Reverse<Due>>,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Slot {
    /// Grows whenever the slot is given away, so that what was due of its last tenant is recognised.
    tenancy: u64,
    tenant: Option<Tenant>,
}

#[derive(Debug)]
struct Tenant {
    vehicle: Vehicle,
    link: Link,
    last_published: Option<Timestamp>,
    waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Timestamp,
    slot: usize,
    tenancy: u64,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Mavlink {
        sender: (u8, SocketAddr),
        autopilot: u8,
    },
    Json,
}

impl Door {
    pub(crate) fn new(rules: Rules) -> Door {
        Door {
            signatures: Signatures::new(rules.signatures.clone()),
            rules,
            slots: Vec::new(),
            free: Vec::new(),
            by_sender: HashMap::new(),
            by_id: HashMap::new(),
            tails: Tails::default(),
            due: BinaryHeap::new(),
            stats: Stats::default(),
        }
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Takes a datagram of MAVLink, which may hold several frames and anything else.
    pub(crate) fn hear_mavlink(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Heard {
        let mut heard = Heard::default();
        let joined = self.tails.take(from).map(|mut bytes| {
            bytes.extend_from_slice(datagram);
            bytes
        });
        let stream = joined.as_deref().unwrap_or(datagram);
        let mut items = Frames::of(stream).peekable();
        while let Some(item) = items.next() {
            match item {
                Item::Refused {
                    reason: Reject::Truncated,
                    bytes,
                } if items.peek().is_none() && bytes < MAX_FRAME => {
                    let gone = self.tails.keep(from, &stream[stream.len() - bytes..], now);
                    self.give_up(gone);
                }
                Item::Refused { reason, bytes } => {
                    self.stats.reject(reason);
                    self.stats.refused_bytes += bytes as u64;
                }
                Item::Frame(frame) => match self.hear_frame(now, from, &frame) {
                    Ok(None) => {}
                    Ok(Some(slot)) => {
                        heard.telemetry = true;
                        heard.newly_due |= self.changed(slot, now);
                    }
                    Err(reason) => self.stats.reject(reason),
                },
            }
        }
        heard
    }

    /// Whether a sender is in the middle of a frame.
    pub(crate) fn is_amid_frame(&self, from: SocketAddr) -> bool {
        self.tails.has(from)
    }

    fn give_up(&mut self, unfinished: impl IntoIterator<Item = usize>) {
        for bytes in unfinished {
            self.stats.reject(Reject::Truncated);
            self.stats.refused_bytes += bytes as u64;
        }
    }

    /// Whether a JSON sample may be accepted now. Changes nothing: a sample is accepted only after what
    /// it carries is durably queued.
    pub(crate) fn check_sample(&self, sample: &Sample, arrived: Timestamp) -> Result<(), Reject> {
        let timestamp = sample.timestamp.unwrap_or(arrived);
        if timestamp > self.latest_time(arrived) {
            return Err(Reject::FutureTimestamp);
        }
        if arrived.since(timestamp) > self.rules.max_sample_age {
            return Err(Reject::StaleTimestamp);
        }
        let Some(tenant) = self.tenant_of(&sample.drone_id) else {
            if self.by_id.len() >= MAX_VEHICLES {
                return Err(Reject::TooManyVehicles);
            }
            return Ok(());
        };
        let forget_after = self.rules.max_sample_age;
        match tenant.vehicle.order(timestamp, arrived, forget_after) {
            Ordering::Greater => Ok(()),
            Ordering::Equal => Err(Reject::DuplicateSample),
            Ordering::Less => Err(Reject::OutOfOrderSample),
        }
    }

    pub(crate) fn latest_time(&self, now: Timestamp) -> Timestamp {
        now.checked_add(self.rules.max_clock_skew).unwrap_or(now)
    }

    pub(crate) fn signatures(&mut self) -> &mut Signatures {
        &mut self.signatures
    }

    pub(crate) fn admits_unsigned(&self) -> bool {
        self.signatures.admits_unsigned()
    }

    /// Merges a sample that [`Door::check_sample`] let pass.
    pub(crate) fn accept_sample(
        &mut self,
        sample: &Sample,
        arrived: Timestamp,
    ) -> Result<Heard, Reject> {
        let slot = match self.by_id.get(&sample.drone_id) {
            Some(&slot) => slot,
            None => self.admit(sample.drone_id.clone(), Source::Json, Link::Json, arrived)?,
        };
        if let Some(tenant) = self.tenant_mut(slot) {
            tenant.vehicle.merge_sample(sample, arrived);
        }
        self.stats.accept(Accepted::Sample);
        Ok(Heard {
            telemetry: true,
            newly_due: self.changed(slot, arrived),
        })
    }

    pub(crate) fn carry_payload(&mut self, vehicle_id: &SensorId) {
        if let Some(&slot) = self.by_id.get(vehicle_id)
            && let Some(tenant) = self.tenant_mut(slot)
        {
            tenant.vehicle.carry_payload();
        }
    }

    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<SensorId> {
        let unfinished = self.tails.expire(now, UNFINISHED_AFTER);
        self.give_up(unfinished);
        let rules = &self.rules;
        // The order of samples is remembered for as long as an old sample could come again.
        let of_samples = rules.idle_timeout.max(rules.max_sample_age);
        let mut gone = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(tenant) = &mut slot.tenant {
                let limit = match tenant.link {
                    Link::Mavlink { .. } => rules.idle_timeout,
                    Link::Json => of_samples,
                };
                if tenant.vehicle.silence(now) > limit {
                    gone.push(index);
                }
            }
        }
        gone.into_iter()
            .filter_map(|index| self.evict(index))
            .collect()
    }

    pub(crate) fn vehicles(&self) -> Vec<(Snapshot, Timestamp)> {
        let mut all: Vec<(Snapshot, Timestamp)> = self
            .slots
            .iter()
            .filter_map(|slot| slot.tenant.as_ref())
            .map(|tenant| (tenant.vehicle.snapshot(), tenant.vehicle.last_heard()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.vehicle_id.cmp(&b.vehicle_id));
        all
    }

    /// Where a vehicle was at `time`; `None` when it was not heard near enough to it.
    pub(crate) fn fix_at(&self, vehicle_id: &SensorId, time: Timestamp) -> Option<Fix> {
        let history = self.tenant_of(vehicle_id)?.vehicle.history();
        history.at(time, self.rules.max_match_offset)
    }

    pub(crate) fn is_simulated(&self, vehicle_id: &SensorId) -> bool {
        self.tenant_of(vehicle_id)
            .is_some_and(|tenant| tenant.vehicle.simulated())
    }

    /// Whether waiting could bring telemetry on the other side of `time`.
    pub(crate) fn newest(&self, vehicle_id: &SensorId, time: Timestamp, now: Timestamp) -> Newest {
        let Some(tenant) = self.tenant_of(vehicle_id) else {
            return Newest::Silent;
        };
        match tenant.vehicle.history().newest_place() {
            None => Newest::Silent,
            Some(newest) if newest >= time => Newest::Reached,
            Some(_) if now.since(tenant.vehicle.last_heard()) > STILL_HEARD => Newest::Silent,
            Some(_) => Newest::Before,
        }
    }

    /// Judges a frame and merges what it says; the slot whose state changed.
    fn hear_frame(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        frame: &Frame<'_>,
    ) -> Result<Option<usize>, Reject> {
        let signed = self.signatures.admit(frame, now)?;
        let sender = (frame.system_id, from);
        let known = self.by_sender.get(&sender).copied();
        if let Some(tenant) = known.and_then(|slot| self.tenant_mut(slot)) {
            tenant.vehicle.hear(now);
            let (component_id, sequence) = (frame.component_id, frame.sequence);
            tenant.vehicle.follow_sequence(component_id, sequence);
        }
        let telemetry = telemetry::decode(frame)?;
        let makes_a_vehicle = makes_a_vehicle(frame.component_id, telemetry.as_ref());
        let slot = match (known, &telemetry) {
            (Some(slot), _) => Some(slot),
            (None, _) if makes_a_vehicle => Some(self.admit_mavlink(sender, frame, now)?),
            (None, Some(Telemetry::Gimbal { .. } | Telemetry::ImageCaptured { .. })) => {
                self.carrier_of(sender)
            }
            (None, _) => None,
        };
        if makes_a_vehicle
            && frame.component_id == AUTOPILOT_COMPONENT
            && let Some(tenant) = slot.and_then(|slot| self.tenant_mut(slot))
            && let Link::Mavlink { autopilot, .. } = &mut tenant.link
        {
            *autopilot = AUTOPILOT_COMPONENT;
        }
        self.stats.accept_message(
            frame.definition,
            frame.version,
            frame.system_id,
            frame.component_id,
        );
        self.stats.signed += u64::from(signed);
        let Some((slot, tenant)) = slot.and_then(|s| Some((s, self.tenant_mut(s)?))) else {
            return Ok(None);
        };
        tenant.vehicle.count_message(frame.version, signed);
        match telemetry {
            Some(said) if speaks_for(frame.component_id, tenant.link, &said) => {
                let said = if is_autopilot(frame.component_id, tenant.link) {
                    said
                } else {
                    said.undated()
                };
                tenant.vehicle.merge(said, now);
                Ok(Some(slot))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn admit_mavlink(
        &mut self,
        sender: (u8, SocketAddr),
        frame: &Frame<'_>,
        now: Timestamp,
    ) -> Result<usize, Reject> {
        // Before a name is looked for: a full table must be cheap to be refused by.
        if self.by_id.len() >= MAX_VEHICLES {
            return Err(Reject::TooManyVehicles);
        }
        let source = Source::from_version(frame.version);
        let link = Link::Mavlink {
            sender,
            autopilot: frame.component_id,
        };
        let slot = match self.of_changed_port(sender, frame.component_id, now) {
            Some(slot) => slot,
            None => self.admit(self.free_id(sender.0)?, source, link, now)?,
        };
        if let Some(tenant) = self.tenant_mut(slot) {
            let before = std::mem::replace(&mut tenant.link, link);
            tenant.vehicle.hear(now);
            let (component_id, sequence) = (frame.component_id, frame.sequence);
            tenant.vehicle.follow_sequence(component_id, sequence);
            if let Link::Mavlink { sender: before, .. } = before {
                self.by_sender.remove(&before);
            }
        }
        self.by_sender.insert(sender, slot);
        Ok(slot)
    }

    /// The vehicle that carries a camera or gimbal which sends from an address of its own: the only one of its
    /// system, or the only one of its system and host.
    fn carrier_of(&self, (system_id, from): (u8, SocketAddr)) -> Option<usize> {
        let of_system = || {
            let senders = self.by_sender.iter();
            senders.filter(|((system, _), _)| *system == system_id)
        };
        let only = |mut slots: Vec<usize>| (slots.len() == 1).then(|| slots.swap_remove(0));
        only(of_system().map(|(_, slot)| *slot).collect()).or_else(|| {
            let near = of_system().filter(|((_, sender), _)| sender.ip() == from.ip());
            only(near.map(|(_, slot)| *slot).collect())
        })
    }

    /// The vehicle that a new sender goes on as: of the same system, autopilot and host, and silent; of
    /// several the one that was heard last.
    fn of_changed_port(
        &self,
        (system_id, from): (u8, SocketAddr),
        component_id: u8,
        now: Timestamp,
    ) -> Option<usize> {
        let silent = self.by_sender.iter().filter_map(|(&sender, &slot)| {
            let tenant = self.slots.get(slot)?.tenant.as_ref()?;
            let heard = tenant.vehicle.last_heard();
            let is_it = sender.0 == system_id
                && sender.1.ip() == from.ip()
                && is_autopilot(component_id, tenant.link)
                && now.since(heard) > PORT_CHANGED_AFTER;
            is_it.then_some((heard, slot))
        });
        silent.max().map(|(_, slot)| slot)
    }

    fn free_id(&self, system_id: u8) -> Result<SensorId, Reject> {
        let first = format!("sys-{system_id}");
        let others = (2..=MAX_VEHICLES).map(|n| format!("sys-{system_id}-{n}"));
        std::iter::once(first)
            .chain(others)
            .filter_map(|name| SensorId::parse(&name).ok())
            .find(|id| !self.by_id.contains_key(id))
            .ok_or(Reject::TooManyVehicles)
    }

    fn admit(
        &mut self,
        id: SensorId,
        source: Source,
        link: Link,
        now: Timestamp,
    ) -> Result<usize, Reject> {
        if self.by_id.len() >= MAX_VEHICLES {
            return Err(Reject::TooManyVehicles);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.tenancy += 1;
        slot.tenant = Some(Tenant {
            vehicle: Vehicle::new(id.clone(), source, now, self.rules.max_clock_skew),
            link,
            last_published: None,
            waiting: false,
        });
        self.by_id.insert(id, index);
        Ok(index)
    }

    fn evict(&mut self, index: usize) -> Option<SensorId> {
        let tenant = self.slots[index].tenant.take()?;
        self.free.push(index);
        if let Link::Mavlink { sender, .. } = tenant.link {
            self.by_sender.remove(&sender);
        }
        let (id, _) = self.by_id.remove_entry(tenant.vehicle.id())?;
        Some(id)
    }

    fn tenant_of(&self, id: &SensorId) -> Option<&Tenant> {
        self.slots.get(*self.by_id.get(id)?)?.tenant.as_ref()
    }

    fn tenant_mut(&mut self, slot: usize) -> Option<&mut Tenant> {
        self.slots.get_mut(slot)?.tenant.as_mut()
    }
}

fn makes_a_vehicle(component_id: u8, telemetry: Option<&Telemetry>) -> bool {
    match telemetry {
        Some(Telemetry::Heartbeat { is_vehicle, .. }) => *is_vehicle,
        Some(
            Telemetry::SystemStatus { .. }
            | Telemetry::Battery { .. }
            | Telemetry::SystemTime { .. }
            | Telemetry::Gps { .. }
            | Telemetry::GlobalPosition { .. }
            | Telemetry::Attitude { .. }
            | Telemetry::Hud { .. }
            | Telemetry::HighLatency { .. },
        ) => component_id == AUTOPILOT_COMPONENT,
        // Cameras and gimbals have components of their own, and a vehicle is more than its camera.
        Some(Telemetry::Gimbal { .. } | Telemetry::ImageCaptured { .. }) | None => false,
    }
}

/// Whether a component may say this of its vehicle: cameras and gimbals only what they know best.
fn speaks_for(component_id: u8, link: Link, telemetry: &Telemetry) -> bool {
    matches!(
        telemetry,
        Telemetry::Gimbal { .. } | Telemetry::ImageCaptured { .. }
    ) || is_autopilot(component_id, link)
}

fn is_autopilot(component_id: u8, link: Link) -> bool {
    match link {
        Link::Mavlink { autopilot, .. } => component_id == autopilot,
        Link::Json => false,
    }
}
