//! The XMP part: what makers say of attitude, height and lens, as attributes or as elements.
//!
//! Read leniently, as exiftool does, because drones write packets that no strict parser takes: prefixes
//! without a namespace, attributes twice, bare ampersands, zero bytes, no `x:xmpmeta` around it. A prefix
//! that is bound to a namespace means what that namespace says; any other means what it usually does.
//! Degenerate cases: a value that is no number is noted as damage and the rest is used; of a property that
//! comes twice the last one counts.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::{Attitude, Calibrated, Dewarp, Header, Projection};

/// Elements within each other; makers nest four or five. Deeper ones are not looked at.
const MAX_DEPTH: usize = 32;
/// Namespaces of one packet; makers bind a dozen. Later ones are known by their prefix alone.
const MAX_NAMESPACES: usize = 256;
/// Characters of a lens's name that are kept.
const MAX_LENS_NAME: usize = 40;
/// A number beyond a whole turn is no angle, degrees: some makers write a filler where they know none.
const MAX_ANGLE_DEG: f64 = 360.0;

/// Whose vocabulary a property is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vocabulary {
    /// DJI's, which Autel took over with its newer firmware.
    Dji,
    Skydio,
    Parrot,
    /// Pix4D's `Camera`, used by senseFly, Parrot, Sentera, MicaSense, FLIR and older Autel firmware.
    Camera,
    /// Google's photo sphere.
    GPano,
    /// Adobe's copy of Exif, with further properties by Teal.
    Exif,
    Tiff,
}

impl Vocabulary {
    fn of(prefix: &str, namespace: Option<&str>) -> Option<Self> {
        const NAMESPACES: [(&str, Vocabulary); 9] = [
            ("dji.com/drone-dji", Vocabulary::Dji),
            ("autelrobotics.com/", Vocabulary::Dji),
            ("skydio.com/drone-skydio", Vocabulary::Skydio),
            ("parrot.com/drone-parrot", Vocabulary::Parrot),
            ("pix4d.com/camera", Vocabulary::Camera),
            ("sensefly.com/camera", Vocabulary::Camera),
            ("ns.google.com/photos/1.0/panorama", Vocabulary::GPano),
            ("ns.adobe.com/exif/1.0", Vocabulary::Exif),
            ("ns.adobe.com/tiff/1.0", Vocabulary::Tiff),
        ];
        const PREFIXES: [(&str, Vocabulary); 8] = [
            ("drone-dji", Vocabulary::Dji),
            ("drone", Vocabulary::Dji),
            ("drone-skydio", Vocabulary::Skydio),
            ("drone-parrot", Vocabulary::Parrot),
            ("Camera", Vocabulary::Camera),
            ("GPano", Vocabulary::GPano),
            ("exif", Vocabulary::Exif),
            ("tiff", Vocabulary::Tiff),
        ];
        let bound = namespace.map(str::to_ascii_lowercase).and_then(|name| {
            let known = NAMESPACES.iter().find(|(part, _)| name.contains(part));
            known.map(|(_, vocabulary)| *vocabulary)
        });
        let usual = || PREFIXES.iter().find(|(usual, _)| *usual == prefix);
        bound.or_else(|| usual().map(|(_, vocabulary)| *vocabulary))
    }
}

/// Reads a packet into `header`; what is damaged is noted there.
pub(crate) fn read(packet: &[u8], header: &mut Header) {
    let packet = String::from_utf8_lossy(packet);
    let mut reader = Reader::from_str(&packet);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let mut properties = Properties::default();
    let mut open: Vec<String> = Vec::new();
    let mut too_deep = 0_usize;
    loop {
        match reader.read_event() {
            Ok(Event::Start(element)) => {
                properties.take_attributes(&element, open.last());
                if open.len() < MAX_DEPTH {
                    open.push(name_of(&element));
                } else {
                    too_deep += 1;
                }
            }
            Ok(Event::Empty(element)) => {
                properties.take_attributes(&element, Some(&name_of(&element)));
            }
            Ok(Event::End(_)) if too_deep > 0 => too_deep -= 1,
            Ok(Event::End(_)) => drop(open.pop()),
            Ok(Event::Text(text)) if too_deep == 0 => {
                let text = String::from_utf8_lossy(&text);
                if let Some((name, outer)) = open.split_last() {
                    properties.take(name, outer.last().map(String::as_str), &text);
                }
            }
            Ok(Event::Eof) => break,
            Ok(
                Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_),
            ) => {}
            Err(_) => {
                properties.damaged = true;
                break;
            }
        }
    }
    properties.finish(header);
}

fn name_of(element: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(element.name().as_ref()).into_owned()
}

/// What was found so far, each maker's word by itself.
#[derive(Default)]
struct Properties {
    namespaces: HashMap<String, String>,
    said: Header,
    latitude_deg: Option<f64>,
    longitude_deg: Option<f64>,
    ned: Attitude,
    parrot: Attitude,
    on_platform: Attitude,
    platform: Attitude,
    calibrated: Calibrated,
    dewarped: bool,
    damaged: bool,
}

impl Properties {
    fn take_attributes(&mut self, element: &BytesStart<'_>, within: Option<&String>) {
        let mut attributes = element.attributes();
        attributes.with_checks(false);
        let mut read = Vec::new();
        for attribute in attributes {
            let Ok(attribute) = attribute else {
                self.damaged = true;
                break;
            };
            let name = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
            let value = String::from_utf8_lossy(&attribute.value).into_owned();
            match name.strip_prefix("xmlns:") {
                Some(prefix) if self.namespaces.len() < MAX_NAMESPACES => {
                    self.namespaces.insert(prefix.to_owned(), value);
                }
                Some(_) => {}
                None => read.push((name, value)),
            }
        }
        // A prefix may be bound after its first use, in the same element.
        for (name, value) in read {
            self.take(&name, within.map(String::as_str), &value);
        }
    }

    /// A property; `within` is the element around it, of which it is a part if that is a structure.
    fn take(&mut self, name: &str, within: Option<&str>, text: &str) {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let Some((prefix, name)) = name.split_once(':') else {
            return;
        };
        let namespace = self.namespaces.get(prefix).map(String::as_str);
        if text.is_empty() {
            return;
        }
        let Some(vocabulary) = Vocabulary::of(prefix, namespace) else {
            return;
        };
        let structure = within.and_then(|within| Some(within.split_once(':')?.1));
        match vocabulary {
            Vocabulary::Dji => self.take_dji(name, text),
            Vocabulary::Skydio => self.take_skydio(structure.unwrap_or_default(), name, text),
            Vocabulary::Parrot => self.take_parrot(name, text),
            Vocabulary::Camera => self.take_camera(name, text),
            Vocabulary::GPano => self.take_pano(name, text),
            Vocabulary::Exif => self.take_exif(name, text),
            Vocabulary::Tiff => match name {
                "Make" => self.said.make = Some(text.to_owned()),
                "Model" => self.said.model = Some(text.to_owned()),
                _ => {}
            },
        }
    }

    fn take_dji(&mut self, name: &str, text: &str) {
        let said = &mut self.said;
        let target = match name {
            // The barometer's word is finer than the Exif rational, and the same quantity.
            "AbsoluteAltitude" => &mut said.altitude_m,
            "RelativeAltitude" => &mut said.relative_altitude_m,
            "GimbalRollDegree" => return self.angle(text, |p| &mut p.said.gimbal.roll_deg),
            "GimbalPitchDegree" => return self.angle(text, |p| &mut p.said.gimbal.pitch_deg),
            "GimbalYawDegree" => return self.angle(text, |p| &mut p.said.gimbal.yaw_deg),
            "FlightRollDegree" => return self.angle(text, |p| &mut p.said.flight.roll_deg),
            "FlightPitchDegree" => return self.angle(text, |p| &mut p.said.flight.pitch_deg),
            "FlightYawDegree" => return self.angle(text, |p| &mut p.said.flight.yaw_deg),
            "GpsLatitude" | "Latitude" => &mut self.latitude_deg,
            // The makers' own spelling, and the other one.
            "GpsLongitude" | "GpsLongtitude" | "Longitude" => &mut self.longitude_deg,
            "CalibratedFocalLength" => &mut self.calibrated.fx_px,
            "CalibratedOpticalCenterX" => &mut self.calibrated.cx_px,
            "CalibratedOpticalCenterY" => &mut self.calibrated.cy_px,
            "DewarpFlag" => {
                self.dewarped = text == "1";
                return;
            }
            "ImageSource" => {
                said.lens = Some(text.chars().take(MAX_LENS_NAME).collect());
                return;
            }
            "DewarpData" => return self.take_dewarp_data(text),
            // RtkFlag 0 says that there was no correction; AltitudeType names the source.
            "RtkFlag" => {
                said.altitude_is_ellipsoidal |= number(text).is_some_and(|flag| flag > 0.0);
                return;
            }
            "AltitudeType" => {
                said.altitude_is_ellipsoidal |= text.eq_ignore_ascii_case("RtkAlt");
                return;
            }
            _ => return,
        };
        match number(text) {
            Some(value) => *target = Some(value),
            None => self.damaged = true,
        }
    }

    /// `date;fx,fy,cx,cy,k1,k2,p1,p2,k3`, pixels; the centre relative to that of the picture.
    fn take_dewarp_data(&mut self, text: &str) {
        let values = text.rsplit(';').next().unwrap_or(text);
        let values: Vec<f64> = values.split(',').filter_map(number).collect();
        let Ok([fx, fy, cx, cy, k1, k2, p1, p2, k3]) = <[f64; 9]>::try_from(values) else {
            self.damaged = true;
            return;
        };
        self.calibrated.dewarp = Some(Dewarp {
            fx_px: fx,
            fy_px: fy,
            from_centre_px: [cx, cy],
        });
        self.calibrated.distortion = [k1, k2, p1, p2, k3];
    }

    fn take_skydio(&mut self, structure: &str, name: &str, text: &str) {
        let target = match (structure, name) {
            ("CameraOrientationNED", "Roll") => return self.angle(text, |p| &mut p.ned.roll_deg),
            ("CameraOrientationNED", "Pitch") => return self.angle(text, |p| &mut p.ned.pitch_deg),
            ("CameraOrientationNED", "Yaw") => return self.angle(text, |p| &mut p.ned.yaw_deg),
            (_, "AbsoluteAltitude") => &mut self.said.altitude_m,
            (_, "RelativeAltitude") => &mut self.said.relative_altitude_m,
            (_, "Latitude") => &mut self.latitude_deg,
            (_, "Longitude") => &mut self.longitude_deg,
            ("CalibratedFocalLength", "X") | (_, "CalibratedFocalLengthX") => {
                &mut self.calibrated.fx_px
            }
            ("CalibratedFocalLength", "Y") | (_, "CalibratedFocalLengthY") => {
                &mut self.calibrated.fy_px
            }
            ("CalibratedOpticalCenter", "X") | (_, "CalibratedOpticalCenterX") => {
                &mut self.calibrated.cx_px
            }
            ("CalibratedOpticalCenter", "Y") | (_, "CalibratedOpticalCenterY") => {
                &mut self.calibrated.cy_px
            }
            (_, "DewarpData") => {
                let values: Vec<f64> = text.split(',').filter_map(number).collect();
                if let [k1, k2, k3] = values[..] {
                    self.calibrated.distortion = [k1, k2, 0.0, 0.0, k3];
                }
                return;
            }
            _ => return,
        };
        match number(text) {
            Some(value) => *target = Some(value),
            None => self.damaged = true,
        }
    }

    fn take_parrot(&mut self, name: &str, text: &str) {
        match name {
            "CameraRollDegree" => self.angle(text, |p| &mut p.parrot.roll_deg),
            "CameraPitchDegree" => self.angle(text, |p| &mut p.parrot.pitch_deg),
            "CameraYawDegree" => self.angle(text, |p| &mut p.parrot.yaw_deg),
            _ => {}
        }
    }

    fn take_camera(&mut self, name: &str, text: &str) {
        match name {
            "Roll" => self.angle(text, |p| &mut p.said.camera.roll_deg),
            "Pitch" => self.angle(text, |p| &mut p.said.camera.pitch_deg),
            "Yaw" => self.angle(text, |p| &mut p.said.camera.yaw_deg),
            "AboveGroundAltitude" => match number(text) {
                Some(metres) => self.said.above_ground_m = Some(metres),
                None => self.damaged = true,
            },
            "ModelType" if text.eq_ignore_ascii_case("fisheye") => {
                self.said.projection = Projection::Fisheye;
            }
            _ => {}
        }
    }

    fn take_pano(&mut self, name: &str, text: &str) {
        match name {
            "PoseRollDegrees" => self.angle(text, |p| &mut p.said.pano.roll_deg),
            "PosePitchDegrees" => self.angle(text, |p| &mut p.said.pano.pitch_deg),
            "PoseHeadingDegrees" => self.angle(text, |p| &mut p.said.pano.yaw_deg),
            "ProjectionType" if !text.eq_ignore_ascii_case("perspective") => {
                self.said.projection = Projection::Panorama;
            }
            _ => {}
        }
    }

    fn take_exif(&mut self, name: &str, text: &str) {
        match name {
            "CameraRoll" => self.angle(text, |p| &mut p.on_platform.roll_deg),
            "CameraPitch" => self.angle(text, |p| &mut p.on_platform.pitch_deg),
            "CameraYaw" => self.angle(text, |p| &mut p.on_platform.yaw_deg),
            "PlatformRoll" => self.angle(text, |p| &mut p.platform.roll_deg),
            "PlatformPitch" => self.angle(text, |p| &mut p.platform.pitch_deg),
            "PlatformYaw" => self.angle(text, |p| &mut p.platform.yaw_deg),
            _ => {}
        }
    }

    fn angle(&mut self, text: &str, of: impl FnOnce(&mut Self) -> &mut Option<f64>) {
        match number(text).filter(|degrees| degrees.abs() <= MAX_ANGLE_DEG) {
            Some(degrees) => *of(self) = Some(degrees),
            None => self.damaged = true,
        }
    }

    fn finish(self, header: &mut Header) {
        let said = self.said;
        let place = self.latitude_deg.zip(self.longitude_deg);
        let place = place.filter(|(latitude, longitude)| {
            latitude.abs() <= 90.0
                && longitude.abs() <= 180.0
                && (*latitude != 0.0 || *longitude != 0.0)
        });
        header.gps = header.gps.or(place);
        header.make = header.make.take().or(said.make);
        header.model = header.model.take().or(said.model);
        header.lens = said.lens;
        header.altitude_is_ellipsoidal |= said.altitude_is_ellipsoidal;
        header.altitude_m = said.altitude_m.or(header.altitude_m);
        header.relative_altitude_m = said.relative_altitude_m;
        header.above_ground_m = said.above_ground_m;
        header.flight = said.flight;
        header.camera = said.camera;
        header.pano = said.pano;
        header.projection = said.projection;
        // Each maker writes its own and nothing of the others.
        let on_ground = sum(self.on_platform, self.platform);
        header.gimbal = [said.gimbal, self.ned, self.parrot, on_ground]
            .into_iter()
            .find(|attitude| *attitude != Attitude::default())
            .unwrap_or_default();
        header.calibrated = Calibrated {
            distortion: if self.dewarped {
                [0.0; 5]
            } else {
                self.calibrated.distortion
            },
            ..self.calibrated
        };
        if self.damaged {
            header.damaged.push("xmp");
        }
    }
}

/// Angles of a camera on a platform that has angles of its own: Teal writes both, and means their sum.
fn sum(on_platform: Attitude, platform: Attitude) -> Attitude {
    let both = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
    Attitude {
        roll_deg: both(on_platform.roll_deg, platform.roll_deg),
        pitch_deg: both(on_platform.pitch_deg, platform.pitch_deg),
        yaw_deg: both(on_platform.yaw_deg, platform.yaw_deg).map(|yaw| yaw.rem_euclid(360.0)),
    }
}

/// A decimal number, with the leading plus that makers write, or a fraction as Exif has them.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let value = match text.split_once('/') {
        Some((over, under)) => {
            over.trim().parse::<f64>().ok()? / under.trim().parse::<f64>().ok()?
        }
        None => text.parse::<f64>().ok()?,
    };
    value.is_finite().then_some(value)
}
