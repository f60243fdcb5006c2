//! From the bus to frames that can be worked on: pictures and verdicts brought together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use prost::Message;
use sovereign_bus::{Consumer, Delivery, Key};
use sovereign_model::{Digest, Timestamp};
use sovereign_proto::convert::FieldError;
use sovereign_proto::geo::v1::Capture;
use sovereign_proto::slam::v1::slam_client::SlamClient;
use sovereign_proto::slam::v1::{GetKeyframeRequest, Keyframe};
use sovereign_service::{Channel, MAX_MESSAGE_BYTES, RunError, Stop};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::domain::join::{Ask, Frame, Join, Outcome};
use crate::error::Refusal;
use crate::metrics::TileMetrics;
use crate::service::Clock;
use crate::store::Store;

/// Verdicts asked for at the same time; others are asked for a moment later.
const MAX_ASKS: usize = 16;
/// How often it is looked whether a verdict is to be asked for.
const ASK_TICK: Duration = Duration::from_millis(250);
/// An answer that takes longer is asked for again later.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A picture with the verdict on its pose.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) capture: Delivery<Capture>,
    pub(crate) verdict: Verdict,
}

/// The verdict on a pose, as it came.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Over the bus.
    Delivered(Box<Delivery<Keyframe>>),
    /// By asking.
    Asked(Box<Keyframe>),
}

impl Job {
    pub(crate) fn keyframe(&self) -> &Keyframe {
        match &self.verdict {
            Verdict::Delivered(delivery) => &delivery.message,
            Verdict::Asked(keyframe) => keyframe,
        }
    }

    /// Says that the frame is done with.
    pub(crate) async fn ack(self) {
        match self.verdict {
            Verdict::Delivered(keyframe) => {
                futures::join!(ack(self.capture), ack(*keyframe));
            }
            Verdict::Asked(_) => ack(self.capture).await,
        }
    }
}

/// What is not acknowledged comes again, and is then known as done.
async fn ack<M>(delivery: Delivery<M>) {
    if let Err(error) = delivery.ack().await {
        tracing::warn!(error = %sovereign_service::chain(&error), "a frame that is done will be delivered again");
    }
}

/// Reads the three streams.
pub(crate) struct Feed {
    pub(crate) drone: Consumer<Capture>,
    pub(crate) mobile: Consumer<Capture>,
    pub(crate) keyframes: Consumer<Keyframe>,
    pub(crate) slam: Channel,
    pub(crate) retention: Duration,
    pub(crate) desk: Desk,
}

/// Decides about what was read.
pub(crate) struct Desk {
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<TileMetrics>,
    pub(crate) clock: Clock,
    pub(crate) jobs: mpsc::Sender<Job>,
}

/// What came back for an [`Ask`].
struct Answer {
    ask: Ask,
    result: Result<Keyframe, tonic::Status>,
}

impl Feed {
    /// Reads until `stop`, or until the bus closes. What waits then is given back to the bus.
    pub(crate) async fn run(self, stop: Stop) -> Result<(), RunError> {
        let Self {
            drone,
            mobile,
            keyframes,
            slam,
            retention,
            desk,
        } = self;
        let mut drone = pin!(deliveries(drone));
        let mut mobile = pin!(deliveries(mobile));
        let mut keyframes = pin!(deliveries(keyframes));
        let mut join = Join::new(retention);
        let mut asks: JoinSet<Answer> = JoinSet::new();
        let mut tick = tokio::time::interval(ASK_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                delivery = drone.next() => {
                    let Some(delivery) = delivery else { return Ok(()) };
                    desk.capture(&mut join, "drone", delivery).await?;
                }
                delivery = mobile.next() => {
                    let Some(delivery) = delivery else { return Ok(()) };
                    desk.capture(&mut join, "mobile", delivery).await?;
                }
                delivery = keyframes.next() => {
                    let Some(delivery) = delivery else { return Ok(()) };
                    desk.verdict(&mut join, delivery).await?;
                }
                Some(answer) = asks.join_next() => {
                    let answer = answer.map_err(|e| RunError::new("ask for a verdict", e))?;
                    desk.answer(&mut join, answer).await?;
                }
                _ = tick.tick() => {}
            }
            let free = MAX_ASKS.saturating_sub(asks.len());
            for ask in join.asks((desk.clock)(), free) {
                desk.metrics.verdicts_asked.inc();
                asks.spawn(ask_for(slam.clone(), ask));
            }
            desk.metrics.waiting.set(join.waiting() as i64);
        }
    }
}

impl Desk {
    async fn capture(
        &self,
        join: &mut Join<Delivery<Capture>, Delivery<Keyframe>>,
        stream: &'static str,
        delivery: Delivery<Capture>,
    ) -> Result<(), RunError> {
        let message = &delivery.message;
        if let Err(error) = checked(&message.frame_id, &message.sensor_id, delivery.key.as_ref()) {
            let refusal = Refusal::Malformed(error);
            self.metrics
                .refused(&message.frame_id, &message.sensor_id, &refusal);
            ack(delivery).await;
            return Ok(());
        }
        if self.is_painted(&message.frame_id)? {
            self.metrics.repeated.inc();
            ack(delivery).await;
            return Ok(());
        }
        let sensor = message.sensor_id.clone();
        let frame = frame(&message.frame_id, message.received_unix_nanos);
        let redelivered = delivery.redelivered;
        let outcome = join.capture(
            &sensor,
            stream,
            frame,
            redelivered,
            (self.clock)(),
            delivery,
        );
        self.settle(outcome).await
    }

    async fn verdict(
        &self,
        join: &mut Join<Delivery<Capture>, Delivery<Keyframe>>,
        delivery: Delivery<Keyframe>,
    ) -> Result<(), RunError> {
        let message = &delivery.message;
        // What cannot be is never painted and has no picture.
        if checked(&message.frame_id, &message.sensor_id, delivery.key.as_ref()).is_err() {
            self.metrics.verdicts_missed.inc();
            ack(delivery).await;
            return Ok(());
        }
        if self.is_painted(&message.frame_id)? {
            ack(delivery).await;
            return Ok(());
        }
        let sensor = message.sensor_id.clone();
        let frame = frame(&message.frame_id, message.received_unix_nanos);
        let outcome = join.verdict(&sensor, frame, (self.clock)(), delivery);
        self.settle(outcome).await
    }

    async fn settle(
        &self,
        outcome: Outcome<Delivery<Capture>, Delivery<Keyframe>>,
    ) -> Result<(), RunError> {
        match outcome {
            Outcome::Pair(capture, keyframe) => {
                self.send(capture, Verdict::Delivered(Box::new(keyframe)))
                    .await
            }
            Outcome::Missed(keyframe)
            | Outcome::Waits {
                missed: Some(keyframe),
            } => {
                self.metrics.verdicts_missed.inc();
                tracing::debug!(
                    frame_id = keyframe.message.frame_id,
                    "a verdict has no picture"
                );
                ack(keyframe).await;
                Ok(())
            }
            Outcome::Waits { missed: None } => Ok(()),
        }
    }

    async fn answer(
        &self,
        join: &mut Join<Delivery<Capture>, Delivery<Keyframe>>,
        answer: Answer,
    ) -> Result<(), RunError> {
        let Answer { ask, result } = answer;
        match result {
            Ok(keyframe) if keyframe.frame_id == ask.frame_id => {
                if let Some(capture) = join.take(&ask.frame_id) {
                    self.send(capture, Verdict::Asked(Box::new(keyframe)))
                        .await?;
                }
            }
            Err(status) if ask.is_final && status.code() == tonic::Code::NotFound => {
                if let Some(capture) = join.take(&ask.frame_id) {
                    let sensor = &capture.message.sensor_id;
                    self.metrics
                        .refused(&ask.frame_id, sensor, &Refusal::NoVerdict);
                    ack(capture).await;
                }
            }
            Ok(_) => {
                tracing::debug!(frame_id = ask.frame_id, "asked for a verdict, got another");
            }
            Err(status) => {
                tracing::debug!(frame_id = ask.frame_id, %status, "no verdict yet");
            }
        }
        Ok(())
    }

    async fn send(&self, capture: Delivery<Capture>, verdict: Verdict) -> Result<(), RunError> {
        let job = Job { capture, verdict };
        self.jobs
            .send(job)
            .await
            .map_err(|_| RunError::new("hand a frame on", "the task that decodes frames has ended"))
    }

    fn is_painted(&self, frame_id: &str) -> Result<bool, RunError> {
        self.store
            .is_painted(frame_id)
            .map_err(|e| RunError::new("look a frame up", e))
    }
}

/// Deliveries as they come. One may have to be read from disk, and the reading goes on while something
/// else is looked at.
fn deliveries<M>(consumer: Consumer<M>) -> impl Stream<Item = Delivery<M>>
where
    M: Message + Default,
{
    stream::unfold(consumer, |mut consumer| async {
        Some((consumer.next().await?, consumer))
    })
}

/// Whether a half can be joined with its other: no verdict is given on a frame whose id is no digest, or
/// whose sensor is not the key that it came under.
fn checked(frame_id: &str, sensor_id: &str, key: Option<&Key>) -> Result<(), FieldError> {
    if Digest::from_hex(frame_id).is_err() {
        return Err(FieldError::new("frame_id", "must be 64 hex digits"));
    }
    if key.is_some_and(|key| key.as_str() == sensor_id) {
        Ok(())
    } else {
        Err(FieldError::new(
            "sensor_id",
            "is not the key of the subject",
        ))
    }
}

fn frame(id: &str, received_unix_nanos: i64) -> Frame {
    Frame {
        id: id.to_owned(),
        received: Timestamp::from_unix_nanos(received_unix_nanos),
    }
}

async fn ask_for(slam: Channel, ask: Ask) -> Answer {
    let mut client = SlamClient::new(slam)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = tonic::Request::new(GetKeyframeRequest {
        frame_id: ask.frame_id.clone(),
    });
    request.set_timeout(ASK_TIMEOUT);
    let result = client.get_keyframe(request).await.and_then(|response| {
        response
            .into_inner()
            .keyframe
            .ok_or_else(|| tonic::Status::internal("an answer without a keyframe"))
    });
    Answer { ask, result }
}
