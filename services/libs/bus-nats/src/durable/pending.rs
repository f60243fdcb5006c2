//! What one key of a group still has to deliver, by stream sequence.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Sequences of a key that are not acknowledged, as far as this member knows.
#[derive(Default)]
pub(super) struct Pending {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// Everything up to here was acknowledged or is gone.
    floor: u64,
    highest: u64,
    waiting: VecDeque<u64>,
    in_flight: Option<u64>,
}

impl Pending {
    /// Notes a message of the stream.
    pub(super) fn push(&self, sequence: u64) {
        let mut state = self.lock();
        if sequence <= state.highest {
            return;
        }
        state.highest = sequence;
        if sequence > state.floor && state.in_flight != Some(sequence) {
            state.waiting.push_back(sequence);
            self.arrived.notify_one();
        }
    }

    /// Ready when there may be something to fetch.
    pub(super) async fn wait(&self) {
        while !self.has_waiting() {
            self.arrived.notified().await;
        }
    }

    /// Notes what the group acknowledged before this member had the key.
    pub(super) fn skip_to(&self, floor: u64) {
        let mut state = self.lock();
        state.floor = state.floor.max(floor);
        state.remove_up_to(floor);
    }

    /// A message was fetched. Returns how many before it retention had removed.
    pub(super) fn fetched(&self, sequence: u64) -> u64 {
        let mut state = self.lock();
        let removed = state.remove_up_to(sequence - 1);
        if state.waiting.front() == Some(&sequence) {
            state.waiting.pop_front();
        }
        state.floor = state.floor.max(sequence - 1);
        // It may be announced later: then it is not another one.
        state.highest = state.highest.max(sequence);
        state.in_flight = Some(sequence);
        removed
    }

    /// The fetched message was acknowledged.
    pub(super) fn acknowledged(&self) {
        let mut state = self.lock();
        if let Some(sequence) = state.in_flight.take() {
            state.floor = state.floor.max(sequence);
        }
    }

    /// The fetched message goes back to the server, or nobody knows whether its acknowledgement arrived.
    pub(super) fn given_back(&self) {
        let mut state = self.lock();
        if let Some(sequence) = state.in_flight.take() {
            state.waiting.push_front(sequence);
            self.arrived.notify_one();
        }
    }

    /// Forgets what the stream no longer has. Returns how many of it were never fetched.
    pub(super) fn remove_below(&self, first_sequence: u64) -> u64 {
        self.lock().remove_up_to(first_sequence.saturating_sub(1))
    }

    /// Forgets everything: the sequences are of another stream.
    pub(super) fn begin_anew(&self) {
        *self.lock() = State::default();
    }

    /// True when nothing waits or is in flight, and the stream holds no message of the key.
    pub(super) fn is_gone(&self, first_sequence: u64) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.in_flight.is_none() && state.highest < first_sequence
    }

    /// True when something waits to be fetched.
    pub(super) fn has_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove_up_to(&mut self, sequence: u64) -> u64 {
        let gone = self.waiting.partition_point(|waiting| *waiting <= sequence);
        self.waiting.drain(..gone);
        gone as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_before_it_was_fetched_is_counted_once() {
        let pending = Pending::default();
        (1..=6).for_each(|sequence| pending.push(sequence));
        assert_eq!(pending.fetched(1), 0);
        assert_eq!(pending.remove_below(4), 2);
        pending.acknowledged();
        assert_eq!(pending.fetched(5), 1);
        pending.given_back();
        assert_eq!(pending.fetched(5), 0);
        pending.acknowledged();
        assert_eq!(pending.remove_below(7), 1);
        assert!(pending.is_gone(7));
    }

    #[test]
    fn what_others_acknowledged_is_not_waited_for() {
        let pending = Pending::default();
        pending.push(3);
        pending.skip_to(4);
        pending.push(4);
        pending.push(4);
        assert!(!pending.has_waiting());
        pending.push(9);
        assert!(pending.has_waiting());
    }

    #[test]
    fn a_message_that_is_fetched_before_it_is_announced_is_not_announced_again() {
        let pending = Pending::default();
        assert_eq!(pending.fetched(2), 0);
        pending.push(2);
        assert!(!pending.has_waiting());
        pending.acknowledged();
        assert!(!pending.has_waiting());
        assert_eq!(pending.fetched(5), 0);
        pending.given_back();
        pending.push(5);
        assert_eq!(pending.fetched(5), 0);
        pending.acknowledged();
        assert_eq!(pending.remove_below(6), 0);
    }

    #[test]
    fn what_may_have_been_acknowledged_waits_until_the_server_says_so() {
        let pending = Pending::default();
        pending.push(1);
        assert_eq!(pending.fetched(1), 0);
        pending.given_back();
        pending.skip_to(0);
        assert!(pending.has_waiting());
        pending.skip_to(1);
        assert!(!pending.has_waiting());
    }
}
