//! What every route works with.

use std::net::SocketAddr;
use std::sync::Arc;

use sovereign_service::{Clock, Stop};
use tokio::sync::Semaphore;

use super::assets::Console;
use crate::certificate::ServedCertificate;
use crate::config::Settings;
use crate::events::Events;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::secrets::AccessToken;
use crate::upstream::Upstream;

pub(crate) struct Edge {
    pub(crate) node: String,
    pub(crate) address: SocketAddr,
    pub(crate) settings: Settings,
    pub(crate) token: AccessToken,
    pub(crate) certificate: Arc<ServedCertificate>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) console: Console,
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) bodies: Semaphore,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
}
