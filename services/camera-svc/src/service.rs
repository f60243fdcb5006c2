//! The wiring: one blocking reader a camera, and one task that publishes what it reads.

use std::sync::Arc;

use sovereign_bus::Bus;
use sovereign_proto::camera::v1::cameras_server::{self, CamerasServer};
use sovereign_service::{
    BuildError, Clock, Context, ReadyLatch, Replicas, RunError, Service, Stop, Tasks, limited,
};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::board::Board;
use crate::config::{Config, Plan, Settings};
use crate::grpc::Api;
use crate::metrics::Metrics;
use crate::publisher::Publisher;
use crate::reader::{Open, Reader, open};

/// Pictures between a reader and its publisher; one that finds no room is dropped and counted, but for a
/// file, whose reader waits.
const READER_DEPTH: usize = 2;

/// Reads the configured cameras.
#[derive(Debug)]
pub struct CameraService {
    plans: Vec<Plan>,
    board: Arc<Board>,
    bus: Bus,
    clock: Clock,
    metrics: Metrics,
    ready: ReadyLatch,
    open: Open,
}

impl Service for CameraService {
    const NAME: &'static str = "camera-svc";
    const GRPC_SERVICE: &'static str = cameras_server::SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = Config;
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        Ok(Self {
            board: Arc::new(Board::new(settings.cameras.iter().map(|plan| &plan.key))),
            plans: settings.cameras,
            metrics: Metrics::new(&context.metrics),
            ready: context.ready.latch("reading"),
            open,
            bus: context.bus,
            clock: context.clock,
        })
    }

    fn routes(&self) -> Routes {
        let api = Api {
            board: self.board.clone(),
        };
        Routes::new(limited!(CamerasServer::new(api)))
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        for plan in self.plans {
            let (shots, read) = mpsc::channel(READER_DEPTH);
            let id = plan.key.as_str().to_owned();
            let publisher = Publisher {
                camera: plan.key.clone(),
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
                shots,
                open: self.open,
                clock: self.clock.clone(),
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

#[cfg(test)]
mod tests;
