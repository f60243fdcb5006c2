//! The service: built, then run.

mod feed;
mod painter;

use std::sync::Arc;
use std::time::SystemTime;

use sovereign_bus::Bus;
use sovereign_model::Timestamp;
use sovereign_proto::DESCRIPTOR_SET;
use sovereign_proto::tile::v1::tiles_server::{SERVICE_NAME, TilesServer};
use sovereign_proto::topics::{DRONE_CAPTURE, MOBILE_CAPTURE, SLAM_KEYFRAME};
use sovereign_service::{
    BuildError, Context, MAX_MESSAGE_BYTES, RunError, Service, Stop, StopSource, Tasks,
};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::grpc::TilesGrpc;
use crate::metrics::TileMetrics;
use crate::served::Served;
use crate::store::Store;
use feed::{Desk, Feed, Job};
use painter::{JOBS, MAX_TILES_A_COMMIT, PREPARED, Painter, prepare_all};

/// Says what time it is.
pub(crate) type Clock = fn() -> Timestamp;

sovereign_service::calls! {
    /// Services that are called.
    pub struct Calls {
        /// A verdict that was lost on the way.
        slam: required "slam-svc",
    }
}

/// The tile service.
pub struct TileService {
    settings: Settings,
    store: Arc<Store>,
    served: Arc<Served>,
    metrics: Arc<TileMetrics>,
    bus: Bus,
    feed: Feed,
    jobs: mpsc::Receiver<Job>,
}

/// Name of the store in the service's folder.
const STORE_FILE: &str = "tiles.redb";

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

impl Service for TileService {
    const NAME: &'static str = "tile-svc";
    const GRPC_SERVICE: &'static str = SERVICE_NAME;
    const DESCRIPTOR_SET: &'static [u8] = DESCRIPTOR_SET;
    type Config = Config;
    type Settings = Settings;
    type Calls = Calls;

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, calls: Calls, context: Context) -> Result<Self, BuildError> {
        let ready = context.ready.latch("subscribed");
        let metrics = Arc::new(TileMetrics::register(&context));
        let path = context.data_dir.join(STORE_FILE);
        let opened =
            tokio::task::spawn_blocking(move || Store::open(&path, settings.paint_cache_bytes))
                .await;
        let store = opened
            .map_err(|e| BuildError::new("open the tile store", e))?
            .map_err(|e| BuildError::new("open the map", e))?;
        let summary = store.summary();
        let kept = settings.zooms.min;
        if summary.tiles > 0 && summary.min_zoom != kept {
            return Err(BuildError::config(
                "min_zoom",
                format!(
                    "is {kept}, but the map was painted with {painted}, and its coarse tiles are worked \
                     out only as they are painted: set it to {painted}, or move {STORE_FILE} away to begin \
                     the map anew",
                    painted = summary.min_zoom
                ),
            ));
        }
        tracing::info!(
            tiles = summary.tiles,
            changes = summary.last_change,
            "the map is open"
        );
        let store = Arc::new(store);
        let subscribe = |error| BuildError::new("consume captures and keyframes", error);
        let bus = context.bus;
        let (sender, jobs) = mpsc::channel(JOBS);
        let feed = Feed {
            drone: bus
                .consume(&DRONE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?,
            mobile: bus
                .consume(&MOBILE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?,
            keyframes: bus
                .consume(&SLAM_KEYFRAME, Self::NAME)
                .await
                .map_err(subscribe)?,
            slam: calls.slam,
            retention: DRONE_CAPTURE
                .retention()
                .max_age
                .max(MOBILE_CAPTURE.retention().max_age),
            desk: Desk {
                store: Arc::clone(&store),
                metrics: Arc::clone(&metrics),
                clock: now,
                jobs: sender,
            },
        };
        ready.set();
        Ok(Self {
            served: Arc::new(Served::new(settings.serve_cache_bytes)),
            settings,
            store,
            metrics,
            bus,
            feed,
            jobs,
        })
    }

    fn routes(&self) -> Routes {
        let tiles = TilesGrpc {
            store: Arc::clone(&self.store),
            served: Arc::clone(&self.served),
            metrics: Arc::clone(&self.metrics),
            jpeg_quality: self.settings.jpeg_quality,
        };
        Routes::new(
            TilesServer::new(tiles)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        // The feed stops when asked; the two steps after it stop when they have worked off what they
        // were given.
        let source = StopSource::under(&stop);
        let mut tasks = Tasks::new(source.stop());
        let (sender, prepared) = mpsc::channel(PREPARED);
        let painter = Painter {
            store: self.store,
            served: self.served,
            metrics: Arc::clone(&self.metrics),
            bus: self.bus,
            min_zoom: self.settings.zooms.min,
            max_tiles: MAX_TILES_A_COMMIT,
            clock: now,
        };
        tasks.spawn("feed", self.feed.run(source.stop()));
        tasks.spawn(
            "decode",
            prepare_all(self.settings, self.metrics, self.jobs, sender),
        );
        tasks.spawn("paint", painter.run(prepared));
        tasks.wait().await
    }
}
