//! Bringing a picture and the verdict on its pose together.
//!
//! Pictures and verdicts come on two streams, both in the order of the sensor's frames and each with at
//! most one outstanding per sensor, so a pair is normally two things with the same frame id. When it is
//! not, arrival times decide:
//!
//! * a verdict older than a held picture has lost its picture (painted before a crash, or no longer
//!   retained): [`Outcome::Missed`];
//! * a picture older than a held verdict has probably lost its verdict: whoever gives them is asked.
//!   The held one may be of the other stream of pictures, which is judged on its own, and then its
//!   picture comes; so "never heard of it" is final only once the verdict was held for a while;
//! * a picture alone waits, and its verdict is asked for now and then, since it may have been
//!   acknowledged just before a crash; "never heard of it" is then no answer yet, unless the picture is
//!   as old as any record may become.

use std::collections::BTreeMap;
use std::time::Duration;

use sovereign_model::Timestamp;

/// A picture without a verdict is first asked for after this long; normally the verdict is here by then.
pub(crate) const FIRST_ASK: Duration = Duration::from_secs(2);
/// Asking again takes twice as long each time, up to this. As long a verdict is held before it proves
/// that no older picture will get one.
pub(crate) const LONGEST_ASK: Duration = Duration::from_secs(30);

/// Holds what waits for its other half: `C` is a picture, `V` a verdict.
#[derive(Debug)]
pub(crate) struct Join<C, V> {
    /// As many sensors as the bus has deliveries in flight, which it bounds.
    sensors: BTreeMap<String, Slot<C, V>>,
    /// Records older than this no longer exist anywhere.
    retention: Duration,
}

/// A half as it is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The frame.
    pub(crate) id: String,
    /// Arrival at the front door, in the order of the sensor's frames.
    pub(crate) received: Timestamp,
}

/// What became of a half that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<C, V> {
    /// Its other half was here.
    Pair(C, V),
    /// It waits. The verdict beside it, if any, waits no longer: its picture will not come.
    Waits {
        /// A verdict without a picture.
        missed: Option<V>,
    },
    /// The verdict itself has no picture.
    Missed(V),
}

/// A question for whoever gives verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The frame.
    pub(crate) frame_id: String,
    /// Whether "never heard of it" is final.
    pub(crate) is_final: bool,
}

#[derive(Debug)]
struct Slot<C, V> {
    /// One for each stream of pictures.
    captures: Vec<Waiting<C>>,
    verdict: Option<Held<V>>,
}

/// A verdict that waits for its picture.
#[derive(Debug)]
struct Held<V> {
    frame: Frame,
    verdict: V,
    since: Timestamp,
}

#[derive(Debug)]
struct Waiting<C> {
    frame: Frame,
    stream: &'static str,
    capture: C,
    next_ask: Timestamp,
    patience: Duration,
}

impl<C, V> Join<C, V> {
    /// Nothing waits yet; records older than `retention` no longer exist anywhere.
    #[must_use]
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            sensors: BTreeMap::new(),
            retention,
        }
    }

    /// A picture arrived on one of the streams of pictures. `redelivered`: it had been here before, so
    /// its verdict may be gone.
    pub(crate) fn capture(
        &mut self,
        sensor: &str,
        stream: &'static str,
        frame: Frame,
        redelivered: bool,
        now: Timestamp,
        capture: C,
    ) -> Outcome<C, V> {
        let slot = self.slot(sensor);
        let mut missed = None;
        if let Some(held) = slot.verdict.take() {
            if held.frame.id == frame.id {
                self.forget_if_empty(sensor);
                return Outcome::Pair(capture, held.verdict);
            }
            if held.frame.received < frame.received {
                missed = Some(held.verdict);
            } else {
                slot.verdict = Some(held);
            }
        }
        let overdue = redelivered || slot.verdict.is_some();
        // One delivery per stream and sensor is outstanding: a second one replaces a first that the
        // bus has taken back.
        slot.captures.retain(|waiting| waiting.stream != stream);
        slot.captures.push(Waiting {
            frame,
            stream,
            capture,
            next_ask: if overdue { now } else { later(now, FIRST_ASK) },
            patience: FIRST_ASK,
        });
        Outcome::Waits { missed }
    }

    /// A verdict arrived.
    pub(crate) fn verdict(
        &mut self,
        sensor: &str,
        frame: Frame,
        now: Timestamp,
        verdict: V,
    ) -> Outcome<C, V> {
        let slot = self.slot(sensor);
        let pair = slot
            .captures
            .iter()
            .position(|waiting| waiting.frame.id == frame.id);
        if let Some(i) = pair {
            let waiting = slot.captures.swap_remove(i);
            self.forget_if_empty(sensor);
            return Outcome::Pair(waiting.capture, verdict);
        }
        if slot
            .captures
            .iter()
            .any(|waiting| frame.received < waiting.frame.received)
        {
            return Outcome::Missed(verdict);
        }
        for waiting in &mut slot.captures {
            waiting.next_ask = now;
        }
        slot.verdict = Some(Held {
            frame,
            verdict,
            since: now,
        });
        Outcome::Waits { missed: None }
    }

    /// Verdicts to ask for now, at most `limit`.
    pub(crate) fn asks(&mut self, now: Timestamp, limit: usize) -> Vec<Ask> {
        let retention = self.retention;
        self.sensors
            .values_mut()
            .flat_map(|slot| {
                let held = slot.verdict.as_ref().map(|h| (h.frame.received, h.since));
                slot.captures.iter_mut().map(move |c| (c, held))
            })
            .filter(|(waiting, _)| waiting.next_ask <= now)
            .take(limit)
            .map(|(waiting, held)| {
                let received = waiting.frame.received;
                // From then on the held verdict proves that this picture has lost its own.
                let proven = held
                    .filter(|(newest, _)| received <= *newest)
                    .map(|(_, since)| later(since, LONGEST_ASK));
                waiting.patience = (waiting.patience * 2).min(LONGEST_ASK);
                waiting.next_ask = later(now, waiting.patience);
                if let Some(proven) = proven.filter(|proven| *proven > now) {
                    waiting.next_ask = waiting.next_ask.min(proven);
                }
                Ask {
                    frame_id: waiting.frame.id.clone(),
                    is_final: proven.is_some_and(|proven| proven <= now)
                        || now.since(received) > retention,
                }
            })
            .collect()
    }

    /// Takes out a picture whose verdict was found by asking, or will never be; `None` when it has
    /// found its verdict meanwhile.
    pub(crate) fn take(&mut self, frame_id: &str) -> Option<C> {
        let (sensor, i) = self.sensors.iter().find_map(|(sensor, slot)| {
            let i = slot
                .captures
                .iter()
                .position(|waiting| waiting.frame.id == frame_id)?;
            Some((sensor.clone(), i))
        })?;
        let capture = self.slot(&sensor).captures.swap_remove(i).capture;
        self.forget_if_empty(&sensor);
        Some(capture)
    }

    /// Pictures that wait.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.sensors.values().map(|slot| slot.captures.len()).sum()
    }

    fn slot(&mut self, sensor: &str) -> &mut Slot<C, V> {
        self.sensors
            .entry(sensor.to_owned())
            .or_insert_with(|| Slot {
                captures: Vec::new(),
                verdict: None,
            })
    }

    fn forget_if_empty(&mut self, sensor: &str) {
        if self
            .sensors
            .get(sensor)
            .is_some_and(|slot| slot.captures.is_empty() && slot.verdict.is_none())
        {
            self.sensors.remove(sensor);
        }
    }
}

/// At the end of time there is no later.
fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn frame(id: &str, received: i64) -> Frame {
        Frame {
            id: id.to_owned(),
            received: at(received),
        }
    }

    fn waits<C, V>() -> Outcome<C, V> {
        Outcome::Waits { missed: None }
    }

    #[test]
    fn halves_meet_in_either_order() {
        let mut join = Join::new(DAY);
        assert_eq!(
            join.capture("d1", "drone", frame("a", 1), false, at(1), "picture a"),
            waits()
        );
        assert_eq!(
            join.verdict("d1", frame("a", 1), at(2), "pose a"),
            Outcome::Pair("picture a", "pose a")
        );
        assert_eq!(join.verdict("d1", frame("b", 2), at(2), "pose b"), waits());
        assert_eq!(
            join.capture("d1", "drone", frame("b", 2), false, at(3), "picture b"),
            Outcome::Pair("picture b", "pose b")
        );
        assert_eq!((join.waiting(), join.sensors.len()), (0, 0));
    }

    #[test]
    fn sensors_do_not_wait_for_each_other() {
        let mut join = Join::new(DAY);
        join.capture("d1", "drone", frame("a", 1), false, at(1), 1);
        join.capture("d2", "drone", frame("b", 1), false, at(1), 2);
        assert_eq!(
            join.verdict("d2", frame("b", 1), at(1), 20),
            Outcome::Pair(2, 20)
        );
        assert_eq!(join.waiting(), 1);
    }

    #[test]
    fn an_older_verdict_has_lost_its_picture() {
        let mut join = Join::new(DAY);
        join.capture("d1", "drone", frame("b", 5), false, at(5), 2);
        assert_eq!(
            join.verdict("d1", frame("a", 4), at(5), 10),
            Outcome::Missed(10)
        );
        let mut join = Join::new(DAY);
        join.verdict("d1", frame("a", 4), at(5), 10);
        assert_eq!(
            join.capture("d1", "drone", frame("b", 5), false, at(5), 2),
            Outcome::Waits { missed: Some(10) }
        );
        assert_eq!(
            join.verdict("d1", frame("b", 5), at(6), 20),
            Outcome::Pair(2, 20)
        );
    }

    #[test]
    fn an_older_picture_is_asked_for_at_once_and_the_answer_becomes_final() {
        let mut join = Join::new(DAY);
        join.capture("d1", "drone", frame("a", 4), false, at(4), 1);
        assert!(join.asks(at(5), 9).is_empty(), "its verdict may still come");
        assert_eq!(join.verdict("d1", frame("b", 5), at(5), 20), waits());
        let ask = |is_final| Ask {
            frame_id: "a".to_owned(),
            is_final,
        };
        assert_eq!(join.asks(at(5), 9), [ask(false)]);
        assert!(join.asks(at(5), 9).is_empty(), "not twice at once");
        let mut asked = Vec::new();
        for second in 6..=35 {
            asked.extend(
                join.asks(at(second), 9)
                    .into_iter()
                    .map(|ask| (second, ask)),
            );
        }
        assert_eq!(
            asked,
            [
                (9, ask(false)),
                (17, ask(false)),
                (33, ask(false)),
                (35, ask(true))
            ]
        );
        assert_eq!(join.take("a"), Some(1));
        assert_eq!(join.take("a"), None);
        assert_eq!(
            join.capture("d1", "drone", frame("b", 5), false, at(6), 2),
            Outcome::Pair(2, 20)
        );
    }

    #[test]
    fn a_verdict_from_the_other_door_proves_nothing_about_an_older_picture() {
        let mut join = Join::new(DAY);
        join.capture("x", "drone", frame("d", 4), false, at(4), "from the drone");
        assert_eq!(join.verdict("x", frame("m", 5), at(5), 1), waits());
        assert!(join.asks(at(5), 9).iter().all(|ask| !ask.is_final));
        assert_eq!(
            join.capture("x", "mobile", frame("m", 5), false, at(6), "from the phone"),
            Outcome::Pair("from the phone", 1)
        );
        for second in 6..200 {
            assert!(join.asks(at(second), 9).iter().all(|ask| !ask.is_final));
        }
        assert_eq!(
            join.verdict("x", frame("d", 4), at(200), 2),
            Outcome::Pair("from the drone", 2)
        );
    }

    #[test]
    fn a_lone_picture_is_asked_for_ever_more_rarely_and_no_answer_is_final() {
        let mut join: Join<_, ()> = Join::new(DAY);
        join.capture("d1", "drone", frame("a", 0), false, at(0), 1);
        let mut asked = Vec::new();
        for second in 0..=100 {
            for ask in join.asks(at(second), 9) {
                assert!(!ask.is_final);
                asked.push(second);
            }
        }
        assert_eq!(asked, [2, 6, 14, 30, 60, 90]);
        let late = join.asks(at(86_500), 9);
        assert!(late[0].is_final, "by then no record of it exists");
    }

    #[test]
    fn a_redelivered_picture_is_asked_for_at_once() {
        let mut join: Join<_, ()> = Join::new(DAY);
        join.capture("d1", "drone", frame("a", 1), true, at(9), 1);
        assert_eq!(join.asks(at(9), 9).len(), 1);
    }

    #[test]
    fn a_phone_and_a_drone_of_one_name_both_find_their_verdicts() {
        let mut join = Join::new(DAY);
        join.capture("x", "drone", frame("d", 5), false, at(5), "from the drone");
        join.capture("x", "mobile", frame("m", 4), false, at(5), "from the phone");
        assert_eq!(
            join.verdict("x", frame("m", 4), at(6), 1),
            Outcome::Pair("from the phone", 1)
        );
        assert_eq!(
            join.verdict("x", frame("d", 5), at(6), 2),
            Outcome::Pair("from the drone", 2)
        );
    }
}
