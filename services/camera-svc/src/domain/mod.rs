//! What the service decides: which frames to publish, and when to try again.

mod backoff;
mod pacer;

pub(crate) use backoff::Backoff;
pub(crate) use pacer::Pacer;
