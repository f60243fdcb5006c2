//! What a round is, without stores, clocks or generated types.

mod round;

pub(crate) use round::{Impossible, LONGEST_ROUND, Round, Wanted, newest_first};
