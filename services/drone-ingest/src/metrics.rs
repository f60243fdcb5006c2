//! Metrics of the door. What the domain counts is read when it is asked for, so a datagram costs nothing
//! here.

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

use crate::domain::door::Door;

sovereign_service::metrics! {
    /// What the service counts beside the domain.
    pub(crate) struct Metrics {
        /// Kernel buffer of the socket as granted.
        pub(crate) receive_buffer_bytes: Gauge,
        /// Vehicle states given to the bus.
        pub(crate) states_published: Counter,
        /// Vehicle states that the bus did not take.
        pub(crate) state_publish_failures: Counter,
        /// Errors of the socket that passed.
        pub(crate) receive_errors: Counter,
        /// Captures by whether telemetry of their exposure was found.
        pub(crate) captures_matched: Family<[(&'static str, &'static str); 1], Counter>,
        /// From the arrival of a picture to its place in the durable queue.
        pub(crate) capture_seconds: Histogram = Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        /// Time a picture waited for telemetry after its exposure.
        pub(crate) telemetry_wait_seconds: Histogram = Histogram::new(exponential_buckets(0.001, 2.0, 9)),
    }
}

impl Metrics {
    pub(crate) fn captured(&self, with_telemetry: bool, took: Duration) {
        let found = if with_telemetry { "found" } else { "none" };
        let matched = self.captures_matched.get_or_create(&[("telemetry", found)]);
        matched.inc();
        self.capture_seconds.observe(took.as_secs_f64());
    }
}

pub(crate) struct DoorCollector(pub(crate) Arc<Mutex<Door>>);

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
