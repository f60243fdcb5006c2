//! Opening a source and reading encoded frames from it.

use std::path::PathBuf;
use std::time::Duration;

use opencv::core::{Mat, MatTraitConst, Size, Vector};
use opencv::prelude::{VideoCaptureTrait, VideoCaptureTraitConst};
use opencv::{imgcodecs, imgproc, videoio};

/// Opening a network stream fails after this long.
pub const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// Waiting for the next frame of a network stream fails after this long.
pub const READ_LIMIT: Duration = Duration::from_secs(5);

/// No camera is faster, frames per second.
const MAX_FRAME_RATE: f64 = 1000.0;

/// Where frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A V4L2 device by number (`/dev/video<N>`).
    Device(u32),
    /// A stream by URL, `rtsp://...`.
    Stream(String),
    /// A video file.
    File(PathBuf),
}

/// A frame could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source does not exist, is busy, or is no video.
    #[error("open the source: nothing that can be read is there")]
    Unreadable,
    /// The back end failed while opening.
    #[error("open the source")]
    Open(#[source] opencv::Error),
    /// The back end failed while reading.
    #[error("read a frame")]
    Read(#[source] opencv::Error),
    /// A live source stopped delivering.
    #[error("read a frame: the stream stopped")]
    Stopped,
    /// The frame that was taken is damaged.
    #[error("decode a frame")]
    Undecodable,
    /// Scaling failed.
    #[error("scale a frame")]
    Scale(#[source] opencv::Error),
    /// Encoding failed.
    #[error("encode a frame as jpeg")]
    Encode(#[source] opencv::Error),
}

/// An encoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JpegFrame {
    /// Pixels.
    pub width_px: u32,
    /// Pixels.
    pub height_px: u32,
    /// JPEG, 4:2:0.
    pub jpeg: Vec<u8>,
}

/// An open source.
#[derive(Debug)]
pub struct Capture {
    capture: videoio::VideoCapture,
    ends: bool,
    raw: Mat,
    scaled: Mat,
}

impl Capture {
    /// Opens `source`. Blocks for at most [`OPEN_LIMIT`] on a stream.
    ///
    /// # Errors
    /// When nothing readable is there.
    pub fn open(source: &Source) -> Result<Self, CaptureError> {
        let opened = match source {
            Source::Device(number) => {
                let number = i32::try_from(*number).map_err(|_| CaptureError::Unreadable)?;
                videoio::VideoCapture::new(number, videoio::CAP_V4L2)
            }
            Source::Stream(url) => {
                let limits = Vector::from_slice(&[
                    videoio::CAP_PROP_OPEN_TIMEOUT_MSEC,
                    OPEN_LIMIT.as_millis() as i32,
                    videoio::CAP_PROP_READ_TIMEOUT_MSEC,
                    READ_LIMIT.as_millis() as i32,
                ]);
                videoio::VideoCapture::from_file_with_params(url, videoio::CAP_FFMPEG, &limits)
            }
            Source::File(path) => videoio::VideoCapture::from_file(path, videoio::CAP_FFMPEG),
        };
        let capture = opened.map_err(CaptureError::Open)?;
        if !capture.is_opened().map_err(CaptureError::Open)? {
            return Err(CaptureError::Unreadable);
        }
        Ok(Self {
            capture,
            ends: matches!(source, Source::File(_)),
            raw: Mat::default(),
            scaled: Mat::default(),
        })
    }

    /// Frames per second that the source claims; `None` when it does not say, or names its clock instead
    /// (raw MJPEG claims 1,200,000).
    pub fn frame_rate(&self) -> Option<f64> {
        let rate = self.capture.get(videoio::CAP_PROP_FPS).ok()?;
        (rate > 0.0 && rate <= MAX_FRAME_RATE).then_some(rate)
    }

    /// Takes the next frame from the source, without decoding it; `false` at the end of a file.
    ///
    /// # Errors
    /// When the source fails.
    pub fn grab(&mut self) -> Result<bool, CaptureError> {
        let grabbed = self.capture.grab().map_err(CaptureError::Read)?;
        self.end_or_stop(grabbed)
    }

    /// The frame that was grabbed, scaled down to fit `max_width_px` by `max_height_px`, encoded at
    /// `quality` (1 to 100).
    ///
    /// # Errors
    /// When none was grabbed, or it cannot be decoded or encoded.
    pub fn jpeg(
        &mut self,
        max_width_px: u32,
        max_height_px: u32,
        quality: u8,
    ) -> Result<JpegFrame, CaptureError> {
        let decoded = self
            .capture
            .retrieve_def(&mut self.raw)
            .map_err(CaptureError::Read)?;
        if !decoded || self.raw.empty() {
            return Err(CaptureError::Undecodable);
        }
        let (width, height) = (self.raw.cols(), self.raw.rows());
        let scale = (f64::from(max_width_px) / f64::from(width))
            .min(f64::from(max_height_px) / f64::from(height))
            .min(1.0);
        let frame = if scale < 1.0 {
            let size = Size::new(
                (f64::from(width) * scale).round() as i32,
                (f64::from(height) * scale).round() as i32,
            );
            imgproc::resize(
                &self.raw,
                &mut self.scaled,
                size,
                0.0,
                0.0,
                imgproc::INTER_AREA,
            )
            .map_err(CaptureError::Scale)?;
            &self.scaled
        } else {
            &self.raw
        };
        let mut jpeg = Vector::new();
        let options = Vector::from_slice(&[imgcodecs::IMWRITE_JPEG_QUALITY, i32::from(quality)]);
        imgcodecs::imencode(".jpg", frame, &mut jpeg, &options).map_err(CaptureError::Encode)?;
        Ok(JpegFrame {
            width_px: frame.cols().unsigned_abs(),
            height_px: frame.rows().unsigned_abs(),
            jpeg: jpeg.into(),
        })
    }

    fn end_or_stop(&self, delivered: bool) -> Result<bool, CaptureError> {
        match (delivered, self.ends) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(CaptureError::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opencv::core::Scalar;
    use opencv::prelude::VideoWriterTrait;

    /// An MJPEG file of `frames` plain frames of 320 x 240 at 10 frames per second.
    fn video(folder: &std::path::Path, frames: usize) -> PathBuf {
        let path = folder.join("plain.avi");
        let codec = videoio::VideoWriter::fourcc('M', 'J', 'P', 'G').unwrap();
        let size = Size::new(320, 240);
        let mut writer = videoio::VideoWriter::new(&path, codec, 10.0, size, true).unwrap();
        for shade in 0..frames {
            let colour = Scalar::all(shade as f64 * 10.0);
            let frame = Mat::new_size_with_default(size, opencv::core::CV_8UC3, colour).unwrap();
            writer.write(&frame).unwrap();
        }
        writer.release().unwrap();
        path
    }

    #[test]
    fn a_file_gives_every_frame_once_and_then_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = video(folder.path(), 12);
        let mut capture = Capture::open(&Source::File(path)).unwrap();
        assert_eq!(capture.frame_rate(), Some(10.0));
        let mut frames = 0;
        while capture.grab().unwrap() {
            let frame = capture.jpeg(1280, 720, 85).unwrap();
            assert_eq!((frame.width_px, frame.height_px), (320, 240));
            assert_eq!(frame.jpeg[..2], [0xFF, 0xD8]);
            frames += 1;
        }
        assert_eq!(frames, 12);
        assert!(!capture.grab().unwrap());
    }

    #[test]
    fn frames_are_scaled_down_to_fit_and_never_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = video(folder.path(), 2);
        let mut capture = Capture::open(&Source::File(path)).unwrap();
        assert!(capture.grab().unwrap());
        let frame = capture.jpeg(160, 160, 85).unwrap();
        assert_eq!((frame.width_px, frame.height_px), (160, 120));
    }

    #[test]
    fn what_is_no_video_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.mp4");
        std::fs::write(&path, "not a video").unwrap();
        let error = Capture::open(&Source::File(path)).unwrap_err();
        assert!(matches!(
            error,
            CaptureError::Unreadable | CaptureError::Open(_)
        ));
    }
}
