//! What the gateway decides, without sockets, clocks or generated types.

pub(crate) mod cursor;
pub(crate) mod envelope;
pub(crate) mod rate;
pub(crate) mod seen;
pub(crate) mod split;
pub(crate) mod unconfirmed;
