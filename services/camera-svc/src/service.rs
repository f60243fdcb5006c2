//! The wiring: one blocking reader a camera, and one task that publishes what it reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sovereign_bus::Bus;
use sovereign_model::Timestamp;
use sovereign_proto::camera::v1::cameras_server::CamerasServer;
use sovereign_proto::camera::v1::{CameraState, CameraStatus, Frame};
use sovereign_proto::topics::CAMERA_FRAME;
use sovereign_service::{
    BuildError, Context, MAX_MESSAGE_BYTES, ReadyLatch, RunError, Service, Stop, Tasks, chain,
};
use sovereign_vision::{Capture, CaptureError, Source};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::config::{Config, Plan, plans_from_config};
use crate::domain::{Backoff, Pacer};
use crate::error::CameraError;
use crate::grpc::CamerasApi;
use crate::metrics::CameraMetrics;

/// Frames between a reader and its publisher: when the bus is slow the reader waits, and the pacer skips.
const READER_DEPTH: usize = 2;
/// Longest sleep of a reader before it looks again whether it should stop.
const NAP: Duration = Duration::from_millis(100);

/// Reads the configured cameras.
#[derive(Debug)]
pub struct CameraService {
    plans: Vec<Plan>,
    board: Arc<Board>,
    bus: Bus,
    metrics: CameraMetrics,
    ready: ReadyLatch,
}

/// The last word of every camera.
#[derive(Debug)]
pub(crate) struct Board {
    cameras: Mutex<BTreeMap<String, (CameraStatus, Option<Frame>)>>,
}

impl Board {
    fn new(plans: &[Plan]) -> Self {
        let cameras = plans
            .iter()
            .map(|plan| {
                let status = CameraStatus {
                    camera_id: plan.key.as_str().to_owned(),
                    state: CameraState::Connecting.into(),
                    ..CameraStatus::default()
                };
                (plan.key.as_str().to_owned(), (status, None))
            })
            .collect();
        Self {
            cameras: Mutex::new(cameras),
        }
    }

    pub(crate) fn statuses(&self) -> Vec<CameraStatus> {
        let cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        cameras.values().map(|(status, _)| status.clone()).collect()
    }

    pub(crate) fn snapshot(&self, camera_id: &str) -> Result<Frame, CameraError> {
        let cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, frame) = cameras
            .get(camera_id)
            .ok_or_else(|| CameraError::Unknown(camera_id.to_owned()))?;
        frame
            .clone()
            .ok_or_else(|| CameraError::NoFrame(camera_id.to_owned()))
    }

    fn update(&self, camera_id: &str, change: impl FnOnce(&mut CameraStatus, &mut Option<Frame>)) {
        let mut cameras = self.cameras.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((status, frame)) = cameras.get_mut(camera_id) {
            change(status, frame);
        }
    }
}

impl Service for CameraService {
    const NAME: &'static str = "camera-svc";
    const GRPC_SERVICE: &'static str = "sovereign.camera.v1.Cameras";
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    type Config = Config;
    type Calls = ();

    fn check(config: &Config) -> Result<(), BuildError> {
        plans_from_config(config.clone()).map(drop)
    }

    async fn build(config: Config, (): (), context: Context) -> Result<Self, BuildError> {
        let plans = plans_from_config(config)?;
        Ok(Self {
            board: Arc::new(Board::new(&plans)),
            plans,
            metrics: CameraMetrics::register(&context),
            ready: context.ready.latch("reading"),
            bus: context.bus,
        })
    }

    fn routes(&self) -> Routes {
        let api = CamerasApi {
            board: self.board.clone(),
        };
        Routes::new(
            CamerasServer::new(api)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        for plan in self.plans {
            let (frames, read) = mpsc::channel(READER_DEPTH);
            let id = plan.key.as_str().to_owned();
            let publisher = Publisher {
                plan: plan.clone(),
                board: self.board.clone(),
                bus: self.bus.clone(),
                metrics: self.metrics.clone(),
            };
            tasks.spawn(format!("publish {id}"), publisher.run(read));
            let reader = Reader {
                plan,
                board: self.board.clone(),
                metrics: self.metrics.clone(),
                stop: stop.clone(),
                frames,
            };
            tasks.spawn(format!("read {id}"), async move {
                tokio::task::spawn_blocking(move || reader.run())
                    .await
                    .map_err(|error| RunError::new("read a camera", error))
            });
        }
        self.ready.set();
        stop.requested().await;
        tasks.wait().await
    }
}

/// Publishes what one reader hands over.
struct Publisher {
    plan: Plan,
    board: Arc<Board>,
    bus: Bus,
    metrics: CameraMetrics,
}

impl Publisher {
    async fn run(self, mut frames: mpsc::Receiver<Frame>) -> Result<(), RunError> {
        let id = self.plan.key.as_str();
        while let Some(frame) = frames.recv().await {
            match self
                .bus
                .publish(&CAMERA_FRAME, Some(&self.plan.key), &frame)
                .await
            {
                Ok(()) => {
                    self.metrics.frames_published.inc();
                    self.board.update(id, |status, newest| {
                        status.frames += 1;
                        *newest = Some(frame);
                    });
                }
                Err(error) => {
                    self.metrics.frames_refused.inc();
                    self.board
                        .update(id, |status, _| status.last_error = chain(&error));
                }
            }
        }
        Ok(())
    }
}

/// Reads one camera on a thread of its own.
struct Reader {
    plan: Plan,
    board: Arc<Board>,
    metrics: CameraMetrics,
    stop: Stop,
    frames: mpsc::Sender<Frame>,
}

impl Reader {
    fn run(self) {
        let id = self.plan.key.as_str().to_owned();
        let mut backoff = Backoff::default();
        let mut sequence = 0;
        while !self.stop.is_requested() {
            let before = sequence;
            match self.read_until_it_ends(&mut sequence) {
                Ok(()) => {
                    tracing::info!(camera = id, frames = sequence, "camera ended");
                    self.set_state(CameraState::Ended);
                    return;
                }
                Err(error) => {
                    if sequence > before {
                        backoff.after_success();
                    }
                    let pause = backoff.after_failure();
                    tracing::warn!(camera = id, error = %chain(&error), ?pause, "camera failed");
                    self.metrics.reconnects.inc();
                    self.board.update(&id, |status, _| {
                        status.state = CameraState::Connecting.into();
                        status.reconnects += 1;
                        status.last_error = chain(&error);
                    });
                    self.rest(pause);
                }
            }
        }
    }

    /// Returns when a file ended or a stop was requested.
    fn read_until_it_ends(&self, sequence: &mut u64) -> Result<(), CaptureError> {
        let mut capture = Capture::open(&self.plan.source)?;
        self.set_state(CameraState::Streaming);
        let mut pacer = Pacer::new(self.plan.fps);
        let file_period = matches!(self.plan.source, Source::File(_))
            .then(|| Duration::from_secs_f64(1.0 / capture.frame_rate().unwrap_or(self.plan.fps)));
        let mut due = now();
        while !self.stop.is_requested() {
            if let Some(period) = file_period {
                let early = due.nanos_since(now());
                if early > 0 {
                    self.rest(Duration::from_nanos(early.unsigned_abs()));
                }
                due = Timestamp::from_unix_nanos(due.as_unix_nanos() + period.as_nanos() as i64);
            }
            *sequence += 1;
            let at = if file_period.is_some() { due } else { now() };
            if pacer.passes(at) {
                let plan = &self.plan;
                let Some(read) = capture.read_jpeg(plan.width, plan.height, plan.quality)? else {
                    return Ok(());
                };
                let frame = Frame {
                    camera_id: plan.key.as_str().to_owned(),
                    sequence: *sequence,
                    captured_unix_nanos: now().as_unix_nanos(),
                    width_px: read.width_px,
                    height_px: read.height_px,
                    jpeg: read.jpeg.into(),
                };
                if self.frames.blocking_send(frame).is_err() {
                    return Ok(());
                }
            } else {
                if !capture.skip()? {
                    return Ok(());
                }
                self.metrics.frames_skipped.inc();
                self.board.update(self.plan.key.as_str(), |status, _| {
                    status.frames_skipped += 1;
                });
            }
        }
        Ok(())
    }

    fn set_state(&self, state: CameraState) {
        self.board.update(self.plan.key.as_str(), |status, _| {
            status.state = state.into();
        });
    }

    /// Waits on the reader's own thread, and notices a stop.
    fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.stop.is_requested() {
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
