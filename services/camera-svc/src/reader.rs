//! Reading one camera: open, read until it fails or ends, open again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sovereign_service::{Clock, Stop, chain};
use sovereign_vision::{Capture, CaptureError, JpegFrame, Source};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::board::{Board, Shot, State};
use crate::config::{MIN_FPS, Plan};
use crate::domain::{Backoff, Pacer};
use crate::metrics::Metrics;

const NAP: Duration = Duration::from_millis(100);

/// Frames in a row that may be broken: packets of a stream get lost, and it recovers with its next key
/// frame, a few seconds later. After more, the source is opened again.
const MAX_BROKEN: u32 = 300;

pub(crate) type Open = fn(&Source) -> Result<Box<dyn Frames>, CaptureError>;

pub(crate) trait Frames {
    /// As [`Capture::frame_rate`].
    fn frame_rate(&self) -> Option<f64>;

    /// As [`Capture::grab`].
    fn grab(&mut self) -> Result<bool, CaptureError>;

    /// As [`Capture::jpeg`], for what is planned.
    fn jpeg(&mut self, plan: &Plan) -> Result<JpegFrame, CaptureError>;
}

impl Frames for Capture {
    fn frame_rate(&self) -> Option<f64> {
        Self::frame_rate(self)
    }

    fn grab(&mut self) -> Result<bool, CaptureError> {
        Self::grab(self)
    }

    fn jpeg(&mut self, plan: &Plan) -> Result<JpegFrame, CaptureError> {
        Self::jpeg(self, plan.width, plan.height, plan.quality)
    }
}

pub(crate) fn open(source: &Source) -> Result<Box<dyn Frames>, CaptureError> {
    Ok(Box::new(Capture::open(source)?))
}

pub(crate) struct Reader {
    pub(crate) plan: Plan,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
    pub(crate) shots: mpsc::Sender<Shot>,
    pub(crate) open: Open,
    /// Nothing waits by it: it may be set while a camera runs.
    pub(crate) clock: Clock,
}

impl Reader {
    pub(crate) fn run(self) {
        let id = self.plan.key.as_str();
        let mut backoff = Backoff::default();
        let mut sequence = 0;
        while !self.stop.is_requested() {
            let before = sequence;
            match self.read_until_it_ends(&mut sequence) {
                Ok(()) => {
                    tracing::info!(camera = id, frames = sequence, "camera ended");
                    self.set_state(State::Ended);
                    return;
                }
                Err(error) => {
                    if sequence > before {
                        backoff.after_success();
                    }
                    let pause = backoff.after_failure();
                    tracing::warn!(camera = id, error = %chain(&error), ?pause, "camera failed");
                    self.metrics.reconnects.inc();
                    self.board.update(&self.plan.key, |status| {
                        status.state = State::Connecting;
                        status.reconnects += 1;
                        status.last_error = chain(&error);
                    });
                    self.rest(pause);
                }
            }
        }
    }

    fn read_until_it_ends(&self, sequence: &mut u64) -> Result<(), CaptureError> {
        let plan = &self.plan;
        let mut source = (self.open)(&plan.source)?;
        let mut pacer = Pacer::new(plan.fps);
        let is_file = matches!(plan.source, Source::File(_));
        let file_period = is_file.then(|| {
            let claimed = source.frame_rate().filter(|rate| *rate >= MIN_FPS);
            Duration::from_secs_f64(1.0 / claimed.unwrap_or(plan.fps))
        });
        let mut streaming = false;
        let mut broken = 0;
        let start = Instant::now();
        let mut due = Duration::ZERO;
        while !self.stop.is_requested() {
            if let Some(period) = file_period {
                self.rest(due.saturating_sub(start.elapsed()));
                due += period;
            }
            if !source.grab()? {
                return Ok(());
            }
            let captured = self.clock.now();
            let elapsed = start.elapsed();
            *sequence += 1;
            if !streaming {
                streaming = true;
                self.set_state(State::Streaming);
            }
            if !pacer.passes(if is_file { due } else { elapsed }) {
                self.metrics.frames_skipped.inc();
                self.board
                    .update(&plan.key, |status| status.frames_skipped += 1);
                continue;
            }
            let read = match source.jpeg(plan) {
                Err(CaptureError::Undecodable) if broken < MAX_BROKEN => {
                    broken += 1;
                    self.skip_broken(broken);
                    continue;
                }
                read => read?,
            };
            broken = 0;
            let shot = Shot {
                sequence: *sequence,
                captured,
                width_px: read.width_px,
                height_px: read.height_px,
                jpeg: read.jpeg.into(),
            };
            if !self.hand_over(shot) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One broken frame is no reason to close the source, which would begin a file again.
    fn skip_broken(&self, in_a_row: u32) {
        let camera = &self.plan.key;
        self.metrics.frames_broken.inc();
        if in_a_row == 1 {
            tracing::warn!(
                camera = camera.as_str(),
                "a frame is broken; more in a row are only counted"
            );
        }
        self.board.update(camera, |status| {
            status.last_error = chain(&CaptureError::Undecodable);
        });
    }

    fn hand_over(&self, shot: Shot) -> bool {
        if matches!(self.plan.source, Source::File(_)) {
            return self.shots.blocking_send(shot).is_ok();
        }
        match self.shots.try_send(shot) {
            Ok(()) => true,
            Err(TrySendError::Full(_late)) => {
                self.metrics.frames_dropped.inc();
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    fn set_state(&self, state: State) {
        self.board
            .update(&self.plan.key, |status| status.state = state);
    }

    /// Waits on the reader's own thread, and notices a stop.
    fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.stop.is_requested() {
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
