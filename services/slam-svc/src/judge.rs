//! Where a picture was taken: one verdict per capture, the same one however often it is delivered, until
//! somebody says what its camera really is.

use std::sync::Arc;

use bytes::Bytes;
use sovereign_bus::{Bus, Delivery, Key, PublishError};
use sovereign_model::Digest;
use sovereign_model::geo::{Geodetic, LocalFrame, Position};
use sovereign_objects::{Objects, ObjectsError};
use sovereign_picture::{Header, MAX_HEADER_BYTES, NotAPicture};
use sovereign_proto::topics::{SLAM_KEYFRAME, SLAM_POSE};
use sovereign_service::{RunError, Stop, acknowledge, chain};
use tokio::sync::{Notify, RwLock};
use tokio::time::{Duration, Instant, sleep};

use crate::calibration::{Calibration, MAX_CALIBRATIONS, cameras_of};
use crate::domain::georeference::{Reason, Site, Source, Telemetry, Verdict, georeference};
use crate::domain::turned::{Sight, Turn, turn, turned};
use crate::error::{CallError, SettleError, StoreError};
use crate::metrics::Metrics;
use crate::store::{Record, Store};
use crate::wire::{self, Capture, Keyframe, PoseEvent, TrackingState};

/// Bytes of a picture that are read first; most headers end before. Each time that was too little, twice as
/// many are read.
const FIRST_LOOK: usize = 64 << 10;
/// Keyframes of a sensor that are looked at for its direction of flight, and how old one may be.
const COURSE_LOOK: usize = 20;
const COURSE_NANOS: i64 = 60_000_000_000;
/// Two places nearer to each other than this tell no direction: GPS is not finer.
const COURSE_M: f64 = 5.0;
/// What could not be judged is judged again after this time.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Judge {
    pub(crate) site: Site,
    pub(crate) store: Arc<Store>,
    pub(crate) objects: Objects,
    pub(crate) bus: Bus,
    pub(crate) metrics: Metrics,
    /// Held while a capture is judged and kept: a calibration that is set meanwhile finds the capture among
    /// those to be judged again, or is heeded by it.
    pub(crate) calibrations: RwLock<Vec<Calibration>>,
    pub(crate) rejudge: Notify,
}

struct Judged {
    keyframe: Keyframe,
    event: PoseEvent,
    preview: Option<Vec<u8>>,
}

impl Judge {
    pub(crate) async fn settle_capture(
        self: Arc<Self>,
        delivery: Delivery<Capture>,
        stop: Stop,
    ) -> Result<(), RunError> {
        let started = Instant::now();
        match self.take(&delivery).await {
            Ok(()) => {
                acknowledge(delivery).await;
                let seconds = started.elapsed().as_secs_f64();
                self.metrics.settle_seconds.observe(seconds);
            }
            Err(error) => self.give_back("capture", &error, &stop).await,
        }
        Ok(())
    }

    async fn take(&self, delivery: &Delivery<Capture>) -> Result<(), SettleError> {
        let capture = &delivery.message;
        let count = |outcome| {
            self.metrics
                .captures
                .get_or_create(&[("outcome", outcome)])
                .inc()
        };
        let named = delivery
            .key
            .as_ref()
            .filter(|key| key.as_str() == capture.sensor_id)
            .filter(|_| Digest::from_hex(&capture.frame_id).is_ok());
        let Some(sensor) = named else {
            // No verdict can name it, so none is owed; holding it would stop its sensor for ever.
            count("malformed");
            tracing::warn!(
                message_id = delivery.headers.message_id,
                "a capture without a valid frame id and sensor id was skipped"
            );
            return Ok(());
        };
        if !wire::is_picture(capture) {
            count("scan");
            return Ok(());
        }
        let frame_id = capture.frame_id.clone();
        let known = self.ask(move |store| store.record(&frame_id)).await?;
        if let Some(keyframe) = known.as_ref().and_then(Record::current) {
            count("known");
            // A revision shows that the first verdict was published; the first itself may not have been.
            if keyframe.revision == 0 {
                self.append(sensor, keyframe).await?;
            }
            return Ok(());
        }
        let calibrations = self.calibrations.read().await;
        let judged = self.judge(capture, &calibrations).await?;
        self.bus
            .publish(&SLAM_POSE, Some(sensor), &judged.event)
            .await?;
        self.append(sensor, &judged.keyframe).await?;
        let record = Record::new(capture, judged.keyframe);
        let preview = judged.preview;
        self.ask(move |store| store.put(&record, preview.as_deref()))
            .await?;
        drop(calibrations);
        Ok(())
    }

    pub(crate) async fn settle_sample(
        self: Arc<Self>,
        delivery: Delivery<wire::Sample>,
        stop: Stop,
    ) -> Result<(), RunError> {
        let samples = &self.metrics.samples;
        match wire::event_from_sample(&delivery.message) {
            Err(outcome) => {
                samples.get_or_create(&[("outcome", outcome)]).inc();
            }
            Ok((phone, event)) => {
                if let Err(error) = self.bus.publish(&SLAM_POSE, Some(&phone), &event).await {
                    self.give_back("sample", &error.into(), &stop).await;
                    return Ok(());
                }
                samples.get_or_create(&[("outcome", "pose")]).inc();
            }
        }
        acknowledge(delivery).await;
        Ok(())
    }

    pub(crate) async fn settle_refusal(
        self: Arc<Self>,
        delivery: Delivery<wire::FrameRefused>,
        stop: Stop,
    ) -> Result<(), RunError> {
        match self.overrule(&delivery.message).await {
            Ok(()) => acknowledge(delivery).await,
            Err(error) => self.give_back("refusal", &error, &stop).await,
        }
        Ok(())
    }

    /// Takes back the verdict on a frame that the painter refused. The painter has nothing to say about the one that
    /// takes its place, so this ends here.
    async fn overrule(&self, refusal: &wire::FrameRefused) -> Result<(), SettleError> {
        let look = || {
            let frame_id = refusal.frame_id.clone();
            self.ask(move |store| store.record(&frame_id))
        };
        if look().await?.is_none() {
            // A verdict is published before it is kept; a process that died between judges the capture again.
            sleep(RETRY).await;
        }
        // Nobody else judges meanwhile.
        let _alone = self.calibrations.write().await;
        let Some(record) = look().await? else {
            return Ok(());
        };
        let judged = record.current().filter(|current| {
            current.revision == refusal.revision && current.state() == TrackingState::Tracking
        });
        let (Some(current), Ok(sensor)) = (judged, Key::parse(&refusal.sensor_id)) else {
            return Ok(());
        };
        let keyframe = wire::refused(current, &refusal.reason);
        self.append(&sensor, &keyframe).await?;
        self.metrics.verdicts_refused.inc();
        self.ask(move |store| store.overrule(record, keyframe))
            .await?;
        Ok(())
    }

    /// Judges frames again as long as some wait, after a start too.
    pub(crate) async fn judge_again(self: Arc<Self>, stop: Stop) -> Result<(), RunError> {
        while !stop.is_requested() {
            match self.judge_next().await {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    () = stop.requested() => {}
                    () = self.rejudge.notified() => {}
                },
                Err(SettleError::Publish(PublishError::Closed)) => return Ok(()),
                Err(error) => self.give_back("rejudge", &error, &stop).await,
            }
        }
        Ok(())
    }

    async fn judge_next(&self) -> Result<bool, SettleError> {
        let (waiting, next) = self
            .ask(|store| Ok((store.waiting()?, store.next_waiting()?)))
            .await?;
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.frames_waiting.set(waiting);
        let Some((place, record)) = next else {
            return Ok(false);
        };
        let calibrations = self.calibrations.read().await;
        let revised = match record {
            Some(record) => self.revised(record, &calibrations).await?,
            None => None,
        };
        if let Some((_, keyframe)) = &revised {
            // A sensor id is a key: both have the same alphabet and length.
            if let Ok(sensor) = Key::parse(&keyframe.sensor_id) {
                self.append(&sensor, keyframe).await?;
            }
            self.metrics.verdicts_revised.inc();
        }
        self.ask(move |store| store.judged_again(place, revised))
            .await?;
        Ok(true)
    }

    async fn revised(
        &self,
        record: Record,
        calibrations: &[Calibration],
    ) -> Result<Option<(Record, Keyframe)>, SettleError> {
        let (Some(capture), Some(current)) = (&record.capture, record.current()) else {
            return Ok(None);
        };
        let fresh = match self.header(capture).await? {
            Ok(header) => self.verdict(capture, header, calibrations).await?,
            // A picture that is gone says nothing new.
            Err(Reason::Missing | Reason::Corrupt) => return Ok(None),
            Err(reason) => (Verdict::Lost { reason }, None),
        };
        let fresh = wire::keyframe_from(capture, &fresh.0);
        Ok(wire::revision_of(current, fresh).map(|keyframe| (record.clone(), keyframe)))
    }

    pub(crate) async fn set_calibration(&self, said: Calibration) -> Result<u64, CallError> {
        let mut calibrations = self.calibrations.write().await;
        let (model, sensor) = (&said.camera.model, &said.sensor_id);
        let same = calibrations
            .iter()
            .position(|kept| kept.is_of(model, sensor));
        if same.is_none() && calibrations.len() >= MAX_CALIBRATIONS {
            return Err(CallError::TooManyCalibrations(MAX_CALIBRATIONS));
        }
        let kept = said.clone();
        let frames = self.ask(move |store| store.set_calibration(&kept)).await?;
        match same {
            Some(place) => calibrations[place] = said,
            None => calibrations.push(said),
        }
        self.rejudge.notify_one();
        Ok(frames)
    }

    pub(crate) async fn remove_calibration(
        &self,
        model: String,
        sensor: String,
    ) -> Result<u64, CallError> {
        let mut calibrations = self.calibrations.write().await;
        let place = calibrations
            .iter()
            .position(|kept| kept.is_of(&model, &sensor));
        let Some(place) = place else {
            return Err(CallError::UnknownCalibration { model, sensor });
        };
        let frames = self.ask(move |store| store.remove_calibration(&model, &sensor));
        let frames = frames.await?;
        calibrations.remove(place);
        self.rejudge.notify_one();
        Ok(frames)
    }

    pub(crate) async fn calibrations(&self) -> Result<(Vec<Calibration>, u64), CallError> {
        let mut kept = self.calibrations.read().await.clone();
        kept.sort_by(|a, b| (&a.camera.model, &a.sensor_id).cmp(&(&b.camera.model, &b.sensor_id)));
        let waiting = self.ask(Store::waiting).await?;
        Ok((kept, waiting))
    }

    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        let answer = tokio::task::spawn_blocking(move || question(&store));
        answer.await.map_err(StoreError::Thread)?
    }

    async fn append(&self, sensor: &Key, keyframe: &Keyframe) -> Result<(), PublishError> {
        let id = wire::message_id_of(keyframe);
        let appended = self.bus.append(&SLAM_KEYFRAME, Some(sensor), &id, keyframe);
        appended.await?;
        tracing::debug!(
            sensor = sensor.as_str(),
            frame_id = keyframe.frame_id,
            revision = keyframe.revision,
            reason = keyframe.reason,
            "verdict"
        );
        Ok(())
    }

    async fn give_back(&self, step: &'static str, error: &SettleError, stop: &Stop) {
        self.metrics.retries.get_or_create(&[("step", step)]).inc();
        // A closed bus is the end of the process, not a fault; the delivery waits for the next one.
        if matches!(error, SettleError::Publish(PublishError::Closed)) {
            return;
        }
        tracing::warn!(error = %chain(error), "a {step} will be settled again");
        tokio::select! {
            () = stop.requested() => {}
            () = sleep(RETRY) => {}
        }
    }

    async fn judge(
        &self,
        capture: &Capture,
        calibrations: &[Calibration],
    ) -> Result<Judged, SettleError> {
        let (verdict, preview) = match self.header(capture).await? {
            Ok(header) => self.verdict(capture, header, calibrations).await?,
            Err(reason) => (Verdict::Lost { reason }, None),
        };
        let (outcome, reason) = match &verdict {
            Verdict::Tracking { source, .. } => match source {
                Source::ImageMetadata => ("image_metadata", None),
                Source::Telemetry => ("telemetry", None),
                Source::Assumed => ("assumed", None),
            },
            Verdict::PositionOnly { reason, .. } => ("position_only", Some(reason)),
            Verdict::Lost { reason } => ("lost", Some(reason)),
        };
        let captures = &self.metrics.captures;
        captures.get_or_create(&[("outcome", outcome)]).inc();
        if let Some(reason) = reason {
            let unplaced = &self.metrics.unplaced;
            unplaced.get_or_create(&[("reason", reason.label())]).inc();
        }
        let keyframe = wire::keyframe_from(capture, &verdict);
        Ok(Judged {
            event: wire::pose_event_from(&keyframe, &verdict),
            keyframe,
            preview,
        })
    }

    /// The header of a capture's picture, read from as many of its bytes as it takes.
    async fn header(&self, capture: &Capture) -> Result<Result<Header, Reason>, SettleError> {
        let Some(digest) = wire::digest_of(capture) else {
            return Ok(Err(Reason::Corrupt));
        };
        let mut wanted = FIRST_LOOK;
        loop {
            let bytes = match self.objects.range(digest, 0, wanted as u64).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_temporary() => return Err(SettleError::Fetch(error)),
                Err(ObjectsError::Missing(_)) => return Ok(Err(Reason::Missing)),
                Err(_) => return Ok(Err(Reason::Corrupt)),
            };
            let is_part = bytes.len() == wanted;
            match read(bytes).await? {
                Err(Reason::Unreadable(NotAPicture::Header(_)))
                    if is_part && wanted < MAX_HEADER_BYTES =>
                {
                    wanted *= 2;
                }
                header => return Ok(header),
            }
        }
    }

    /// Direction of flight into a capture, where the configuration has a use for it.
    async fn course(&self, capture: &Capture, header: &Header) -> Result<Option<f64>, SettleError> {
        let (true, Some((latitude_deg, longitude_deg))) = (self.site.assume_nadir, header.gps)
        else {
            return Ok(None);
        };
        let here = Geodetic {
            latitude_deg,
            longitude_deg,
            altitude_m: 0.0,
        };
        let sensor = capture.sensor_id.clone();
        let newest = self
            .ask(move |store| store.newest(Some(&sensor), COURSE_LOOK))
            .await?;
        let taken = capture.captured_unix_nanos;
        let before = newest.keyframes.iter().rev().filter_map(wire::place_of);
        let course = before
            .filter(|(_, before)| *before < taken && taken - before <= COURSE_NANOS)
            .find_map(|(place, _)| course_deg(&place, &here));
        Ok(course)
    }

    async fn verdict(
        &self,
        capture: &Capture,
        mut header: Header,
        calibrations: &[Calibration],
    ) -> Result<(Verdict, Option<Vec<u8>>), SettleError> {
        for part in &header.damaged {
            let damaged = &self.metrics.metadata_damaged;
            damaged.get_or_create(&[("part", part)]).inc();
        }
        let given = wire::intrinsics_of(capture);
        let telemetry = wire::telemetry_of(capture);
        let (given, telemetry) = match (given, telemetry) {
            (Ok(given), Ok(telemetry)) => (given, telemetry),
            (Err(reason), _) | (_, Err(reason)) => return Ok((Verdict::Lost { reason }, None)),
        };
        let preview = header.preview.take();
        let site = Site {
            cameras: cameras_of(&capture.sensor_id, calibrations, &self.site.cameras),
            ..self.site.clone()
        };
        let telemetry = Telemetry {
            course_deg: self.course(capture, &header).await?,
            ..telemetry
        };
        // A terrain model is read from disk.
        let judging = move || {
            let verdict = georeference(&header, &telemetry, given, &site);
            (verdict, header.edited)
        };
        let judged = tokio::task::spawn_blocking(judging).await;
        let (verdict, edited) = judged.map_err(SettleError::Judge)?;
        let Verdict::Tracking {
            pose,
            intrinsics,
            source,
            attitude_from: Source::ImageMetadata,
            ref relief,
        } = verdict
        else {
            return Ok((verdict, None));
        };
        if !edited {
            return Ok((verdict, preview));
        }
        let relief = relief.clone();
        let found = match &preview {
            Some(preview) => {
                let sensor = capture.sensor_id.clone();
                let kept = self.ask(move |store| store.previews(&sensor)).await?;
                let preview = preview.clone();
                let comparing = move || {
                    let edited = Sight {
                        pose: &pose,
                        intrinsics: &intrinsics,
                        preview: &preview,
                    };
                    turn_of(edited, kept)
                };
                let compared = tokio::task::spawn_blocking(comparing).await;
                compared.map_err(SettleError::Judge)?
            }
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
            relief,
        };
        Ok((verdict, preview.filter(|_| found.is_some())))
    }
}

fn course_deg(before: &Position, here: &Geodetic) -> Option<f64> {
    let before = Geodetic {
        latitude_deg: before.latitude_deg,
        longitude_deg: before.longitude_deg,
        altitude_m: 0.0,
    };
    let moved = LocalFrame::at(before).enu_from_geodetic(here);
    let is_far = moved.east.hypot(moved.north) >= COURSE_M;
    is_far.then(|| moved.east.atan2(moved.north).to_degrees().rem_euclid(360.0))
}

/// Reads a header on a thread of its own: one that makes the reader panic must not stop its sensor.
async fn read(bytes: Bytes) -> Result<Result<Header, Reason>, SettleError> {
    let reading = tokio::task::spawn_blocking(move || Header::read(&bytes)).await;
    match reading {
        Ok(header) => Ok(header.map_err(Reason::Unreadable)),
        Err(error) if error.is_panic() => {
            tracing::error!(%error, "reading a picture's header panicked");
            Ok(Err(Reason::Failed))
        }
        Err(error) => Err(SettleError::Judge(error)),
    }
}

fn turn_of(edited: Sight<'_>, kept: Vec<(Keyframe, Vec<u8>)>) -> Option<Turn> {
    let kept: Vec<_> = kept
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
    turn(edited, &references)
}
