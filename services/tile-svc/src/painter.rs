//! From frames to committed tiles: new frames as they come, and ground that has to be painted again.
//!
//! There is one writer of the map, and this is it. Frames that wait are painted together and committed
//! once; between two commits one group of tiles is painted again, from every frame that covers it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sovereign_bus::Bus;
use sovereign_model::Digest;
use sovereign_model::geo::TileCoord;
use sovereign_proto::topics::TILE_CHANGED;
use sovereign_service::{Clock, RunError, Stop, chain};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::arrival::Arrival;
use crate::canvas::{Canvas, Finished};
use crate::domain::layer::Layer;
use crate::domain::plan::Plan;
use crate::domain::project::Frame;
use crate::domain::sight::Unpaintable;
use crate::error::{Refusal, WorkError};
use crate::metrics::Meter;
use crate::prepare::Darkroom;
use crate::refusals::Refusals;
use crate::served::Served;
use crate::store::{Commit, Dirty, FrameRecord, Store, StoreError};
use crate::wire;

const MAX_FRAMES: usize = 2;
/// A commit takes no further frame once it holds this many tiles, 256 KiB each.
pub(crate) const MAX_TILES_A_COMMIT: usize = 512;
/// Ground whose pictures cannot be had just now is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) arrival: Arrival,
    pub(crate) frame: Frame,
    pub(crate) plan: Plan,
    /// Told when it is on disk, or why it is not painted.
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
    /// Room for its picture, given back with it.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone)]
pub(crate) struct Painter {
    pub(crate) store: Arc<Store>,
    pub(crate) served: Arc<Served>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) darkroom: Darkroom,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) repaint: Arc<Notify>,
    pub(crate) max_tiles: usize,
}

struct Work {
    canvas: Canvas,
    painted: Vec<Arrival>,
    frames: Vec<(String, FrameRecord)>,
    left: Vec<(String, Vec<TileCoord>)>,
    clean: Vec<(TileCoord, u64)>,
}

impl Painter {
    /// Paints until there are no more frames; after `stop` only frames that were ready.
    pub(crate) async fn run(
        self,
        mut ready: mpsc::Receiver<Ready>,
        stop: Stop,
    ) -> Result<(), RunError> {
        let mut waiting = Vec::new();
        let mut not_before = Instant::now();
        loop {
            fill(&mut waiting, &mut ready);
            if !waiting.is_empty() {
                waiting = self.paint(waiting).await.map_err(failed)?;
            }
            let mut is_idle = waiting.is_empty();
            if !stop.is_requested() && Instant::now() >= not_before {
                match self.paint_again().await {
                    Ok(painted) => is_idle &= !painted,
                    Err(WorkError::Fetch(error)) => {
                        self.meter.metrics.retries.inc();
                        tracing::debug!(error = %chain(&error), "ground waits for the content store");
                        not_before = Instant::now() + RETRY;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
            if !is_idle {
                continue;
            }
            tokio::select! {
                next = ready.recv() => match next {
                    Some(next) => waiting.push(next),
                    None => return Ok(()),
                },
                () = self.repaint.notified() => {}
                () = tokio::time::sleep_until(not_before), if Instant::now() < not_before => {}
            }
        }
    }

    /// One commit: as many of the frames as fit; the others come back.
    async fn paint(&self, mut frames: Vec<Ready>) -> Result<Vec<Ready>, WorkError> {
        let mut work = self.work();
        let mut replies = Vec::new();
        while work.canvas.len() < self.max_tiles && !frames.is_empty() {
            let Ready {
                arrival,
                frame,
                plan,
                reply,
                _room: room,
            } = frames.remove(0);
            let (canvas, frame, strokes) = lay(work.canvas, frame, plan.tiles.clone()).await?;
            work.canvas = canvas;
            drop((frame, room));
            match strokes {
                Some(covered) => {
                    let record = arrival.record_on(&plan, covered);
                    work.frames.push((arrival.frame_id.clone(), record));
                    replies.push((reply, arrival.received));
                    work.painted.push(arrival);
                }
                None => tell(reply, Err(Refusal::Unpaintable(Unpaintable::NoPixel))),
            }
        }
        if replies.is_empty() {
            return Ok(frames);
        }
        let newest = replies.iter().map(|(_, received)| *received).max();
        let hint = self.commit(work).await?;
        let now = self.clock.now();
        for (reply, received) in replies {
            self.meter.painted(now.nanos_since(received));
            tell(reply, Ok(()));
        }
        let latency = newest.map_or(0, |received| now.nanos_since(received));
        self.publish(hint, latency).await;
        Ok(frames)
    }

    /// Repaints one group of the ground that waits for it, from the frames that cover it now; says whether
    /// any did.
    async fn paint_again(&self) -> Result<bool, WorkError> {
        let layer = Layer::Imagery;
        let store = Arc::clone(&self.store);
        let reading = tokio::task::spawn_blocking(move || {
            let waiting = store.dirty_tiles()?;
            let Dirty {
                tiles: clean,
                causes,
            } = store.dirty_group(layer)?;
            let tiles: Vec<TileCoord> = clean.iter().map(|(coord, _)| *coord).collect();
            let frames = store.frames_on(layer, &tiles)?;
            let mut changed = Vec::new();
            for cause in &causes {
                changed.extend(store.frame(cause)?);
            }
            Ok::<_, StoreError>((waiting, clean, tiles, frames, changed))
        });
        let (waiting, clean, tiles, frames, changed) =
            reading.await.map_err(WorkError::Thread)??;
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.meter.metrics.tiles_waiting.set(waiting);
        if tiles.is_empty() {
            return Ok(false);
        }
        let mut work = self.work();
        work.canvas.begin_anew(&tiles)?;
        for (frame_id, record) in frames {
            let canvas = work.canvas;
            work.canvas = match self.lay_again(canvas, &record, &tiles).await? {
                (canvas, Ok(())) => canvas,
                (canvas, Err(refusal)) => {
                    self.tell(&frame_id, &record, &refusal).await;
                    work.left.push((frame_id, tiles.clone()));
                    canvas
                }
            };
        }
        let reasons = changed
            .iter()
            .filter_map(|record| wire::named_from_bytes(&record.keyframe));
        work.painted = reasons.collect();
        work.clean = clean;
        let hint = self.commit(work).await?;
        self.publish(hint, 0).await;
        Ok(true)
    }

    async fn lay_again(
        &self,
        canvas: Canvas,
        record: &FrameRecord,
        tiles: &[TileCoord],
    ) -> Result<(Canvas, Result<(), Refusal>), WorkError> {
        let planned = wire::kept_from_bytes(&record.keyframe).and_then(|(arrival, sighting)| {
            let (sight, plan) = self.darkroom.plan(&sighting)?;
            Ok((arrival, sight, plan))
        });
        let (arrival, sight, plan) = match planned {
            Ok(planned) => planned,
            Err(refusal) => return Ok((canvas, Err(refusal))),
        };
        let frame = match self.darkroom.frame(arrival.digest, sight, &plan).await? {
            Ok(frame) => frame,
            Err(refusal) => return Ok((canvas, Err(refusal))),
        };
        let on = |tile: &&TileCoord| plan.tiles.binary_search(tile).is_ok();
        let own = tiles.iter().filter(on).copied().collect();
        let (canvas, frame, _) = lay(canvas, frame, own).await?;
        drop(frame);
        Ok((canvas, Ok(())))
    }

    async fn tell(&self, frame_id: &str, record: &FrameRecord, refusal: &Refusal) {
        let Some(arrival) = wire::named_from_bytes(&record.keyframe) else {
            self.meter.refused(frame_id, "", refusal);
            return;
        };
        // The ground has to be painted without the frame all the same.
        if let Err(error) = self.refusals.tell(&arrival, refusal).await {
            tracing::warn!(frame_id, error = %chain(&error), "a frame leaves the map, and its verdict stays");
        }
    }

    fn work(&self) -> Work {
        let min_zoom = self.darkroom.settings.zooms.min;
        Work {
            canvas: Canvas::new(Arc::clone(&self.store), Layer::Imagery, min_zoom),
            painted: Vec::new(),
            frames: Vec::new(),
            left: Vec::new(),
            clean: Vec::new(),
        }
    }

    async fn commit(&self, work: Work) -> Result<Option<wire::Change>, WorkError> {
        let painter = self.clone();
        let committing = tokio::task::spawn_blocking(move || painter.commit_blocking(work));
        Ok(committing.await.map_err(WorkError::Thread)??)
    }

    fn commit_blocking(&self, work: Work) -> Result<Option<wire::Change>, StoreError> {
        let finished = work.canvas.finish()?;
        for coord in &finished.damaged {
            self.meter.metrics.tiles_damaged.inc();
            tracing::error!(%coord, "a damaged tile was found");
        }
        let layer = Layer::Imagery;
        // A frame that changes nothing is in the log all the same: it was painted.
        let is_change = !work.frames.is_empty() || !finished.changed.is_empty();
        // The log says what happened. How long it took is known only after it, and is the hint's to say.
        let change = is_change.then(|| {
            let tiles = changed_tiles(&finished);
            let (sequence, now) = (self.store.next_sequence(), self.clock.now());
            wire::change_from_parts(sequence, layer, &tiles, &work.painted, now)
        });
        let (change, bytes) = change.unzip();
        let commit = Commit {
            layer,
            tiles: finished.tiles,
            removed: finished.removed,
            frames: work.frames,
            left: work.left,
            clean: work.clean,
            change: bytes,
        };
        self.store.commit(&commit)?;
        self.served.forget(layer, &finished.changed);
        let written = commit.tiles.len() + commit.removed.len();
        self.meter.metrics.tiles_written.inc_by(written as u64);
        Ok(change)
    }

    async fn publish(&self, change: Option<wire::Change>, latency_nanos: i64) {
        let Some(change) = change else { return };
        let hint = wire::hint_from_change(change, latency_nanos, self.bus.payload_limit());
        if let Err(error) = self.bus.publish(&TILE_CHANGED, None, &hint).await {
            self.meter.metrics.hints_lost.inc();
            tracing::debug!(error = %chain(&error), "a change could not be published");
        }
    }
}

fn failed(error: WorkError) -> RunError {
    RunError::new("paint", error)
}

fn tell(reply: oneshot::Sender<Result<(), Refusal>>, outcome: Result<(), Refusal>) {
    if reply.send(outcome).is_err() {
        tracing::debug!("nobody waits for a frame");
    }
}

/// Takes up frames that wait, but no more than [`MAX_FRAMES`] together with those that were left.
fn fill<T>(waiting: &mut Vec<T>, ready: &mut mpsc::Receiver<T>) {
    while waiting.len() < MAX_FRAMES
        && let Ok(more) = ready.try_recv()
    {
        waiting.push(more);
    }
}

/// Lays a frame onto tiles; the tiles that it has pixels in, nothing when there are none.
async fn lay(
    mut canvas: Canvas,
    frame: Frame,
    tiles: Vec<TileCoord>,
) -> Result<(Canvas, Frame, Option<Vec<TileCoord>>), WorkError> {
    let laying = tokio::task::spawn_blocking(move || {
        let covered = canvas.paint(&frame, &tiles)?;
        Ok::<_, StoreError>((canvas, frame, covered))
    });
    Ok(laying.await.map_err(WorkError::Thread)??)
}

/// What shows something else now, ordered by place; without a digest where nothing is left.
fn changed_tiles(finished: &Finished) -> Vec<(TileCoord, Option<Digest>)> {
    let digests: HashMap<TileCoord, Digest> = finished
        .tiles
        .iter()
        .map(|fresh| (fresh.place.coord, fresh.stored.digest))
        .collect();
    let changed = finished.changed.iter();
    let by_place: BTreeMap<_, _> = changed
        .map(|coord| (*coord, digests.get(coord).copied()))
        .collect();
    by_place.into_iter().collect()
}

#[cfg(test)]
mod tests;
