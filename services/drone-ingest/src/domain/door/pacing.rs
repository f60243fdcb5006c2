//! When the state of a vehicle is published.

use std::cmp::Reverse;

use sovereign_model::Timestamp;

use super::{Door, Due, Publication, Slot};

impl Door {
    /// States whose time to be published has come, each counted as published now.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Publication> {
        self.take(now, false)
    }

    /// States that changed since they were published, due or not: for the end of the process.
    pub(crate) fn take_all(&mut self, now: Timestamp) -> Vec<Publication> {
        self.take(now, true)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// Puts a changed vehicle in the queue for publishing; true when it was not there yet.
    pub(super) fn changed(&mut self, index: usize, now: Timestamp) -> bool {
        let period = self.rules.publish_period;
        let Some(Slot {
            tenancy,
            tenant: Some(tenant),
        }) = self.slots.get_mut(index)
        else {
            return false;
        };
        if tenant.waiting {
            return false;
        }
        tenant.waiting = true;
        let paced = tenant
            .last_published
            .and_then(|last| last.checked_add(period));
        // A clock that stepped back must not silence a vehicle until it is caught up with.
        let latest = now.checked_add(period).unwrap_or(now);
        let at = paced.unwrap_or(now).clamp(now, latest);
        self.due.push(Reverse(Due {
            at,
            slot: index,
            tenancy: *tenancy,
        }));
        true
    }

    fn take(&mut self, now: Timestamp, early: bool) -> Vec<Publication> {
        let mut taken = Vec::new();
        while let Some(Reverse(due)) = self.due.peek().copied() {
            let ahead = due.at.since(now);
            // Farther ahead than a period: the clock stepped back, see `changed`.
            if !early && !ahead.is_zero() && ahead <= self.rules.publish_period {
                break;
            }
            self.due.pop();
            if let Some(Slot {
                tenancy,
                tenant: Some(tenant),
            }) = self.slots.get_mut(due.slot)
                && *tenancy == due.tenancy
            {
                tenant.waiting = false;
                taken.push(Publication {
                    state: tenant.vehicle.snapshot(),
                    first: tenant.last_published.is_none(),
                });
                tenant.last_published = Some(now);
            }
        }
        taken
    }
}
