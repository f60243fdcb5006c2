//! What slam-svc decides, without clocks, tasks or wire types: which camera took a picture ([`camera`]),
//! which way it looked ([`attitude`]), what ground was below it ([`ground`], [`geoid`]), whether an editor turned
//! its pixels ([`turned`]), and from all of that where it was taken ([`georeference`]).

pub(crate) mod attitude;
pub(crate) mod camera;
pub(crate) mod geoid;
pub(crate) mod georeference;
pub(crate) mod ground;
pub(crate) mod turned;
