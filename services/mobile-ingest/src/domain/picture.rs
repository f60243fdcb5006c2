//! Pictures at the door: is it a JPEG that a reader may open, and when was it taken.
//!
//! The header is walked marker by marker up to the frame header, which names the size; no pixel is
//! decoded here. A picture without a frame header, or with an impossible size, is refused at once
//! instead of after it has been queued.

use std::io::Cursor;

use exif::{DateTime, Exif, In, Tag, Value};
use sovereign_model::Timestamp;

/// Largest side of a picture, pixels: more than any camera that flies or fits in a pocket.
const MAX_SIDE_PX: u16 = 20_000;
/// Largest area of a picture: 200 megapixels, 600 MB once decoded. A larger one is refused.
const MAX_AREA_PX: u64 = 200_000_000;

/// Why bytes are not a picture that can be used; completes a sentence that starts with their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PictureFault {
    #[error("is not a JPEG")]
    NotJpeg,
    #[error("is a JPEG without a frame header")]
    NoFrame,
    #[error("is a JPEG of {width} x {height} pixels, which is empty or too large")]
    Size { width: u16, height: u16 },
}

/// Checks that `bytes` begin as a JPEG of a usable size.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_jpeg(bytes: &[u8]) -> Result<(), PictureFault> {
    let mut rest = bytes
        .strip_prefix(&[0xFF, 0xD8])
        .ok_or(PictureFault::NotJpeg)?;
    if rest.first() != Some(&0xFF) {
        return Err(PictureFault::NotJpeg);
    }
    loop {
        // Any number of fill bytes may stand before a marker.
        while rest.first() == Some(&0xFF) && rest.get(1) == Some(&0xFF) {
            rest = &rest[1..];
        }
        let [0xFF, marker, after @ ..] = rest else {
            return Err(PictureFault::NoFrame);
        };
        let [high, low, body @ ..] = after else {
            return Err(PictureFault::NoFrame);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match marker {
            // Start of frame, but not the tables that share its range.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let [_, h0, h1, w0, w1, ..] = body else {
                    return Err(PictureFault::NoFrame);
                };
                let height = u16::from_be_bytes([*h0, *h1]);
                let width = u16::from_be_bytes([*w0, *w1]);
                let sides = 1..=MAX_SIDE_PX;
                let fits = sides.contains(&width)
                    && sides.contains(&height)
                    && u64::from(width) * u64::from(height) <= MAX_AREA_PX;
                return if fits {
                    Ok(())
                } else {
                    Err(PictureFault::Size { width, height })
                };
            }
            // Scan data or end before any frame header.
            0xDA | 0xD9 => return Err(PictureFault::NoFrame),
            _ => {}
        }
        rest = length
            .checked_sub(2)
            .and_then(|skip| body.get(skip..))
            .ok_or(PictureFault::NoFrame)?;
    }
}

/// When the picture says it was taken: its original time when that comes with an offset from UTC, else
/// the time of its GPS fix. A local time without offset tells nothing.
pub(crate) fn exposure_time(jpeg: &[u8]) -> Option<Timestamp> {
    let exif = exif::Reader::new()
        .read_from_container(&mut Cursor::new(jpeg))
        .ok()?;
    original_time(&exif).or_else(|| gps_time(&exif))
}

fn ascii(exif: &Exif, tag: Tag) -> Option<&[u8]> {
    let Value::Ascii(texts) = &exif.get_field(tag, In::PRIMARY)?.value else {
        return None;
    };
    texts.first().map(Vec::as_slice)
}

fn original_time(exif: &Exif) -> Option<Timestamp> {
    let mut time = DateTime::from_ascii(ascii(exif, Tag::DateTimeOriginal)?).ok()?;
    time.parse_offset(ascii(exif, Tag::OffsetTimeOriginal)?)
        .ok()?;
    let offset_minutes = time.offset?;
    if let Some(fraction) = ascii(exif, Tag::SubSecTimeOriginal) {
        // A fraction that does not parse costs less than a second.
        if time.parse_subsec(fraction).is_err() {
            time.nanosecond = None;
        }
    }
    let civil = jiff::civil::DateTime::new(
        i16::try_from(time.year).ok()?,
        i8::try_from(time.month).ok()?,
        i8::try_from(time.day).ok()?,
        i8::try_from(time.hour).ok()?,
        i8::try_from(time.minute).ok()?,
        i8::try_from(time.second).ok()?,
        i32::try_from(time.nanosecond.unwrap_or(0)).ok()?,
    )
    .ok()?;
    let offset = jiff::tz::Offset::from_seconds(i32::from(offset_minutes) * 60).ok()?;
    timestamp_from_jiff(offset.to_timestamp(civil).ok()?)
}

fn gps_time(exif: &Exif) -> Option<Timestamp> {
    let date = std::str::from_utf8(ascii(exif, Tag::GPSDateStamp)?).ok()?;
    let mut parts = date.trim_end_matches('\0').split(':');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let Value::Rational(time) = &exif.get_field(Tag::GPSTimeStamp, In::PRIMARY)?.value else {
        return None;
    };
    let [hours, minutes, seconds] = time.as_slice() else {
        return None;
    };
    let midnight = jiff::civil::DateTime::new(
        year.parse().ok()?,
        month.parse().ok()?,
        day.parse().ok()?,
        0,
        0,
        0,
        0,
    )
    .ok()?;
    let second_of_day = hours.to_f64() * 3600.0 + minutes.to_f64() * 60.0 + seconds.to_f64();
    if !(0.0..86_401.0).contains(&second_of_day) {
        return None;
    }
    let midnight = jiff::tz::Offset::UTC.to_timestamp(midnight).ok()?;
    let since = jiff::SignedDuration::try_from_secs_f64(second_of_day).ok()?;
    timestamp_from_jiff(midnight.checked_add(since).ok()?)
}

fn timestamp_from_jiff(time: jiff::Timestamp) -> Option<Timestamp> {
    i64::try_from(time.as_nanosecond())
        .ok()
        .map(Timestamp::from_unix_nanos)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The shortest thing that passes for a JPEG of `width` x `height`.
    pub(crate) fn tiny_jpeg(width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0, 0, 0xFF, 0xC0, 0, 11, 8];
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([1, 1, 0x11, 0, 0xFF, 0xD9]);
        bytes
    }

    #[test]
    fn the_size_is_found_behind_other_segments_and_fill_bytes() {
        assert_eq!(check_jpeg(&tiny_jpeg(640, 480)), Ok(()));
        let mut filled = tiny_jpeg(640, 480);
        filled.splice(8..8, [0xFF, 0xFF]);
        assert_eq!(check_jpeg(&filled), Ok(()));
    }

    #[test]
    fn what_is_no_usable_picture_is_refused() {
        for bytes in [
            &b""[..],
            b"\xFF",
            b"\xFF\xD8",
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert_eq!(check_jpeg(bytes), Err(PictureFault::NotJpeg), "{bytes:?}");
        }
        for bytes in [
            &b"\xFF\xD8\xFF"[..],
            b"\xFF\xD8\xFF\xE0",
            b"\xFF\xD8\xFF\xE0\x00\x01",
            b"\xFF\xD8\xFF\xE0\xFF\xFF\x00",
            b"\xFF\xD8\xFF\xDA\x00\x04\x00\x00",
            b"\xFF\xD8\xFF\xD9\x00\x00",
            b"\xFF\xD8\xFF\xC0\x00\x0B\x08",
        ] {
            assert_eq!(check_jpeg(bytes), Err(PictureFault::NoFrame), "{bytes:?}");
        }
        for (width, height) in [(0, 10), (10, 0), (20_001, 1), (20_000, 20_000)] {
            assert_eq!(
                check_jpeg(&tiny_jpeg(width, height)),
                Err(PictureFault::Size { width, height })
            );
        }
    }

    /// A JPEG whose EXIF has the given ASCII tags in its Exif folder.
    fn jpeg_with_exif(tags: &[(u16, &str)]) -> Vec<u8> {
        let entries = u16::try_from(tags.len()).unwrap();
        // Header 8, first folder with one entry 2 + 12 + 4, then the Exif folder.
        let folder = 8 + 18_u32;
        let mut data_at = folder + 2 + 12 * u32::from(entries) + 4;
        let mut tiff = b"II*\0\x08\0\0\0\x01\0".to_vec();
        tiff.extend(0x8769_u16.to_le_bytes());
        tiff.extend(4_u16.to_le_bytes());
        tiff.extend(1_u32.to_le_bytes());
        tiff.extend(folder.to_le_bytes());
        tiff.extend(0_u32.to_le_bytes());
        tiff.extend(entries.to_le_bytes());
        let mut data = Vec::new();
        for (tag, text) in tags {
            let count = u32::try_from(text.len() + 1).unwrap();
            tiff.extend(tag.to_le_bytes());
            tiff.extend(2_u16.to_le_bytes());
            tiff.extend(count.to_le_bytes());
            let mut bytes = text.as_bytes().to_vec();
            bytes.push(0);
            if bytes.len() <= 4 {
                bytes.resize(4, 0);
                tiff.extend(&bytes);
            } else {
                tiff.extend(data_at.to_le_bytes());
                data_at += count;
                data.extend(bytes);
            }
        }
        tiff.extend(0_u32.to_le_bytes());
        tiff.extend(data);
        let mut segment = b"Exif\0\0".to_vec();
        segment.extend(tiff);
        let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1];
        jpeg.extend(u16::try_from(segment.len() + 2).unwrap().to_be_bytes());
        jpeg.extend(segment);
        jpeg.extend(&tiny_jpeg(4, 4)[2..]);
        jpeg
    }

    #[test]
    fn the_time_of_a_picture_needs_an_offset() {
        let jpeg = jpeg_with_exif(&[
            (0x9003, "2024:05:06 07:08:09"),
            (0x9011, "+02:00"),
            (0x9291, "25"),
        ]);
        check_jpeg(&jpeg).unwrap();
        let expected = "2024-05-06T05:08:09.25Z"
            .parse::<jiff::Timestamp>()
            .unwrap();
        assert_eq!(
            i128::from(exposure_time(&jpeg).unwrap().as_unix_nanos()),
            expected.as_nanosecond()
        );
        assert_eq!(
            exposure_time(&jpeg_with_exif(&[(0x9003, "2024:05:06 07:08:09")])),
            None
        );
        assert_eq!(exposure_time(&tiny_jpeg(4, 4)), None);
    }
}
