//! The layers of the map, and places in them.

use sovereign_model::geo::TileCoord;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Layer {
    Imagery,
}

impl Layer {
    pub(crate) const ALL: [Self; 1] = [Self::Imagery];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Imagery => "imagery",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Imagery => 0,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.number() == number)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) layer: Layer,
    pub(crate) coord: TileCoord,
}
