//! The certificate while it is served: one that takes its place is taken up, and its end is told before it comes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::CertificateDer;
use sovereign_service::{Clock, RunError, Stop, chain};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::metrics::Metrics;
use crate::tls::{self, Certificate, Pair, TlsError};

/// Files that were replaced are taken up this soon.
const BEAT: Duration = Duration::from_secs(2);
/// The end of a certificate is told so long before, and then once a day.
const TELL: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) certificate: Certificate,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: IpAddr,
}

impl Source {
    fn load(&self, now: SystemTime) -> Result<Pair, TlsError> {
        tls::open(&self.certificate, &self.data_dir, self.listen, now)
    }

    /// What changes when a file is replaced.
    fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let (cert, key) = tls::paths(&self.certificate, &self.data_dir);
        let stamp = |path: PathBuf| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [cert, key].into_iter().map(stamp).collect()
    }
}

pub(crate) struct ServedCertificate {
    source: Source,
    clock: Clock,
    metrics: Arc<Metrics>,
    rustls: RustlsConfig,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    leaf: Arc<CertificateDer<'static>>,
    expires: SystemTime,
}

impl ServedCertificate {
    pub(crate) fn open(
        source: Source,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TlsError> {
        let pair = source.load(system_time(&clock))?;
        let served = Self {
            source,
            clock,
            metrics,
            rustls: RustlsConfig::from_config(Arc::new(pair.config)),
            current: RwLock::new(Current {
                leaf: Arc::new(pair.leaf),
                expires: pair.expires,
            }),
        };
        served.measure(pair.expires);
        Ok(served)
    }

    /// What the listener serves; a certificate that takes the place of this one is in it too.
    pub(crate) fn rustls(&self) -> RustlsConfig {
        self.rustls.clone()
    }

    /// The certificate that names this node.
    pub(crate) fn leaf(&self) -> Arc<CertificateDer<'static>> {
        self.current().leaf
    }

    /// Takes up what is replaced, until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: Stop) -> Result<(), RunError> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.source.stamp();
        let mut told: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = beat.tick() => {}
            }
            let stamp = self.source.stamp();
            if stamp != seen || self.is_to_be_renewed() {
                seen = stamp;
                if self.take_up().await {
                    // What was made here has changed the files.
                    seen = self.source.stamp();
                    told = None;
                }
            }
            if told.is_none_or(|told| told.elapsed() >= DAY) && self.tell_end() {
                told = Some(Instant::now());
            }
        }
    }

    /// Whether the certificate is ours to make, and it is time.
    fn is_to_be_renewed(&self) -> bool {
        let left = self
            .current()
            .expires
            .duration_since(system_time(&self.clock));
        self.source.certificate == Certificate::SelfSigned
            && left.is_ok_and(|left| left < tls::RENEW)
    }

    async fn take_up(&self) -> bool {
        let (source, now) = (self.source.clone(), system_time(&self.clock));
        let loaded = tokio::task::spawn_blocking(move || source.load(now)).await;
        match loaded {
            Ok(Ok(pair)) => {
                self.rustls.reload_from_config(Arc::new(pair.config));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current {
                    leaf: Arc::new(pair.leaf),
                    expires: pair.expires,
                };
                self.measure(pair.expires);
                tracing::info!("the certificate was replaced, and the new one is served");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = %chain(&error),
                    "the certificate was replaced by one that cannot be used; the old one is served on"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "read the certificate");
                false
            }
        }
    }

    /// Warns when the certificate has ended or is about to; says whether it did.
    fn tell_end(&self) -> bool {
        match self
            .current()
            .expires
            .duration_since(system_time(&self.clock))
        {
            Ok(left) if left > TELL => return false,
            Ok(left) => tracing::warn!(
                days = left.as_secs() / DAY.as_secs(),
                "the certificate ends soon: replace its files, they are taken up at once"
            ),
            Err(_) => tracing::warn!(
                "the certificate has ended, browsers and phones refuse it: replace its files, they are taken up at once"
            ),
        }
        true
    }

    fn current(&self) -> Current {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn measure(&self, expires: SystemTime) {
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = expires.unwrap_or_default().as_secs();
        self.metrics
            .certificate_expires_timestamp_seconds
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

fn system_time(clock: &Clock) -> SystemTime {
    let nanos = u64::try_from(clock.now().as_unix_nanos()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
