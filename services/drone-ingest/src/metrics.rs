//! Metrics of the door.
//!
//! What the domain counts is read when it is asked for, so a datagram costs nothing here. Every name
//! begins with `sovereign_drone_ingest_`:
//!
//! | name | what |
//! |---|---|
//! | `datagrams_total`, `received_bytes_total` | what the socket delivered |
//! | `accepted_total{type}` | MAVLink messages by name, and `av-v1`, `capture`, `capture-duplicate`, `lidar` |
//! | `rejected_total{reason}` | refusals, by the codes of [`Reject`](crate::domain::reject::Reject) |
//! | `refused_bytes_total` | bytes that were no frame |
//! | `messages_total{version}` | MAVLink messages by version |
//! | `signed_messages_total` | MAVLink messages with a verified signature |
//! | `vehicles` | vehicles in the table |
//! | `link_messages`, `link_lost` | messages of the vehicles in the table, and those missing between them |
//! | `receive_buffer_bytes` | kernel buffer of the socket as granted |
//! | `states_published_total`, `state_publish_failures_total` | states given to the bus, and not taken by it |
//! | `receive_errors_total` | errors of the socket that passed |
//! | `captures_matched_total{telemetry}` | captures with (`found`) and without (`none`) telemetry |
//! | `capture_seconds` | from a picture's arrival to its place in the durable queue |
//! | `telemetry_wait_seconds` | time a picture waited for telemetry after its exposure |

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::door::Door;

/// What the service counts beside the domain.
#[derive(Clone, Debug)]
pub(crate) struct DroneMetrics {
    receive_buffer_bytes: Gauge,
    states_published: Counter,
    state_publish_failures: Counter,
    receive_errors: Counter,
    captures_matched: Family<[(&'static str, &'static str); 1], Counter>,
    capture_seconds: Histogram,
    telemetry_wait_seconds: Histogram,
}

impl DroneMetrics {
    /// Registers everything, also what the door counts.
    pub(crate) fn register(registry: &mut Registry, door: &Arc<Mutex<Door>>) -> DroneMetrics {
        // 1 ms to about 16 s, and 1 ms to about 0.25 s.
        let capture_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let telemetry_wait_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 9));
        let metrics = DroneMetrics {
            receive_buffer_bytes: Gauge::default(),
            states_published: Counter::default(),
            state_publish_failures: Counter::default(),
            receive_errors: Counter::default(),
            captures_matched: Family::default(),
            capture_seconds,
            telemetry_wait_seconds,
        };
        registry.register(
            "receive_buffer_bytes",
            "Kernel buffer of the socket as granted",
            metrics.receive_buffer_bytes.clone(),
        );
        registry.register(
            "states_published",
            "Vehicle states given to the bus",
            metrics.states_published.clone(),
        );
        registry.register(
            "state_publish_failures",
            "Vehicle states that the bus did not take",
            metrics.state_publish_failures.clone(),
        );
        registry.register(
            "receive_errors",
            "Errors of the socket that passed",
            metrics.receive_errors.clone(),
        );
        registry.register(
            "captures_matched",
            "Captures by whether telemetry of their exposure was found",
            metrics.captures_matched.clone(),
        );
        registry.register(
            "capture_seconds",
            "From the arrival of a picture to its place in the durable queue",
            metrics.capture_seconds.clone(),
        );
        registry.register(
            "telemetry_wait_seconds",
            "Time a picture waited for telemetry after its exposure",
            metrics.telemetry_wait_seconds.clone(),
        );
        registry.register_collector(Box::new(DoorCollector(Arc::clone(door))));
        metrics
    }

    pub(crate) fn receive_buffer(&self, bytes: usize) {
        self.receive_buffer_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn state_published(&self) {
        self.states_published.inc();
    }

    pub(crate) fn state_publish_failed(&self) {
        self.state_publish_failures.inc();
    }

    pub(crate) fn receive_failed(&self) {
        self.receive_errors.inc();
    }

    pub(crate) fn captured(&self, with_telemetry: bool, took: Duration) {
        let found = if with_telemetry { "found" } else { "none" };
        self.captures_matched
            .get_or_create(&[("telemetry", found)])
            .inc();
        self.capture_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn waited_for_telemetry(&self, took: Duration) {
        self.telemetry_wait_seconds.observe(took.as_secs_f64());
    }
}

struct DoorCollector(Arc<Mutex<Door>>);

impl fmt::Debug for DoorCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DoorCollector")
    }
}

impl Collector for DoorCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (stats, vehicles) = {
            let door = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (door.stats().clone(), door.vehicles())
        };
        for (name, help, value) in [
            ("datagrams", "Datagrams received", stats.datagrams),
            ("received_bytes", "Bytes received", stats.bytes),
            (
                "refused_bytes",
                "Bytes that were no frame",
                stats.refused_bytes,
            ),
            (
                "signed_messages",
                "Messages with a verified signature",
                stats.signed,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let accepted = stats.accepted_by_type();
        family(
            &mut encoder,
            "accepted",
            "What was accepted",
            "type",
            accepted,
        )?;
        let rejected = stats.rejected_by_reason().map(|(r, n)| (r.code(), n));
        family(
            &mut encoder,
            "rejected",
            "What was refused",
            "reason",
            rejected,
        )?;
        let versions = stats.messages_by_version().into_iter();
        family(
            &mut encoder,
            "messages",
            "MAVLink messages",
            "version",
            versions,
        )?;
        let sum = |part: fn(&crate::domain::vehicle::LinkCounts) -> u64| {
            let all = vehicles.iter().map(|(state, _)| part(&state.link));
            i64::try_from(all.sum::<u64>()).unwrap_or(i64::MAX)
        };
        let heard = i64::try_from(vehicles.len()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("vehicles", "Vehicles in the table", heard),
            (
                "link_messages",
                "Messages of the vehicles in the table",
                sum(|link| link.messages),
            ),
            (
                "link_lost",
                "Messages missing by sequence number, of the vehicles in the table",
                sum(|link| link.lost),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let mut metrics = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in counts {
        let labels = [(label, value)];
        ConstCounter::new(count).encode(metrics.encode_family(&labels)?)?;
    }
    Ok(())
}
