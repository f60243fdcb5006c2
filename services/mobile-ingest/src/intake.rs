//! From a checked sample to a durable one, in order.
//!
//! Samples of one stream of one phone go one at a time: decide the time, check the order, queue,
//! remember. Different streams and phones do not wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream as Pieces, stream};
use prost::Message;
use sovereign_bus::{Appended, Bus, DurableTopic, Key};
use sovereign_model::{Digest, SensorId, Timestamp, frame_id};
use sovereign_objects::{Objects, PinChange, PinStrength, StoredPicture, UNREAD};
use sovereign_proto::topics;
use sovereign_service::{Clock, chain};
use tokio::sync::Mutex as AsyncMutex;

use crate::domain::capture::PictureNote;
use crate::domain::clients::{Accepted, Announcement, ClientTable, duplicate};
use crate::domain::frame::{self, Frame, Limits, Payload, Reject, RejectCode, Stream};
use crate::error::{BodyFault, IngestError};
use crate::metrics::Metrics;
use crate::sparse::Sparse;
use crate::views::{Phone, Receipt};
use crate::wire;

/// A bus that does not confirm within this time counts as full; the phone is told to try again.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// One lock a stream, so that order is decided where it is kept.
#[derive(Debug, Default)]
pub(crate) struct Lanes([AsyncMutex<()>; Stream::ALL.len()]);

#[derive(Debug)]
pub(crate) struct Intake {
    bus: Bus,
    objects: Objects,
    clock: Clock,
    limits: Limits,
    clients: Mutex<ClientTable<Lanes>>,
    metrics: Arc<Metrics>,
    queue_warnings: Sparse,
}

impl Intake {
    pub(crate) fn new(
        bus: Bus,
        objects: Objects,
        clock: Clock,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            bus,
            objects,
            clock,
            limits,
            clients: Mutex::new(ClientTable::new()),
            metrics,
            queue_warnings: Sparse::default(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn expire(&self) {
        let now = self.now();
        self.clients().expire(now);
    }

    pub(crate) fn clients(&self) -> MutexGuard<'_, ClientTable<Lanes>> {
        // No panic can leave the table half changed, so poison is no reason to stop.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phones(&self) -> Vec<Phone> {
        self.clients()
            .iter()
            .map(|(id, client)| Phone::from_client(id, client))
            .collect()
    }

    pub(crate) fn changed_phones(&self) -> Vec<Phone> {
        let mut clients = self.clients();
        clients
            .take_changed()
            .iter()
            .filter_map(|id| Some(Phone::from_client(id, clients.get(id)?)))
            .collect()
    }

    /// Admits a phone.
    pub(crate) fn register(
        &self,
        client_id: &str,
        announcement: Announcement,
    ) -> Result<SensorId, IngestError> {
        let id = frame::client_id_from_text(client_id)?;
        let announcement = announcement
            .check()
            .map_err(|message| Reject::new(RejectCode::InvalidPayload, message))?;
        let now = self.now();
        self.clients().register(id.clone(), announcement, now)?;
        Ok(id)
    }

    /// Takes one `av-v1` frame; returns once it is durably queued.
    pub(crate) async fn upload(&self, body: &[u8]) -> Result<(), IngestError> {
        let frame = frame::parse(body)?.check(self.now(), &self.limits)?;
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
        let received = self.now();
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
                let whole = stream::iter([Ok::<_, BodyFault>(Bytes::from(image))]);
                let picture = self.objects.put_picture(whole).await;
                let picture = picture.map_err(|error| self.not_stored(error.into()))?;
                let queued = self.queue_picture(&client, &picture, note, observed);
                queued.await?.1
            }
            Payload::Fix => {
                let sample =
                    wire::sample_from_parts(&client, stream, observed, received, place, simulated);
                self.queue_sample(sample, &client, stream).await?
            }
            Payload::Values(values) => {
                let mut sample =
                    wire::sample_from_parts(&client, stream, observed, received, place, simulated);
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
                self.clients().accept(&client, accepted, self.now());
                self.metrics.accepted(stream);
                Ok(())
            }
            Appended::Duplicate => {
                self.clients().remember_order(&client, order, self.now());
                Err(duplicate(stream).into())
            }
        }
    }

    /// Takes one picture in pieces; returns once its bytes and its record are on disk. Pictures sent this
    /// way are told apart by content, so they may come late, in any order, and again.
    pub(crate) async fn picture(
        &self,
        client: &SensorId,
        pieces: impl Pieces<Item = Result<Bytes, BodyFault>>,
        note: PictureNote,
    ) -> Result<Receipt, IngestError> {
        let lanes = self.clients().lanes(client)?;
        let arrived = self.now();
        if let Some(captured) = note.captured {
            self.limits.check_skew(captured, arrived)?;
        }
        let picture = self.objects.put_picture(pieces).await;
        let picture = picture.map_err(|error| self.not_stored(error.into()))?;
        let captured = note.captured.unwrap_or_else(|| {
            // A camera whose clock is wrong does not know the time: that is no reason to refuse its picture.
            let exposed = picture.header.exposed.filter(|exposed| {
                *exposed > Timestamp::UNIX_EPOCH
                    && self.limits.check_skew(*exposed, arrived).is_ok()
            });
            exposed.unwrap_or(Timestamp::UNIX_EPOCH)
        });
        let _turn = lanes.0[Stream::Camera.index()].lock().await;
        let queued = self.queue_picture(client, &picture, note, captured);
        let (frame_id, appended) = queued.await?;
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
            self.clients().accept(client, accepted, self.now());
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
        picture: &StoredPicture,
        note: PictureNote,
        captured: Timestamp,
    ) -> Result<(String, Appended), IngestError> {
        let digest = picture.object.digest;
        let frame_id = frame_id(client, captured, &digest).to_hex();
        let received = self.clients().next_received(client, self.now());
        let capture =
            wire::capture_from_parts(&frame_id, client, &note, picture, captured, received);
        let topic = &topics::MOBILE_CAPTURE;
        let appended = self.append(topic, client, &frame_id, &capture).await?;
        if appended == Appended::Duplicate {
            self.let_go(digest).await;
        }
        Ok((frame_id, appended))
    }

    /// Nobody takes the pin of a duplicate off again, so it must not keep the picture for ever.
    async fn let_go(&self, digest: Digest) {
        let prefer = PinChange {
            digest,
            name: UNREAD,
            strength: Some(PinStrength::Prefer),
        };
        if let Err(error) = self.objects.update_pins(&[prefer]).await {
            tracing::debug!(error = %chain(&error), "a picture that came twice stays pinned");
        }
    }

    fn not_stored(&self, error: IngestError) -> IngestError {
        if let IngestError::Store(_) = error {
            self.tell_queue_failure(&error);
        }
        error
    }

    async fn queue_sample(
        &self,
        sample: wire::Sample,
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
