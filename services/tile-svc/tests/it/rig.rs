//! A running tile-svc with a bus and a content store in memory, and a client.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use prost::bytes::Bytes;
use sovereign_bus::{Bus, Consumer, Key, Mailbox, Select};
use sovereign_model::{CameraPose, Digest, Intrinsics, Timestamp};
use sovereign_objects::memory::MemoryStore;
use sovereign_objects::{ObjectClass, Objects, PinChange, PinStrength, UNREAD};
use sovereign_proto::geo::v1::{TileCoord, TrackingState};
use sovereign_proto::slam::v1::{Keyframe, PoseSource};
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{
    FrameRefused, GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse,
    Layer, ListChangesRequest, ListLayersRequest, ListTilesRequest, TileChange, TileChanged,
    TileFormat,
};
use sovereign_proto::topics::{SLAM_KEYFRAME, TILE_CHANGED, TILE_REFUSED};
use sovereign_service::{BuildError, Channel, Context, Metrics, RunError, Service, StopSource};
use tempfile::TempDir;
use tile_svc::{Calls, Config, TileService};
use tokio::task::JoinSet;
use tonic::{Response, Status};

use crate::world::World;

/// Nothing in these tests takes longer on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A picture and the verdict on its pose.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) image: Bytes,
    pub(crate) keyframe: Keyframe,
}

impl Shot {
    pub(crate) fn take(
        world: &World,
        pose: &CameraPose,
        camera: &Intrinsics,
        sensor: &str,
        number: i64,
    ) -> Self {
        Self::of(world.photograph(pose, camera), pose, camera, sensor, number)
    }

    pub(crate) fn of(
        image: Bytes,
        pose: &CameraPose,
        camera: &Intrinsics,
        sensor: &str,
        number: i64,
    ) -> Self {
        let received = received_as(number);
        let digest = Digest::of(&image);
        let frame_id =
            Digest::of_parts(&[sensor.as_bytes(), &number.to_le_bytes(), digest.as_bytes()])
                .to_hex();
        let image_digest = Bytes::copy_from_slice(digest.as_bytes());
        Self {
            image,
            keyframe: Keyframe {
                frame_id,
                sensor_id: sensor.to_owned(),
                captured_unix_nanos: received,
                received_unix_nanos: received,
                image_digest,
                state: TrackingState::Tracking.into(),
                pose: Some((*pose).into()),
                intrinsics: Some((*camera).into()),
                source: PoseSource::Telemetry.into(),
                simulated: true,
                ..Keyframe::default()
            },
        }
    }

    /// Another picture, rightly described.
    pub(crate) fn replace_image(&mut self, image: Bytes) {
        self.keyframe.image_digest = Bytes::copy_from_slice(Digest::of(&image).as_bytes());
        self.image = image;
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.image)
    }

    pub(crate) fn id(&self) -> &str {
        &self.keyframe.frame_id
    }

    /// The same frame, with another pose, or none.
    pub(crate) fn revised(&self, revision: u32, pose: Option<&CameraPose>) -> Self {
        let mut keyframe = self.keyframe.clone();
        keyframe.revision = revision;
        keyframe.pose = pose.map(|pose| (*pose).into());
        if pose.is_none() {
            keyframe.set_state(TrackingState::Lost);
        }
        Self {
            image: self.image.clone(),
            keyframe,
        }
    }

    pub(crate) fn received_now(&mut self) {
        self.received_at(Timestamp::from_system_time(SystemTime::now()).as_unix_nanos());
    }

    pub(crate) fn received_at(&mut self, unix_nanos: i64) {
        self.keyframe.received_unix_nanos = unix_nanos;
    }
}

/// Arrival of the frame of a number: today, and in the order of numbers.
pub(crate) fn received_as(number: i64) -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    let now = || Timestamp::from_system_time(SystemTime::now()).as_unix_nanos();
    START.get_or_init(now) + number
}

struct Running {
    bus: Bus,
    stop: StopSource,
    tasks: JoinSet<Result<(), RunError>>,
    client: TilesClient<Channel>,
    registry: Arc<Mutex<Registry>>,
    /// Verdicts sent since the start.
    sent: AtomicU64,
}

pub(crate) struct Rig {
    dir: TempDir,
    pub(crate) store: MemoryStore,
    running: Option<Running>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let running = Running::start(&dir, &store, Config::default()).await;
        Self {
            dir,
            store,
            running: Some(running.unwrap()),
        }
    }

    /// Stops in order and starts again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(Config::default()).await.unwrap();
    }

    /// As [`Rig::restart`]; stopped when the configuration is refused.
    pub(crate) async fn restart_with(&mut self, config: Config) -> Result<(), BuildError> {
        if let Some(running) = self.running.take() {
            let bus = running.bus.clone();
            running.stop().await;
            bus.close().await;
        }
        self.running = Some(Running::start(&self.dir, &self.store, config).await?);
        Ok(())
    }

    pub(crate) async fn stop(self) {
        self.running.unwrap().stop().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// What tells of refused frames.
    pub(crate) async fn refusals(&self) -> Consumer<FrameRefused> {
        let bus = &self.running().bus;
        bus.consume(&TILE_REFUSED, "test").await.unwrap()
    }

    /// The next refused frame, acknowledged.
    pub(crate) async fn next(refusals: &mut Consumer<FrameRefused>) -> FrameRefused {
        let told = tokio::time::timeout(LIMIT, refusals.next());
        let told = told.await.unwrap().unwrap();
        let refused = told.message.clone();
        told.ack().await.unwrap();
        refused
    }

    pub(crate) async fn send(&self, shot: &Shot) {
        self.send_as(shot, "").await;
    }

    /// As another message than the first time.
    pub(crate) async fn send_as(&self, shot: &Shot, suffix: &str) {
        self.store_picture(shot).await;
        self.send_under(shot, &shot.keyframe.sensor_id, suffix)
            .await;
    }

    /// As a door stores it.
    pub(crate) async fn store_picture(&self, shot: &Shot) {
        let digest = self.store.put(ObjectClass::Picture, shot.image.clone());
        let unread = PinChange {
            digest,
            name: UNREAD,
            strength: Some(PinStrength::Keep),
        };
        let objects = Objects::new(self.store.channel());
        // Away is a case of the tests.
        let _ = objects.update_pins(&[unread]).await;
    }

    /// A verdict on the subject of a sensor.
    pub(crate) async fn send_under(&self, shot: &Shot, key: &str, suffix: &str) {
        let key = Key::parse(key).unwrap();
        let id = format!("{}.{}{suffix}", shot.id(), shot.keyframe.revision);
        let running = self.running();
        let appended = running
            .bus
            .append(&SLAM_KEYFRAME, Some(&key), &id, &shot.keyframe);
        appended.await.unwrap();
        running.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until all that was sent since the start is dealt with, and no ground waits.
    pub(crate) async fn settled(&self) {
        let started = std::time::Instant::now();
        let sent = self.running().sent.load(Ordering::SeqCst);
        loop {
            let settled = self.metric("frames_settled_total") >= sent;
            if settled && self.metric("tiles_waiting") == 0 {
                return;
            }
            assert!(
                started.elapsed() < LIMIT,
                "{} of {sent}",
                self.metric("frames_settled_total")
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        let registry = self.running().registry.lock().unwrap();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let name = format!("sovereign_tile_svc_{name} ");
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(&name)?.parse().ok())
            .unwrap_or(0)
    }

    /// Waits until this many frames were painted since the start.
    pub(crate) async fn painted(&self, frames: u64) {
        let started = std::time::Instant::now();
        loop {
            let stats = self.stats().await;
            if stats.frames_painted >= frames {
                return;
            }
            assert!(started.elapsed() < LIMIT, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn stats(&self) -> GetPaintStatsResponse {
        let mut client = self.running().client.clone();
        client
            .get_paint_stats(GetPaintStatsRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn refused(&self) -> BTreeMap<String, u64> {
        self.stats().await.frames_refused.into_iter().collect()
    }

    pub(crate) async fn layer(&self) -> Layer {
        let mut client = self.running().client.clone();
        let answer = client.list_layers(ListLayersRequest {}).await.unwrap();
        answer.into_inner().layers.remove(0)
    }

    pub(crate) async fn changes(&self) -> Vec<TileChange> {
        let mut client = self.running().client.clone();
        let mut changes: Vec<TileChange> = Vec::new();
        loop {
            let after = changes.last().map_or(0, |change| change.sequence);
            let request = ListChangesRequest { after, limit: 3 };
            let page = client.list_changes(request).await.unwrap().into_inner();
            assert!(page.oldest_kept <= 1);
            if page.changes.is_empty() {
                return changes;
            }
            changes.extend(page.changes);
        }
    }

    /// Newest digest of every tile.
    pub(crate) async fn map(&self) -> BTreeMap<(u32, u32, u32), Bytes> {
        let mut map = BTreeMap::new();
        for tile in self.changes().await.into_iter().flat_map(|c| c.tiles) {
            let coord = tile.coord.unwrap();
            map.insert((coord.z, coord.x, coord.y), tile.digest);
        }
        // What is gone has no digest.
        map.retain(|_, digest| !digest.is_empty());
        map
    }

    pub(crate) async fn hints(&self) -> Mailbox<TileChanged> {
        let bus = &self.running().bus;
        bus.subscribe(&TILE_CHANGED, Select::All).await.unwrap()
    }

    pub(crate) async fn try_tile(
        &self,
        request: GetTileRequest,
    ) -> Result<GetTileResponse, Status> {
        let mut client = self.running().client.clone();
        client.get_tile(request).await.map(Response::into_inner)
    }

    pub(crate) async fn tile(
        &self,
        coord: TileCoord,
        format: TileFormat,
    ) -> Result<GetTileResponse, Status> {
        self.try_tile(GetTileRequest {
            layer: "imagery".to_owned(),
            coord: Some(coord),
            format: format.into(),
            ..GetTileRequest::default()
        })
        .await
    }

    /// Every tile that is listed, page by page.
    pub(crate) async fn listed(&self) -> BTreeMap<(u32, u32, u32), Bytes> {
        let mut client = self.running().client.clone();
        let (mut listed, mut after) = (BTreeMap::new(), None);
        loop {
            let request = ListTilesRequest {
                layer: "imagery".to_owned(),
                after,
                limit: 7,
            };
            let page = client.list_tiles(request).await.unwrap().into_inner().tiles;
            if page.is_empty() {
                return listed;
            }
            for tile in page {
                let coord = tile.coord.unwrap();
                listed.insert((coord.z, coord.x, coord.y), tile.digest);
                after = Some(coord);
            }
        }
    }

    async fn image(&self, z: u32, x: u32, y: u32) -> Option<image::RgbaImage> {
        let tile = self.tile(TileCoord { z, x, y }, TileFormat::Png).await;
        match tile {
            Ok(tile) => Some(image::load_from_memory(&tile.data).unwrap().into_rgba8()),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
                None
            }
        }
    }

    /// Centre of brightness within `reach` of a place of the mosaic, in pixels of the zoom; `None`
    /// where nothing is painted or nothing is bright.
    pub(crate) async fn bright_centre(
        &self,
        zoom: u8,
        x: f64,
        y: f64,
        reach: i64,
    ) -> Option<(f64, f64)> {
        let mut tiles: HashMap<(u32, u32), Option<image::RgbaImage>> = HashMap::new();
        let (mut sum, mut sum_x, mut sum_y) = (0.0, 0.0, 0.0);
        for row in y as i64 - reach..=y as i64 + reach {
            for column in x as i64 - reach..=x as i64 + reach {
                let (tx, ty) = ((column / 256) as u32, (row / 256) as u32);
                let image = match tiles.entry((tx, ty)) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(self.image(zoom.into(), tx, ty).await),
                };
                let image = image.as_ref()?;
                let pixel = image.get_pixel((column % 256) as u32, (row % 256) as u32);
                if pixel.0[3] == 0 {
                    return None;
                }
                let brightness = (f64::from(pixel.0[1]) - 110.0).max(0.0);
                sum += brightness;
                sum_x += brightness * (column as f64 + 0.5);
                sum_y += brightness * (row as f64 + 0.5);
            }
        }
        (sum > 500.0).then(|| (sum_x / sum, sum_y / sum))
    }

    /// Every tile of a zoom, side by side.
    pub(crate) async fn mosaic(&self, zoom: u32) -> image::RgbaImage {
        let map = self.map().await;
        let coords: Vec<(u32, u32)> = map
            .keys()
            .filter(|key| key.0 == zoom)
            .map(|key| (key.1, key.2))
            .collect();
        let left = coords.iter().map(|c| c.0).min().unwrap();
        let top = coords.iter().map(|c| c.1).min().unwrap();
        let right = coords.iter().map(|c| c.0).max().unwrap();
        let bottom = coords.iter().map(|c| c.1).max().unwrap();
        let mut mosaic = image::RgbaImage::new((right - left + 1) * 256, (bottom - top + 1) * 256);
        for (x, y) in coords {
            let tile = self.image(zoom, x, y).await.unwrap();
            let (at_x, at_y) = ((x - left) * 256, (y - top) * 256);
            image::imageops::replace(&mut mosaic, &tile, at_x.into(), at_y.into());
        }
        mosaic
    }
}

impl Running {
    async fn start(dir: &TempDir, store: &MemoryStore, config: Config) -> Result<Self, BuildError> {
        let journal = dir.path().join("journal.redb");
        let bus = open_when_free(&journal).await;
        let data = dir.path().join("tile-svc");
        std::fs::create_dir_all(&data).unwrap();
        let mut context = Context::for_tests("tile-svc", bus.clone(), &data);
        let registry = Arc::<Mutex<Registry>>::default();
        context.metrics = Metrics::new(registry.clone(), "tile-svc");
        let calls = Calls {
            checkpoint: store.channel(),
        };
        let built = match TileService::settings(config) {
            Ok(settings) => TileService::build(settings, calls, context).await,
            Err(error) => Err(error),
        };
        if built.is_err() {
            bus.close().await;
        }
        let service = built?;
        let client = TilesClient::new(Channel::local(service.routes()));
        let stop = StopSource::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run(stop.stop()));
        Ok(Self {
            bus,
            stop,
            tasks,
            client,
            registry,
            sent: AtomicU64::new(0),
        })
    }

    async fn stop(mut self) {
        self.stop.request();
        let ended = tokio::time::timeout(LIMIT, self.tasks.join_next());
        ended.await.unwrap().unwrap().unwrap().unwrap();
    }
}

/// Waits until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A bus that was closed lets go of its file once its last reader is gone.
async fn open_when_free(journal: &std::path::Path) -> Bus {
    let started = std::time::Instant::now();
    loop {
        match Bus::memory(journal, "test-node") {
            Ok(bus) => return bus,
            Err(error) => assert!(started.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
