//! Pictures that carry their own pose, as survey drones write them: EXIF position and lens, and the
//! gimbal's attitude as XMP in DJI's namespace.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Rational, Tag, Value};
use sovereign_model::{Intrinsics, Timestamp};

use crate::VehicleTruth;
use crate::camera::MOUNT_PITCH_DEG;

/// `Software` of every picture made here: whoever reads it knows that the flight was simulated.
pub const SIMULATOR: &str = "Sovereign Map simulator";

const FOCAL_35MM: u16 = 29;

/// A tag could not be written.
#[derive(Debug, thiserror::Error)]
pub enum GeotagError {
    /// The bytes are no JPEG, which begins with a start-of-image marker.
    #[error("tag the picture: it is no jpeg")]
    NotJpeg,
    /// The encoder refused the fields.
    #[error("encode the exif fields")]
    Exif(#[source] exif::Error),
}

/// The lens that [`geotagged`] writes down: 29 mm on 35 mm film, no distortion.
pub fn survey_camera(width_px: u32, height_px: u32) -> Intrinsics {
    Intrinsics::from_35mm(width_px, height_px, f64::from(FOCAL_35MM))
        .expect("a 29 mm lens is a camera at every size")
}

/// `jpeg`, taken at `truth` with [`survey_camera`], with its pose written into it: position to 0.03 mm,
/// attitude to 0.0001 degrees, height above the ground to a millimetre.
///
/// # Errors
/// When `jpeg` is none.
pub fn geotagged(
    jpeg: &[u8],
    truth: &VehicleTruth,
    taken: Timestamp,
) -> Result<Vec<u8>, GeotagError> {
    let body = jpeg
        .strip_prefix(&[0xFF, 0xD8])
        .ok_or(GeotagError::NotJpeg)?;
    let mut exif = b"Exif\0\0".to_vec();
    exif.extend(exif_of(truth, taken)?);
    let mut xmp = b"http://ns.adobe.com/xap/1.0/\0".to_vec();
    xmp.extend(xmp_of(truth).into_bytes());
    let mut tagged = vec![0xFF, 0xD8];
    for segment in [exif, xmp] {
        let length = u16::try_from(segment.len() + 2).expect("the tags are short");
        tagged.extend([0xFF, 0xE1]);
        tagged.extend(length.to_be_bytes());
        tagged.extend(segment);
    }
    tagged.extend(body);
    Ok(tagged)
}

fn exif_of(truth: &VehicleTruth, taken: Timestamp) -> Result<Vec<u8>, GeotagError> {
    let text = |tag, text: &str| Field {
        tag,
        ifd_num: In::PRIMARY,
        value: Value::Ascii(vec![text.as_bytes().to_vec()]),
    };
    let rationals = |tag, values: Vec<Rational>| Field {
        tag,
        ifd_num: In::PRIMARY,
        value: Value::Rational(values),
    };
    let (latitude, longitude) = (truth.position.latitude_deg, truth.position.longitude_deg);
    let altitude_mm = (truth.position.altitude_m.abs() * 1e3).round() as u32;
    let fields = [
        text(Tag::Make, "Sovereign Map"),
        text(Tag::Model, "SIM"),
        text(Tag::Software, SIMULATOR),
        text(Tag::DateTimeOriginal, &exif_time(taken)),
        Field {
            tag: Tag::FocalLengthIn35mmFilm,
            ifd_num: In::PRIMARY,
            value: Value::Short(vec![FOCAL_35MM]),
        },
        text(Tag::GPSLatitudeRef, if latitude < 0.0 { "S" } else { "N" }),
        rationals(Tag::GPSLatitude, sexagesimal(latitude)),
        text(
            Tag::GPSLongitudeRef,
            if longitude < 0.0 { "W" } else { "E" },
        ),
        rationals(Tag::GPSLongitude, sexagesimal(longitude)),
        Field {
            tag: Tag::GPSAltitudeRef,
            ifd_num: In::PRIMARY,
            value: Value::Byte(vec![u8::from(truth.position.altitude_m < 0.0)]),
        },
        rationals(Tag::GPSAltitude, vec![(altitude_mm, 1000).into()]),
    ];
    let mut writer = Writer::new();
    for field in &fields {
        writer.push_field(field);
    }
    let mut bytes = Cursor::new(Vec::new());
    writer.write(&mut bytes, false).map_err(GeotagError::Exif)?;
    Ok(bytes.into_inner())
}

/// Degrees, minutes and millionths of seconds.
fn sexagesimal(degrees: f64) -> Vec<Rational> {
    const PER_DEGREE: u64 = 3_600_000_000;
    let micros = (degrees.abs() * PER_DEGREE as f64).round() as u64;
    vec![
        ((micros / PER_DEGREE) as u32, 1).into(),
        ((micros % PER_DEGREE / 60_000_000) as u32, 1).into(),
        ((micros % 60_000_000) as u32, 1_000_000).into(),
    ]
}

/// `YYYY:MM:DD HH:MM:SS` in universal time.
fn exif_time(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.as_unix_nanos()))
        .expect("every 64-bit count of nanoseconds is a time that jiff knows")
        .strftime("%Y:%m:%d %H:%M:%S")
        .to_string()
}

/// The camera is fixed to the body, so its attitude is the body's turned down by the mount: yaw and roll
/// as aerospace angles of the camera's own axes.
fn xmp_of(truth: &VehicleTruth) -> String {
    let gimbal = crate::camera::gimbal_attitude(truth.attitude, MOUNT_PITCH_DEG);
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
         <rdf:Description rdf:about=\"\" xmlns:drone-dji=\"http://www.dji.com/drone-dji/1.0/\" \
         drone-dji:AbsoluteAltitude=\"{:+.3}\" drone-dji:RelativeAltitude=\"{:+.3}\" \
         drone-dji:GimbalRollDegree=\"{:+.4}\" drone-dji:GimbalYawDegree=\"{:+.4}\" \
         drone-dji:GimbalPitchDegree=\"{:+.4}\"/>\
         </rdf:RDF></x:xmpmeta><?xpacket end=\"w\"?>",
        truth.position.altitude_m,
        truth.height_m,
        gimbal.roll_deg,
        gimbal.yaw_deg,
        gimbal.pitch_deg,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_exif_wants_them() {
        for (unix, text) in [
            (0, "1970:01:01 00:00:00"),
            (951_782_400, "2000:02:29 00:00:00"),
            (1_795_359_599, "2026:11:22 14:59:59"),
        ] {
            let at = Timestamp::from_unix_nanos(unix * 1_000_000_000);
            assert_eq!(exif_time(at), text);
        }
    }
}
