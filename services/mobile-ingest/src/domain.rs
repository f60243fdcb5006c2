//! What the door decides: pure, and told what time it is.

pub(crate) mod capture;
pub(crate) mod clients;
pub(crate) mod frame;
pub(crate) mod json;
