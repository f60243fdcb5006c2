use std::sync::Mutex;
use std::sync::mpsc::RecvTimeoutError;

use super::*;
use crate::board::Status;
use crate::config::{CameraConfig, Config, SourceKind};
use prometheus_client::registry::Registry;
use sovereign_model::Timestamp;
use sovereign_service::StopSource;

/// Only guards against waiting for ever.
const LIMIT: Duration = Duration::from_secs(60);
/// A live source gives a frame after this long, more than a period of the plans here.
const PACE: Duration = Duration::from_millis(10);

/// Gives so many frames as the last part of its name says, of which those before a `-` are broken; a
/// device panics.
pub(crate) fn open_fake(source: &Source) -> Result<Box<dyn Frames>, CaptureError> {
    let (name, is_file) = match source {
        Source::Stream(url) => (url.clone(), false),
        Source::File(path) => (path.display().to_string(), true),
        Source::Device(_) => panic!("no lens"),
    };
    let frames = name.rsplit('/').next().unwrap();
    let (broken, good) = frames.split_once('-').unwrap_or(("0", frames));
    let (broken, good): (u64, u64) = (broken.parse().unwrap(), good.parse().unwrap());
    Ok(Box::new(Fake {
        left: broken + good,
        good,
        is_file,
    }))
}

struct Fake {
    left: u64,
    /// The last ones.
    good: u64,
    is_file: bool,
}

impl Frames for Fake {
    /// What no video has, and a broken file may claim.
    fn frame_rate(&self) -> Option<f64> {
        Some(1e-20)
    }

    fn grab(&mut self) -> Result<bool, CaptureError> {
        match (self.left, self.is_file) {
            (0, true) => return Ok(false),
            (0, false) => return Err(CaptureError::Stopped),
            _ => self.left -= 1,
        }
        std::thread::sleep(PACE);
        Ok(true)
    }

    fn jpeg(&mut self, plan: &Plan) -> Result<JpegFrame, CaptureError> {
        if self.left >= self.good {
            return Err(CaptureError::Undecodable);
        }
        Ok(JpegFrame {
            width_px: plan.width,
            height_px: plan.height,
            jpeg: vec![0xFF, 0xD8],
        })
    }
}

/// A camera with the id `gate`.
pub(crate) fn config(source: SourceKind, name: &str) -> Config {
    let name = Some(name.to_owned());
    let (rtsp_url, file_path) = match source {
        SourceKind::File => (None, name.map(Into::into)),
        SourceKind::Rtsp | SourceKind::MobileIp => (name, None),
        SourceKind::Webcam => (None, None),
    };
    let camera = CameraConfig {
        id: "gate".to_owned(),
        source,
        device_id: None,
        rtsp_url,
        file_path,
        fps: 240.0,
        width: 4,
        height: 3,
        quality: 85,
    };
    Config {
        cameras: vec![camera],
    }
}

fn reader(source: SourceKind, name: &str, room: usize) -> (Reader, mpsc::Receiver<Shot>) {
    let plans = config(source, name).settings().unwrap().cameras;
    let (shots, handed_over) = mpsc::channel(room);
    let registry = Arc::new(Mutex::new(Registry::default()));
    let reader = Reader {
        board: Arc::new(Board::new(plans.iter().map(|plan| &plan.key))),
        plan: plans.into_iter().next().unwrap(),
        metrics: Metrics::new(&sovereign_service::Metrics::new(registry, "camera-svc")),
        stop: StopSource::new().stop(),
        shots,
        open: open_fake,
        clock: Clock::system(),
    };
    (reader, handed_over)
}

fn status(reader: &Reader) -> Status {
    reader.board.statuses().remove(0).1
}

#[test]
fn a_source_that_opens_and_gives_nothing_has_not_succeeded() {
    let (reader, _handed_over) = reader(SourceKind::Rtsp, "rtsp://gate/0", 1);
    let mut sequence = 0;
    let error = reader.read_until_it_ends(&mut sequence).unwrap_err();
    assert!(matches!(error, CaptureError::Stopped));
    // So the pause before the next attempt grows.
    assert_eq!(sequence, 0);
    assert_eq!(status(&reader).state, State::Connecting);
}

#[test]
fn numbers_go_on_without_a_gap_after_a_failure() {
    let (reader, mut handed_over) = reader(SourceKind::Rtsp, "rtsp://gate/3", 6);
    let mut sequence = 0;
    for _ in 0..2 {
        reader.read_until_it_ends(&mut sequence).unwrap_err();
    }
    assert_eq!(status(&reader).state, State::Streaming);
    let mut numbers = Vec::new();
    while let Ok(frame) = handed_over.try_recv() {
        numbers.push(frame.sequence);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_late_frame_of_a_live_source_is_dropped_and_counted() {
    let (reader, mut handed_over) = reader(SourceKind::Rtsp, "rtsp://gate/5", 2);
    let dropped = reader.metrics.frames_dropped.clone();
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut sequence = 0;
        let stopped = reader.read_until_it_ends(&mut sequence).is_err();
        done.send((stopped, sequence)).unwrap();
    });
    // Nobody takes a frame, and the reader does not wait for anybody.
    assert_eq!(ended.recv_timeout(LIMIT).unwrap(), (true, 5));
    assert_eq!(dropped.get(), 3);
    assert_eq!(handed_over.try_recv().unwrap().sequence, 1);
    assert_eq!(handed_over.try_recv().unwrap().sequence, 2);
}

#[test]
fn a_file_with_an_impossible_rate_is_played_at_the_configured_one() {
    let (reader, mut handed_over) = reader(SourceKind::File, "/videos/2", 2);
    let mut sequence = 0;
    reader.read_until_it_ends(&mut sequence).unwrap();
    assert_eq!(sequence, 2);
    assert_eq!(handed_over.try_recv().unwrap().sequence, 1);
}

#[test]
fn a_clock_that_is_set_back_stops_no_camera() {
    const HOUR_NANOS: i64 = 3_600_000_000_000;
    let clock = Clock::manual(Timestamp::from_unix_nanos(1_000 * HOUR_NANOS));
    let (reader, mut handed_over) = reader(SourceKind::Rtsp, "rtsp://gate/3", 3);
    let reader = Reader {
        clock: clock.clone(),
        ..reader
    };
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let stopped = reader.read_until_it_ends(&mut 0).is_err();
        done.send(stopped).unwrap();
    });
    let mut hour = 1_000;
    while ended.recv_timeout(PACE / 2) == Err(RecvTimeoutError::Timeout) {
        hour -= 1;
        clock.set(Timestamp::from_unix_nanos(hour * HOUR_NANOS));
    }
    let taken: Vec<Timestamp> = std::iter::from_fn(|| handed_over.try_recv().ok())
        .map(|shot| shot.captured)
        .collect();
    assert_eq!(taken.len(), 3);
    assert!(taken.is_sorted_by(|earlier, later| earlier >= later));
}

#[test]
fn broken_frames_are_skipped_and_counted() {
    let (reader, mut handed_over) = reader(SourceKind::File, "/videos/2-3", 3);
    let mut sequence = 0;
    reader.read_until_it_ends(&mut sequence).unwrap();
    assert_eq!(reader.metrics.frames_broken.get(), 2);
    let numbers: Vec<u64> = std::iter::from_fn(|| handed_over.try_recv().ok())
        .map(|frame| frame.sequence)
        .collect();
    assert_eq!(numbers, [3, 4, 5]);
    assert_eq!(status(&reader).last_error, "decode a frame");
}

#[test]
fn a_source_of_nothing_but_broken_frames_has_failed() {
    let name = format!("/videos/{}-0", MAX_BROKEN + 50);
    let (reader, _handed_over) = reader(SourceKind::File, &name, 1);
    let mut sequence = 0;
    let error = reader.read_until_it_ends(&mut sequence).unwrap_err();
    assert!(matches!(error, CaptureError::Undecodable));
    assert_eq!(sequence, u64::from(MAX_BROKEN) + 1);
    assert_eq!(reader.metrics.frames_broken.get(), u64::from(MAX_BROKEN));
}
