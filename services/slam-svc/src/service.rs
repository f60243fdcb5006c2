//! The wiring.

use std::sync::Arc;

use sovereign_bus::Consumer;
use sovereign_objects::Objects;
use sovereign_proto::geo::v1::Capture;
use sovereign_proto::mobile::v1::Sample;
use sovereign_proto::slam::v1::slam_server::{SERVICE_NAME, SlamServer};
use sovereign_proto::tile::v1::FrameRefused;
use sovereign_proto::topics::{DRONE_CAPTURE, MOBILE_CAPTURE, MOBILE_SAMPLE, TILE_REFUSED};
use sovereign_service::{
    BuildError, Clock, Context, ReadyLatch, Replicas, RunError, Service, Stop, Tasks, limited,
    settle_each,
};
use tokio::sync::{Notify, RwLock};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::grpc::Api;
use crate::judge::Judge;
use crate::metrics::Metrics;
use crate::store::{MAX_KEYFRAMES, Store};
use crate::terrain::Terrain;

/// Deliveries of one topic held at once, each of another sensor; beyond it the bus keeps them. A capture
/// holds the header of its picture, 8 MiB at most and mostly 64 KiB.
const MAX_HELD: usize = 32;
const STORE_FILE: &str = "keyframes.redb";

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// Has the pictures.
        checkpoint: required "checkpoint-svc",
    }
}

/// Decides where pictures were taken.
pub struct SlamService {
    drone_captures: Consumer<Capture>,
    phone_captures: Consumer<Capture>,
    phone_samples: Consumer<Sample>,
    refusals: Consumer<FrameRefused>,
    judge: Arc<Judge>,
    clock: Clock,
    ready: ReadyLatch,
}

impl Service for SlamService {
    const NAME: &'static str = "slam-svc";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::One;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("consuming");
        let metrics = Metrics::new(&context.metrics);
        let path = context.data_dir.join(STORE_FILE);
        let failed = |error| BuildError::new("open the keyframe store", error);
        let store =
            Store::open(&path, MAX_KEYFRAMES, metrics.records_damaged.clone()).map_err(failed)?;
        let calibrations = store.calibrations().map_err(failed)?;
        let mut site = settings.site;
        if let Some(terrain) = settings.terrain {
            let geoid = site.geoid.clone();
            let opening = tokio::task::spawn_blocking(move || Terrain::open(&terrain, geoid)).await;
            let terrain = opening
                .map_err(|error| BuildError::new("open the terrain model", error))?
                .map_err(|error| BuildError::new("open the terrain model", error))?;
            tracing::info!(sheets = terrain.len(), "the terrain model is open");
            site.terrain = Some(Arc::new(terrain));
        }
        let bus = &context.bus;
        let subscribe = |error| BuildError::new("subscribe", error);
        if store.found().is_damaged() {
            tracing::warn!("verdicts are missing: the captures that are kept are judged again");
            bus.rewind(&DRONE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?;
            bus.rewind(&MOBILE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?;
        }
        let drone_captures = bus.consume(&DRONE_CAPTURE, Self::NAME).await;
        let phone_captures = bus.consume(&MOBILE_CAPTURE, Self::NAME).await;
        let phone_samples = bus.consume(&MOBILE_SAMPLE, Self::NAME).await;
        let refusals = bus.consume(&TILE_REFUSED, Self::NAME).await;
        Ok(Self {
            drone_captures: drone_captures.map_err(subscribe)?,
            phone_captures: phone_captures.map_err(subscribe)?,
            phone_samples: phone_samples.map_err(subscribe)?,
            refusals: refusals.map_err(subscribe)?,
            judge: Arc::new(Judge {
                site,
                store: Arc::new(store),
                objects: Objects::new(calls.checkpoint),
                bus: context.bus,
                metrics,
                calibrations: RwLock::new(calibrations),
                rejudge: Notify::new(),
            }),
            clock: context.clock,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        let api = Api {
            judge: self.judge.clone(),
            clock: self.clock.clone(),
        };
        Routes::new(limited!(SlamServer::new(api)))
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        for (name, captures) in [
            ("drone captures", self.drone_captures),
            ("phone captures", self.phone_captures),
        ] {
            let judge = self.judge.clone();
            let own = stop.clone();
            let settle = move |delivery| judge.clone().settle_capture(delivery, own.clone());
            tasks.spawn(name, settle_each(captures, stop.clone(), MAX_HELD, settle));
        }
        let judge = self.judge.clone();
        let own = stop.clone();
        let settle = move |delivery| judge.clone().settle_sample(delivery, own.clone());
        let samples = settle_each(self.phone_samples, stop.clone(), MAX_HELD, settle);
        tasks.spawn("phone samples", samples);
        let judge = self.judge.clone();
        let own = stop.clone();
        let settle = move |delivery| judge.clone().settle_refusal(delivery, own.clone());
        let refusals = settle_each(self.refusals, stop.clone(), MAX_HELD, settle);
        tasks.spawn("refusals", refusals);
        tasks.spawn("judge again", self.judge.judge_again(stop));
        self.ready.set();
        tasks.wait().await
    }
}
