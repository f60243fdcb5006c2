//! From frames to committed tiles.
//!
//! Two steps that overlap: one frame is decoded while the one before it is painted and committed.
//! Frames that wait are painted together and committed once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use image::ImageDecoder;
use prost::Message;
use sovereign_bus::Bus;
use sovereign_model::geo::{Bounds, TileCoord};
use sovereign_model::{CameraPose, Digest, Intrinsics, Timestamp};
use sovereign_proto::convert::converted;
use sovereign_proto::geo::v1::TrackingState;
use sovereign_proto::slam::v1::{Keyframe, PoseSource};
use sovereign_proto::tile::v1::{ChangedTile, PaintedFrame, TileChange};
use sovereign_proto::topics::TILE_CHANGED;
use sovereign_service::{RunError, chain};
use tokio::sync::mpsc;

use crate::canvas::{Canvas, Strokes};
use crate::config::Settings;
use crate::domain::plan::{Plan, plan};
use crate::domain::project::Frame;
use crate::domain::sight::{Sight, Unpaintable};
use crate::error::Refusal;
use crate::metrics::TileMetrics;
use crate::picture::{image_from_jpeg, open_jpeg};
use crate::served::Served;
use crate::service::Clock;
use crate::service::feed::Job;
use crate::store::{Commit, Entry, LAYER, Store, StoreError};

/// Frames that wait to be decoded: more than one sensor flies at a time.
pub(crate) const JOBS: usize = 8;
/// Decoded frames that wait to be painted, and as many that the painter has taken up. A large one takes
/// 200 MB, so they are few; while they are full, decoding waits.
pub(crate) const PREPARED: usize = 2;
/// A commit takes no further frame once it holds this many tiles, 256 KiB each.
pub(crate) const MAX_TILES_A_COMMIT: usize = 512;

/// A frame ready to be painted.
#[derive(Debug)]
pub(crate) struct Prepared {
    job: Job,
    frame: Frame,
    plan: Plan,
}

/// Decodes frames until the feed ends.
pub(crate) async fn prepare_all(
    settings: Settings,
    metrics: Arc<TileMetrics>,
    mut jobs: mpsc::Receiver<Job>,
    prepared: mpsc::Sender<Prepared>,
) -> Result<(), RunError> {
    while let Some(job) = jobs.recv().await {
        let capture = &job.capture.message;
        let (image, digest) = (capture.image.clone(), capture.image_digest.clone());
        let keyframe = job.keyframe().clone();
        // The job stays here: a picture that makes the decoder panic must not take it along, or it
        // would come again and again.
        let work =
            tokio::task::spawn_blocking(move || prepare(&settings, &image, &digest, &keyframe));
        let outcome = match work.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => Err(Refusal::Decoder),
            // Not the picture's fault: its frame comes again.
            Err(error) => return Err(RunError::new("decode a picture", error)),
        };
        match outcome {
            Ok((frame, plan)) => prepared
                .send(Prepared { job, frame, plan })
                .await
                .map_err(|_| RunError::new("hand a frame on", "the painter has ended"))?,
            Err(refusal) => {
                let capture = &job.capture.message;
                metrics.refused(&capture.frame_id, &capture.sensor_id, &refusal);
                job.ack().await;
            }
        }
    }
    Ok(())
}

/// Checks a frame and decodes its picture.
fn prepare(
    settings: &Settings,
    image: &Bytes,
    image_digest: &[u8],
    keyframe: &Keyframe,
) -> Result<(Frame, Plan), Refusal> {
    if keyframe.source() == PoseSource::PositionOnly {
        return Err(Refusal::PositionOnly);
    }
    if keyframe.state() != TrackingState::Tracking {
        return Err(Refusal::NoPose);
    }
    let pose: CameraPose = converted("pose", keyframe.pose.as_ref()).map_err(Refusal::Malformed)?;
    let camera: Intrinsics =
        converted("intrinsics", keyframe.intrinsics.as_ref()).map_err(Refusal::Malformed)?;
    let sight = Sight::new(&pose, &camera, settings.limits)?;
    let plan = plan(&sight, settings.zooms)?;
    let digest = Digest::of(image);
    if digest.as_bytes() != image_digest || keyframe.image_digest != image_digest {
        return Err(Refusal::DigestMismatch);
    }
    let picture = open_jpeg(image, settings.max_pixels)?;
    let (width, height) = picture.dimensions();
    if (width, height) != (camera.width_px(), camera.height_px()) {
        return Err(Refusal::SizeMismatch {
            width,
            height,
            camera_width: camera.width_px(),
            camera_height: camera.height_px(),
        });
    }
    let image = image_from_jpeg(picture)?;
    Ok((Frame::new(sight, image, plan.halvings), plan))
}

/// Paints and commits.
#[derive(Clone)]
pub(crate) struct Painter {
    pub(crate) store: Arc<Store>,
    pub(crate) served: Arc<Served>,
    pub(crate) metrics: Arc<TileMetrics>,
    pub(crate) bus: Bus,
    pub(crate) min_zoom: u8,
    /// See [`MAX_TILES_A_COMMIT`].
    pub(crate) max_tiles: usize,
    pub(crate) clock: Clock,
}

/// A frame on the canvas.
struct Painted {
    /// Its change; tiles and times are known when it is committed.
    change: TileChange,
    /// Tiles of its own zoom that show something else now.
    tiles: Vec<TileCoord>,
    /// Arrival at the front door.
    received: Timestamp,
}

/// What a commit did.
struct Committed {
    jobs: Vec<Job>,
    /// Changes, in the order of their sequence; frames that had been painted before have none.
    changes: Vec<TileChange>,
    /// Frames that did not fit.
    left: Vec<Prepared>,
}

impl Painter {
    /// Paints frames until there are no more.
    pub(crate) async fn run(self, mut prepared: mpsc::Receiver<Prepared>) -> Result<(), RunError> {
        let mut waiting = Vec::new();
        loop {
            if waiting.is_empty() {
                let Some(first) = prepared.recv().await else {
                    return Ok(());
                };
                waiting.push(first);
            }
            fill(&mut waiting, &mut prepared);
            let painter = self.clone();
            let work = tokio::task::spawn_blocking(move || painter.paint(waiting));
            let committed = work
                .await
                .map_err(|e| RunError::new("paint", e))?
                .map_err(|e| RunError::new("paint", e))?;
            waiting = committed.left;
            for change in committed.changes {
                self.metrics.painted(change.latency_nanos);
                if let Err(error) = self.bus.publish(&TILE_CHANGED, None, &change).await {
                    self.metrics.hints_lost.inc();
                    tracing::debug!(error = %chain(&error), "a change could not be published");
                }
            }
            futures::future::join_all(committed.jobs.into_iter().map(Job::ack)).await;
        }
    }

    /// One commit: as many of the frames as fit.
    fn paint(&self, frames: Vec<Prepared>) -> Result<Committed, StoreError> {
        let mut canvas = Canvas::new(&self.store, self.min_zoom);
        let mut painted: Vec<Painted> = Vec::new();
        let mut jobs = Vec::new();
        let mut bounds: Option<Bounds> = None;
        let mut frames = frames.into_iter();
        while canvas.len() < self.max_tiles {
            let Some(Prepared { job, frame, plan }) = frames.next() else {
                break;
            };
            let capture = &job.capture.message;
            let repeated = painted
                .iter()
                .any(|painted| painted.change.frame_id == capture.frame_id)
                || self.store.is_painted(&capture.frame_id)?;
            if repeated {
                self.metrics.repeated.inc();
            } else if let Some(strokes) = canvas.paint(&frame, &plan.tiles)? {
                let Strokes {
                    changed,
                    bounds: ground,
                } = strokes;
                bounds = match (bounds, ground) {
                    (Some(a), Some(b)) => Some(a.union(&b)),
                    (a, b) => a.or(b),
                };
                let change = TileChange {
                    sequence: self.store.next_sequence() + painted.len() as u64,
                    layer: LAYER.to_owned(),
                    frame_id: capture.frame_id.clone(),
                    sensor_id: capture.sensor_id.clone(),
                    tiles: Vec::new(),
                    committed_unix_nanos: 0,
                    latency_nanos: 0,
                    simulated: capture.simulated || job.keyframe().simulated,
                    frames: vec![PaintedFrame {
                        frame_id: capture.frame_id.clone(),
                        sensor_id: capture.sensor_id.clone(),
                    }],
                };
                painted.push(Painted {
                    change,
                    tiles: changed,
                    received: Timestamp::from_unix_nanos(capture.received_unix_nanos),
                });
            } else {
                let refusal = Refusal::Unpaintable(Unpaintable::NoPixel);
                self.metrics
                    .refused(&capture.frame_id, &capture.sensor_id, &refusal);
            }
            jobs.push(job);
        }
        let left = frames.collect();
        let changes = if painted.is_empty() {
            Vec::new()
        } else {
            self.commit(canvas, painted, bounds)?
        };
        Ok(Committed {
            jobs,
            changes,
            left,
        })
    }

    fn commit(
        &self,
        canvas: Canvas<'_>,
        painted: Vec<Painted>,
        bounds: Option<Bounds>,
    ) -> Result<Vec<TileChange>, StoreError> {
        let finished = canvas.finish()?;
        for coord in &finished.damaged {
            self.metrics.damaged.inc();
            tracing::error!(%coord, "a damaged tile was found");
        }
        let changed: HashSet<TileCoord> = finished.changed.iter().copied().collect();
        let digests: HashMap<TileCoord, Digest> = finished
            .tiles
            .iter()
            .filter(|fresh| changed.contains(&fresh.coord))
            .map(|fresh| (fresh.coord, fresh.stored.digest))
            .collect();
        let received: Vec<Timestamp> = painted.iter().map(|painted| painted.received).collect();
        let mut changes: Vec<TileChange> = painted
            .into_iter()
            .map(|painted| TileChange {
                tiles: tiles_with_parents(&painted.tiles, &digests),
                ..painted.change
            })
            .collect();
        // The log says what happened. How long it took is known only after it, and is the hint's to say.
        let committed = (self.clock)();
        for change in &mut changes {
            change.committed_unix_nanos = committed.as_unix_nanos();
        }
        let commit = Commit {
            bounds,
            simulated: changes.iter().any(|change| change.simulated),
            frames: entries(&changes),
            tiles: finished.tiles,
        };
        self.store.commit(&commit)?;
        let committed = (self.clock)();
        for (change, received) in changes.iter_mut().zip(&received) {
            change.latency_nanos = committed.nanos_since(*received);
        }
        self.served.forget(&finished.changed);
        self.metrics.written(commit.tiles.len());
        Ok(changes)
    }
}

/// Takes up frames that wait, but no more than [`PREPARED`] together with those that were left.
fn fill<T>(waiting: &mut Vec<T>, prepared: &mut mpsc::Receiver<T>) {
    while waiting.len() < PREPARED
        && let Ok(more) = prepared.try_recv()
    {
        waiting.push(more);
    }
}

fn entries(changes: &[TileChange]) -> Vec<Entry> {
    changes
        .iter()
        .map(|change| Entry {
            frame_id: change.frame_id.clone(),
            message: change.encode_to_vec(),
        })
        .collect()
}

/// The tiles and those above them, as far as they changed, ordered by place.
fn tiles_with_parents(
    tiles: &[TileCoord],
    digests: &HashMap<TileCoord, Digest>,
) -> Vec<ChangedTile> {
    let mut coords: Vec<TileCoord> = tiles
        .iter()
        .flat_map(|&coord| std::iter::successors(Some(coord), |coord| coord.parent()))
        .filter(|coord| digests.contains_key(coord))
        .collect();
    coords.sort_unstable();
    coords.dedup();
    coords
        .into_iter()
        .filter_map(|coord| {
            Some(ChangedTile {
                coord: Some(coord.into()),
                digest: Bytes::copy_from_slice(digests.get(&coord)?.as_bytes()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
