//! The wiring.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sovereign_objects::Objects;
use sovereign_proto::drone::v1::drones_server::{DronesServer, SERVICE_NAME};
use sovereign_service::{
    BuildError, Context, Listen, ReadyLatch, Replicas, RunError, Service, Stop, StopSource, Tasks,
    limited,
};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::door::Door;
use crate::grpc::Api;
use crate::intake::Intake;
use crate::keeper::Keeper;
use crate::metrics::{DoorCollector, Metrics};
use crate::publisher::Publisher;
use crate::store::{Kept, SigningTimes};
use crate::udp::Udp;

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// Keeps pictures and scans.
        checkpoint: required "checkpoint-svc",
    }
}

/// The service.
#[derive(Debug)]
pub struct DroneService {
    intake: Arc<Intake>,
    publisher: Publisher,
    metrics: Metrics,
    udp: Udp,
    keeper: Keeper,
    ready: ReadyLatch,
}

impl Service for DroneService {
    const NAME: &'static str = "drone-ingest";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::Any;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    fn listens(settings: &Settings) -> Vec<Listen> {
        vec![Listen::udp("listen", settings.listen)]
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("udp");
        let mut door = Door::new(settings.rules);
        let signing_times = SigningTimes::in_folder(&context.data_dir);
        let Kept { times, exact } = signing_times.read();
        door.signatures().remember(times, exact);
        let door = Arc::new(Mutex::new(door));
        let metrics = Metrics::new(&context.metrics);
        let counted = Box::new(DoorCollector(Arc::clone(&door)));
        context
            .metrics
            .register(|registry| registry.register_collector(counted));
        let udp = Udp::bind(settings.listen)
            .map_err(|e| BuildError::new(format!("bind UDP {}", settings.listen), e))?;
        let granted = i64::try_from(udp.buffer).unwrap_or(i64::MAX);
        metrics.receive_buffer_bytes.set(granted);
        let intake = Arc::new(Intake::new(
            context.bus.clone(),
            Objects::new(calls.checkpoint),
            context.clock,
            door,
            metrics.clone(),
        ));
        Ok(Self {
            publisher: Publisher {
                bus: context.bus,
                intake: Arc::clone(&intake),
                metrics: metrics.clone(),
            },
            keeper: Keeper {
                store: signing_times,
                intake: Arc::clone(&intake),
            },
            intake,
            metrics,
            udp,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        let intake = Arc::clone(&self.intake);
        Routes::new(limited!(DronesServer::new(Api { intake })))
    }

    fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("udp", self.udp.address)]
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let own = StopSource::under(&stop).stop();
        let mut tasks = Tasks::new(own.clone());
        let metrics = self.metrics;
        self.udp
            .spawn(&self.intake, metrics, &mut tasks, own.clone());
        tasks.spawn("publish", self.publisher.clone().run(own.clone()));
        tasks.spawn("signing times", self.keeper.clone().run(own));
        self.ready.set();
        let ended = tasks.wait().await;
        self.keeper.keep_last().await;
        self.publisher.publish_last().await;
        ended
    }
}

#[cfg(test)]
mod tests;
