//! What slam-svc decides, without clocks, tasks or wire types: what a picture says about itself
//! ([`metadata`]), which camera took it ([`camera`]), whether an editor turned its pixels ([`turned`]),
//! and from all of that where it was taken ([`georeference`]).

pub(crate) mod camera;
pub(crate) mod georeference;
pub(crate) mod metadata;
pub(crate) mod turned;
