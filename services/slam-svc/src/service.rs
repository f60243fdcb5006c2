//! The wiring: deliveries in, one verdict each, acknowledged when the verdict is on disk.
//!
//! The bus hands out one capture of a sensor at a time, so order per sensor is kept by settling each
//! delivery on its own; different sensors overlap.

mod wire;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use prost::Message;
use sovereign_bus::{Bus, Consumer, Delivery, Key, PublishError};
use sovereign_model::Digest;
use sovereign_model::geo::Position;
use sovereign_proto::convert::converted;
use sovereign_proto::geo::v1::{Capture, TrackingState};
use sovereign_proto::mobile::v1::{Sample, SampleType};
use sovereign_proto::slam::v1::slam_server::SlamServer;
use sovereign_proto::slam::v1::{Keyframe, PoseEvent, PoseSource};
use sovereign_proto::topics::{
    DRONE_CAPTURE, MOBILE_CAPTURE, MOBILE_SAMPLE, SLAM_KEYFRAME, SLAM_POSE,
};
use sovereign_service::{
    BuildError, Context, MAX_MESSAGE_BYTES, ReadyLatch, RunError, Service, Stop, Tasks, chain,
};
use tonic::service::Routes;

use crate::config::{Config, Settings};
use crate::domain::georeference::{Reason, Site, Source, Verdict, georeference};
use crate::domain::metadata::PictureMetadata;
use crate::domain::turned::{Sight, Turn, turn, turned};
use crate::error::{SettleError, StoreError};
use crate::grpc::SlamApi;
use crate::metrics::SlamMetrics;
use crate::store::{MAX_KEYFRAMES, Store};

/// Deliveries of one topic held at once, each of another sensor; beyond it the bus keeps them. A capture
/// holds its picture, 8 MiB at most.
const MAX_HELD: usize = 32;
/// Name of the keyframe store in the service's folder.
const STORE_FILE: &str = "keyframes.redb";

/// Decides where pictures were taken.
pub struct SlamService {
    drone_captures: Consumer<Capture>,
    phone_captures: Consumer<Capture>,
    phone_samples: Consumer<Sample>,
    worker: Arc<Worker>,
    ready: ReadyLatch,
}

impl Service for SlamService {
    const NAME: &'static str = "slam-svc";
    const GRPC_SERVICE: &'static str = "sovereign.slam.v1.Slam";
    const DESCRIPTOR_SET: &'static [u8] = sovereign_proto::DESCRIPTOR_SET;
    type Config = Config;
    type Settings = Settings;
    type Calls = ();

    fn settings(config: Config) -> Result<Settings, BuildError> {
        config.settings()
    }

    async fn build(settings: Settings, (): (), context: Context) -> Result<Self, BuildError> {
        let path = context.data_dir.join(STORE_FILE);
        let metrics = SlamMetrics::register(&context);
        let store = Store::open(&path, MAX_KEYFRAMES, metrics.records_damaged.clone())
            .map_err(|error| BuildError::new("open the keyframe store", error))?;
        let bus = &context.bus;
        let subscribe = |error| BuildError::new("subscribe", error);
        Ok(SlamService {
            drone_captures: bus
                .consume(&DRONE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?,
            phone_captures: bus
                .consume(&MOBILE_CAPTURE, Self::NAME)
                .await
                .map_err(subscribe)?,
            phone_samples: bus
                .consume(&MOBILE_SAMPLE, Self::NAME)
                .await
                .map_err(subscribe)?,
            ready: context.ready.latch("consuming"),
            worker: Arc::new(Worker {
                judge: Arc::new(Judge {
                    site: settings.site,
                    store: Arc::new(store),
                    metrics,
                }),
                bus: context.bus,
            }),
        })
    }

    fn routes(&self) -> Routes {
        let api = SlamApi {
            store: self.worker.judge.store.clone(),
        };
        Routes::new(
            SlamServer::new(api)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    async fn run(self, stop: Stop) -> Result<(), RunError> {
        let mut tasks = Tasks::new(stop.clone());
        for (name, captures) in [
            ("drone captures", self.drone_captures),
            ("phone captures", self.phone_captures),
        ] {
            let worker = self.worker.clone();
            let settle = move |delivery| worker.clone().settle_capture(delivery);
            tasks.spawn(name, settle_all(captures, stop.clone(), settle));
        }
        let worker = self.worker;
        let settle = move |delivery| worker.clone().settle_sample(delivery);
        tasks.spawn(
            "phone samples",
            settle_all(self.phone_samples, stop, settle),
        );
        self.ready.set();
        tasks.wait().await
    }
}

/// Settles deliveries, those of different keys at the same time, until stop; then finishes what it holds.
async fn settle_all<M, F>(
    consumer: Consumer<M>,
    stop: Stop,
    settle: impl Fn(Delivery<M>) -> F,
) -> Result<(), RunError>
where
    M: Message + Default,
    F: Future<Output = ()>,
{
    // A delivery may have to be read from disk: the reading goes on while others are settled.
    let mut deliveries = pin!(stream::unfold(consumer, |mut consumer| async {
        Some((consumer.next().await?, consumer))
    }));
    let mut held = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.requested() => break,
            Some(()) = held.next() => {}
            delivery = deliveries.next(), if held.len() < MAX_HELD => match delivery {
                Some(delivery) => held.push(settle(delivery)),
                None => break,
            },
        }
    }
    while held.next().await.is_some() {}
    Ok(())
}

/// Settles one delivery at a time.
struct Worker {
    judge: Arc<Judge>,
    bus: Bus,
}

impl Worker {
    async fn settle_capture(self: Arc<Self>, delivery: Delivery<Capture>) {
        let started = Instant::now();
        match self.publish_verdict(&delivery).await {
            Ok(()) => {
                self.acknowledge(delivery).await;
                let seconds = started.elapsed().as_secs_f64();
                self.judge.metrics.settle_seconds.observe(seconds);
            }
            Err(error) => self.give_back("capture", &delivery.headers.message_id, &error),
        }
    }

    async fn settle_sample(self: Arc<Self>, delivery: Delivery<Sample>) {
        match self.publish_position(&delivery).await {
            Ok(()) => self.acknowledge(delivery).await,
            Err(error) => self.give_back("sample", &delivery.headers.message_id, &error),
        }
    }

    async fn publish_verdict(&self, delivery: &Delivery<Capture>) -> Result<(), SettleError> {
        let metrics = &self.judge.metrics;
        let capture = &delivery.message;
        let named = delivery
            .key
            .as_ref()
            .filter(|key| key.as_str() == capture.sensor_id)
            .filter(|_| Digest::from_hex(&capture.frame_id).is_ok());
        let Some(sensor) = named else {
            // No verdict can name it, so none is owed; holding it would stop its sensor for ever.
            metrics
                .captures
                .get_or_create(&[("outcome", "malformed")])
                .inc();
            tracing::warn!(
                message_id = delivery.headers.message_id,
                "a capture without a valid frame id and sensor id was skipped"
            );
            return Ok(());
        };
        let judged = self.judged(capture).await?;
        if let Some(event) = &judged.event {
            self.bus.publish(&SLAM_POSE, Some(sensor), event).await?;
        }
        let (appended, kept) = tokio::join!(
            self.bus.append(
                &SLAM_KEYFRAME,
                Some(sensor),
                &judged.keyframe.frame_id,
                &judged.keyframe
            ),
            self.keep(&judged),
        );
        appended?;
        kept?;
        tracing::debug!(
            sensor = sensor.as_str(),
            frame_id = judged.keyframe.frame_id,
            state = judged.keyframe.state().as_str_name(),
            reason = judged.keyframe.reason,
            "capture settled"
        );
        Ok(())
    }

    /// Judges on a thread that may block: a large picture takes milliseconds to hash.
    async fn judged(&self, capture: &Capture) -> Result<Judged, SettleError> {
        let (judge, task) = (self.judge.clone(), capture.clone());
        match tokio::task::spawn_blocking(move || judge.judge(&task)).await {
            Ok(judged) => Ok(judged?),
            Err(error) if error.is_panic() => {
                // The same bytes would do the same again: one such picture must not stop its sensor.
                tracing::error!(frame_id = capture.frame_id, %error, "judging a picture panicked");
                let verdict = Verdict::Lost {
                    reason: Reason::Failed,
                };
                Ok(self.judge.fresh(capture, &verdict, None))
            }
            Err(error) => Err(SettleError::Judge(error)),
        }
    }

    async fn keep(&self, judged: &Judged) -> Result<(), StoreError> {
        if judged.event.is_none() {
            return Ok(());
        }
        let store = self.judge.store.clone();
        let (keyframe, preview) = (judged.keyframe.clone(), judged.preview.clone());
        tokio::task::spawn_blocking(move || store.put(&keyframe, preview.as_deref()))
            .await
            .map_err(StoreError::Thread)?
    }

    async fn publish_position(&self, delivery: &Delivery<Sample>) -> Result<(), SettleError> {
        let sample = &delivery.message;
        let samples = &self.judge.metrics.samples;
        if sample.r#type() != SampleType::Gps {
            samples.get_or_create(&[("outcome", "other")]).inc();
            return Ok(());
        }
        let position = converted::<_, Position>("position", sample.position.as_ref());
        let (Ok(position), Ok(phone)) = (position, Key::parse(&sample.client_id)) else {
            samples.get_or_create(&[("outcome", "invalid")]).inc();
            return Ok(());
        };
        let event = PoseEvent {
            sensor_id: sample.client_id.clone(),
            observed_unix_nanos: sample.observed_unix_nanos,
            state: TrackingState::Tracking.into(),
            pose: Some(wire::pose_at(position)),
            source: PoseSource::PositionOnly.into(),
            simulated: sample.simulated,
            frame_id: String::new(),
        };
        self.bus.publish(&SLAM_POSE, Some(&phone), &event).await?;
        samples.get_or_create(&[("outcome", "pose")]).inc();
        Ok(())
    }

    async fn acknowledge<M>(&self, delivery: Delivery<M>) {
        let message_id = delivery.headers.message_id.clone();
        if let Err(error) = delivery.ack().await {
            self.judge
                .metrics
                .retries
                .get_or_create(&[("step", "ack")])
                .inc();
            tracing::debug!(message_id, error = %chain(&error), "a delivery will come again");
        }
    }

    fn give_back(&self, step: &'static str, message_id: &str, error: &SettleError) {
        self.judge
            .metrics
            .retries
            .get_or_create(&[("step", step)])
            .inc();
        // A closed bus is the end of the process, not a fault; the delivery waits for the next one.
        if !matches!(error, SettleError::Publish(PublishError::Closed)) {
            tracing::warn!(message_id, error = %chain(error), "a {step} will be settled again");
        }
    }
}

/// Judges captures; blocking.
struct Judge {
    site: Site,
    store: Arc<Store>,
    metrics: SlamMetrics,
}

/// A verdict ready to be published.
struct Judged {
    keyframe: Keyframe,
    /// `None` for a frame that had its verdict before: the world has moved on.
    event: Option<PoseEvent>,
    /// Preview of a picture whose pose fits its pixels.
    preview: Option<Vec<u8>>,
}

impl Judge {
    /// The verdict on a capture: the kept one when there is one, so that a capture that is delivered
    /// twice is judged once.
    fn judge(&self, capture: &Capture) -> Result<Judged, StoreError> {
        if let Some(keyframe) = self.store.keyframe(&capture.frame_id)? {
            self.metrics
                .captures
                .get_or_create(&[("outcome", "known")])
                .inc();
            return Ok(Judged {
                keyframe,
                event: None,
                preview: None,
            });
        }
        let (verdict, preview) = self.verdict(capture)?;
        Ok(self.fresh(capture, &verdict, preview))
    }

    fn fresh(&self, capture: &Capture, verdict: &Verdict, preview: Option<Vec<u8>>) -> Judged {
        let (outcome, reason) = match verdict {
            Verdict::Tracking { source, .. } => match source {
                Source::ImageMetadata => ("image_metadata", None),
                Source::Telemetry => ("telemetry", None),
            },
            Verdict::PositionOnly { reason, .. } => ("position_only", Some(reason)),
            Verdict::Lost { reason } => ("lost", Some(reason)),
        };
        self.metrics
            .captures
            .get_or_create(&[("outcome", outcome)])
            .inc();
        if let Some(reason) = reason {
            self.metrics
                .unplaced
                .get_or_create(&[("reason", reason.label())])
                .inc();
        }
        let keyframe = wire::keyframe_from(capture, verdict);
        Judged {
            event: Some(wire::pose_event_from(&keyframe, verdict)),
            keyframe,
            preview,
        }
    }

    fn verdict(&self, capture: &Capture) -> Result<(Verdict, Option<Vec<u8>>), StoreError> {
        let lost = |reason| Ok((Verdict::Lost { reason }, None));
        if Digest::of(&capture.image).as_bytes().as_slice() != capture.image_digest {
            return lost(Reason::Corrupt);
        }
        let mut metadata = match PictureMetadata::read(&capture.image) {
            Ok(metadata) => metadata,
            Err(error) => return lost(Reason::Unreadable(error)),
        };
        for part in &metadata.damaged {
            self.metrics.damaged.get_or_create(&[("part", *part)]).inc();
        }
        let given = match wire::intrinsics_of(capture) {
            Ok(given) => given,
            Err(reason) => return lost(reason),
        };
        let telemetry = match wire::telemetry_of(capture) {
            Ok(telemetry) => telemetry,
            Err(reason) => return lost(reason),
        };
        let preview = metadata.preview.take();
        let verdict = georeference(&metadata, &telemetry, given, &self.site);
        let Verdict::Tracking {
            pose,
            intrinsics,
            source,
            attitude_from: Source::ImageMetadata,
        } = verdict
        else {
            return Ok((verdict, None));
        };
        if !metadata.edited {
            return Ok((verdict, preview));
        }
        let sight = preview.as_deref().map(|preview| Sight {
            pose: &pose,
            intrinsics: &intrinsics,
            preview,
        });
        let found = match sight {
            Some(sight) => self.turn_of(&capture.sensor_id, sight)?,
            None => None,
        };
        let pixels = match found {
            Some(Turn::None) => "as_stored",
            Some(Turn::Quarter | Turn::Half | Turn::ThreeQuarters) => "turned",
            None => "undecided",
        };
        self.metrics
            .edited
            .get_or_create(&[("pixels", pixels)])
            .inc();
        // Undecided, the attitude is taken at its word, as most editors leave pixels where they are; but
        // the picture does not become a reference for others.
        let verdict = Verdict::Tracking {
            pose: turned(&pose, found.unwrap_or(Turn::None)),
            intrinsics,
            source,
            attitude_from: Source::ImageMetadata,
        };
        Ok((verdict, preview.filter(|_| found.is_some())))
    }

    /// How an edited picture was turned, as the newest pictures of the same sensor tell.
    fn turn_of(&self, sensor_id: &str, edited: Sight<'_>) -> Result<Option<Turn>, StoreError> {
        let kept: Vec<_> = self
            .store
            .previews(sensor_id)?
            .into_iter()
            .filter_map(|(keyframe, preview)| Some((wire::view_of(&keyframe)?, preview)))
            .collect();
        let references: Vec<_> = kept
            .iter()
            .map(|((pose, intrinsics), preview)| Sight {
                pose,
                intrinsics,
                preview,
            })
            .collect();
        Ok(turn(edited, &references))
    }
}
