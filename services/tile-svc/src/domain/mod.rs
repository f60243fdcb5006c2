//! What the map is made of and what is decided about a frame: pure, the same result for the same input
//! on every run, in any order.
//!
//! [`layer`] names what there is, [`sight`] is what the camera sees well enough, [`plan`] chooses the zoom
//! and the tiles of a frame, [`project`] lays the frame onto one tile, [`blend`] merges it into what is
//! there, [`pyramid`] makes a parent from its children, and [`planes`] is a tile with all that has to be
//! remembered of it.

pub(crate) mod blend;
pub(crate) mod layer;
pub(crate) mod plan;
pub(crate) mod planes;
pub(crate) mod project;
pub(crate) mod pyramid;
pub(crate) mod raster;
pub(crate) mod sight;
