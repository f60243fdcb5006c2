//! What a JPEG says about its own exposure, read without decoding a pixel.
//!
//! Pipeline: walk the segments up to the first scan -> frame header (size) -> Exif (GPS, camera, times,
//! preview) -> XMP (`drone-dji` attitude and altitudes, as attributes or as elements).
//!
//! Degenerate cases: a damaged Exif or XMP part is noted and the rest is used; a position of exactly
//! (0, 0) is what makers write before the first fix, and counts as none; of several Exif or XMP parts
//! the first readable one counts; a file without a frame header is not a picture.

use exif::{Exif, In, Tag, Value};

/// Namespace of DJI's XMP properties.
const DRONE_DJI: &str = "http://www.dji.com/drone-dji/1.0/";
const EXIF_HEADER: &[u8] = b"Exif\0\0";
const XMP_HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Nodes of one XMP packet; makers write a few dozen. Beyond it the packet counts as damaged.
const MAX_XMP_NODES: u32 = 10_000;
/// Attributes of one XMP packet, which the parser compares with each other; beyond it the packet counts
/// as damaged. Makers write a few dozen, editors a few hundred.
const MAX_XMP_ATTRIBUTES: usize = 2_000;
/// A number beyond a whole turn is no angle, degrees: some makers write a filler where they know none.
const MAX_ANGLE_DEG: f64 = 360.0;
/// Segments of a kind that are tried until one is readable; a picture has one of each, and further ones
/// are passed over.
const MAX_ATTEMPTS: u32 = 4;

/// A file that is not a picture we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAPicture {
    /// It does not start like a JPEG.
    #[error("not a JPEG")]
    NotJpeg,
    /// It ends, or turns into something else, before the size of the picture is said.
    #[error("a JPEG without a frame header")]
    NoFrameHeader,
}

/// What a picture says about itself. Absent is not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PictureMetadata {
    /// Pixels across, as stored.
    pub(crate) width_px: u32,
    /// Pixels down, as stored.
    pub(crate) height_px: u32,
    /// Camera model, trimmed.
    pub(crate) model: Option<String>,
    /// Focal length, millimetres.
    pub(crate) focal_mm: Option<f64>,
    /// Focal length that has the same angle of view on 35 mm film, millimetres.
    pub(crate) focal_35mm: Option<f64>,
    /// How much the middle of the picture was enlarged to make it whole, above 1.
    pub(crate) digital_zoom: Option<f64>,
    /// Degrees north and east.
    pub(crate) gps: Option<(f64, f64)>,
    /// Metres above mean sea level.
    pub(crate) altitude_m: Option<f64>,
    /// Metres above the take-off point.
    pub(crate) relative_altitude_m: Option<f64>,
    /// Attitude of the camera.
    pub(crate) gimbal: MakerAttitude,
    /// Attitude of the airframe.
    pub(crate) flight: MakerAttitude,
    /// True when the file was rewritten long after the exposure: the pixels may not be as the camera
    /// stored them.
    pub(crate) edited: bool,
    /// Small JPEG preview that the camera embedded.
    pub(crate) preview: Option<Vec<u8>>,
    /// Parts that are damaged.
    pub(crate) damaged: Vec<&'static str>,
}

/// How many more segments of each kind are tried.
struct Attempts {
    exif: u32,
    xmp: u32,
}

/// An attitude of which any part may be missing, degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MakerAttitude {
    /// Roll.
    pub(crate) roll_deg: Option<f64>,
    /// Pitch.
    pub(crate) pitch_deg: Option<f64>,
    /// Yaw, clockwise from true north.
    pub(crate) yaw_deg: Option<f64>,
}

impl PictureMetadata {
    /// Reads the headers of a JPEG.
    ///
    /// # Errors
    /// Not a JPEG, or one that never says its size.
    pub(crate) fn read(jpeg: &[u8]) -> Result<PictureMetadata, NotAPicture> {
        let mut metadata = PictureMetadata::default();
        let mut attempts = Attempts {
            exif: MAX_ATTEMPTS,
            xmp: MAX_ATTEMPTS,
        };
        let mut rest = jpeg
            .strip_prefix(&[0xFF, 0xD8])
            .ok_or(NotAPicture::NotJpeg)?;
        while let Some((marker, payload, after)) = next_segment(rest) {
            match marker {
                // Frame headers; C4, C8 and CC in between are tables.
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    if let &[_, h1, h0, w1, w0, ..] = payload {
                        metadata.height_px = u32::from(u16::from_be_bytes([h1, h0]));
                        metadata.width_px = u32::from(u16::from_be_bytes([w1, w0]));
                    }
                }
                0xE1 => metadata.read_app1(payload, &mut attempts),
                // The scan: everything after is pixels.
                0xDA => break,
                _ => {}
            }
            rest = after;
        }
        if metadata.width_px == 0 || metadata.height_px == 0 {
            return Err(NotAPicture::NoFrameHeader);
        }
        Ok(metadata)
    }

    fn read_app1(&mut self, payload: &[u8], attempts: &mut Attempts) {
        let after = |attempts: u32, is_read| if is_read { 0 } else { attempts - 1 };
        if let Some(tiff) = payload.strip_prefix(EXIF_HEADER) {
            if attempts.exif > 0 {
                attempts.exif = after(attempts.exif, self.read_exif(tiff));
            }
        } else if let Some(packet) = payload.strip_prefix(XMP_HEADER)
            && attempts.xmp > 0
        {
            attempts.xmp = after(attempts.xmp, self.read_xmp(packet));
        }
    }

    /// Returns whether it was readable, at least in part.
    fn read_exif(&mut self, tiff: &[u8]) -> bool {
        let mut reader = exif::Reader::new();
        reader.continue_on_error(true);
        let parsed = reader
            .read_raw(tiff.to_vec())
            .or_else(|error| error.distill_partial_result(|_ignored| self.damaged.push("exif")));
        let Ok(exif) = parsed else {
            self.damaged.push("exif");
            return false;
        };
        self.model = ascii(&exif, Tag::Model);
        self.focal_mm = positive(&exif, Tag::FocalLength);
        self.focal_35mm = positive(&exif, Tag::FocalLengthIn35mmFilm);
        // Zero says that there was none, and so does one.
        self.digital_zoom = number(&exif, Tag::DigitalZoomRatio).filter(|ratio| *ratio > 1.0);
        self.gps = gps(&exif);
        if self.altitude_m.is_none() {
            self.altitude_m = number(&exif, Tag::GPSAltitude).map(|metres| {
                let below = matches!(
                    exif.get_field(Tag::GPSAltitudeRef, In::PRIMARY).map(|f| &f.value),
                    Some(Value::Byte(bytes)) if bytes.first() == Some(&1)
                );
                if below { -metres } else { metres }
            });
        }
        self.edited = edited(&exif);
        self.preview = preview(&exif);
        true
    }

    /// Returns whether it was readable.
    fn read_xmp(&mut self, packet: &[u8]) -> bool {
        // Each attribute has an equals sign, and little else has.
        let text = xmpmeta(packet)
            .filter(|text| text.bytes().filter(|&b| b == b'=').count() <= MAX_XMP_ATTRIBUTES);
        let Some(text) = text else {
            self.damaged.push("xmp");
            return false;
        };
        let options = roxmltree::ParsingOptions {
            nodes_limit: MAX_XMP_NODES,
            ..roxmltree::ParsingOptions::default()
        };
        let Ok(document) = roxmltree::Document::parse_with_options(text, options) else {
            self.damaged.push("xmp");
            return false;
        };
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            for attribute in node.attributes() {
                if attribute.namespace() == Some(DRONE_DJI) {
                    self.read_property(attribute.name(), attribute.value());
                }
            }
            if node.tag_name().namespace() == Some(DRONE_DJI)
                && let Some(text) = node.text()
            {
                self.read_property(node.tag_name().name(), text);
            }
        }
        true
    }

    fn read_property(&mut self, name: &str, text: &str) {
        let (target, limit) = match name {
            // The barometer's word in XMP is finer than the Exif rational, and the same quantity.
            "AbsoluteAltitude" => (&mut self.altitude_m, f64::MAX),
            "RelativeAltitude" => (&mut self.relative_altitude_m, f64::MAX),
            "GimbalRollDegree" => (&mut self.gimbal.roll_deg, MAX_ANGLE_DEG),
            "GimbalPitchDegree" => (&mut self.gimbal.pitch_deg, MAX_ANGLE_DEG),
            "GimbalYawDegree" => (&mut self.gimbal.yaw_deg, MAX_ANGLE_DEG),
            "FlightRollDegree" => (&mut self.flight.roll_deg, MAX_ANGLE_DEG),
            "FlightPitchDegree" => (&mut self.flight.pitch_deg, MAX_ANGLE_DEG),
            "FlightYawDegree" => (&mut self.flight.yaw_deg, MAX_ANGLE_DEG),
            _ => return,
        };
        // Rust parses the leading plus that makers write.
        match text.trim().parse::<f64>() {
            Ok(value) if value.abs() <= limit => *target = Some(value),
            Ok(_) | Err(_) => self.damaged.push("xmp"),
        }
    }
}

/// Marker, payload and what follows; `None` at the end or where no segment is.
fn next_segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let mut rest = bytes.strip_prefix(&[0xFF])?;
    // Any number of fill bytes may precede a marker.
    while let Some(after) = rest.strip_prefix(&[0xFF]) {
        rest = after;
    }
    let (&marker, rest) = rest.split_first()?;
    // Markers without a payload: restarts, start, end, TEM.
    if matches!(marker, 0x01 | 0xD0..=0xD9) {
        return Some((marker, &[], rest));
    }
    let &[high, low, ..] = rest else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    Some((marker, rest.get(2..length)?, rest.get(length..)?))
}

/// The XML inside an XMP packet: packets carry a prolog, padding and sometimes stray bytes around it.
fn xmpmeta(packet: &[u8]) -> Option<&str> {
    const END: &[u8] = b"</x:xmpmeta>";
    let find = |needle: &[u8]| packet.windows(needle.len()).position(|w| w == needle);
    let start = find(b"<x:xmpmeta")?;
    let end = find(END)? + END.len();
    std::str::from_utf8(packet.get(start..end)?).ok()
}

fn ascii(exif: &Exif, tag: Tag) -> Option<String> {
    let Value::Ascii(parts) = &exif.get_field(tag, In::PRIMARY)?.value else {
        return None;
    };
    let text = String::from_utf8_lossy(parts.first()?);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

fn numbers(exif: &Exif, tag: Tag) -> Option<Vec<f64>> {
    let values = match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Rational(values) => values.iter().map(exif::Rational::to_f64).collect(),
        Value::SRational(values) => values.iter().map(exif::SRational::to_f64).collect(),
        Value::Short(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Value::Long(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Value::Byte(_)
        | Value::Ascii(_)
        | Value::SByte(_)
        | Value::Undefined(..)
        | Value::SShort(_)
        | Value::SLong(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Unknown(..) => Vec::new(),
    };
    Some(values)
}

fn number(exif: &Exif, tag: Tag) -> Option<f64> {
    let value = *numbers(exif, tag)?.first()?;
    value.is_finite().then_some(value)
}

fn positive(exif: &Exif, tag: Tag) -> Option<f64> {
    number(exif, tag).filter(|value| *value > 0.0)
}

fn gps(exif: &Exif) -> Option<(f64, f64)> {
    let degrees = |tag, reference, negative: &str, limit: f64| {
        let parts = numbers(exif, tag)?;
        let &[d, m, s] = parts.as_slice() else {
            return None;
        };
        let magnitude = d + m / 60.0 + s / 3600.0;
        let sign = if ascii(exif, reference)?.eq_ignore_ascii_case(negative) {
            -1.0
        } else {
            1.0
        };
        (magnitude.abs() <= limit).then_some(sign * magnitude)
    };
    let latitude = degrees(Tag::GPSLatitude, Tag::GPSLatitudeRef, "S", 90.0)?;
    let longitude = degrees(Tag::GPSLongitude, Tag::GPSLongitudeRef, "W", 180.0)?;
    (latitude != 0.0 || longitude != 0.0).then_some((latitude, longitude))
}

/// Whether the file was last written much later than the exposure. Cameras write both times alike, or
/// seconds apart; an editor leaves the first and renews the second.
fn edited(exif: &Exif) -> bool {
    const WRITING_SECONDS: i64 = 60;
    let seconds = |tag| {
        let time = exif::DateTime::from_ascii(ascii(exif, tag)?.as_bytes()).ok()?;
        Some(
            days_from_date(&time) * 86_400
                + i64::from(time.hour) * 3600
                + i64::from(time.minute) * 60
                + i64::from(time.second),
        )
    };
    match (seconds(Tag::DateTimeOriginal), seconds(Tag::DateTime)) {
        (Some(taken), Some(written)) => written - taken > WRITING_SECONDS,
        (None, _) | (_, None) => false,
    }
}

/// Days since a fixed day in the proleptic Gregorian calendar; only differences are used.
fn days_from_date(time: &exif::DateTime) -> i64 {
    // Counting years from March puts the leap day last.
    let month = i64::from(time.month);
    let (year, month) = if month > 2 {
        (i64::from(time.year), month - 3)
    } else {
        (i64::from(time.year) - 1, month + 9)
    };
    year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + i64::from(time.day)
}

fn preview(exif: &Exif) -> Option<Vec<u8>> {
    let position = |tag| exif.get_field(tag, In::THUMBNAIL)?.value.get_uint(0);
    let start = usize::try_from(position(Tag::JPEGInterchangeFormat)?).ok()?;
    let length = usize::try_from(position(Tag::JPEGInterchangeFormatLength)?).ok()?;
    let bytes = exif.buf().get(start..start.checked_add(length)?)?;
    bytes.starts_with(&[0xFF, 0xD8]).then(|| bytes.to_vec())
}

#[cfg(test)]
pub(crate) mod tests;
