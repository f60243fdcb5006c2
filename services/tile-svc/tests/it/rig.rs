//! A running tile-svc with a bus in memory, a slam-svc that knows what it is told, and a client.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use prost::bytes::Bytes;
use sovereign_bus::{Bus, DurableTopic, Key, Mailbox, Select};
use sovereign_model::{CameraPose, Digest, Intrinsics, Timestamp};
use sovereign_proto::geo::v1::{Capture, TileCoord, TrackingState};
use sovereign_proto::slam::v1::slam_server::{Slam, SlamServer};
use sovereign_proto::slam::v1::{
    GetKeyframeRequest, GetKeyframeResponse, Keyframe, ListKeyframesRequest, ListKeyframesResponse,
    PoseSource,
};
use sovereign_proto::tile::v1::tiles_client::TilesClient;
use sovereign_proto::tile::v1::{
    GetPaintStatsRequest, GetPaintStatsResponse, GetTileRequest, GetTileResponse, Layer,
    ListChangesRequest, ListLayersRequest, TileChange, TileFormat,
};
use sovereign_proto::topics::{DRONE_CAPTURE, MOBILE_CAPTURE, SLAM_KEYFRAME, TILE_CHANGED};
use sovereign_service::{BuildError, Channel, Context, RunError, Service, StopSource};
use tempfile::TempDir;
use tile_svc::{Calls, Config, TileService};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::world::World;

/// Nothing in these tests takes longer on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A picture and the verdict on its pose.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) capture: Capture,
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
            capture: Capture {
                frame_id: frame_id.clone(),
                sensor_id: sensor.to_owned(),
                captured_unix_nanos: received,
                received_unix_nanos: received,
                image_digest: image_digest.clone(),
                media_type: "image/jpeg".to_owned(),
                size_bytes: 0,
                picture: None,
                image,
                simulated: true,
                ..Capture::default()
            },
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
        let digest = Bytes::copy_from_slice(Digest::of(&image).as_bytes());
        self.capture.image = image;
        self.capture.image_digest = digest.clone();
        self.keyframe.image_digest = digest;
    }

    pub(crate) fn received_now(&mut self) {
        self.received_at(Timestamp::from_system_time(SystemTime::now()).as_unix_nanos());
    }

    pub(crate) fn received_at(&mut self, unix_nanos: i64) {
        self.capture.received_unix_nanos = unix_nanos;
        self.keyframe.received_unix_nanos = unix_nanos;
    }
}

/// Arrival of the frame of a number: today, and in the order of numbers.
pub(crate) fn received_as(number: i64) -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    let now = || Timestamp::from_system_time(SystemTime::now()).as_unix_nanos();
    START.get_or_init(now) + number
}

#[derive(Clone, Default)]
struct KnowingSlam {
    known: Arc<Mutex<HashMap<String, Keyframe>>>,
    /// How often each frame was asked for.
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

#[tonic::async_trait]
impl Slam for KnowingSlam {
    async fn get_keyframe(
        &self,
        request: Request<GetKeyframeRequest>,
    ) -> Result<Response<GetKeyframeResponse>, Status> {
        let frame_id = &request.get_ref().frame_id;
        let mut asked = self.asked.lock().unwrap();
        *asked.entry(frame_id.clone()).or_default() += 1;
        let known = self.known.lock().unwrap();
        match known.get(frame_id) {
            Some(keyframe) => Ok(Response::new(GetKeyframeResponse {
                keyframe: Some(keyframe.clone()),
            })),
            None => Err(Status::not_found("never seen")),
        }
    }

    async fn list_keyframes(
        &self,
        _: Request<ListKeyframesRequest>,
    ) -> Result<Response<ListKeyframesResponse>, Status> {
        Ok(Response::new(ListKeyframesResponse::default()))
    }
}

struct Running {
    bus: Bus,
    stop: StopSource,
    tasks: JoinSet<Result<(), RunError>>,
    client: TilesClient<Channel>,
}

pub(crate) struct Rig {
    dir: TempDir,
    slam: KnowingSlam,
    running: Option<Running>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slam = KnowingSlam::default();
        let running = Running::start(&dir, &slam, Config::default()).await;
        Self {
            dir,
            slam,
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
        self.running = Some(Running::start(&self.dir, &self.slam, config).await?);
        Ok(())
    }

    pub(crate) async fn stop(self) {
        self.running.unwrap().stop().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) async fn send(&self, shot: &Shot) {
        self.send_as(shot, "").await;
    }

    /// As another message than the first time.
    pub(crate) async fn send_as(&self, shot: &Shot, suffix: &str) {
        self.append_capture(shot, suffix).await;
        self.append_keyframe(shot, suffix).await;
    }

    pub(crate) async fn send_capture(&self, shot: &Shot) {
        self.append_capture(shot, "").await;
    }

    pub(crate) async fn send_keyframe(&self, shot: &Shot) {
        self.append_keyframe(shot, "").await;
    }

    async fn append_capture(&self, shot: &Shot, suffix: &str) {
        let id = format!("{}{suffix}", shot.capture.frame_id);
        let key = &shot.capture.sensor_id;
        self.append_under(&DRONE_CAPTURE, key, &id, shot).await;
    }

    /// A picture through the other door.
    pub(crate) async fn send_phone_capture(&self, shot: &Shot) {
        let Capture {
            sensor_id,
            frame_id,
            ..
        } = &shot.capture;
        self.append_under(&MOBILE_CAPTURE, sensor_id, frame_id, shot)
            .await;
    }

    /// A picture on the subject of another sensor.
    pub(crate) async fn send_stray_capture(&self, shot: &Shot, key: &str) {
        let id = &shot.capture.frame_id;
        self.append_under(&DRONE_CAPTURE, key, id, shot).await;
    }

    async fn append_under(&self, topic: &DurableTopic<Capture>, key: &str, id: &str, shot: &Shot) {
        let key = Key::parse(key).unwrap();
        let bus = &self.running().bus;
        bus.append(topic, Some(&key), id, &shot.capture)
            .await
            .unwrap();
    }

    async fn append_keyframe(&self, shot: &Shot, suffix: &str) {
        let key = Key::parse(&shot.keyframe.sensor_id).unwrap();
        let id = format!("{}{suffix}", shot.keyframe.frame_id);
        let bus = &self.running().bus;
        bus.append(&SLAM_KEYFRAME, Some(&key), &id, &shot.keyframe)
            .await
            .unwrap();
    }

    pub(crate) fn slam_knows(&self, shot: &Shot) {
        let mut known = self.slam.known.lock().unwrap();
        known.insert(shot.keyframe.frame_id.clone(), shot.keyframe.clone());
    }

    /// How often slam-svc was asked for the verdict on a frame.
    pub(crate) fn asked(&self, shot: &Shot) -> usize {
        let asked = self.slam.asked.lock().unwrap();
        asked.get(&shot.capture.frame_id).copied().unwrap_or(0)
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
        map
    }

    pub(crate) async fn hints(&self) -> Mailbox<TileChange> {
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
        })
        .await
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
    async fn start(dir: &TempDir, slam: &KnowingSlam, config: Config) -> Result<Self, BuildError> {
        let journal = dir.path().join("journal.redb");
        let bus = open_when_free(&journal).await;
        let data = dir.path().join("tile-svc");
        std::fs::create_dir_all(&data).unwrap();
        let context = Context::for_tests("tile-svc", bus.clone(), &data);
        let calls = Calls {
            slam: Channel::local(Routes::new(SlamServer::new(slam.clone()))),
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
        })
    }

    async fn stop(mut self) {
        self.stop.request();
        let ended = tokio::time::timeout(LIMIT, self.tasks.join_next());
        ended.await.unwrap().unwrap().unwrap().unwrap();
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
