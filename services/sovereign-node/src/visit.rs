//! What `demo` and `replay` share: finding the doors of the node beside them, and reporting.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sovereign_host::Host;
use sovereign_service::{ReadinessBoard, RunError, Stop};
use tokio::time::Instant;

use crate::feed::{Edge, EdgeError, Sent, Summary};
use crate::running::reachable;

const READY_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long a node that was asked to stop may go on painting; the rest waits for the next start.
const LEFT_AFTER_STOP: Duration = Duration::from_secs(5);

/// The front doors of a node in this process.
#[derive(Debug)]
pub struct Doors {
    /// Where drones send.
    pub udp: SocketAddr,
    https: SocketAddr,
    /// Folder with the edge's token and certificate.
    credentials: PathBuf,
    readiness: ReadinessBoard,
}

impl Doors {
    /// Doors of a host that has every service mounted.
    ///
    /// # Panics
    /// When the drone or the mobile service is not mounted: both commands mount all.
    pub fn of(host: &Host) -> Self {
        let address = |name: &str| {
            *host
                .addresses()
                .get(name)
                .expect("demo and replay mount every service")
        };
        Self {
            udp: reachable(address("drone-ingest.udp")),
            https: address("mobile-ingest.https"),
            credentials: host.data_dir().join("mobile-ingest"),
            readiness: host.readiness(),
        }
    }

    /// A client of the edge, once the node is ready.
    pub async fn open(&self) -> Result<Edge, RunError> {
        let mut latches = self.readiness.watch();
        let ready = latches.wait_for(|latches| latches.values().all(|&set| set));
        tokio::time::timeout(READY_LIMIT, ready)
            .await
            .map_err(|error| RunError::new("wait for the node to be ready", error))?
            .map_err(|error| RunError::new("wait for the node to be ready", error))?;
        Edge::open(self.https, &self.credentials)
            .map_err(|error| RunError::new("open the https edge", error))
    }
}

/// Frames were accepted but neither painted nor refused.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The edge cannot be reached.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// No progress.
    #[error("{decided} of {frames} frames are decided and nothing moves: see the log of tile-svc")]
    Stuck {
        /// Frames painted or refused.
        decided: u64,
        /// Frames accepted.
        frames: u64,
    },
}

/// Returns when the node has painted or refused `frames` frames since it started, or a little after a
/// stop was asked for.
pub async fn wait_until_painted(edge: &Edge, frames: u64, stop: &Stop) -> Result<(), WaitError> {
    let (mut decided, mut moved) = (0, Instant::now());
    let give_up = async {
        stop.requested().await;
        tokio::time::sleep(LEFT_AFTER_STOP).await;
    };
    tokio::pin!(give_up);
    loop {
        // A tile service that does not answer makes no progress.
        let paint = edge.stats().await?.paint.unwrap_or_default();
        let now = paint.frames_painted + paint.frames_refused.values().sum::<u64>();
        if now >= frames {
            return Ok(());
        }
        if now > decided {
            (decided, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STUCK_AFTER {
            return Err(WaitError::Stuck { decided, frames });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = &mut give_up => return Ok(()),
        }
    }
}

/// Where results go: lines and bars for people, one JSON object for machines.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// One JSON object at the end and nothing else on the standard output.
    pub json: bool,
}

impl Report {
    /// A line for people; machines are not told.
    pub fn line(&self, text: &str) {
        if !self.json {
            print_line(text);
        }
    }

    /// An object for machines.
    pub fn line_for_machines(&self, object: &serde_json::Value) {
        print_line(&object.to_string());
    }

    /// The outcome.
    pub fn summary(&self, summary: &Summary) {
        if self.json {
            let object =
                serde_json::to_string(summary).expect("a summary is numbers and known names");
            print_line(&object);
        } else {
            print_line(&summary.for_people());
        }
    }

    /// The outcome of a node that was stopped before anything could enter it.
    pub fn stopped_before_ready(&self) {
        let text = "stopped before the node was ready";
        if self.json {
            print_line(&serde_json::json!({ "error": text }).to_string());
        } else {
            print_line(text);
        }
    }

    /// A bar for `total` steps, drawn only for a person at a terminal.
    pub fn bar(&self, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
                .expect("the template is constant and valid"),
        );
        bar
    }

    /// Shows what the node has measured, once a second, for ever.
    pub async fn progress(
        &self,
        edge: &Edge,
        sent: &Sent,
        duration: Option<u64>,
        start: Instant,
    ) -> Infallible {
        let bar = ProgressBar::with_draw_target(duration, self.target());
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .expect("the template is constant and valid"),
        );
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            if bar.is_hidden() {
                std::future::pending::<()>().await;
            }
            let frames = sent.frames.load(Ordering::Relaxed);
            // A question that fails is asked again in a second; the flight itself reports failures.
            let Ok(stats) = edge.stats().await else {
                continue;
            };
            let paint = stats.paint.unwrap_or_default();
            let latency = paint.latency.map_or_else(
                || "no frame painted yet".to_owned(),
                |latency| {
                    format!(
                        "frame to tile p50 {:.0} ms, p99 {:.0} ms",
                        latency.p50_ms, latency.p99_ms
                    )
                },
            );
            bar.set_message(format!(
                "{} s  {frames} pictures sent, {} painted, {} tiles, {latency}",
                start.elapsed().as_secs(),
                paint.frames_painted,
                paint.tiles_written,
            ));
            bar.tick();
        }
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.json || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        }
    }
}

fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
