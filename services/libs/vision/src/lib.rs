//! The only crate that links OpenCV: reading cameras, streams and files as JPEG frames.
//!
//! * In: a [`Source`]. Out: [`JpegFrame`]s, one a call, until the source ends or fails.
//! * Invariants: no OpenCV type leaves this crate; every blocking call has a limit ([`OPEN_LIMIT`],
//!   [`READ_LIMIT`]) where the back end knows one.
//!
//! Absent on purpose: threads, pacing, reconnecting: whoever reads decides when.

mod capture;

pub use capture::{Capture, CaptureError, JpegFrame, OPEN_LIMIT, READ_LIMIT, Source};
