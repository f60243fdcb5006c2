//! What a round is, without stores, clocks or generated types.

mod round;

pub(crate) use round::{
    Event, Impossible, LONGEST_ROUND, Phase, Round, Terms, Wanted, newest_first,
};
