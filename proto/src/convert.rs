//! Wire types and model types, in both directions.
//!
//! Model to wire never fails and is `From`. Wire to model checks everything and is `TryFrom` of a
//! reference; the error names the field, relative to the message, and [`FieldError::within`] puts the
//! path to the message before it: `pose.position.latitude_deg is 91, which is out of range`.

use nalgebra::{Quaternion, UnitQuaternion};
use sovereign_model::geo::{Attitude, Bounds, Geodetic, OutOfRange, Position, TileCoord};
use sovereign_model::{
    CameraPose, Digest, Distortion, Intrinsics, InvalidIntrinsics, InvalidRelief, Relief,
};

use crate::geo::v1 as wire;
use crate::slam::v1 as slam;

/// A field of a message that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} {why}")]
pub struct FieldError {
    /// Path of the field from the message that was converted.
    pub field: String,
    /// The rest of the sentence.
    pub why: String,
}

impl FieldError {
    /// `field` cannot be used; `why` completes the sentence, as in "is missing".
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            why: why.into(),
        }
    }

    /// The same error seen from the message that holds this one in its field `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> FieldError {
        FieldError {
            field: format!("{outer}.{}", self.field),
            why: self.why,
        }
    }
}

impl From<OutOfRange> for FieldError {
    fn from(error: OutOfRange) -> FieldError {
        out_of_range(error.field, error.value)
    }
}

impl From<InvalidIntrinsics> for FieldError {
    fn from(error: InvalidIntrinsics) -> FieldError {
        FieldError::new(
            error.field,
            format!("is {}, which no camera has", error.value),
        )
    }
}

impl From<InvalidRelief> for FieldError {
    fn from(error: InvalidRelief) -> FieldError {
        FieldError::new(error.field, error.why)
    }
}

fn out_of_range(field: &str, value: f64) -> FieldError {
    FieldError::new(field, format!("is {value}, which is out of range"))
}

/// A message field that must be there.
///
/// # Errors
/// `<field> is missing`.
pub fn required<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "is missing"))
}

/// A message field that must be there, converted.
///
/// # Errors
/// `<field> is missing`, or what is wrong inside it.
pub fn converted<'a, W, M>(field: &str, value: Option<&'a W>) -> Result<M, FieldError>
where
    M: TryFrom<&'a W, Error = FieldError>,
{
    M::try_from(required(field, value)?).map_err(|error| error.within(field))
}

/// A field of 32 bytes that is a SHA-256.
///
/// # Errors
/// Any other length.
pub fn digest(field: &str, bytes: &[u8]) -> Result<Digest, FieldError> {
    Digest::from_slice(bytes)
        .map_err(|error| FieldError::new(field, format!("is unusable: {error}")))
}

impl From<Geodetic> for wire::GeoPoint {
    fn from(point: Geodetic) -> wire::GeoPoint {
        wire::GeoPoint {
            latitude_deg: point.latitude_deg,
            longitude_deg: point.longitude_deg,
            altitude_m: Some(point.altitude_m),
        }
    }
}

/// Needs an altitude; a place without one is a [`Position`].
impl TryFrom<&wire::GeoPoint> for Geodetic {
    type Error = FieldError;

    fn try_from(point: &wire::GeoPoint) -> Result<Geodetic, FieldError> {
        let altitude_m = *required("altitude_m", point.altitude_m.as_ref())?;
        Ok(Geodetic::new(
            point.latitude_deg,
            point.longitude_deg,
            altitude_m,
        )?)
    }
}

impl From<Position> for wire::GeoPoint {
    fn from(position: Position) -> wire::GeoPoint {
        wire::GeoPoint {
            latitude_deg: position.latitude_deg,
            longitude_deg: position.longitude_deg,
            altitude_m: position.altitude_m,
        }
    }
}

impl TryFrom<&wire::GeoPoint> for Position {
    type Error = FieldError;

    fn try_from(point: &wire::GeoPoint) -> Result<Position, FieldError> {
        Ok(Position::new(
            point.latitude_deg,
            point.longitude_deg,
            point.altitude_m,
        )?)
    }
}

impl From<Attitude> for wire::Attitude {
    fn from(attitude: Attitude) -> wire::Attitude {
        wire::Attitude {
            roll_deg: attitude.roll_deg,
            pitch_deg: attitude.pitch_deg,
            yaw_deg: attitude.yaw_deg,
        }
    }
}

impl TryFrom<&wire::Attitude> for Attitude {
    type Error = FieldError;

    fn try_from(attitude: &wire::Attitude) -> Result<Attitude, FieldError> {
        /// Senders count yaw to 360 and roll to 180; beyond one full turn it is no angle any more.
        const FULL_TURN_DEG: f64 = 360.0;
        let angle = |field, value: f64| {
            if value.abs() <= FULL_TURN_DEG {
                Ok(value)
            } else {
                Err(out_of_range(field, value))
            }
        };
        Ok(Attitude {
            roll_deg: angle("roll_deg", attitude.roll_deg)?,
            pitch_deg: angle("pitch_deg", attitude.pitch_deg)?,
            yaw_deg: angle("yaw_deg", attitude.yaw_deg)?,
        })
    }
}

impl From<UnitQuaternion<f64>> for wire::Quaternion {
    fn from(rotation: UnitQuaternion<f64>) -> wire::Quaternion {
        wire::Quaternion {
            w: rotation.w,
            x: rotation.i,
            y: rotation.j,
            z: rotation.k,
        }
    }
}

impl TryFrom<&wire::Quaternion> for UnitQuaternion<f64> {
    type Error = FieldError;

    fn try_from(rotation: &wire::Quaternion) -> Result<UnitQuaternion<f64>, FieldError> {
        /// Rounding to four digits on the way is forgiven; anything else was never a rotation.
        const TOLERANCE: f64 = 1e-3;
        let quaternion = Quaternion::new(rotation.w, rotation.x, rotation.y, rotation.z);
        let norm = quaternion.norm();
        if (norm - 1.0).abs() <= TOLERANCE {
            Ok(UnitQuaternion::from_quaternion(quaternion))
        } else {
            Err(FieldError::new(
                "w",
                format!("with x, y, z has length {norm}, which is not 1"),
            ))
        }
    }
}

impl From<Intrinsics> for wire::Intrinsics {
    fn from(camera: Intrinsics) -> wire::Intrinsics {
        let Distortion { k1, k2, k3, p1, p2 } = *camera.distortion();
        wire::Intrinsics {
            width_px: camera.width_px(),
            height_px: camera.height_px(),
            fx_px: camera.fx_px(),
            fy_px: camera.fy_px(),
            cx_px: camera.cx_px(),
            cy_px: camera.cy_px(),
            k1,
            k2,
            k3,
            p1,
            p2,
        }
    }
}

impl TryFrom<&wire::Intrinsics> for Intrinsics {
    type Error = FieldError;

    fn try_from(camera: &wire::Intrinsics) -> Result<Intrinsics, FieldError> {
        Ok(Intrinsics::new(
            camera.width_px,
            camera.height_px,
            camera.fx_px,
            camera.fy_px,
            camera.cx_px,
            camera.cy_px,
            0.0,
            0.0,
        )?
        .with_distortion(Distortion {
            k1: camera.k1,
            k2: camera.k2,
            k3: camera.k3,
            p1: camera.p1,
            p2: camera.p2,
        })?)
    }
}

impl From<&Relief> for slam::Relief {
    fn from(relief: &Relief) -> slam::Relief {
        slam::Relief {
            south_deg: relief.south_deg(),
            west_deg: relief.west_deg(),
            step_lat_deg: relief.step_lat_deg(),
            step_lon_deg: relief.step_lon_deg(),
            // At most 64.
            columns: relief.columns() as u32,
            metres: relief.metres().to_vec(),
        }
    }
}

impl TryFrom<&slam::Relief> for Relief {
    type Error = FieldError;

    fn try_from(relief: &slam::Relief) -> Result<Relief, FieldError> {
        Ok(Relief::new(
            relief.south_deg,
            relief.west_deg,
            relief.step_lat_deg,
            relief.step_lon_deg,
            relief.columns as usize,
            relief.metres.clone(),
        )?)
    }
}

impl From<CameraPose> for wire::Pose {
    fn from(pose: CameraPose) -> wire::Pose {
        wire::Pose {
            position: Some(pose.position.into()),
            enu_from_camera: Some(pose.enu_from_camera.into()),
            height_above_ground_m: Some(pose.height_above_ground_m),
        }
    }
}

/// Needs all three parts; a pose without orientation is a position, not a [`CameraPose`].
impl TryFrom<&wire::Pose> for CameraPose {
    type Error = FieldError;

    fn try_from(pose: &wire::Pose) -> Result<CameraPose, FieldError> {
        let height = *required("height_above_ground_m", pose.height_above_ground_m.as_ref())?;
        if !(height.is_finite() && height > 0.0) {
            return Err(FieldError::new(
                "height_above_ground_m",
                format!("is {height}, must be above 0"),
            ));
        }
        Ok(CameraPose {
            position: converted("position", pose.position.as_ref())?,
            enu_from_camera: converted("enu_from_camera", pose.enu_from_camera.as_ref())?,
            height_above_ground_m: height,
        })
    }
}

impl From<TileCoord> for wire::TileCoord {
    fn from(tile: TileCoord) -> wire::TileCoord {
        wire::TileCoord {
            z: u32::from(tile.z()),
            x: tile.x(),
            y: tile.y(),
        }
    }
}

impl TryFrom<&wire::TileCoord> for TileCoord {
    type Error = FieldError;

    fn try_from(tile: &wire::TileCoord) -> Result<TileCoord, FieldError> {
        let max = TileCoord::MAX_ZOOM;
        let z = u8::try_from(tile.z)
            .ok()
            .filter(|z| *z <= max)
            .ok_or_else(|| FieldError::new("z", format!("is {}, at most {max} exists", tile.z)))?;
        TileCoord::new(z, tile.x, tile.y).ok_or_else(|| {
            let last = (1_u64 << z) - 1;
            let (field, value) = if u64::from(tile.x) > last {
                ("x", tile.x)
            } else {
                ("y", tile.y)
            };
            FieldError::new(
                field,
                format!("is {value}, at most {last} exists at zoom {z}"),
            )
        })
    }
}

impl From<Bounds> for wire::Bounds {
    fn from(bounds: Bounds) -> wire::Bounds {
        wire::Bounds {
            west_deg: bounds.west_deg,
            south_deg: bounds.south_deg,
            east_deg: bounds.east_deg,
            north_deg: bounds.north_deg,
        }
    }
}

impl TryFrom<&wire::Bounds> for Bounds {
    type Error = FieldError;

    fn try_from(bounds: &wire::Bounds) -> Result<Bounds, FieldError> {
        let check = |field, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(out_of_range(field, value))
            }
        };
        let west_deg = check("west_deg", bounds.west_deg, -180.0, 180.0)?;
        let south_deg = check("south_deg", bounds.south_deg, -90.0, 90.0)?;
        Ok(Bounds {
            west_deg,
            south_deg,
            east_deg: check("east_deg", bounds.east_deg, west_deg, 180.0)?,
            north_deg: check("north_deg", bounds.north_deg, south_deg, 90.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pose() -> CameraPose {
        CameraPose::from_gimbal(
            Geodetic::new(46.8, -92.0, 198.0).unwrap(),
            Attitude {
                roll_deg: 1.0,
                pitch_deg: -80.0,
                yaw_deg: 33.0,
            },
            40.0,
        )
    }

    #[test]
    fn a_pose_comes_back() {
        let back = CameraPose::try_from(&wire::Pose::from(pose())).unwrap();
        assert_eq!(back.position, pose().position);
        assert!(back.enu_from_camera.angle_to(&pose().enu_from_camera) < 1e-9);
    }

    #[test]
    fn an_error_names_the_field_by_its_path() {
        let mut wrong = wire::Pose::from(pose());
        wrong.position.as_mut().unwrap().latitude_deg = 91.0;
        let error = converted::<_, CameraPose>("pose", Some(&wrong)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pose.position.latitude_deg is 91, which is out of range"
        );
        let error = converted::<wire::Pose, CameraPose>("pose", None).unwrap_err();
        assert_eq!(error.to_string(), "pose is missing");
    }

    #[test]
    fn what_is_missing_or_impossible_in_a_pose_is_named() {
        let field = |change: fn(&mut wire::Pose)| {
            let mut wrong = wire::Pose::from(pose());
            change(&mut wrong);
            CameraPose::try_from(&wrong).unwrap_err().field
        };
        assert_eq!(field(|p| p.position = None), "position");
        assert_eq!(field(|p| p.enu_from_camera = None), "enu_from_camera");
        assert_eq!(
            field(|p| p.height_above_ground_m = None),
            "height_above_ground_m"
        );
        assert_eq!(
            field(|p| p.height_above_ground_m = Some(0.0)),
            "height_above_ground_m"
        );
        assert_eq!(
            field(|p| p.height_above_ground_m = Some(f64::NAN)),
            "height_above_ground_m"
        );
        assert_eq!(
            field(|p| p.position.as_mut().unwrap().altitude_m = None),
            "position.altitude_m"
        );
        assert_eq!(
            field(|p| p.enu_from_camera = Some(wire::Quaternion::default())),
            "enu_from_camera.w"
        );
        assert_eq!(
            field(|p| p.enu_from_camera.as_mut().unwrap().x = f64::NAN),
            "enu_from_camera.w"
        );
    }

    #[test]
    fn a_place_without_altitude_is_a_place() {
        let point = wire::GeoPoint {
            latitude_deg: 1.0,
            longitude_deg: 2.0,
            altitude_m: None,
        };
        assert!(Geodetic::try_from(&point).is_err());
        let position = Position::try_from(&point).unwrap();
        assert_eq!((position.longitude_deg, position.altitude_m), (2.0, None));
    }

    #[test]
    fn impossible_tiles_bounds_angles_and_digests_are_refused_by_field() {
        let tile = |z, x, y| TileCoord::try_from(&wire::TileCoord { z, x, y }).map_err(|e| e.field);
        assert_eq!(tile(300, 0, 0), Err("z".to_owned()));
        assert_eq!(tile(25, 0, 0), Err("z".to_owned()));
        assert_eq!(tile(3, 8, 0), Err("x".to_owned()));
        assert_eq!(tile(3, 0, 8), Err("y".to_owned()));
        assert!(tile(3, 7, 7).is_ok());
        let crossed = wire::Bounds {
            west_deg: 10.0,
            south_deg: 0.0,
            east_deg: 9.0,
            north_deg: 1.0,
        };
        assert_eq!(Bounds::try_from(&crossed).unwrap_err().field, "east_deg");
        let spun = wire::Attitude {
            yaw_deg: 361.0,
            ..wire::Attitude::default()
        };
        assert_eq!(Attitude::try_from(&spun).unwrap_err().field, "yaw_deg");
        assert_eq!(
            digest("image_digest", &[0; 31]).unwrap_err().to_string(),
            "image_digest is unusable: digest has 31 bytes, must have 32"
        );
        assert_eq!(
            Intrinsics::try_from(&wire::Intrinsics::default())
                .unwrap_err()
                .to_string(),
            "width_px is 0, which no camera has"
        );
    }

    proptest! {
        #[test]
        fn tiles_come_back(z in 0_u8..=24, x in any::<u32>(), y in any::<u32>()) {
            let mask = (1_u32 << z) - 1;
            let tile = TileCoord::new(z, x & mask, y & mask).unwrap();
            prop_assert_eq!(TileCoord::try_from(&wire::TileCoord::from(tile)).unwrap(), tile);
        }

        #[test]
        fn cameras_come_back(focal in 200.0_f64..9000.0, k1 in -0.5_f64..0.5, k2 in -0.5_f64..0.5) {
            let camera = Intrinsics::new(752, 480, focal, focal, 370.0, 241.0, k1, k2).unwrap();
            prop_assert_eq!(Intrinsics::try_from(&wire::Intrinsics::from(camera)).unwrap(), camera);
        }

        #[test]
        fn bounds_come_back(west in -180.0_f64..0.0, east in 0.0_f64..180.0, south in -90.0_f64..0.0, north in 0.0_f64..90.0) {
            let bounds = Bounds { west_deg: west, south_deg: south, east_deg: east, north_deg: north };
            prop_assert_eq!(Bounds::try_from(&wire::Bounds::from(bounds)).unwrap(), bounds);
        }
    }
}
