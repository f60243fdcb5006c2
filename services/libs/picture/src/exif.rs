//! The Exif part: place, camera, times, preview.
//!
//! A position of exactly (0, 0) is what makers write before the first fix, and counts as none.

use exif::{Exif, In, Tag, Value};
use jiff::civil;
use sovereign_model::Timestamp;

use crate::Header;

/// Reads a TIFF structure into `header`; what is damaged is noted there.
pub(crate) fn read(tiff: &[u8], header: &mut Header) {
    let mut reader = exif::Reader::new();
    reader.continue_on_error(true);
    let parsed = reader
        .read_raw(tiff.to_vec())
        .or_else(|error| error.distill_partial_result(|_ignored| header.damaged.push("exif")));
    let Ok(exif) = parsed else {
        header.damaged.push("exif");
        return;
    };
    header.orientation = number(&exif, Tag::Orientation)
        .filter(|value| (1.0..=8.0).contains(value))
        .map(|value| value as u8);
    header.model = text(&exif, Tag::Model);
    header.exposed = original_time(&exif).or_else(|| gps_time(&exif));
    header.camera_clock = civil_time(&exif, Tag::DateTimeOriginal)
        .and_then(|shown| timestamp_after(jiff::tz::Offset::UTC.to_timestamp(shown).ok()?, 0.0));
    header.software = text(&exif, Tag::Software);
    header.focal_mm = positive(&exif, Tag::FocalLength);
    header.focal_35mm = positive(&exif, Tag::FocalLengthIn35mmFilm);
    // Zero says that there was none, and so does one.
    header.digital_zoom = number(&exif, Tag::DigitalZoomRatio).filter(|ratio| *ratio > 1.0);
    header.gps = gps(&exif);
    header.altitude_m = number(&exif, Tag::GPSAltitude).map(|metres| {
        let reference = exif.get_field(Tag::GPSAltitudeRef, In::PRIMARY);
        let below = matches!(
            reference.map(|field| &field.value),
            Some(Value::Byte(bytes)) if bytes.first() == Some(&1)
        );
        if below { -metres } else { metres }
    });
    header.edited = edited(&exif);
    header.preview = preview(&exif);
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

fn gps(exif: &Exif) -> Option<(f64, f64)> {
    let degrees = |tag, reference, negative: &str, limit: f64| {
        let parts = numbers(exif, tag)?;
        let &[d, m, s] = parts.as_slice() else {
            return None;
        };
        let magnitude = d + m / 60.0 + s / 3600.0;
        let is_negative = text(exif, reference)?.eq_ignore_ascii_case(negative);
        let sign = if is_negative { -1.0 } else { 1.0 };
        (magnitude.abs() <= limit).then_some(sign * magnitude)
    };
    let latitude = degrees(Tag::GPSLatitude, Tag::GPSLatitudeRef, "S", 90.0)?;
    let longitude = degrees(Tag::GPSLongitude, Tag::GPSLongitudeRef, "W", 180.0)?;
    (latitude != 0.0 || longitude != 0.0).then_some((latitude, longitude))
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
