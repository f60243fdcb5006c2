//! Which way a camera looked, in the words of its picture. `docs/pictures.md` lists them by maker.
//!
//! Order: the maker's gimbal, Pix4D's `Camera`, Google's photo sphere, the compass of Exif. The first that
//! says pitch and yaw is believed, and everything becomes the gimbal's convention: pitch 0 looks to the
//! horizon, -90 straight down, yaw turns clockwise from true north.
//!
//! Degenerate cases: all angles exactly zero are what cameras write that know none. A pitch that can be
//! counted from the horizon as well as from straight down is no attitude until somebody says which: a
//! wrong guess would paint the ground elsewhere. A heading from magnetic north is none either.

use sovereign_model::geo::Attitude;
use sovereign_picture::{Attitude as Said, Header};

/// How the words of a camera model are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) model: String,
    pub(crate) heading: Heading,
    pub(crate) camera_pitch: Option<PitchFrom>,
}

/// Which of DJI's two headings to believe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Heading {
    #[default]
    Gimbal,
    /// The airframe's: for gimbals that follow the nose and know their heading only from their own gyro.
    Flight,
}

/// What a pitch of 0 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PitchFrom {
    StraightDown,
    Horizon,
}

/// Readings unless the configuration says otherwise. FC300S: see [`super::camera::built_in`].
pub(crate) fn built_in() -> Vec<Reading> {
    vec![Reading {
        model: "FC300S".to_owned(),
        heading: Heading::Flight,
        camera_pitch: None,
    }]
}

/// Makes and models that write Pix4D's `Camera` and do not keep to it, or not with every firmware: Parrot's
/// drones with a gimbal, and FLIR's cameras, which copy what an autopilot tells them.
const UNSURE: [&str; 2] = ["anafi", "flir"];
/// A camera does not look further back than this past straight down, degrees.
const LOOKS_BACK_DEG: f64 = 45.0;

/// The picture says an attitude in words that can mean two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the pitch of `Camera:Pitch` can be counted from straight down or from the horizon with the camera \
     model `{model}`: set `camera_pitch` of that model to `straight-down` or `horizon`"
)]
pub(crate) struct Ambiguous {
    model: String,
}

/// The attitude of the camera; `None` when the picture says none.
pub(crate) fn attitude_of(
    picture: &Header,
    readings: &[Reading],
) -> Result<Option<Attitude>, Ambiguous> {
    let model = picture.camera_name().unwrap_or_default();
    let reading = readings.iter().find(|reading| reading.model == model);
    let heading = reading.map_or(Heading::Gimbal, |reading| reading.heading);
    if let Some(attitude) = of_gimbal(picture, heading) {
        return Ok(Some(attitude));
    }
    if let Some(attitude) = whole(picture.camera) {
        let from = reading.and_then(|reading| reading.camera_pitch);
        return match from.or_else(|| usual(picture, attitude.pitch_deg)) {
            Some(PitchFrom::Horizon) => Ok(Some(attitude)),
            Some(PitchFrom::StraightDown) => Ok(Some(from_straight_down(picture, attitude))),
            None => Err(Ambiguous { model }),
        };
    }
    Ok(whole(picture.pano).or_else(|| of_compass(picture)))
}

/// Pitch and yaw, with a roll where there is one; nothing when all are zero.
fn whole(said: Said) -> Option<Attitude> {
    let (pitch_deg, yaw_deg) = (said.pitch_deg?, said.yaw_deg?);
    let roll_deg = said.roll_deg.unwrap_or(0.0);
    let is_filler = pitch_deg == 0.0 && yaw_deg == 0.0 && roll_deg == 0.0;
    (!is_filler).then_some(Attitude {
        roll_deg,
        pitch_deg,
        yaw_deg,
    })
}

/// DJI's gimbal. Older models write a heading of 0.00 for one that they do not know, beside the airframe's
/// that they do; newer ones leave it out.
fn of_gimbal(picture: &Header, heading: Heading) -> Option<Attitude> {
    let (gimbal, flight) = (picture.gimbal, picture.flight.yaw_deg);
    let known = gimbal
        .yaw_deg
        .filter(|yaw| *yaw != 0.0 || flight.is_none_or(|flight| flight == 0.0));
    let yaw_deg = match heading {
        Heading::Gimbal => known.or(flight),
        Heading::Flight => flight.or(known),
    };
    whole(Said { yaw_deg, ..gimbal })
}

/// What a pitch of 0 means in the words of Pix4D, unless it may be something else.
fn usual(picture: &Header, pitch_deg: f64) -> Option<PitchFrom> {
    let lower = |text: &Option<String>| text.as_deref().unwrap_or_default().to_lowercase();
    let (make, model) = (lower(&picture.make), lower(&picture.model));
    let is_unsure = UNSURE
        .iter()
        .any(|unsure| make.contains(unsure) || model.contains(unsure));
    (!is_unsure && pitch_deg >= -LOOKS_BACK_DEG).then_some(PitchFrom::StraightDown)
}

/// Pix4D: nose up is a camera that looks forward, and 90 is the horizon. senseFly turns its roll the
/// other way round.
fn from_straight_down(picture: &Header, said: Attitude) -> Attitude {
    let make = picture.make.as_deref().unwrap_or_default();
    let sign = if make.to_lowercase().contains("sensefly") {
        -1.0
    } else {
        1.0
    };
    Attitude {
        roll_deg: sign * said.roll_deg,
        pitch_deg: said.pitch_deg - 90.0,
        yaw_deg: said.yaw_deg,
    }
}

/// Exif says where a picture was taken to and how steeply, nothing of how it was held: level.
fn of_compass(picture: &Header) -> Option<Attitude> {
    let direction = picture
        .direction
        .filter(|direction| !direction.is_magnetic)?;
    Some(Attitude {
        roll_deg: 0.0,
        pitch_deg: picture.elevation_deg?,
        yaw_deg: direction.degrees,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sovereign_picture::Direction;

    fn said(roll: f64, pitch: f64, yaw: f64) -> Said {
        Said {
            roll_deg: Some(roll),
            pitch_deg: Some(pitch),
            yaw_deg: Some(yaw),
        }
    }

    fn by(make: &str, model: &str) -> Header {
        Header {
            make: Some(make.to_owned()),
            model: Some(model.to_owned()),
            ..Header::default()
        }
    }

    fn angles(picture: &Header) -> Option<(f64, f64, f64)> {
        let attitude = attitude_of(picture, &built_in()).unwrap();
        attitude.map(|a| (a.roll_deg, a.pitch_deg, a.yaw_deg))
    }

    #[test]
    fn the_makers_gimbal_comes_first() {
        let picture = Header {
            gimbal: said(0.2, -74.5, 127.4),
            camera: said(0.0, 15.5, 127.4),
            ..by("Parrot", "ANAFIUSA")
        };
        assert_eq!(angles(&picture), Some((0.2, -74.5, 127.4)));
    }

    #[test]
    fn zeros_are_what_a_camera_writes_that_knows_nothing() {
        let dji = |gimbal: Said, flight_yaw| Header {
            gimbal,
            flight: Said {
                yaw_deg: flight_yaw,
                ..Said::default()
            },
            ..by("DJI", "FC300X")
        };
        assert_eq!(angles(&dji(said(0.0, 0.0, 0.0), None)), None);
        // A heading that is unknown, beside one that is not.
        let north = dji(said(0.0, -90.0, 0.0), Some(131.5));
        assert_eq!(angles(&north), Some((0.0, -90.0, 131.5)));
        let north = dji(said(0.0, -90.0, 0.0), Some(0.0));
        assert_eq!(angles(&north), Some((0.0, -90.0, 0.0)));
        // Newer ones leave out what they do not know.
        let without_yaw = Said {
            yaw_deg: None,
            ..said(0.0, -90.0, 0.0)
        };
        assert_eq!(
            angles(&dji(without_yaw, Some(-20.0))),
            Some((0.0, -90.0, -20.0))
        );
        assert_eq!(angles(&dji(without_yaw, None)), None);
        let flir = Header {
            camera: said(0.0, 0.0, 0.0),
            ..by("FLIR", "Vue Pro R")
        };
        assert_eq!(angles(&flir), None);
    }

    #[test]
    fn pix4ds_pitch_is_counted_from_straight_down() {
        for (make, model, roll) in [
            ("Autel Robotics", "XT701", 3.0),
            ("senseFly", "S.O.D.A.", -3.0),
            ("Sentera", "21244-00", 3.0),
            ("Parrot", "Bebop 2", 3.0),
            ("Acme", "One", 3.0),
        ] {
            let picture = Header {
                camera: said(3.0, 66.04, 2.42),
                ..by(make, model)
            };
            let (r, pitch, yaw) = angles(&picture).unwrap();
            assert_eq!((r, yaw), (roll, 2.42), "{make}");
            assert!((pitch + 23.96).abs() < 1e-9, "{make}");
        }
    }

    #[test]
    fn a_pitch_that_can_mean_two_needs_a_word() {
        for (make, model, pitch) in [
            ("Parrot", "ANAFI", 90.0),
            ("Parrot", "anafi4k", 0.5),
            ("FLIR", "Vue Pro R", 12.0),
            ("senseFly", "S.O.D.A.", -88.0),
        ] {
            let picture = Header {
                camera: said(1.0, pitch, 45.0),
                ..by(make, model)
            };
            let error = attitude_of(&picture, &built_in()).unwrap_err();
            assert!(error.to_string().contains(model), "{error}");
            for (from, expected) in [
                (PitchFrom::Horizon, pitch),
                (PitchFrom::StraightDown, pitch - 90.0),
            ] {
                let readings = [Reading {
                    model: model.to_owned(),
                    heading: Heading::Gimbal,
                    camera_pitch: Some(from),
                }];
                let read = attitude_of(&picture, &readings).unwrap().unwrap();
                assert_eq!(read.pitch_deg, expected, "{make} {model}");
            }
        }
    }

    #[test]
    fn sphere_and_compass_are_the_last_resort() {
        let mut phone = Header {
            direction: Some(Direction {
                degrees: 250.0,
                is_magnetic: false,
            }),
            ..by("Google", "Pixel")
        };
        assert_eq!(angles(&phone), None, "how steeply it looked is not known");
        phone.elevation_deg = Some(-40.0);
        assert_eq!(angles(&phone), Some((0.0, -40.0, 250.0)));
        phone.direction = phone.direction.map(|direction| Direction {
            is_magnetic: true,
            ..direction
        });
        assert_eq!(angles(&phone), None);
        phone.pano = said(1.0, -30.0, 12.0);
        assert_eq!(angles(&phone), Some((1.0, -30.0, 12.0)));
    }
}
