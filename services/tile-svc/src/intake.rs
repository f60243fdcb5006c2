//! What arrives: a frame that is new is painted, a revision has its ground painted again, what is known is
//! passed over. A verdict is acknowledged when what it says is on disk.

use std::sync::Arc;
use std::time::Duration;

use sovereign_bus::Delivery;
use sovereign_model::Digest;
use sovereign_objects::{MAP, Objects, PinChange, PinStrength, UNREAD};
use sovereign_proto::topics::SLAM_KEYFRAME;
use sovereign_service::{RunError, Stop, acknowledge, chain};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::arrival::{Arrival, Sighting};
use crate::domain::layer::Layer;
use crate::error::{Refusal, WorkError};
use crate::metrics::Meter;
use crate::painter::Ready;
use crate::prepare::Darkroom;
use crate::refusals::Refusals;
use crate::store::{FrameRecord, Store};
use crate::wire;

/// Verdicts in hand at once, each of another sensor; beyond it the bus keeps them.
pub(crate) const MAX_HELD: usize = 16;
/// Pictures in memory at once, decoded; a further frame waits.
pub(crate) const MAX_PICTURES: usize = 2;
/// A picture that takes more than this, decoded, has all of their room: 44 megapixels.
const LARGE_BYTES: u64 = 128 << 20;
/// A verdict that could not be dealt with is given back after this time, and comes again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Intake {
    pub(crate) store: Arc<Store>,
    pub(crate) objects: Objects,
    pub(crate) darkroom: Darkroom,
    pub(crate) meter: Arc<Meter>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) painter: mpsc::Sender<Ready>,
    pub(crate) repaint: Arc<Notify>,
    pub(crate) pictures: Arc<Semaphore>,
    pub(crate) stop: Stop,
}

enum Keep {
    /// It is on the map, or may be when more is known of its camera.
    ForTheMap,
    Release,
}

impl Intake {
    pub(crate) async fn settle(
        self: Arc<Self>,
        delivery: Delivery<wire::Verdict>,
    ) -> Result<(), RunError> {
        let metrics = &self.meter.metrics;
        metrics.frames_waiting.inc();
        let taken = self.take(&delivery).await;
        metrics.frames_waiting.dec();
        match taken {
            Ok(()) => {
                acknowledge(delivery).await;
                metrics.frames_settled.inc();
                Ok(())
            }
            Err(error @ (WorkError::Fetch(_) | WorkError::Tell(_))) => {
                metrics.retries.inc();
                tracing::debug!(
                    topic = SLAM_KEYFRAME.pattern(),
                    error = %chain(&error),
                    "a frame will be taken again"
                );
                tokio::select! {
                    () = self.stop.requested() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
                Ok(())
            }
            Err(error) => Err(RunError::new("take a frame", error)),
        }
    }

    async fn take(&self, delivery: &Delivery<wire::Verdict>) -> Result<(), WorkError> {
        let keyframe = &delivery.message;
        let arrival = match wire::arrival_from_keyframe(keyframe, delivery.key.as_ref()) {
            Ok(arrival) => arrival,
            Err(error) => {
                let refusal = Refusal::Malformed(error);
                let (frame_id, sensor_id) = (&keyframe.frame_id, &keyframe.sensor_id);
                self.meter.refused(frame_id, sensor_id, &refusal);
                return match wire::digest_from_keyframe(keyframe) {
                    Some(digest) => self.pin(digest, Keep::Release).await,
                    None => Ok(()),
                };
            }
        };
        let known = self.known(&arrival).await?;
        if known.is_some_and(|known| known >= arrival.revision) {
            self.meter.metrics.frames_repeated.inc();
            return self.pin(arrival.digest, Keep::ForTheMap).await;
        }
        let placed = wire::sighting_from_keyframe(keyframe);
        let keep = if known.is_some() {
            self.revise(&arrival, placed).await?
        } else {
            self.paint(&arrival, placed).await?
        };
        self.pin(arrival.digest, keep).await
    }

    async fn known(&self, arrival: &Arrival) -> Result<Option<u32>, WorkError> {
        let (store, frame_id) = (Arc::clone(&self.store), arrival.frame_id.clone());
        let known = tokio::task::spawn_blocking(move || store.frame(&frame_id)).await;
        let known = known.map_err(WorkError::Thread)??;
        Ok(known.map(|record| record.revision))
    }

    async fn paint(
        &self,
        arrival: &Arrival,
        placed: Result<Sighting, Refusal>,
    ) -> Result<Keep, WorkError> {
        let (sight, plan) = match placed.and_then(|sighting| self.darkroom.plan(&sighting)) {
            Ok(planned) => planned,
            // A later calibration may place it.
            Err(refusal) => return self.pass_over(arrival, &refusal, Keep::ForTheMap).await,
        };
        let camera = sight.view().intrinsics();
        let bytes = 3 * u64::from(camera.width_px()) * u64::from(camera.height_px());
        let rooms = if bytes > LARGE_BYTES {
            MAX_PICTURES as u32
        } else {
            1
        };
        // Never closed.
        let room = Arc::clone(&self.pictures)
            .acquire_many_owned(rooms)
            .await
            .ok();
        let frame = match self.darkroom.frame(arrival.digest, sight, &plan).await? {
            Ok(frame) => frame,
            Err(refusal) => return self.pass_over(arrival, &refusal, Keep::Release).await,
        };
        let (reply, painted) = oneshot::channel();
        let ready = Ready {
            arrival: arrival.clone(),
            frame,
            plan,
            reply,
            _room: room,
        };
        self.painter
            .send(ready)
            .await
            .map_err(|_| WorkError::NoPainter)?;
        match painted.await.map_err(|_| WorkError::NoPainter)? {
            Ok(()) => Ok(Keep::ForTheMap),
            Err(refusal) => self.pass_over(arrival, &refusal, Keep::ForTheMap).await,
        }
    }

    /// The frame is remembered, so that it counts once, and that a revision is known for one.
    async fn pass_over(
        &self,
        arrival: &Arrival,
        refusal: &Refusal,
        keep: Keep,
    ) -> Result<Keep, WorkError> {
        self.refusals.tell(arrival, refusal).await?;
        self.record(arrival, arrival.record()).await?;
        Ok(keep)
    }

    async fn revise(
        &self,
        arrival: &Arrival,
        placed: Result<Sighting, Refusal>,
    ) -> Result<Keep, WorkError> {
        let record = match placed.and_then(|sighting| self.darkroom.plan(&sighting)) {
            Ok((_, plan)) => arrival.record_on(&plan, plan.tiles.clone()),
            Err(refusal) => {
                self.refusals.tell(arrival, &refusal).await?;
                arrival.record()
            }
        };
        self.record(arrival, record).await?;
        self.meter.metrics.frames_revised.inc();
        self.repaint.notify_one();
        Ok(Keep::ForTheMap)
    }

    async fn record(&self, arrival: &Arrival, record: FrameRecord) -> Result<(), WorkError> {
        let (store, frame_id) = (Arc::clone(&self.store), arrival.frame_id.clone());
        let writing = tokio::task::spawn_blocking(move || {
            store.revise(Layer::Imagery, &frame_id, &record)?;
            store.dirty_tiles()
        });
        let waiting = writing.await.map_err(WorkError::Thread)??;
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.meter.metrics.tiles_waiting.set(waiting);
        Ok(())
    }

    async fn pin(&self, digest: Digest, keep: Keep) -> Result<(), WorkError> {
        let pin = |name, strength| PinChange {
            digest,
            name,
            strength,
        };
        let changes = match keep {
            Keep::ForTheMap => &[pin(MAP, Some(PinStrength::Prefer)), pin(UNREAD, None)][..],
            Keep::Release => &[pin(UNREAD, None)][..],
        };
        match self.objects.update_pins(changes).await {
            // What is missing has nothing to be pinned.
            Ok(_missing) => Ok(()),
            Err(error) if error.is_temporary() => Err(WorkError::Fetch(error)),
            Err(error) => {
                tracing::warn!(%digest, error = %chain(&error), "a picture keeps its pins");
                Ok(())
            }
        }
    }
}
