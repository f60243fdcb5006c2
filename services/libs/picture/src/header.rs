//! The header of a JPEG: everything up to its first scan.
//!
//! Degenerate cases: a damaged Exif or XMP part is noted and the rest is used; of several parts of a
//! kind the last one counts; a file without a frame header is not a picture.

use std::io::Cursor;

use sovereign_model::Timestamp;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::{MAX_BYTES, MAX_HEADER_BYTES, MAX_PIXELS, exif, xmp};

/// Why bytes are not a picture that can be used; completes a sentence that starts with their name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPicture {
    /// No byte at all.
    #[error("is empty")]
    Empty,
    /// Something else, as far as its first bytes tell.
    #[error("is {0}, and only JPEG is read")]
    OtherFormat(&'static str),
    /// It begins as a JPEG and has no usable header.
    #[error("is a JPEG whose header cannot be read: {0}")]
    Header(String),
    /// No pixel, or more than [`MAX_PIXELS`].
    #[error(
        "has {width} x {height} pixels, and 1 to {} million are read",
        MAX_PIXELS / 1_000_000
    )]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// More than [`MAX_HEADER_BYTES`] before the first pixel.
    #[error("has no pixel within its first {} MiB", MAX_HEADER_BYTES >> 20)]
    HeaderTooLong,
    /// More than [`MAX_BYTES`].
    #[error("is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// The end is missing.
    #[error("is cut off")]
    CutOff,
    /// The decoder gave up.
    #[error("cannot be decoded: {0}")]
    Pixels(String),
}

impl NotAPicture {
    /// A bounded name, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::OtherFormat(_) => "other_format",
            Self::Header(_) => "header",
            Self::Size { .. } => "size",
            Self::HeaderTooLong => "header_too_long",
            Self::TooLarge => "too_large",
            Self::CutOff => "cut_off",
            Self::Pixels(_) => "pixels",
        }
    }
}

/// An attitude of which any part may be missing, degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attitude {
    /// Roll.
    pub roll_deg: Option<f64>,
    /// Pitch.
    pub pitch_deg: Option<f64>,
    /// Yaw, clockwise from true north.
    pub yaw_deg: Option<f64>,
}

/// How a picture shows the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Projection {
    /// Straight lines stay straight, as far as the lens goes.
    #[default]
    Perspective,
    /// A fisheye lens.
    Fisheye,
    /// Stitched from several, over the whole sphere or a part of it.
    Panorama,
}

/// Where a compass saw the camera look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direction {
    /// Clockwise from north, degrees.
    pub degrees: f64,
    /// From magnetic north instead of true north.
    pub is_magnetic: bool,
}

/// What a maker measured of one lens, pixels; absent parts were not said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibrated {
    /// Focal length along x.
    pub fx_px: Option<f64>,
    /// Focal length along y; absent means the same.
    pub fy_px: Option<f64>,
    /// Principal point, from the left edge.
    pub cx_px: Option<f64>,
    /// Principal point, from the top edge.
    pub cy_px: Option<f64>,
    /// DJI's calibration for taking the distortion out, which comes before the others.
    pub dewarp: Option<Dewarp>,
    /// k1, k2, p1, p2, k3 of Brown's model as OpenCV has it; all zero when there is none, or it was taken
    /// out of the picture already.
    pub distortion: [f64; 5],
}

/// Focal lengths and principal point of DJI's `DewarpData`, pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dewarp {
    /// Focal length along x.
    pub fx_px: f64,
    /// Focal length along y.
    pub fy_px: f64,
    /// Principal point, right of and below the middle of the picture.
    pub from_centre_px: [f64; 2],
}

/// What a picture says about itself. Absent is not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Pixels across, as stored.
    pub width_px: u32,
    /// Pixels down, as stored.
    pub height_px: u32,
    /// How a viewer turns the stored pixels, 1 to 8 (Exif `Orientation`).
    pub orientation: Option<u8>,
    /// Maker of the camera, trimmed.
    pub make: Option<String>,
    /// Camera model, trimmed.
    pub model: Option<String>,
    /// Which of several cameras of one model it was, as DJI names them: `WideCamera`, `ZoomCamera`,
    /// `InfraredCamera`.
    pub lens: Option<String>,
    /// Exposure: its original time when that comes with an offset from UTC, else the time of the GPS fix. A
    /// local time without offset tells nothing.
    pub exposed: Option<Timestamp>,
    /// What the camera's own clock showed, read as UTC: tells order and pauses, not when it was.
    pub camera_clock: Option<Timestamp>,
    /// What wrote the file, trimmed.
    pub software: Option<String>,
    /// Focal length, millimetres.
    pub focal_mm: Option<f64>,
    /// Focal length that has the same angle of view on 35 mm film, millimetres.
    pub focal_35mm: Option<f64>,
    /// Millimetres on the sensor that a stored pixel covers, by the focal plane resolution.
    pub pixel_mm: Option<f64>,
    /// What the maker measured of this very lens.
    pub calibrated: Calibrated,
    /// How it shows the world.
    pub projection: Projection,
    /// How much the middle of the picture was enlarged to make it whole, above 1.
    pub digital_zoom: Option<f64>,
    /// Degrees north and east.
    pub gps: Option<(f64, f64)>,
    /// Why the picture has no `gps` though it has numbers for one; completes "the picture's position".
    pub gps_fault: Option<&'static str>,
    /// Metres above mean sea level, or above the ellipsoid.
    pub altitude_m: Option<f64>,
    /// `altitude_m` counts from the WGS 84 ellipsoid.
    pub altitude_is_ellipsoidal: bool,
    /// Metres above the take-off point.
    pub relative_altitude_m: Option<f64>,
    /// Metres above the ground.
    pub above_ground_m: Option<f64>,
    /// Attitude of the camera in the words of DJI, Autel, Skydio, Parrot or Teal: pitch 0 looks to the
    /// horizon, -90 straight down.
    pub gimbal: Attitude,
    /// Attitude of the airframe.
    pub flight: Attitude,
    /// Attitude of the camera in Pix4D's words, or in words that look like them: pitch 0 looks straight
    /// down for most makers, and to the horizon for some.
    pub camera: Attitude,
    /// Attitude of the camera in Google's words: pitch 0 looks to the horizon, -90 straight down.
    pub pano: Attitude,
    /// Where the camera looked by its compass (Exif `GPSImgDirection`).
    pub direction: Option<Direction>,
    /// Direction of movement, degrees clockwise from true north (Exif `GPSTrack`).
    pub track_deg: Option<f64>,
    /// How far above the horizon the camera looked, degrees (Exif `CameraElevationAngle`).
    pub elevation_deg: Option<f64>,
    /// Written again long after the exposure: the pixels may not be as the camera stored them.
    pub edited: bool,
    /// Small JPEG preview that the camera embedded.
    pub preview: Option<Vec<u8>>,
    /// Parts that are damaged.
    pub damaged: Vec<&'static str>,
}

impl Header {
    /// Reads the header of a JPEG from its first bytes, which must reach to its first scan.
    ///
    /// # Errors
    /// [`NotAPicture`]; for bytes that end too early [`NotAPicture::Header`].
    pub fn read(bytes: &[u8]) -> Result<Self, NotAPicture> {
        Self::with_scan(bytes).map(|(header, _)| header)
    }

    /// The model, and behind it which of its cameras: a thermal camera beside a colour one is a camera of
    /// its own.
    pub fn camera_name(&self) -> Option<String> {
        let model = self.model.as_deref()?;
        Some(match &self.lens {
            Some(lens) => format!("{model} {lens}"),
            None => model.to_owned(),
        })
    }

    /// The header, and the offset at which pixels begin.
    pub(crate) fn with_scan(bytes: &[u8]) -> Result<(Self, usize), NotAPicture> {
        check_format(bytes)?;
        let mut cursor = Cursor::new(bytes);
        let mut decoder = JpegDecoder::new_with_options(&mut cursor, options());
        decoder.decode_headers().map_err(|error| {
            if matches!(error, DecodeErrors::ZeroError) {
                NotAPicture::Size {
                    width: 0,
                    height: 0,
                }
            } else {
                NotAPicture::Header(error.to_string())
            }
        })?;
        // Both fit: a JPEG has at most 65,535 of each.
        let (width, height) = decoder.dimensions().unwrap_or_default();
        let mut header = Self {
            width_px: width as u32,
            height_px: height as u32,
            ..Self::default()
        };
        if !(1..=MAX_PIXELS).contains(&(width as u64 * height as u64)) {
            return Err(NotAPicture::Size {
                width: header.width_px,
                height: header.height_px,
            });
        }
        let inner = decoder
            .exif()
            .and_then(|tiff| exif::read(tiff, &mut header));
        // A packet of its own comes before one inside of the Exif part.
        if let Some(packet) = decoder.xmp().cloned().or(inner) {
            xmp::read(&packet, &mut header);
        }
        drop(decoder);
        let scan = usize::try_from(cursor.position()).unwrap_or(bytes.len());
        Ok((header, scan))
    }
}

/// Any size: the limit is in pixels, and checked before one is decoded.
pub(crate) fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
}

/// Whether bytes begin as a JPEG; as many of them as there are.
pub(crate) fn check_format(bytes: &[u8]) -> Result<(), NotAPicture> {
    const START: &[u8] = &[0xFF, 0xD8, 0xFF];
    const OTHERS: [(&[u8], &str); 7] = [
        (b"\x89PNG", "a PNG"),
        (b"GIF8", "a GIF"),
        (b"RIFF", "a WebP or another RIFF file"),
        (b"II*\0", "a TIFF or DNG"),
        (b"MM\0*", "a TIFF or DNG"),
        (b"\0\0\0", "a HEIC, AVIF or video"),
        (b"BM", "a BMP"),
    ];
    if bytes.is_empty() {
        return Err(NotAPicture::Empty);
    }
    if bytes.iter().zip(START).all(|(byte, start)| byte == start) {
        return Ok(());
    }
    let known = OTHERS.iter().find(|(start, _)| bytes.starts_with(start));
    Err(NotAPicture::OtherFormat(
        known.map_or("no picture", |(_, name)| name),
    ))
}

#[cfg(test)]
pub(crate) mod tests;
