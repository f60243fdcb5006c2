//! What the edge counts.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::frame::{RejectCode, Stream};

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters of the edge; names start with `sovereign_mobile_ingest_`.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// `samples_accepted_total{stream}`: samples and pictures of phones durably queued.
    accepted: Labelled,
    /// `samples_rejected_total{reason}`: samples, pictures and registrations refused, by contract code.
    rejected: Labelled,
    /// `captures_total{outcome}`: pictures of drones taken by drone-ingest: accepted, duplicate.
    captures: Labelled,
    /// `captures_refused_total{reason}`: pictures of drones refused here or there, by code of the problem.
    captures_refused: Labelled,
    /// `access_refused_total{what}`: who was not let in, where nothing else counts it: read, session.
    access_refused: Labelled,
    /// `calls_failed_total{service}`: calls of another service that did not answer, or not as it should.
    calls_failed: Labelled,
    /// `http_responses_total{class}`: answers by class of status (`2xx`).
    responses: Labelled,
    /// `connections_refused_total`: connections closed at once because as many as allowed were open.
    pub(crate) connections_refused: Counter,
    /// `event_readers`: open event streams.
    pub(crate) event_readers: Gauge,
    /// `events_sent_total`: events encoded for readers.
    pub(crate) events_sent: Counter,
    /// `events_missed_total`: events that slow readers lost.
    pub(crate) events_missed: Counter,
}

impl Metrics {
    /// Adds them to the registry of the process.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "samples_accepted",
            "Samples and pictures of phones durably queued, by stream",
            self.accepted.clone(),
        );
        registry.register(
            "samples_rejected",
            "Samples, pictures and registrations refused, by contract code",
            self.rejected.clone(),
        );
        registry.register(
            "captures",
            "Pictures of drones taken by drone-ingest, by outcome",
            self.captures.clone(),
        );
        registry.register(
            "captures_refused",
            "Pictures of drones refused, by code of the problem",
            self.captures_refused.clone(),
        );
        registry.register(
            "access_refused",
            "Reads and sessions refused to who has no valid token",
            self.access_refused.clone(),
        );
        registry.register(
            "calls_failed",
            "Calls of another service that did not answer, or not as it should",
            self.calls_failed.clone(),
        );
        registry.register(
            "http_responses",
            "Answers by class of status",
            self.responses.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed because as many as allowed were open",
            self.connections_refused.clone(),
        );
        registry.register(
            "event_readers",
            "Open event streams",
            self.event_readers.clone(),
        );
        registry.register(
            "events_sent",
            "Events encoded for readers",
            self.events_sent.clone(),
        );
        registry.register(
            "events_missed",
            "Events that slow readers lost",
            self.events_missed.clone(),
        );
    }

    pub(crate) fn accepted(&self, stream: Stream) {
        self.accepted
            .get_or_create(&[("stream", stream.as_str())])
            .inc();
    }

    pub(crate) fn rejected(&self, code: RejectCode) {
        self.rejected
            .get_or_create(&[("reason", code.as_str())])
            .inc();
    }

    pub(crate) fn capture(&self, outcome: &'static str) {
        self.captures.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn capture_refused(&self, reason: &'static str) {
        self.captures_refused
            .get_or_create(&[("reason", reason)])
            .inc();
    }

    pub(crate) fn access_refused(&self, what: &'static str) {
        self.access_refused.get_or_create(&[("what", what)]).inc();
    }

    pub(crate) fn call_failed(&self, service: &'static str) {
        self.calls_failed
            .get_or_create(&[("service", service)])
            .inc();
    }

    pub(crate) fn response(&self, class: &'static str) {
        self.responses.get_or_create(&[("class", class)]).inc();
    }

    /// Accepted so far, by stream; streams without any are absent.
    pub(crate) fn accepted_by_stream(&self) -> BTreeMap<String, u64> {
        Stream::ALL
            .into_iter()
            .filter_map(|stream| count(&self.accepted, "stream", stream.as_str()))
            .collect()
    }

    /// Refused so far, by code; codes without any are absent.
    pub(crate) fn rejected_by_reason(&self) -> BTreeMap<String, u64> {
        RejectCode::ALL
            .into_iter()
            .filter_map(|code| count(&self.rejected, "reason", code.as_str()))
            .collect()
    }
}

fn count(family: &Labelled, label: &'static str, value: &'static str) -> Option<(String, u64)> {
    let count = family.get(&[(label, value)])?.get();
    (count > 0).then(|| (value.to_owned(), count))
}
