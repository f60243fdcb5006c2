//! The Exif part: place, camera, times, preview.
//!
//! A position of exactly (0, 0) is what makers write before the first fix, and counts as none.

use exif::{Context, Exif, In, Tag, Value};
use jiff::civil;
use sovereign_model::Timestamp;

use crate::{Direction, Header};

/// Exif 2.31, not among the names of the parser.
const CAMERA_ELEVATION_ANGLE: Tag = Tag(Context::Exif, 0x9405);
/// XMP inside of the TIFF structure (Adobe, "XMP Specification Part 3").
const XMP: Tag = Tag(Context::Tiff, 700);

/// Reads a TIFF structure into `header`; what is damaged is noted there. Returns the XMP packet in it.
pub(crate) fn read(tiff: &[u8], header: &mut Header) -> Option<Vec<u8>> {
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let parsed = reader
        .read_raw(tiff.to_vec())
        .or_else(|error| error.distill_partial_result(|_ignored| header.damaged.push("exif")));
    let Ok(exif) = parsed else {
        header.damaged.push("exif");
        return None;
    };
    header.orientation = number(&exif, Tag::Orientation)
        .filter(|value| (1.0..=8.0).contains(value))
        .map(|value| value as u8);
    header.make = text(&exif, Tag::Make);
    header.model = text(&exif, Tag::Model);
    header.exposed = original_time(&exif).or_else(|| gps_time(&exif));
    header.camera_clock = civil_time(&exif, Tag::DateTimeOriginal)
        .and_then(|shown| timestamp_after(jiff::tz::Offset::UTC.to_timestamp(shown).ok()?, 0.0));
    header.software = text(&exif, Tag::Software);
    header.focal_mm = positive(&exif, Tag::FocalLength);
    header.focal_35mm = positive(&exif, Tag::FocalLengthIn35mmFilm);
    // Zero says that there was none, and so does one.
    header.digital_zoom = number(&exif, Tag::DigitalZoomRatio).filter(|ratio| *ratio > 1.0);
    header.pixel_mm = pixel_mm(&exif, header.width_px);
    match gps(&exif) {
        Ok(place) => header.gps = place,
        Err(fault) => header.gps_fault = Some(fault),
    }
    altitude(&exif, header);
    header.direction = direction(&exif, Tag::GPSImgDirection, Tag::GPSImgDirectionRef);
    header.track_deg = direction(&exif, Tag::GPSTrack, Tag::GPSTrackRef)
        .filter(|track| !track.is_magnetic)
        .map(|track| track.degrees);
    header.elevation_deg =
        number(&exif, CAMERA_ELEVATION_ANGLE).filter(|degrees| degrees.abs() <= 90.0);
    header.edited = edited(&exif);
    header.preview = preview(&exif);
    packet(&exif)
}

fn packet(exif: &Exif) -> Option<Vec<u8>> {
    let (Value::Byte(bytes) | Value::Undefined(bytes, _)) =
        &exif.get_field(XMP, In::PRIMARY)?.value
    else {
        return None;
    };
    Some(bytes.clone())
}

fn text(exif: &Exif, tag: Tag) -> Option<String> {
    let Value::Ascii(parts) = &exif.get_field(tag, In::PRIMARY)?.value else {
        return None;
    };
    let text = String::from_utf8_lossy(parts.first()?);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

fn numbers(exif: &Exif, tag: Tag) -> Option<Vec<f64>> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Rational(values) => Some(values.iter().map(exif::Rational::to_f64).collect()),
        Value::SRational(values) => Some(values.iter().map(exif::SRational::to_f64).collect()),
        Value::Short(values) => Some(values.iter().map(|&v| f64::from(v)).collect()),
        Value::Long(values) => Some(values.iter().map(|&v| f64::from(v)).collect()),
        Value::Byte(_)
        | Value::Ascii(_)
        | Value::SByte(_)
        | Value::Undefined(..)
        | Value::SShort(_)
        | Value::SLong(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Unknown(..) => None,
    }
}

fn number(exif: &Exif, tag: Tag) -> Option<f64> {
    let value = *numbers(exif, tag)?.first()?;
    value.is_finite().then_some(value)
}

fn positive(exif: &Exif, tag: Tag) -> Option<f64> {
    number(exif, tag).filter(|value| *value > 0.0)
}

/// Where the picture was taken. Half a position is none, and one whose parts contradict each other could
/// be on the wrong half of the world.
fn gps(exif: &Exif) -> Result<Option<(f64, f64)>, &'static str> {
    let latitude = axis(
        exif,
        Tag::GPSLatitude,
        Tag::GPSLatitudeRef,
        ['N', 'S'],
        90.0,
    );
    let longitude = axis(
        exif,
        Tag::GPSLongitude,
        Tag::GPSLongitudeRef,
        ['E', 'W'],
        180.0,
    );
    let faults = match (latitude, longitude) {
        (Axis::Absent, _) | (_, Axis::Absent) => return Ok(None),
        (Axis::Degrees(latitude), Axis::Degrees(longitude)) => {
            return Ok((latitude != 0.0 || longitude != 0.0).then_some((latitude, longitude)));
        }
        faults => faults,
    };
    Err(match faults {
        (Axis::NoReference, _) => "has no GPSLatitudeRef, which says north or south",
        (_, Axis::NoReference) => "has no GPSLongitudeRef, which says east or west",
        (Axis::Contradiction, _) | (_, Axis::Contradiction) => {
            "has a negative number and a letter for the hemisphere, which cannot both be meant"
        }
        _ => "is no place on Earth",
    })
}

enum Axis {
    Absent,
    Degrees(f64),
    NoReference,
    Contradiction,
    Impossible,
}

fn axis(exif: &Exif, tag: Tag, reference: Tag, [plus, minus]: [char; 2], limit: f64) -> Axis {
    let Some(parts) = numbers(exif, tag) else {
        return Axis::Absent;
    };
    // Degrees, minutes, seconds; some writers leave the last ones out.
    let magnitude = match parts[..] {
        [] => return Axis::Absent,
        [d] => d,
        [d, m] => d + m / 60.0,
        [d, m, s, ..] => d + m / 60.0 + s / 3600.0,
    };
    if parts.iter().any(|part| *part < 0.0) {
        return Axis::Contradiction;
    }
    if !(0.0..=limit).contains(&magnitude) {
        return Axis::Impossible;
    }
    // A letter, or the word that begins with it.
    let letter = text(exif, reference).and_then(|text| text.chars().next());
    match letter.map(|letter| letter.to_ascii_uppercase()) {
        Some(letter) if letter == minus => Axis::Degrees(-magnitude),
        Some(letter) if letter == plus => Axis::Degrees(magnitude),
        Some(_) | None => Axis::NoReference,
    }
}

/// Exif 3.0 has four references: above and below, counted from the ellipsoid (0, 1) or from the sea (2, 3).
/// Before it there were two, both counted from the sea.
fn altitude(exif: &Exif, header: &mut Header) {
    let Some(metres) = number(exif, Tag::GPSAltitude) else {
        return;
    };
    let reference = exif.get_field(Tag::GPSAltitudeRef, In::PRIMARY);
    let reference = reference.and_then(|field| field.value.get_uint(0));
    let below = matches!(reference, Some(1 | 3));
    header.altitude_m = Some(if below { -metres } else { metres });
    header.altitude_is_ellipsoidal =
        matches!(reference, Some(0 | 1)) && version(exif).is_some_and(|v| v >= *b"0300");
}

fn version(exif: &Exif) -> Option<[u8; 4]> {
    let Value::Undefined(bytes, _) = &exif.get_field(Tag::ExifVersion, In::PRIMARY)?.value else {
        return None;
    };
    bytes.first_chunk().copied()
}

fn direction(exif: &Exif, tag: Tag, reference: Tag) -> Option<Direction> {
    let degrees = number(exif, tag).filter(|d| (0.0..=360.0).contains(d))?;
    let reference = text(exif, reference)?;
    Some(Direction {
        degrees: degrees.rem_euclid(360.0),
        is_magnetic: !reference.starts_with(['T', 't']),
    })
}

/// The focal plane resolution counts pixels of the picture as the camera took it; of one that was scaled
/// since, it says so through `PixelXDimension`.
fn pixel_mm(exif: &Exif, width_px: u32) -> Option<f64> {
    let per_unit = positive(exif, Tag::FocalPlaneXResolution)?;
    let unit_mm = match number(exif, Tag::FocalPlaneResolutionUnit).unwrap_or(2.0) as u32 {
        2 => 25.4,
        3 => 10.0,
        // Two that are in no standard, and in many cameras.
        4 => 1.0,
        5 => 0.001,
        _ => return None,
    };
    let taken_px = positive(exif, Tag::PixelXDimension).unwrap_or_else(|| f64::from(width_px));
    Some(unit_mm / per_unit * taken_px / f64::from(width_px))
}

fn civil_time(exif: &Exif, tag: Tag) -> Option<civil::DateTime> {
    civil::DateTime::strptime("%Y:%m:%d %H:%M:%S", text(exif, tag)?).ok()
}

fn original_time(exif: &Exif) -> Option<Timestamp> {
    let local = civil_time(exif, Tag::DateTimeOriginal)?;
    let offset = text(exif, Tag::OffsetTimeOriginal)?;
    let fraction = text(exif, Tag::SubSecTimeOriginal)
        .and_then(|digits| format!("0.{digits}").parse::<f64>().ok())
        .unwrap_or(0.0);
    let zoned = format!("{local}{offset}").parse::<jiff::Timestamp>().ok()?;
    timestamp_after(zoned, fraction)
}

fn gps_time(exif: &Exif) -> Option<Timestamp> {
    let date = civil::Date::strptime("%Y:%m:%d", text(exif, Tag::GPSDateStamp)?).ok()?;
    let time = numbers(exif, Tag::GPSTimeStamp)?;
    let &[hours, minutes, seconds] = time.as_slice() else {
        return None;
    };
    let second_of_day = hours * 3600.0 + minutes * 60.0 + seconds;
    if !(0.0..86_401.0).contains(&second_of_day) {
        return None;
    }
    let midnight = jiff::tz::Offset::UTC
        .to_timestamp(date.at(0, 0, 0, 0))
        .ok()?;
    timestamp_after(midnight, second_of_day)
}

fn timestamp_after(start: jiff::Timestamp, seconds: f64) -> Option<Timestamp> {
    let since = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    let nanos = start.checked_add(since).ok()?.as_nanosecond();
    i64::try_from(nanos).ok().map(Timestamp::from_unix_nanos)
}

/// Whether the file was last written much later than the exposure. Cameras write both times alike, or
/// seconds apart; an editor leaves the first and renews the second.
fn edited(exif: &Exif) -> bool {
    const WRITING: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
    let taken = civil_time(exif, Tag::DateTimeOriginal);
    let written = civil_time(exif, Tag::DateTime);
    taken
        .zip(written)
        .is_some_and(|(taken, written)| written.duration_since(taken) > WRITING)
}

fn preview(exif: &Exif) -> Option<Vec<u8>> {
    let position = |tag| exif.get_field(tag, In::THUMBNAIL)?.value.get_uint(0);
    let start = usize::try_from(position(Tag::JPEGInterchangeFormat)?).ok()?;
    let length = usize::try_from(position(Tag::JPEGInterchangeFormatLength)?).ok()?;
    let bytes = exif.buf().get(start..start.checked_add(length)?)?;
    bytes.starts_with(&[0xFF, 0xD8]).then(|| bytes.to_vec())
}
