//! The wiring.

use std::sync::Arc;

use sovereign_bus::{Bus, Consumer};
use sovereign_objects::Objects;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::slam::v1::Keyframe;
use sovereign_proto::tile::v1::tiles_server::{SERVICE_NAME, TilesServer};
use sovereign_proto::topics::SLAM_KEYFRAME;
use sovereign_service::{
    BuildError, Clock, Context, ReadyLatch, Replicas, RunError, Service, Stop, StopSource, Tasks,
    limited, settle_each,
};
use tokio::sync::{Notify, Semaphore, mpsc};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::layer::Layer;
use crate::grpc::Api;
use crate::intake::{Intake, MAX_HELD, MAX_PICTURES};
use crate::metrics::{Meter, Metrics};
use crate::painter::{MAX_TILES_A_COMMIT, Painter};
use crate::prepare::Darkroom;
use crate::refusals::Refusals;
use crate::served::Served;
use crate::store::Store;

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// Has the pictures.
        checkpoint: required "checkpoint-svc",
    }
}

/// The tile service.
pub struct TileService {
    settings: Settings,
    store: Arc<Store>,
    served: Arc<Served>,
    meter: Arc<Meter>,
    objects: Objects,
    bus: Bus,
    clock: Clock,
    keyframes: Consumer<Keyframe>,
    ready: ReadyLatch,
}

const STORE_FILE: &str = "tiles.redb";

impl Service for TileService {
    const NAME: &'static str = "tile-svc";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    const REPLICAS: Replicas = Replicas::One;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("subscribed");
        let path = context.data_dir.join(STORE_FILE);
        let opening = move || Store::open(&path, settings.paint_cache_bytes);
        let store = tokio::task::spawn_blocking(opening)
            .await
            .map_err(|e| BuildError::new("open the tile store", e))?
            .map_err(|e| BuildError::new("open the map", e))?;
        for layer in Layer::ALL {
            let summary = store.map().summary(layer);
            let kept = settings.zooms.min;
            if summary.tiles > 0 && summary.min_zoom != kept {
                return Err(BuildError::config(
                    "min_zoom",
                    format!(
                        "is {kept}, but the map was painted with {painted}, and its coarse tiles are \
                         worked out only as they are painted: set it to {painted}, or move {STORE_FILE} \
                         away to begin the map anew",
                        painted = summary.min_zoom
                    ),
                ));
            }
            tracing::info!(
                layer = layer.name(),
                tiles = summary.tiles,
                changes = summary.last_change,
                "the map is open"
            );
        }
        let consume = |error| BuildError::new("consume keyframes", error);
        if store.found().is_damaged() {
            tracing::warn!("tiles are missing: the keyframes that are kept are painted again");
            let rewound = context.bus.rewind(&SLAM_KEYFRAME, Self::NAME).await;
            rewound.map_err(consume)?;
        }
        let keyframes = context.bus.consume(&SLAM_KEYFRAME, Self::NAME).await;
        Ok(Self {
            served: Arc::new(Served::new(settings.serve_cache_bytes)),
            settings,
            store: Arc::new(store),
            meter: Arc::new(Meter::new(
                Metrics::new(&context.metrics),
                context.clock.now(),
            )),
            objects: Objects::new(calls.checkpoint),
            keyframes: keyframes.map_err(consume)?,
            bus: context.bus,
            clock: context.clock,
            ready,
        })
    }

    fn routes(&self) -> Routes {
        let api = Api {
            map: self.store.map().clone(),
            served: Arc::clone(&self.served),
            meter: Arc::clone(&self.meter),
            lossy_quality: self.settings.lossy_quality,
        };
        Routes::new(limited!(TilesServer::new(api)))
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let own = StopSource::under(&stop).stop();
        let mut tasks = Tasks::new(own.clone());
        // As many as may have a picture in memory: a sender never waits.
        let (painter, ready) = mpsc::channel(MAX_PICTURES);
        let repaint = Arc::new(Notify::new());
        let darkroom = Darkroom {
            objects: self.objects.clone(),
            settings: self.settings,
        };
        let refusals = Arc::new(Refusals {
            meter: Arc::clone(&self.meter),
            bus: self.bus.clone(),
        });
        let intake = Arc::new(Intake {
            store: Arc::clone(&self.store),
            objects: self.objects,
            darkroom: darkroom.clone(),
            meter: Arc::clone(&self.meter),
            refusals: Arc::clone(&refusals),
            painter,
            repaint: Arc::clone(&repaint),
            pictures: Arc::new(Semaphore::new(MAX_PICTURES)),
            stop: own.clone(),
        });
        let settle = move |delivery| Arc::clone(&intake).settle(delivery);
        tasks.spawn(
            "intake",
            settle_each(self.keyframes, own.clone(), MAX_HELD, settle),
        );
        let painter = Painter {
            store: self.store,
            served: self.served,
            meter: self.meter,
            refusals,
            darkroom,
            bus: self.bus,
            clock: self.clock,
            repaint,
            max_tiles: MAX_TILES_A_COMMIT,
        };
        // Ends when the intake is gone and what it was given is painted.
        tasks.spawn("paint", painter.run(ready, own));
        self.ready.set();
        tasks.wait().await
    }
}
