//! What a checkpoint is, without files, clocks or generated types.

mod checkpoint;
mod version;

pub(crate) use checkpoint::{Checkpoint, Decision, decide};
pub(crate) use version::{InvalidVersion, Version};
