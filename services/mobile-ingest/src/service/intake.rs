//! From a checked sample to a durable one, in order.
//!
//! Samples of one stream of one phone go one at a time: decide the time, check the order, queue,
//! remember. Different streams and phones do not wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use sovereign_bus::{Appended, Bus, DurableTopic, Key};
use sovereign_model::{Digest, SensorId, Timestamp, frame_id};
use sovereign_proto::geo::v1::{Capture, GeoPoint, TelemetryFix};
use sovereign_proto::mobile::v1::{Sample, SampleType};
use sovereign_proto::topics;
use sovereign_service::chain;
use tokio::sync::Mutex as AsyncMutex;

use super::now;
use crate::domain::clients::{Accepted, Announcement, ClientTable, duplicate};
use crate::domain::frame::{
    self, Frame, Limits, Payload, Place, Position, Reject, RejectCode, Stream,
};
use crate::domain::picture;
use crate::error::IngestError;
use crate::metrics::Metrics;
use crate::sparse::Sparse;
use crate::views::Phone;

/// A bus that does not confirm within this time counts as full; the phone is told to try again.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// One lock a stream, so that order is decided where it is kept.
#[derive(Debug, Default)]
pub(crate) struct Lanes([AsyncMutex<()>; Stream::ALL.len()]);

/// What is said beside the bytes of a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureNote {
    /// Exposure, when the sender said it.
    pub(crate) captured: Option<Timestamp>,
    pub(crate) place: Place,
    pub(crate) simulated: bool,
}

/// A picture that is durably queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) frame_id: String,
    /// Whether it had been accepted before.
    pub(crate) duplicate: bool,
}

/// The door for phones.
#[derive(Debug)]
pub(crate) struct Intake {
    bus: Bus,
    limits: Limits,
    clients: Mutex<ClientTable<Lanes>>,
    metrics: Arc<Metrics>,
    queue_warnings: Sparse,
}

impl Intake {
    pub(crate) fn new(bus: Bus, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            bus,
            limits,
            clients: Mutex::new(ClientTable::new()),
            metrics,
            queue_warnings: Sparse::default(),
        }
    }

    /// What the door takes.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The phones; hold the guard briefly.
    pub(crate) fn clients(&self) -> MutexGuard<'_, ClientTable<Lanes>> {
        // No panic can leave the table half changed, so poison is no reason to stop.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every phone as readers see it, by id.
    pub(crate) fn phones(&self) -> Vec<Phone> {
        self.clients()
            .iter()
            .map(|(id, client)| Phone::from_client(id, client))
            .collect()
    }

    /// Phones with news since the last call, as readers see them.
    pub(crate) fn changed_phones(&self) -> Vec<Phone> {
        let mut clients = self.clients();
        clients
            .take_changed()
            .iter()
            .filter_map(|id| Some(Phone::from_client(id, clients.get(id)?)))
            .collect()
    }

    /// Admits a phone.
    ///
    /// # Errors
    /// An id that cannot name a phone, an announcement out of bounds, no room.
    pub(crate) fn register(
        &self,
        client_id: &str,
        announcement: Announcement,
        now: Timestamp,
    ) -> Result<SensorId, IngestError> {
        let id = frame::client_id_from_text(client_id)?;
        let announcement = announcement
            .check()
            .map_err(|message| Reject::new(RejectCode::InvalidPayload, message))?;
        self.clients().register(id.clone(), announcement, now)?;
        Ok(id)
    }

    /// Takes one `av-v1` frame; returns once it is durably queued.
    ///
    /// # Errors
    /// See [`IngestError`]; nothing is remembered of a frame that was not queued.
    pub(crate) async fn upload(&self, body: &[u8]) -> Result<(), IngestError> {
        let frame = frame::parse(body)?.check(now(), &self.limits)?;
        let Frame {
            client,
            stream,
            observed,
            place,
            payload,
            simulated,
        } = frame;
        let lanes = self.clients().lanes(&client)?;
        let _turn = lanes.0[stream.index()].lock().await;
        // Read within the turn: whoever had the turn before has an earlier time.
        let received = now();
        let observed = match observed {
            Some(observed) => {
                self.clients()
                    .check_order(&client, stream, observed, received)?;
                observed
            }
            None => self.clients().next_observed(&client, stream, received)?,
        };
        let appended = match payload {
            Payload::Picture(image) => {
                let note = PictureNote {
                    captured: Some(observed),
                    place,
                    simulated,
                };
                self.queue_picture(&client, image.into(), note, observed)
                    .await?
                    .1
            }
            Payload::Fix => {
                let sample = sample(&client, stream, observed, received, place, simulated);
                self.queue_sample(sample, &client, stream).await?
            }
            Payload::Values(values) => {
                let mut sample = sample(&client, stream, observed, received, place, simulated);
                sample.values.extend(values);
                self.queue_sample(sample, &client, stream).await?
            }
        };
        let order = Some((stream, observed));
        match appended {
            Appended::Stored => {
                let accepted = Accepted {
                    order,
                    place: Some((place, observed)),
                    simulated,
                };
                self.clients().accept(&client, accepted, now());
                self.metrics.accepted(stream);
                Ok(())
            }
            Appended::Duplicate => {
                self.clients().remember_order(&client, order, now());
                Err(duplicate(stream).into())
            }
        }
    }

    /// Takes one picture as bytes; returns once it is durably queued. Pictures sent this way are told
    /// apart by content, so they may come late, in any order, and again.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub(crate) async fn picture(
        &self,
        client: &SensorId,
        image: Bytes,
        note: PictureNote,
    ) -> Result<Receipt, IngestError> {
        let invalid = |message: String| Reject::new(RejectCode::InvalidPayload, message);
        if image.is_empty() {
            return Err(
                Reject::new(RejectCode::MissingImageData, "the body holds no picture").into(),
            );
        }
        picture::check_jpeg(&image).map_err(|fault| invalid(format!("the body {fault}")))?;
        let lanes = self.clients().lanes(client)?;
        let arrived = now();
        let captured = match note.captured {
            Some(captured) => self
                .limits
                .check_skew(captured, arrived)
                .map(|()| captured)?,
            // A camera whose clock is wrong does not know the time: that is no reason to refuse its picture.
            None => picture::exposure_time(&image)
                .filter(|exposure| *exposure > Timestamp::UNIX_EPOCH)
                .filter(|exposure| self.limits.check_skew(*exposure, arrived).is_ok())
                .unwrap_or(Timestamp::UNIX_EPOCH),
        };
        let _turn = lanes.0[Stream::Camera.index()].lock().await;
        let (frame_id, appended) = self.queue_picture(client, image, note, captured).await?;
        if appended == Appended::Stored {
            let observed = if captured == Timestamp::UNIX_EPOCH {
                arrived
            } else {
                captured
            };
            let accepted = Accepted {
                order: None,
                place: Some((note.place, observed)),
                simulated: note.simulated,
            };
            self.clients().accept(client, accepted, now());
            self.metrics.accepted(Stream::Camera);
        }
        Ok(Receipt {
            frame_id,
            duplicate: appended == Appended::Duplicate,
        })
    }

    async fn queue_picture(
        &self,
        client: &SensorId,
        image: Bytes,
        note: PictureNote,
        captured: Timestamp,
    ) -> Result<(String, Appended), IngestError> {
        let digest = Digest::of(&image);
        let frame_id = frame_id(client, captured, &digest).to_hex();
        let received = self.clients().next_received(client, now());
        let capture = Capture {
            frame_id: frame_id.clone(),
            sensor_id: client.to_string(),
            captured_unix_nanos: captured.as_unix_nanos(),
            received_unix_nanos: received.as_unix_nanos(),
            image_digest: Bytes::copy_from_slice(digest.as_bytes()),
            media_type: "image/jpeg".to_owned(),
            size_bytes: 0,
            picture: None,
            image,
            telemetry: note.place.position.map(|position| TelemetryFix {
                position: Some(point(position)),
                relative_altitude_m: None,
                attitude: None,
                attitude_is_camera: false,
                time_offset_nanos: 0,
            }),
            intrinsics: None,
            mount_pitch_deg: None,
            simulated: note.simulated,
        };
        let appended = self
            .append(&topics::MOBILE_CAPTURE, client, &frame_id, &capture)
            .await?;
        Ok((frame_id, appended))
    }

    async fn queue_sample(
        &self,
        sample: Sample,
        client: &SensorId,
        stream: Stream,
    ) -> Result<Appended, IngestError> {
        // One timestamp of one stream is one sample, across restarts of this process too.
        let id = Digest::of_parts(&[
            b"sample",
            client.as_str().as_bytes(),
            b"/",
            stream.as_str().as_bytes(),
            &sample.observed_unix_nanos.to_le_bytes(),
        ])
        .to_hex();
        self.append(&topics::MOBILE_SAMPLE, client, &id, &sample)
            .await
    }

    async fn append<M: Message + Default + 'static>(
        &self,
        topic: &DurableTopic<M>,
        client: &SensorId,
        message_id: &str,
        message: &M,
    ) -> Result<Appended, IngestError> {
        let key = Key::parse(client.as_str()).expect("ids and keys have one alphabet and length");
        let append = self.bus.append(topic, Some(&key), message_id, message);
        let appended = match tokio::time::timeout(QUEUE_TIMEOUT, append).await {
            Ok(appended) => appended.map_err(IngestError::Queue),
            Err(_) => Err(IngestError::QueueTimeout),
        };
        appended.inspect_err(|error| self.tell_queue_failure(error))
    }

    /// A queue that does not take samples is worth a look, but not at each of them.
    fn tell_queue_failure(&self, error: &IngestError) {
        match self.queue_warnings.due(Instant::now()) {
            Some(samples) => {
                tracing::warn!(error = %chain(error), samples, "samples could not be queued");
            }
            None => tracing::debug!(error = %chain(error), "a sample could not be queued"),
        }
    }
}

fn point(position: Position) -> GeoPoint {
    GeoPoint {
        latitude_deg: position.latitude_deg,
        longitude_deg: position.longitude_deg,
        altitude_m: position.altitude_m,
    }
}

fn sample(
    client: &SensorId,
    stream: Stream,
    observed: Timestamp,
    received: Timestamp,
    place: Place,
    simulated: bool,
) -> Sample {
    let kind = match stream {
        // Pictures travel as captures.
        Stream::Camera => SampleType::Unspecified,
        Stream::Gps => SampleType::Gps,
        Stream::Accelerometer => SampleType::Accelerometer,
        Stream::Gyroscope => SampleType::Gyroscope,
        Stream::Magnetometer => SampleType::Magnetometer,
        Stream::Barometer => SampleType::Barometer,
    };
    let notes = [
        ("accuracy_m", place.accuracy_m),
        ("heading_deg", place.heading_deg),
    ];
    Sample {
        client_id: client.to_string(),
        r#type: kind.into(),
        observed_unix_nanos: observed.as_unix_nanos(),
        received_unix_nanos: received.as_unix_nanos(),
        position: place.position.map(point),
        values: notes
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
        simulated,
    }
}
