use ::exif::experimental::Writer;
use ::exif::{Field, In, Rational, Tag, Value};
use proptest::prelude::*;

use super::*;
const EXIF_HEADER: &[u8] = b"Exif\0\0";
const DRONE_DJI: &str = "http://www.dji.com/drone-dji/1.0/";
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
    broken.extend(b"<x:xmpmeta><rdf:Description drone-dji:RelativeAltitude=");
    let garbage = [EXIF_HEADER, b"not a tiff"].concat();
    let read = Header::read(&jpeg(64, 48, &[broken, garbage, exif(&gps_fields())])).unwrap();
    assert_eq!(read.damaged, ["xmp"]);
    assert!(read.gps.is_some());
    let read = Header::read(&jpeg(64, 48, &[[EXIF_HEADER, b"not a tiff"].concat()])).unwrap();
    assert_eq!(read.damaged, ["exif"]);
    let words = xmp("drone-dji:GimbalYawDegree=\"north\" drone-dji:GimbalPitchDegree=\"NaN\">");
    let read = Header::read(&jpeg(64, 48, &[words])).unwrap();
    assert_eq!(read.gimbal, Attitude::default());
    assert_eq!(read.damaged, ["xmp"]);
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
    assert_eq!(read.damaged, ["xmp"]);
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

/// An attitude of all three angles.
fn angles(roll_deg: f64, pitch_deg: f64, yaw_deg: f64) -> Attitude {
    Attitude {
        roll_deg: Some(roll_deg),
        pitch_deg: Some(pitch_deg),
        yaw_deg: Some(yaw_deg),
    }
}

fn with_packet(inside: &str) -> Header {
    let mut payload = XMP_HEADER.to_vec();
    payload.extend(format!("<x:xmpmeta><rdf:RDF>{inside}</rdf:RDF></x:xmpmeta>").bytes());
    Header::read(&jpeg(64, 48, &[payload])).unwrap()
}

#[test]
fn each_maker_is_read_in_its_own_words() {
    // Skydio, a structure in both ways that RDF has.
    for orientation in [
        "<drone-skydio:CameraOrientationNED drone-skydio:Roll=\"0.19\" drone-skydio:Pitch=\"-74.5\" \
         drone-skydio:Yaw=\"127.4\"/>",
        "<drone-skydio:CameraOrientationNED rdf:parseType=\"Resource\">\
         <drone-skydio:Roll>0.19</drone-skydio:Roll><drone-skydio:Pitch>-74.5</drone-skydio:Pitch>\
         <drone-skydio:Yaw>127.4</drone-skydio:Yaw></drone-skydio:CameraOrientationNED>",
    ] {
        let read = with_packet(&format!(
            "<rdf:Description xmlns:drone-skydio=\"https://www.skydio.com/drone-skydio/1.0/\" \
             drone-skydio:AbsoluteAltitude=\"1034.44\" drone-skydio:Latitude=\"32.5\" \
             drone-skydio:Longitude=\"-110.9\">{orientation}\
             <drone-skydio:CameraOrientationFLU drone-skydio:Roll=\"9\" drone-skydio:Pitch=\"9\" \
             drone-skydio:Yaw=\"9\"/></rdf:Description>"
        ));
        assert_eq!(read.gimbal, angles(0.19, -74.5, 127.4), "{orientation}");
        assert_eq!(read.gps, Some((32.5, -110.9)));
        assert_eq!(read.altitude_m, Some(1034.44));
    }
    let parrot = with_packet(
        "<rdf:Description drone-parrot:CameraRollDegree=\"-0.32\" drone-parrot:CameraPitchDegree=\"-78.36\" \
         drone-parrot:CameraYawDegree=\"176.31\" Camera:Pitch=\"11.64\"/>",
    );
    assert_eq!(parrot.gimbal, angles(-0.32, -78.36, 176.31));
    assert_eq!(parrot.camera.pitch_deg, Some(11.64));
    // Teal: a camera on a platform, fractions.
    let teal = with_packet(
        "<rdf:Description xmlns:exif=\"http://ns.adobe.com/exif/1.0/\">\
         <exif:CameraPitch>-86831/1600</exif:CameraPitch><exif:PlatformPitch>-785007/200000</exif:PlatformPitch>\
         <exif:CameraYaw>359986359/1000000</exif:CameraYaw><exif:PlatformYaw>31901593/100000</exif:PlatformYaw>\
         <exif:CameraRoll>16501/1000000</exif:CameraRoll><exif:PlatformRoll>-1044397/1000000</exif:PlatformRoll>\
         </rdf:Description>",
    );
    let [roll, pitch, yaw] = [
        teal.gimbal.roll_deg,
        teal.gimbal.pitch_deg,
        teal.gimbal.yaw_deg,
    ];
    for (angle, expected) in [(roll, -1.027896), (pitch, -58.19441), (yaw, 319.002289)] {
        assert!((angle.unwrap() - expected).abs() < 1e-5, "{angle:?}");
    }
    // Autel writes DJI's words, one of them with DJI's spelling mistake.
    let autel = with_packet(
        "<rdf:Description xmlns:drone=\"http://www.autelrobotics.com/drone/1.0/\" \
         drone:GimbalPitchDegree=\"-60\" drone:GimbalYawDegree=\"10\" drone:GimbalRollDegree=\"0\" \
         drone:GpsLatitude=\"47.1\" drone:GpsLongtitude=\"8.5\" drone:RelativeAltitude=\"+31.5\"/>",
    );
    assert_eq!(autel.gimbal, angles(0.0, -60.0, 10.0));
    assert_eq!(
        (autel.gps, autel.relative_altitude_m),
        (Some((47.1, 8.5)), Some(31.5))
    );
    let sensefly = with_packet(
        "<rdf:Description xmlns:a=\"http://ns.sensefly.com/Camera/1.0/\" a:Roll=\"3.1\" a:Pitch=\"-4\" \
         a:Yaw=\"200\"/>",
    );
    assert_eq!(sensefly.camera, angles(3.1, -4.0, 200.0));
    assert_eq!(sensefly.gimbal, Attitude::default());
    let sphere = with_packet(
        "<rdf:Description GPano:ProjectionType=\"equirectangular\" GPano:PoseHeadingDegrees=\"12\" \
         GPano:PosePitchDegrees=\"-5\" GPano:PoseRollDegrees=\"1\"/>",
    );
    assert_eq!(sphere.pano, angles(1.0, -5.0, 12.0));
    assert_eq!(sphere.projection, Projection::Panorama);
}

#[test]
fn what_a_maker_measured_of_a_lens_is_read() {
    let dji = with_packet(
        "<rdf:Description drone-dji:CalibratedFocalLength=\"3666.67\" drone-dji:CalibratedOpticalCenterX=\"2736\" \
         drone-dji:CalibratedOpticalCenterY=\"1824\" \
         drone-dji:DewarpData=\"2020-08-04;3713.29,3708.36,7.47,-10.1,-0.26,0.11,0.0001,-0.0002,-0.04\"/>",
    );
    assert_eq!(dji.calibrated.fx_px, Some(3666.67));
    let dewarp = dji.calibrated.dewarp.unwrap();
    assert_eq!((dewarp.fx_px, dewarp.fy_px), (3713.29, 3708.36));
    assert_eq!(dewarp.from_centre_px, [7.47, -10.1]);
    assert_eq!(
        dji.calibrated.distortion,
        [-0.26, 0.11, 0.0001, -0.0002, -0.04]
    );
    let flattened = with_packet(
        "<rdf:Description drone-dji:DewarpFlag=\"1\" \
         drone-dji:DewarpData=\"2020-08-04;3713.29,3708.36,7.47,-10.1,-0.26,0.11,0.0001,-0.0002,-0.04\"/>",
    );
    assert_eq!(flattened.calibrated.distortion, [0.0; 5]);
    let skydio = with_packet(
        "<rdf:Description drone-skydio:DewarpData=\"0.13,-0.24,0.104\">\
         <drone-skydio:CalibratedFocalLength drone-skydio:X=\"2376.5\" drone-skydio:Y=\"2377.5\"/>\
         <drone-skydio:CalibratedOpticalCenter drone-skydio:X=\"2027.5\" drone-skydio:Y=\"1519.5\"/>\
         </rdf:Description>",
    );
    let expected = Calibrated {
        fx_px: Some(2376.5),
        fy_px: Some(2377.5),
        cx_px: Some(2027.5),
        cy_px: Some(1519.5),
        dewarp: None,
        distortion: [0.13, -0.24, 0.0, 0.0, 0.104],
    };
    assert_eq!(skydio.calibrated, expected);
}

#[test]
fn a_packet_that_no_strict_parser_takes_is_read() {
    const SAID: &str = "drone-dji:GimbalPitchDegree=\"-90\" drone-dji:RelativeAltitude=\"+60\"";
    for properties in [
        format!("{SAID} GPano:PoseHeadingDegrees=\"3\""),
        format!("drone-dji:CamReverse=\"0\" {SAID} drone-dji:CamReverse=\"0\""),
        format!("drone-dji:SelfData=\"R&D\" {SAID}"),
        format!("drone-dji:SelfData=\"a\0b\" {SAID}"),
        format!("{SAID} xmlns:drone-dji=\"{DRONE_DJI}\""),
        format!("{SAID} {}", "a:b=\"\" ".repeat(9_000)),
    ] {
        let read = with_packet(&format!("<rdf:Description {properties}/>"));
        assert_eq!(read.gimbal.pitch_deg, Some(-90.0), "{properties:.200}");
        assert_eq!(read.relative_altitude_m, Some(60.0), "{properties:.200}");
        let nested = format!("<rdf:Description {properties}>R & D</b></rdf:Description>");
        assert_eq!(with_packet(&nested).gimbal.pitch_deg, Some(-90.0));
    }
    // A prefix means what it is bound to, whatever it looks like.
    let rebound = with_packet(&format!(
        "<rdf:Description xmlns:a=\"{DRONE_DJI}\" a:RelativeAltitude=\"+61\"/>"
    ));
    assert_eq!(rebound.relative_altitude_m, Some(61.0));
    // Without a frame around it, and inside of the Exif part.
    let bare = [
        XMP_HEADER,
        format!("<rdf:RDF><rdf:Description {SAID}/></rdf:RDF>").as_bytes(),
    ]
    .concat();
    let inside = exif(&[field(
        Tag(::exif::Context::Tiff, 700),
        Value::Byte(bare[XMP_HEADER.len()..].to_vec()),
    )]);
    for part in [bare, inside] {
        let read = Header::read(&jpeg(64, 48, &[part])).unwrap();
        assert_eq!(read.relative_altitude_m, Some(60.0));
    }
}

#[test]
fn half_a_position_and_one_that_contradicts_itself_are_none() {
    let signed = |tag, degrees| {
        let part = |num, denom| ::exif::SRational { num, denom };
        field(
            tag,
            Value::SRational(vec![part(degrees, 1), part(30, 1), part(0, 1)]),
        )
    };
    let read = |latitude: Field, letter: Option<&str>| {
        let mut fields = vec![
            latitude,
            text(Tag::GPSLongitudeRef, "East"),
            rational(Tag::GPSLongitude, &[(151, 1)]),
        ];
        fields.extend(letter.map(|letter| text(Tag::GPSLatitudeRef, letter)));
        Header::read(&jpeg(64, 48, &[exif(&fields)])).unwrap()
    };
    let plus = || rational(Tag::GPSLatitude, &[(33, 1), (30, 1)]);
    assert_eq!(read(plus(), Some("South")).gps, Some((-33.5, 151.0)));
    for (latitude, letter, fault) in [
        (plus(), None, "GPSLatitudeRef"),
        (plus(), Some("?"), "GPSLatitudeRef"),
        (signed(Tag::GPSLatitude, -33), Some("N"), "both"),
        (signed(Tag::GPSLatitude, -33), Some("S"), "both"),
        (
            rational(Tag::GPSLatitude, &[(91, 1)]),
            Some("N"),
            "no place",
        ),
    ] {
        let read = read(latitude, letter);
        assert_eq!(read.gps, None, "{fault}");
        assert!(read.gps_fault.unwrap().contains(fault), "{fault}");
    }
}

#[test]
fn an_altitude_says_what_it_counts_from() {
    for (version, reference, metres, is_ellipsoidal) in [
        ("0230", 0, 10.1, false),
        ("0230", 1, -10.1, false),
        ("0300", 0, 10.1, true),
        ("0300", 1, -10.1, true),
        ("0300", 2, 10.1, false),
        ("0300", 3, -10.1, false),
    ] {
        let fields = [
            field(Tag::ExifVersion, Value::Undefined(version.into(), 0)),
            field(Tag::GPSAltitudeRef, Value::Byte(vec![reference])),
            rational(Tag::GPSAltitude, &[(101, 10)]),
        ];
        let read = Header::read(&jpeg(64, 48, &[exif(&fields)])).unwrap();
        assert_eq!(read.altitude_m, Some(metres), "{version} {reference}");
        assert_eq!(
            read.altitude_is_ellipsoidal, is_ellipsoidal,
            "{version} {reference}"
        );
    }
    let rtk = xmp("drone-dji:RtkFlag=\"50\" drone-dji:AbsoluteAltitude=\"+90.5\">");
    assert!(
        Header::read(&jpeg(64, 48, &[rtk]))
            .unwrap()
            .altitude_is_ellipsoidal
    );
}

#[test]
fn direction_and_sensor_are_read_from_exif() {
    let fields = [
        text(Tag::GPSImgDirectionRef, "T"),
        rational(Tag::GPSImgDirection, &[(3600, 10)]),
        field(
            Tag(::exif::Context::Exif, 0x9405),
            Value::SRational(vec![::exif::SRational { num: -90, denom: 1 }]),
        ),
        rational(Tag::FocalPlaneXResolution, &[(4_000_000, 1_320)]),
        field(Tag::FocalPlaneResolutionUnit, Value::Short(vec![3])),
        field(Tag::PixelXDimension, Value::Long(vec![128])),
    ];
    let read = Header::read(&jpeg(64, 48, &[exif(&fields)])).unwrap();
    let north = Direction {
        degrees: 0.0,
        is_magnetic: false,
    };
    assert_eq!(read.direction, Some(north));
    assert_eq!(read.elevation_deg, Some(-90.0));
    // 3.3 micrometres, and every second pixel was left out since.
    assert!((read.pixel_mm.unwrap() - 0.0066).abs() < 1e-9);
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
