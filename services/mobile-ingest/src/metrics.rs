//! What the edge counts.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::domain::frame::{RejectCode, Stream};

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

sovereign_service::metrics! {
    /// Counters of the edge.
    pub(crate) struct Metrics {
        /// Samples and pictures of phones that were accepted, by stream.
        samples_accepted: Labelled,
        /// Samples, pictures and registrations refused, by contract code.
        samples_rejected: Labelled,
        /// Pictures of drones taken by drone-ingest, by outcome.
        captures: Labelled,
        /// Pictures of drones refused, by code of the problem.
        captures_refused: Labelled,
        /// Reads and sessions refused to who has no valid token.
        access_refused: Labelled,
        /// Calls of another service that did not answer, or not as it should.
        calls_failed: Labelled,
        /// Answers by class of status.
        http_responses: Labelled,
        /// When the certificate that is served ends, seconds since the Unix epoch.
        pub(crate) certificate_expires_timestamp_seconds: Gauge,
        /// Connections closed because as many as allowed were open.
        pub(crate) connections_refused: Counter,
        /// Open event streams.
        pub(crate) event_readers: Gauge,
        /// Events encoded for readers.
        pub(crate) events_sent: Counter,
        /// Events that slow readers lost.
        pub(crate) events_missed: Counter,
    }
}

impl Metrics {
    #[cfg(test)]
    pub(crate) fn for_tests() -> std::sync::Arc<Self> {
        let registry = sovereign_service::Metrics::new(std::sync::Arc::default(), "test");
        std::sync::Arc::new(Self::new(&registry))
    }

    pub(crate) fn accepted(&self, stream: Stream) {
        self.samples_accepted
            .get_or_create(&[("stream", stream.as_str())])
            .inc();
    }

    pub(crate) fn rejected(&self, code: RejectCode) {
        self.samples_rejected
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
        self.http_responses.get_or_create(&[("class", class)]).inc();
    }

    pub(crate) fn accepted_by_stream(&self) -> BTreeMap<String, u64> {
        Stream::ALL
            .into_iter()
            .filter_map(|stream| count(&self.samples_accepted, "stream", stream.as_str()))
            .collect()
    }

    pub(crate) fn rejected_by_reason(&self) -> BTreeMap<String, u64> {
        RejectCode::ALL
            .into_iter()
            .filter_map(|code| count(&self.samples_rejected, "reason", code.as_str()))
            .collect()
    }
}

fn count(family: &Labelled, label: &'static str, value: &'static str) -> Option<(String, u64)> {
    let count = family.get(&[(label, value)])?.get();
    (count > 0).then(|| (value.to_owned(), count))
}
