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

/// What a picture says about itself. Absent is not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Pixels across, as stored.
    pub width_px: u32,
    /// Pixels down, as stored.
    pub height_px: u32,
    /// How a viewer turns the stored pixels, 1 to 8 (Exif `Orientation`).
    pub orientation: Option<u8>,
    /// Camera model, trimmed.
    pub model: Option<String>,
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
    /// How much the middle of the picture was enlarged to make it whole, above 1.
    pub digital_zoom: Option<f64>,
    /// Degrees north and east.
    pub gps: Option<(f64, f64)>,
    /// Metres above mean sea level.
    pub altitude_m: Option<f64>,
    /// Metres above the take-off point.
    pub relative_altitude_m: Option<f64>,
    /// Attitude of the camera.
    pub gimbal: Attitude,
    /// Attitude of the airframe.
    pub flight: Attitude,
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
        if let Some(tiff) = decoder.exif() {
            exif::read(tiff, &mut header);
        }
        if let Some(packet) = decoder.xmp() {
            xmp::read(packet, &mut header);
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
