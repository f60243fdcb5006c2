//! What a picture says about itself, read in one place for every door, for the judge of poses and for
//! the painter: so what the painter would refuse is refused where it arrives.
//!
//! * [`Header`]: size, camera, place, attitude and time, without decoding a pixel.
//! * [`Inspector`]: the same while the bytes pass, and whether the picture is whole.
//! * [`decode`]: the pixels.
//!
//! Segments are walked by the decoder itself (`zune-jpeg`), which skips stray bytes between them as
//! libjpeg does. In: bytes. Out: values. Absent on purpose: what to make of them (a pose, a camera).

mod exif;
mod header;
mod inspect;
mod pixels;
mod xmp;

pub use header::{Attitude, Calibrated, Dewarp, Direction, Header, NotAPicture, Projection};
pub use inspect::Inspector;
pub use pixels::decode;

/// Most pixels of a picture: the largest aerial cameras have 102 million. A larger one is refused.
pub const MAX_PIXELS: u64 = 128_000_000;

/// Largest picture, bytes: a 100-megapixel camera writes 40 MB. A larger one is refused.
pub const MAX_BYTES: u64 = 64 << 20;

/// Bytes before the first pixel. Thermal cameras put their raw frame there, some 2 MB.
pub const MAX_HEADER_BYTES: usize = 8 << 20;
