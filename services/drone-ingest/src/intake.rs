//! What is accepted, in which order, and when: a capture once its bytes are in the content store and its
//! record is on disk, with the telemetry of its moment; a sample once what it carries is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, stream};
use sovereign_bus::{Appended, Bus, Key};
use sovereign_model::{SensorId, Timestamp, frame_id};
use sovereign_objects::{ObjectClass, Objects, PinChange, PinStrength, StoredPicture, UNREAD};
use sovereign_proto::topics::DRONE_CAPTURE;
use sovereign_service::{Clock, chain};
use tokio::sync::Notify;

use crate::capture::{Accepted, Note, Stored, fix_at};
use crate::domain::door::{Door, Heard, Newest};
use crate::domain::history::Fix;
use crate::domain::ply::ply_from_points;
use crate::domain::reject::Reject;
use crate::domain::sample::Sample;
use crate::domain::stats;
use crate::error::CaptureError;
use crate::metrics::Metrics;
use crate::wire;

/// Longest wait for telemetry from after an exposure.
const TELEMETRY_WAIT: Duration = Duration::from_millis(150);
/// Samples and captures of one vehicle are queued one after the other; vehicles share this many lanes, so
/// that one which waits for the disk delays only those of its lane.
pub(crate) const LANES: usize = 64;

#[derive(Debug)]
pub(crate) struct Intake {
    bus: Bus,
    objects: Objects,
    clock: Clock,
    door: Arc<Mutex<Door>>,
    metrics: Metrics,
    /// A vehicle became due for publishing.
    due: Notify,
    heard: Notify,
    /// Arrival given to the last capture; it grows over all vehicles, so for each of them as well.
    last_received: Mutex<Timestamp>,
    /// What the last sample with a payload carried was not accepted.
    samples_fail: AtomicBool,
    lanes: [tokio::sync::Mutex<()>; LANES],
}

impl Intake {
    pub(crate) fn new(
        bus: Bus,
        objects: Objects,
        clock: Clock,
        door: Arc<Mutex<Door>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            bus,
            objects,
            clock,
            door,
            metrics,
            due: Notify::new(),
            heard: Notify::new(),
            last_received: Mutex::new(Timestamp::UNIX_EPOCH),
            samples_fail: AtomicBool::new(false),
            lanes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }
    }

    pub(crate) fn door(&self) -> MutexGuard<'_, Door> {
        // Counters and states stay usable after a panic elsewhere.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn latest_time(&self) -> Timestamp {
        self.door().latest_time(self.now())
    }

    pub(crate) fn wake(&self, heard: Heard) {
        if heard.telemetry {
            self.heard.notify_waiters();
        }
        if heard.newly_due {
            self.due.notify_one();
        }
    }

    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    pub(crate) async fn accept(
        &self,
        mut note: Note,
        pieces: impl Stream<Item = Result<Bytes, tonic::Status>>,
    ) -> Result<Accepted, CaptureError> {
        let (arrived, started) = (self.now(), Instant::now());
        let StoredPicture { object, header } = self.objects.put_picture(pieces).await?;
        // A vehicle that says it is simulated takes no real pictures, whatever their sender says.
        note.simulated |= self.door().is_simulated(&note.vehicle_id);
        let latest = self.latest_time();
        let exposed = header.exposed.filter(|exposed| *exposed <= latest);
        note.captured = note.captured.or(exposed);
        let fix = match note.captured {
            Some(exposure) => self.fix_around(&note.vehicle_id, exposure).await,
            // The arrival is only near the exposure: waiting would not make it more exact.
            None => self.door().fix_at(&note.vehicle_id, arrived),
        };
        let header = Some(header);
        self.queue(note, Stored { object, header }, fix, started)
            .await
    }

    pub(crate) async fn take_sample(
        &self,
        sample: &Sample,
        arrived: Timestamp,
    ) -> Result<(), Reject> {
        self.door().check_sample(sample, arrived)?;
        self.queue_payload(sample, arrived).await?;
        let heard = self.door().accept_sample(sample, arrived)?;
        self.wake(heard);
        Ok(())
    }

    pub(crate) fn refuse_sample(&self, reason: Reject) {
        self.door().stats_mut().reject(reason);
        tracing::debug!(reason = reason.code(), "sample refused");
    }

    /// Where the vehicle was at the exposure, from both sides of it when that is worth a short wait.
    async fn fix_around(&self, vehicle_id: &SensorId, exposure: Timestamp) -> Option<Fix> {
        let started = Instant::now();
        let reached = async {
            loop {
                // Listening before looking: nothing heard in between is missed.
                let heard = self.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                match self.door().newest(vehicle_id, exposure, self.now()) {
                    Newest::Silent | Newest::Reached => break,
                    Newest::Before => {}
                }
                heard.await;
            }
        };
        // After the wait the nearest sample from before the exposure has to do.
        let _waited = tokio::time::timeout(TELEMETRY_WAIT, reached).await;
        let waited = started.elapsed().as_secs_f64();
        self.metrics.telemetry_wait_seconds.observe(waited);
        self.door().fix_at(vehicle_id, exposure)
    }

    async fn queue(
        &self,
        note: Note,
        stored: Stored,
        fix: Option<Fix>,
        started: Instant,
    ) -> Result<Accepted, CaptureError> {
        let vehicle_id = &note.vehicle_id;
        let key = Key::parse(vehicle_id.as_str()).map_err(CaptureError::Key)?;
        let captured = note.captured.unwrap_or(Timestamp::UNIX_EPOCH);
        let digest = stored.object.digest;
        let frame_id = frame_id(vehicle_id, captured, &digest).to_hex();
        let kind = match stored.header {
            Some(_) => stats::Accepted::Capture,
            None => stats::Accepted::Lidar,
        };
        // Arrivals grow in the order of the queue, so both are decided in one turn of the vehicle.
        let turn = self.lane(vehicle_id).lock().await;
        let received = self.next_received();
        let capture = wire::capture_from_parts(&frame_id, &note, &stored, fix.as_ref(), received);
        let appended = self
            .bus
            .append(&DRONE_CAPTURE, Some(&key), &frame_id, &capture)
            .await;
        drop(turn);
        let duplicate = match appended.map_err(CaptureError::Queue)? {
            Appended::Stored => false,
            Appended::Duplicate => true,
        };
        if duplicate {
            self.door().stats_mut().duplicate_capture();
            self.let_go(&stored).await;
        } else {
            let mut door = self.door();
            door.stats_mut().accept(kind);
            door.carry_payload(vehicle_id);
            drop(door);
            self.metrics.captured(fix.is_some(), started.elapsed());
        }
        tracing::debug!(vehicle = %vehicle_id, %frame_id, duplicate, "capture queued");
        Ok(Accepted {
            frame_id,
            duplicate,
        })
    }

    /// Nobody takes the pin of a duplicate off again, so it must not keep the picture for ever.
    async fn let_go(&self, stored: &Stored) {
        if stored.header.is_none() {
            return;
        }
        let prefer = PinChange {
            digest: stored.object.digest,
            name: UNREAD,
            strength: Some(PinStrength::Prefer),
        };
        if let Err(error) = self.objects.update_pins(&[prefer]).await {
            tracing::debug!(error = %chain(&error), "a picture that came twice stays pinned");
        }
    }

    pub(crate) fn lane(&self, vehicle_id: &SensorId) -> &tokio::sync::Mutex<()> {
        &self.lanes[lane_of(vehicle_id)]
    }

    fn next_received(&self) -> Timestamp {
        let mut last = self
            .last_received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let after = last.as_unix_nanos().saturating_add(1);
        *last = self.now().max(Timestamp::from_unix_nanos(after));
        *last
    }

    async fn queue_payload(&self, sample: &Sample, arrived: Timestamp) -> Result<(), Reject> {
        if sample.image.is_none() && sample.lidar_points.is_none() {
            return Ok(());
        }
        let queued = match self.queue_each(sample, arrived).await {
            Err(CaptureError::Picture(_)) => return Err(Reject::InvalidImageData),
            queued => queued,
        };
        // A line for each change, not for each packet; every failure is counted.
        let failed_before = self.samples_fail.swap(queued.is_err(), Relaxed);
        match queued {
            Ok(()) => {
                if failed_before {
                    tracing::info!("what samples carry is accepted again");
                }
                Ok(())
            }
            Err(error) => {
                if !failed_before {
                    tracing::warn!(
                        vehicle = %sample.drone_id, error = %chain(&error),
                        "what a sample carries was not accepted; further failures are only counted"
                    );
                }
                Err(Reject::QueueFailed)
            }
        }
    }

    async fn queue_each(&self, sample: &Sample, arrived: Timestamp) -> Result<(), CaptureError> {
        let started = Instant::now();
        let note = |captured| Note {
            vehicle_id: sample.drone_id.clone(),
            captured,
            intrinsics: None,
            mount_pitch_deg: None,
            simulated: sample.simulated,
        };
        let moment = sample.timestamp.unwrap_or(arrived);
        let fix = match sample.position {
            Some(position) => Some(fix_at(position)),
            None => self.door().fix_at(&sample.drone_id, moment),
        };
        if let Some(image) = &sample.image {
            let whole = stream::iter([Ok(Bytes::copy_from_slice(image))]);
            let StoredPicture { object, header } = self.objects.put_picture(whole).await?;
            let header = Some(header);
            let stored = Stored { object, header };
            self.queue(note(sample.timestamp), stored, fix, started)
                .await?;
        }
        if let Some(points) = &sample.lidar_points {
            let mut upload = self.objects.put(ObjectClass::Scan, "");
            let sent = upload.push(ply_from_points(points).into()).await;
            sent.map_err(CaptureError::Store)?;
            let stored = Stored {
                object: upload.finish().await.map_err(CaptureError::Store)?,
                header: None,
            };
            self.queue(note(Some(moment)), stored, fix, started).await?;
        }
        Ok(())
    }
}

pub(crate) fn lane_of(vehicle_id: &SensorId) -> usize {
    let mut hasher = DefaultHasher::new();
    vehicle_id.hash(&mut hasher);
    hasher.finish() as usize % LANES
}
