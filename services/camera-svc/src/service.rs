//! The wiring: one blocking reader a camera, and one task that publishes what it reads.

mod reader;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sovereign_bus::Bus;
use sovereign_proto::camera::v1::cameras_server::CamerasServer;
use sovereign_proto::camera::v1::{CameraState, CameraStatus, Frame};
use sovereign_proto::topics::CAMERA_FRAME;
use sovereign_service::{
    BuildError, Context, MAX_MESSAGE_BYTES, ReadyLatch, RunError, Service, Stop, Tasks, chain,
};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::config::{Config, Plan, Settings};
use crate::error::CameraError;
use crate::grpc::CamerasApi;
use crate::metrics::CameraMetrics;
use reader::{Open, Reader, now, open};

/// Frames between a reader and its publisher; a frame that finds no room is dropped and counted, but
/// for a file, whose reader waits.
const READER_DEPTH: usize = 2;

/// Reads the configured cameras.
#[derive(Debug)]
pub struct CameraService {
    plans: Vec<Plan>,
    board: Arc<Board>,
    bus: Bus,
    metrics: CameraMetrics,
    ready: ReadyLatch,
    open: Open,
}

/// The last word of every camera.
#[derive(Debug)]
pub(crate) struct Board {
    cameras: Mutex<BTreeMap<String, (CameraStatus, Option<Frame>)>>,
}

impl Board {
    pub(crate) fn new(plans: &[Plan]) -> Self {
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

    pub(crate) fn update(
        &self,
        camera_id: &str,
        change: impl FnOnce(&mut CameraStatus, &mut Option<Frame>),
    ) {
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
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        Ok(Self {
            board: Arc::new(Board::new(&settings.cameras)),
            plans: settings.cameras,
            metrics: CameraMetrics::register(&context),
            ready: context.ready.latch("reading"),
            open,
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
                open: self.open,
                clock: now,
            };
            tasks.spawn(format!("read {id}"), async move {
                tokio::task::spawn_blocking(move || reader.run())
                    .await
                    .map_err(|error| RunError::new("read a camera", error))
            });
        }
        // Without cameras, or when all have ended, there is still something to answer.
        tasks.spawn("wait for the stop", async move {
            stop.requested().await;
            Ok(())
        });
        self.ready.set();
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

#[cfg(test)]
mod tests;
