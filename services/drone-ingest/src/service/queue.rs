//! Pictures and scans on their way to the durable queue, with the telemetry of their moment.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sovereign_bus::{Appended, Key};
use sovereign_model::{Digest, SensorId, Timestamp, frame_id};
use sovereign_proto::drone::v1::LidarScan;
use sovereign_proto::geo::v1 as wire;
use sovereign_proto::topics::{DRONE_CAPTURE, DRONE_LIDAR};
use sovereign_service::chain;

use super::{LANES, Shared, now};
use crate::domain::door::Newest;
use crate::domain::history::{Fix, Place};
use crate::domain::reject::Reject;
use crate::domain::sample::Sample;
use crate::domain::stats::Accepted;
use crate::error::CaptureError;
use crate::grpc;

/// Longest wait for telemetry from after an exposure.
const TELEMETRY_WAIT: Duration = Duration::from_millis(150);
/// Left of the bus payload for what travels beside a picture.
const CAPTURE_OVERHEAD_BYTES: usize = 64 << 10;

/// A picture whose fields are valid.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Of whom.
    pub(crate) vehicle_id: SensorId,
    /// JPEG.
    pub(crate) image: Bytes,
    /// Exposure; `None` when the sender did not say.
    pub(crate) captured: Option<Timestamp>,
    /// Calibrated camera.
    pub(crate) intrinsics: Option<wire::Intrinsics>,
    /// Camera pitch relative to the body.
    pub(crate) mount_pitch_deg: Option<f64>,
    /// Of a simulation.
    pub(crate) simulated: bool,
}

/// A picture that is durably queued.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its frame id.
    pub(crate) frame_id: String,
    /// It had been accepted before.
    pub(crate) duplicate: bool,
}

impl Shared {
    /// Largest picture taken, in bytes.
    pub(crate) fn capture_limit(&self) -> usize {
        self.bus
            .payload_limit()
            .saturating_sub(CAPTURE_OVERHEAD_BYTES)
    }

    /// Queues a picture with the telemetry of its exposure.
    pub(crate) async fn capture(&self, mut picture: Picture) -> Result<Queued, CaptureError> {
        let (arrived, started) = (now(), Instant::now());
        // A vehicle that says it is simulated takes no real pictures, whatever their sender says.
        picture.simulated |= self.door().is_simulated(&picture.vehicle_id);
        let fix = match picture.captured {
            Some(exposure) => self.fix_around(&picture.vehicle_id, exposure).await,
            // The arrival is only near the exposure: waiting would not make it more exact.
            None => self.door().fix_at(&picture.vehicle_id, arrived),
        };
        let telemetry = fix.as_ref().map(grpc::telemetry_from_fix);
        self.queue(picture, telemetry, started).await
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
                match self.door().newest(vehicle_id, exposure, now()) {
                    Newest::Silent | Newest::Reached => break,
                    Newest::Before => {}
                }
                heard.await;
            }
        };
        // After the wait the nearest sample from before the exposure has to do.
        let _waited = tokio::time::timeout(TELEMETRY_WAIT, reached).await;
        self.metrics.waited_for_telemetry(started.elapsed());
        self.door().fix_at(vehicle_id, exposure)
    }

    async fn queue(
        &self,
        picture: Picture,
        telemetry: Option<wire::TelemetryFix>,
        started: Instant,
    ) -> Result<Queued, CaptureError> {
        let key = Key::parse(picture.vehicle_id.as_str()).map_err(CaptureError::Key)?;
        let captured_unix_nanos = picture.captured.map_or(0, Timestamp::as_unix_nanos);
        let image_digest = Digest::of(&picture.image);
        let captured = Timestamp::from_unix_nanos(captured_unix_nanos);
        let frame_id = frame_id(&picture.vehicle_id, captured, &image_digest).to_hex();
        let matched = telemetry.is_some();
        // Arrivals grow in the order of the queue, so both are decided in one turn of the vehicle.
        let _turn = self.lane(&picture.vehicle_id).lock().await;
        let capture = wire::Capture {
            frame_id: frame_id.clone(),
            sensor_id: picture.vehicle_id.to_string(),
            captured_unix_nanos,
            received_unix_nanos: self.next_received().as_unix_nanos(),
            image_digest: Bytes::copy_from_slice(image_digest.as_bytes()),
            media_type: "image/jpeg".to_owned(),
            size_bytes: 0,
            picture: None,
            image: picture.image,
            telemetry,
            intrinsics: picture.intrinsics,
            mount_pitch_deg: picture.mount_pitch_deg,
            simulated: picture.simulated,
        };
        let appended = self
            .bus
            .append(&DRONE_CAPTURE, Some(&key), &frame_id, &capture)
            .await
            .map_err(CaptureError::Queue)?;
        let duplicate = match appended {
            Appended::Stored => false,
            Appended::Duplicate => true,
        };
        let mut door = self.door();
        if duplicate {
            door.stats_mut().duplicate_capture();
        } else {
            door.stats_mut().accept(Accepted::Capture);
            door.carry_payload(&picture.vehicle_id);
            self.metrics.captured(matched, started.elapsed());
        }
        drop(door);
        tracing::debug!(vehicle = %picture.vehicle_id, %frame_id, duplicate, matched, "capture queued");
        Ok(Queued {
            frame_id,
            duplicate,
        })
    }

    pub(super) fn lane(&self, vehicle_id: &SensorId) -> &tokio::sync::Mutex<()> {
        &self.lanes[lane_of(vehicle_id)]
    }

    fn next_received(&self) -> Timestamp {
        let mut last = self
            .last_received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let after = last.as_unix_nanos().saturating_add(1);
        *last = now().max(Timestamp::from_unix_nanos(after));
        *last
    }

    pub(super) async fn queue_payload(
        &self,
        sample: &Sample,
        arrived: Timestamp,
    ) -> Result<(), Reject> {
        if sample.image.is_none() && sample.lidar_points.is_none() {
            return Ok(());
        }
        let queued = self.queue_each(sample, arrived).await;
        // A line for each change, not for each packet; every failure is counted.
        let failed_before = self.samples_fail.swap(queued.is_err(), Relaxed);
        match queued {
            Ok(()) => {
                if failed_before {
                    tracing::info!("what samples carry is queued again");
                }
                Ok(())
            }
            Err(error) => {
                if !failed_before {
                    tracing::warn!(
                        vehicle = %sample.drone_id, error = %chain(&error),
                        "what a sample carries was not queued; further failures are only counted"
                    );
                }
                Err(Reject::QueueFailed)
            }
        }
    }

    async fn queue_each(&self, sample: &Sample, arrived: Timestamp) -> Result<(), CaptureError> {
        if let Some(image) = &sample.image {
            let exposure = sample.timestamp.unwrap_or(arrived);
            let fix = match sample.position {
                // The sample says where it was taken.
                Some(position) => Some(Fix {
                    place: Place {
                        position,
                        relative_altitude_m: None,
                    },
                    looking: None,
                    offset: Duration::ZERO,
                }),
                None => self.door().fix_at(&sample.drone_id, exposure),
            };
            let picture = Picture {
                vehicle_id: sample.drone_id.clone(),
                image: Bytes::copy_from_slice(image),
                captured: sample.timestamp,
                intrinsics: None,
                mount_pitch_deg: None,
                simulated: sample.simulated,
            };
            let telemetry = fix.as_ref().map(grpc::telemetry_from_fix);
            self.queue(picture, telemetry, Instant::now()).await?;
        }
        if let Some(points) = &sample.lidar_points {
            let observed = sample.timestamp.unwrap_or(arrived);
            self.queue_lidar(sample, points, observed).await?;
        }
        Ok(())
    }

    async fn queue_lidar(
        &self,
        sample: &Sample,
        points: &[f32],
        observed: Timestamp,
    ) -> Result<(), CaptureError> {
        let vehicle_id = sample.drone_id.as_str();
        // A sensor id is a key: both have the same alphabet and length.
        let key = Key::parse(vehicle_id).ok();
        let scan = LidarScan {
            vehicle_id: vehicle_id.to_owned(),
            observed_unix_nanos: observed.as_unix_nanos(),
            points_xyz_m: points.to_vec(),
            position: sample.position.map(grpc::point_from_position),
            simulated: sample.simulated,
        };
        let points: Vec<u8> = points.iter().flat_map(|p| p.to_le_bytes()).collect();
        let message_id = Digest::of_parts(&[
            b"lidar",
            vehicle_id.as_bytes(),
            &scan.observed_unix_nanos.to_le_bytes(),
            Digest::of(&points).as_bytes(),
        ]);
        self.bus
            .append(&DRONE_LIDAR, key.as_ref(), &message_id.to_hex(), &scan)
            .await
            .map_err(CaptureError::Queue)?;
        self.door().stats_mut().accept(Accepted::Lidar);
        Ok(())
    }
}

/// The lane of a vehicle, less than [`LANES`].
pub(super) fn lane_of(vehicle_id: &SensorId) -> usize {
    let mut hasher = DefaultHasher::new();
    vehicle_id.hash(&mut hasher);
    hasher.finish() as usize % LANES
}
