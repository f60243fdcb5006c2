//! Pure values that every part of the system agrees on: who saw something, when, where, through which
//! camera, and what it hashes to.
//!
//! * [`SensorId`], [`Timestamp`], [`Digest`], [`Version`]: identity, time and content.
//! * [`geo`]: places on Earth. Frames are types (geodetic, ECEF, local east-north-up, Web Mercator),
//!   transforms are named after both of them.
//! * [`Intrinsics`], [`CameraPose`], [`View`]: a pinhole camera and where it was; pixel to ground and back.
//! * [`Relief`]: the shape of the ground under a picture.
//! * [`Image`]: RGB pixels whose size is known to be right.
//! * [`sealed`], [`unsealed`]: bytes that are stored with a digest of themselves and their place.
//!
//! In: nothing. Out: nothing. Invariants: a value that exists is valid (fields that could break a type
//! are private); angles are degrees in names that end in `_deg` and radians nowhere in the interface;
//! lengths are metres; pixel coordinates are measured from the outer edge of the picture, so that the
//! centre of the first pixel is (0.5, 0.5).
//!
//! Absent on purpose: clocks, randomness, input and output, any serialisation, any other crate of ours.

mod camera;
mod digest;
pub mod geo;
mod id;
mod image;
mod relief;
mod seal;
mod time;
mod version;

pub use camera::{CameraPose, Distortion, Intrinsics, InvalidIntrinsics, View};
pub use digest::{Digest, DigestBuilder, ParseDigestError};
pub use id::{InvalidSensorId, SensorId, frame_id};
pub use image::{Image, ImageSizeError};
pub use relief::{InvalidRelief, Relief};
pub use seal::{SEAL_BYTES, seal, sealed, unsealed};
pub use time::Timestamp;
pub use version::{InvalidVersion, Version};
