use ::exif::experimental::Writer;
use ::exif::{Field, In, Rational, Tag, Value};
use proptest::prelude::*;

use super::*;
use crate::xmp::{DRONE_DJI, MAX_ATTRIBUTES};

const EXIF_HEADER: &[u8] = b"Exif\0\0";
const XMP_HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// A picture as an encoder writes it.
pub(crate) fn picture(image: &image::DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode_image(image)
        .unwrap();
    bytes
}

/// A grey JPEG with further parts.
pub(crate) fn jpeg(width: u32, height: u32, app1: &[Vec<u8>]) -> Vec<u8> {
    let plain = picture(&image::GrayImage::new(width, height).into());
    let mut bytes = plain[..2].to_vec();
    for payload in app1 {
        bytes.extend([0xFF, 0xE1]);
        bytes.extend(u16::try_from(payload.len() + 2).unwrap().to_be_bytes());
        bytes.extend(payload);
    }
    bytes.extend(&plain[2..]);
    bytes
}

pub(crate) fn xmp(properties: &str) -> Vec<u8> {
    let mut payload = XMP_HEADER.to_vec();
    payload.extend(b"<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n");
    payload.extend(
        format!(
            "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
             <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
             <rdf:Description xmlns:drone-dji=\"{DRONE_DJI}\" {properties}</rdf:Description>\
             </rdf:RDF></x:xmpmeta>\n   <?xpacket end=\"w\"?>\0"
        )
        .bytes(),
    );
    payload
}

pub(crate) fn field(tag: Tag, value: Value) -> Field {
    Field {
        tag,
        ifd_num: In::PRIMARY,
        value,
    }
}

pub(crate) fn text(tag: Tag, value: &str) -> Field {
    field(tag, Value::Ascii(vec![value.as_bytes().to_vec()]))
}

pub(crate) fn rational(tag: Tag, values: &[(u32, u32)]) -> Field {
    let values = values
        .iter()
        .map(|&(num, denom)| Rational { num, denom })
        .collect();
    field(tag, Value::Rational(values))
}

pub(crate) fn exif(fields: &[Field]) -> Vec<u8> {
    let mut writer = Writer::new();
    for field in fields {
        writer.push_field(field);
    }
    let mut tiff = std::io::Cursor::new(Vec::new());
    writer.write(&mut tiff, true).unwrap();
    let mut payload = EXIF_HEADER.to_vec();
    payload.extend(tiff.into_inner());
    payload
}

/// 46 50' 33.6" N, 91 59' 39.9" W, 12.5 m.
pub(crate) fn gps_fields() -> Vec<Field> {
    vec![
        text(Tag::GPSLatitudeRef, "N"),
        rational(Tag::GPSLatitude, &[(46, 1), (50, 1), (336, 10)]),
        text(Tag::GPSLongitudeRef, "W"),
        rational(Tag::GPSLongitude, &[(91, 1), (59, 1), (399, 10)]),
        rational(Tag::GPSAltitude, &[(125, 10)]),
    ]
}

#[test]
fn exif_position_camera_and_size_are_read() {
    let mut fields = gps_fields();
    fields.push(text(Tag::Model, "FC300S\0\0\0"));
    fields.push(rational(Tag::FocalLength, &[(361, 100)]));
    fields.push(field(Tag::FocalLengthIn35mmFilm, Value::Short(vec![20])));
    let read = Header::read(&jpeg(4000, 2250, &[exif(&fields)])).unwrap();
    assert_eq!((read.width_px, read.height_px), (4000, 2250));
    let (latitude, longitude) = read.gps.unwrap();
    assert!((latitude - 46.842_666_67).abs() < 1e-6);
    assert!((longitude + 91.994_416_67).abs() < 1e-6);
    assert_eq!(read.altitude_m, Some(12.5));
    assert_eq!(read.model.as_deref(), Some("FC300S"));
    assert_eq!(read.focal_mm, Some(3.61));
    assert_eq!(read.focal_35mm, Some(20.0));
    assert!(!read.edited);
    assert_eq!(read.damaged, Vec::<&str>::new());
}

#[test]
fn southern_latitudes_and_depths_are_negative() {
    let fields = [
        text(Tag::GPSLatitudeRef, "S"),
        rational(Tag::GPSLatitude, &[(33, 1), (30, 1), (0, 1)]),
        text(Tag::GPSLongitudeRef, "E"),
        rational(Tag::GPSLongitude, &[(151, 1), (0, 1), (0, 1)]),
        field(Tag::GPSAltitudeRef, Value::Byte(vec![1])),
        rational(Tag::GPSAltitude, &[(4, 1)]),
    ];
    let read = Header::read(&jpeg(10, 10, &[exif(&fields)])).unwrap();
    assert_eq!(read.gps, Some((-33.5, 151.0)));
    assert_eq!(read.altitude_m, Some(-4.0));
}

#[test]
fn a_position_that_was_never_fixed_is_no_position() {
    for (latitude, longitude) in [
        ([(0, 1), (0, 1), (0, 1)], [(0, 1), (0, 1), (0, 1)]),
        // Division by zero is how some writers say "unknown".
        ([(1, 0), (0, 1), (0, 1)], [(9, 1), (0, 1), (0, 1)]),
        ([(91, 1), (0, 1), (0, 1)], [(9, 1), (0, 1), (0, 1)]),
    ] {
        let fields = [
            text(Tag::GPSLatitudeRef, "N"),
            rational(Tag::GPSLatitude, &latitude),
            text(Tag::GPSLongitudeRef, "E"),
            rational(Tag::GPSLongitude, &longitude),
        ];
        let read = Header::read(&jpeg(10, 10, &[exif(&fields)])).unwrap();
        assert_eq!(read.gps, None, "{latitude:?}");
    }
}

#[test]
fn attitude_is_read_from_attributes_and_from_elements() {
    let attributes = xmp(
        "drone-dji:AbsoluteAltitude=\"+198.61\" drone-dji:RelativeAltitude=\"+40.10\" \
         drone-dji:GimbalRollDegree=\"+0.00\" drone-dji:GimbalYawDegree=\"-132.00\" \
         drone-dji:GimbalPitchDegree=\"-89.90\" drone-dji:FlightYawDegree=\"-129.90\">",
    );
    let elements = xmp(
        "><drone-dji:AbsoluteAltitude>+198.61</drone-dji:AbsoluteAltitude>\
         <drone-dji:RelativeAltitude>+40.10</drone-dji:RelativeAltitude>\
         <drone-dji:GimbalRollDegree>0.00</drone-dji:GimbalRollDegree>\
         <drone-dji:GimbalYawDegree> -132.00 </drone-dji:GimbalYawDegree>\
         <drone-dji:GimbalPitchDegree>-89.90</drone-dji:GimbalPitchDegree>\
         <drone-dji:FlightYawDegree>-129.90</drone-dji:FlightYawDegree>",
    );
    for payload in [attributes, elements] {
        let read = Header::read(&jpeg(10, 10, &[payload])).unwrap();
        assert_eq!(read.altitude_m, Some(198.61));
        assert_eq!(read.relative_altitude_m, Some(40.1));
        assert_eq!(
            read.gimbal,
            Attitude {
                roll_deg: Some(0.0),
                pitch_deg: Some(-89.9),
                yaw_deg: Some(-132.0)
            }
        );
        assert_eq!(read.flight.yaw_deg, Some(-129.9));
        assert_eq!(read.damaged, Vec::<&str>::new());
    }
}

#[test]
fn damaged_parts_are_noted_and_the_rest_is_used() {
    let mut broken = XMP_HEADER.to_vec();
    broken.extend(b"<x:xmpmeta xmlns:x='a'><open></x:xmpmeta>");
    let garbage = [EXIF_HEADER, b"not a tiff"].concat();
    let read = Header::read(&jpeg(64, 48, &[broken, garbage, exif(&gps_fields())])).unwrap();
    assert_eq!(read.damaged, ["xmp"]);
    assert!(read.gps.is_some());
    let read = Header::read(&jpeg(64, 48, &[[EXIF_HEADER, b"not a tiff"].concat()])).unwrap();
    assert_eq!(read.damaged, ["exif"]);
    let words = xmp("drone-dji:GimbalYawDegree=\"north\" drone-dji:GimbalPitchDegree=\"NaN\">");
    let read = Header::read(&jpeg(64, 48, &[words])).unwrap();
    assert_eq!(read.gimbal, Attitude::default());
    assert_eq!(read.damaged, ["xmp", "xmp"]);
}

#[test]
fn a_number_beyond_a_whole_turn_is_no_angle() {
    let angles = xmp(
        "drone-dji:GimbalRollDegree=\"-360\" drone-dji:GimbalPitchDegree=\"-360.1\" \
         drone-dji:GimbalYawDegree=\"6553.5\" drone-dji:FlightYawDegree=\"1e300\" \
         drone-dji:RelativeAltitude=\"+4000\">",
    );
    let read = Header::read(&jpeg(64, 48, &[angles])).unwrap();
    let roll = Attitude {
        roll_deg: Some(-360.0),
        ..Attitude::default()
    };
    assert_eq!(read.gimbal, roll);
    assert_eq!(read.flight, Attitude::default());
    assert_eq!(read.relative_altitude_m, Some(4000.0));
    assert_eq!(read.damaged, ["xmp", "xmp", "xmp"]);
}

#[test]
fn only_an_enlargement_is_a_digital_zoom() {
    for (ratio, zoom) in [
        ((0, 1), None),
        ((0, 0), None),
        ((1, 1), None),
        ((5, 0), None),
        ((3, 2), Some(1.5)),
    ] {
        let fields = [rational(Tag::DigitalZoomRatio, &[ratio])];
        let read = Header::read(&jpeg(64, 48, &[exif(&fields)])).unwrap();
        assert_eq!(read.digital_zoom, zoom, "{ratio:?}");
    }
}

#[test]
fn of_several_parts_of_a_kind_the_last_counts() {
    let app1 = [
        exif(&[text(Tag::Model, "other")]),
        exif(&gps_fields()),
        xmp("drone-dji:RelativeAltitude=\"+7\" drone-dji:GimbalYawDegree=\"9\">"),
        xmp("drone-dji:RelativeAltitude=\"+40.10\">"),
    ];
    let read = Header::read(&jpeg(64, 48, &app1)).unwrap();
    assert_eq!(read.model, None);
    assert!(read.gps.is_some());
    assert_eq!(read.relative_altitude_m, Some(40.1));
    assert_eq!(read.gimbal, Attitude::default());
}

#[test]
fn a_packet_of_too_many_attributes_is_not_parsed() {
    let with = |attributes: usize| {
        let mut properties = String::from("drone-dji:RelativeAltitude=\"+4\"");
        for i in 0..attributes {
            properties.push_str(&format!(" a{i}=\"\""));
        }
        properties.push('>');
        Header::read(&jpeg(64, 48, &[xmp(&properties)])).unwrap()
    };
    assert_eq!(with(500).relative_altitude_m, Some(4.0));
    let read = with(MAX_ATTRIBUTES);
    assert_eq!(
        (read.relative_altitude_m, read.damaged),
        (None, vec!["xmp"])
    );
}

#[test]
fn a_file_written_again_long_after_the_exposure_is_edited() {
    for (written, edited) in [
        ("2016:06:23 16:32:57", false),
        ("2016:06:23 16:33:20", false),
        ("2016:06:23 19:24:42", true),
        ("2016:06:24 00:00:00", true),
        ("2017:01:01 00:00:00", true),
        ("    :  :     :  :  ", false),
    ] {
        let fields = [
            text(Tag::DateTimeOriginal, "2016:06:23 16:32:57"),
            text(Tag::DateTime, written),
        ];
        let read = Header::read(&jpeg(10, 10, &[exif(&fields)])).unwrap();
        assert_eq!(read.edited, edited, "{written}");
    }
}

#[test]
fn the_time_of_a_picture_needs_an_offset() {
    let taken = |tags: &[(Tag, &str)]| {
        let fields: Vec<Field> = tags.iter().map(|(tag, value)| text(*tag, value)).collect();
        Header::read(&jpeg(8, 8, &[exif(&fields)])).unwrap().exposed
    };
    let local = (Tag::DateTimeOriginal, "2024:05:06 07:08:09");
    let exposed = taken(&[
        local,
        (Tag::OffsetTimeOriginal, "+02:00"),
        (Tag::SubSecTimeOriginal, "25"),
    ]);
    let expected: jiff::Timestamp = "2024-05-06T05:08:09.25Z".parse().unwrap();
    assert_eq!(
        exposed.map(|time| i128::from(time.as_unix_nanos())),
        Some(expected.as_nanosecond())
    );
    assert_eq!(taken(&[local]), None);
    let fields = [
        text(Tag::GPSDateStamp, "2024:05:06"),
        rational(Tag::GPSTimeStamp, &[(5, 1), (8, 1), (925, 100)]),
    ];
    let read = Header::read(&jpeg(8, 8, &[exif(&fields)])).unwrap();
    assert_eq!(
        read.exposed,
        exposed.map(|time| Timestamp::from_unix_nanos(time.as_unix_nanos()))
    );
}

#[test]
fn the_size_of_a_picture_is_limited_in_pixels() {
    let sized = |width: u16, height: u16| {
        let mut bytes = jpeg(16, 16, &[]);
        let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        Header::read(&bytes).map(|header| (header.width_px, header.height_px))
    };
    assert_eq!(sized(11_664, 8_750), Ok((11_664, 8_750)));
    for (width, height) in [(0, 10), (20_000, 20_000), (65_535, 65_535)] {
        let error = sized(width, height).unwrap_err();
        assert!(matches!(error, NotAPicture::Size { .. }), "{error}");
    }
}

#[test]
fn a_header_that_ends_early_is_none() {
    let whole = jpeg(64, 48, &[]);
    let (_, scan) = Header::with_scan(&whole).unwrap();
    for end in 3..scan {
        let read = Header::read(&whole[..end]);
        assert!(matches!(read, Err(NotAPicture::Header(_))), "cut at {end}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Header::read(&bytes);
        let _ = Header::read(&jpeg(8, 8, &[[EXIF_HEADER, &bytes].concat()]));
        let _ = Header::read(&jpeg(8, 8, &[[XMP_HEADER, &bytes].concat()]));
    }

    #[test]
    fn no_flipped_byte_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = jpeg(8, 8, &[exif(&gps_fields()), xmp("drone-dji:RelativeAltitude=\"+4\">")]);
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = Header::read(&bytes);
    }
}
