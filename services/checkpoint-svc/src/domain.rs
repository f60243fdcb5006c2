//! What the store decides, without files and clocks.

mod checkpoint;
mod object;

pub(crate) use checkpoint::{Checkpoint, Decision, decide};
pub(crate) use object::{CLASSES, Class, Object, Rank, Retention, check_pin_name};
