//! What a checkpoint is, without files, clocks or generated types.

mod checkpoint;

pub(crate) use checkpoint::{Checkpoint, Decision, decide};
