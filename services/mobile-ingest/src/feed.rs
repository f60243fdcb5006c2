//! From the bus to the event feed: one task reads, thins out and encodes.
//!
//! States, poses and phones may change hundreds of times a second; a page shows ten. The newest of each
//! is kept until the next beat, and a beat is sent as a whole. Messages of the mesh wait for it too,
//! every one of them. Tile changes pass at once. Verdicts on frames are read from their owner when a pose hints
//! at one, so that none is left out and none is sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sovereign_bus::{Bus, Mailbox, Select};
use sovereign_proto::drone::v1::VehicleState;
use sovereign_proto::mesh::v1::{MeshMessage, PeerTileChange};
use sovereign_proto::slam::v1::PoseEvent;
use sovereign_proto::tile::v1::TileChanged;
use sovereign_proto::topics;
use sovereign_service::{BuildError, RunError, Stop};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::events::{Batch, Events};
use crate::intake::Intake;
use crate::upstream::Upstream;
use crate::views::LatencyNews;
use crate::wire;

const BEAT: Duration = Duration::from_millis(100);
const LATENCY_BEAT: Duration = Duration::from_secs(2);
/// Verdicts that no pose hinted at are found with this beat.
const KEYFRAMES_BEAT: Duration = Duration::from_secs(2);
/// A verdict is on disk some time after the pose that hints at it; more of them come meanwhile.
const KEYFRAMES_WAIT: Duration = Duration::from_millis(250);
/// Keyframes of one event.
pub(crate) const KEYFRAMES_PAGE: u32 = 100;
const EXPIRY_BEAT: Duration = Duration::from_secs(60);
/// Sensors with news within one beat; of any more, news within that beat is dropped and comes with
/// their next one.
const MAX_PENDING: usize = 4096;

pub(crate) struct Feed {
    vehicles: Mailbox<VehicleState>,
    poses: Mailbox<PoseEvent>,
    tiles: Mailbox<TileChanged>,
    mesh_tiles: Mailbox<PeerTileChange>,
    mesh_messages: Mailbox<MeshMessage>,
    verdicts: Arc<Notify>,
}

impl Feed {
    /// Subscribes to what readers are shown.
    pub(crate) async fn subscribe(bus: &Bus) -> Result<Self, BuildError> {
        let failed = |topic: &'static str| {
            move |error| BuildError::new(format!("subscribe to {topic}"), error)
        };
        Ok(Self {
            vehicles: bus
                .subscribe(&topics::DRONE_STATE, Select::All)
                .await
                .map_err(failed(topics::DRONE_STATE.pattern()))?,
            poses: bus
                .subscribe(&topics::SLAM_POSE, Select::All)
                .await
                .map_err(failed(topics::SLAM_POSE.pattern()))?,
            tiles: bus
                .subscribe(&topics::TILE_CHANGED, Select::All)
                .await
                .map_err(failed(topics::TILE_CHANGED.pattern()))?,
            mesh_tiles: bus
                .subscribe(&topics::MESH_TILE, Select::All)
                .await
                .map_err(failed(topics::MESH_TILE.pattern()))?,
            mesh_messages: bus
                .subscribe(&topics::MESH_MESSAGE, Select::All)
                .await
                .map_err(failed(topics::MESH_MESSAGE.pattern()))?,
            verdicts: Arc::default(),
        })
    }

    /// Wakes up whoever waits for a verdict on a frame.
    pub(crate) fn verdicts(&self) -> Arc<Notify> {
        self.verdicts.clone()
    }

    /// Feeds `events` until `stop`, or until the bus closes.
    pub(crate) async fn run(
        mut self,
        events: Arc<Events>,
        intake: Arc<Intake>,
        stop: Stop,
    ) -> Result<(), RunError> {
        let mut vehicles = BTreeMap::new();
        let mut poses = BTreeMap::new();
        let mut batch = Batch::new(&events);
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry = interval(EXPIRY_BEAT);
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                event = self.vehicles.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    let state = event.message;
                    keep_newest(&mut vehicles, state.vehicle_id.clone(), state);
                }
                event = self.poses.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    let pose = event.message;
                    if !pose.frame_id.is_empty() {
                        self.verdicts.notify_one();
                    }
                    keep_newest(&mut poses, pose.sensor_id.clone(), pose);
                }
                event = self.tiles.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    if let Some(change) = wire::tile_change(event.message)
                        && events.has_readers()
                    {
                        events.send("tile", &change);
                    }
                }
                event = self.mesh_tiles.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    if let Some(news) = wire::mesh_tile(event.message) {
                        events.send("mesh", &news);
                    }
                }
                event = self.mesh_messages.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    batch.add("mesh", &wire::mesh_message(event.message));
                }
                _ = beat.tick() => {
                    let changed = intake.changed_phones();
                    let (vehicles, poses) = (std::mem::take(&mut vehicles), std::mem::take(&mut poses));
                    if events.has_readers() {
                        for state in vehicles.into_values() {
                            batch.add("vehicle", &wire::vehicle(state));
                        }
                        for pose in poses.into_values() {
                            batch.add("pose", &wire::pose(pose));
                        }
                        for phone in changed {
                            batch.add("phone", &phone);
                        }
                    }
                    batch.send();
                }
                _ = expiry.tick() => intake.expire(),
            }
        }
    }
}

fn keep_newest<T>(pending: &mut BTreeMap<String, T>, id: String, news: T) {
    if pending.len() < MAX_PENDING || pending.contains_key(&id) {
        pending.insert(id, news);
    }
}

/// Tells readers the verdicts on frames in their order, as far as nobody has been told them. Nobody asks for nobody.
pub(crate) async fn watch_keyframes(
    events: Arc<Events>,
    upstream: Arc<Upstream>,
    verdicts: Arc<Notify>,
    stop: Stop,
) -> Result<(), RunError> {
    let mut beat = interval(KEYFRAMES_BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<u64> = None;
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = verdicts.notified() => sleep(KEYFRAMES_WAIT).await,
            _ = beat.tick() => {}
        }
        if !events.has_readers() {
            told = None;
            continue;
        }
        let limit = if told.is_none() { 1 } else { KEYFRAMES_PAGE };
        let news = tokio::select! {
            () = stop.requested() => return Ok(()),
            news = upstream.keyframes(String::new(), limit, told) => news,
        };
        // Who did not answer is logged and counted by the call. It may have begun anew.
        let Ok(mut news) = news else {
            told = None;
            continue;
        };
        if told.is_none() {
            // Whoever is behind this position reads what is between by itself.
            news.after = Some(news.position);
            news.keyframes.clear();
        }
        if news.after != Some(news.position) || told.is_none() {
            events.send_numbered("keyframes", news.position, &news);
        }
        if news.keyframes.len() >= KEYFRAMES_PAGE as usize {
            verdicts.notify_one();
        }
        told = Some(news.position);
    }
}

/// Asks how fast the map is painted, and tells readers when that changed. Nobody asks for nobody.
pub(crate) async fn watch_latency(
    events: Arc<Events>,
    upstream: Arc<Upstream>,
    stop: Stop,
) -> Result<(), RunError> {
    let mut beat = interval(LATENCY_BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<LatencyNews> = None;
    loop {
        tokio::select! {
            () = stop.requested() => return Ok(()),
            _ = beat.tick() => {}
        }
        if !events.has_readers() {
            // Whoever comes next reads the figures of the moment by itself.
            continue;
        }
        let stats = tokio::select! {
            () = stop.requested() => return Ok(()),
            stats = upstream.paint_stats() => stats,
        };
        // Who did not answer is logged and counted by the call, and asked again with the next beat.
        let Ok(stats) = stats else { continue };
        let news = stats.latency.map(|latency| LatencyNews {
            frames_painted: stats.frames_painted,
            tiles_written: stats.tiles_written,
            latency,
        });
        if let Some(news) = news.filter(|news| told.as_ref() != Some(news)) {
            events.send("latency", &news);
            told = Some(news);
        }
    }
}
