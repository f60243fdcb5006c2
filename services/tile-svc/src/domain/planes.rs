//! A tile with all that has to be remembered of it.
//!
//! A tile shows the larger of two planes: what frames painted at its own zoom, and what its children
//! average to. Most tiles have only one of them, and then it is kept once.

use super::blend::blend;
use super::pyramid::{Below, derive};
use super::raster::{Raster, Rect};

/// What frames painted at a tile's own zoom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Nothing.
    Nothing,
    /// Exactly what the tile shows: its children, if any, add nothing.
    Shown,
    /// This, while the tile shows it together with its children.
    Beneath(Raster),
}

/// A tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    shown: Raster,
    own: Own,
}

/// What an operation did to a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// What is remembered changed, what is shown did not.
    Beneath,
    /// These pixels of what is shown changed.
    Shown(Rect),
}

impl Planes {
    /// A tile with nothing in it.
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self {
            shown: Raster::empty(),
            own: Own::Nothing,
        }
    }

    /// A tile as it was kept.
    #[must_use]
    pub(crate) fn from_parts(shown: Raster, own: Own) -> Self {
        Self { shown, own }
    }

    /// What the tile shows.
    #[must_use]
    pub(crate) fn shown(&self) -> &Raster {
        &self.shown
    }

    /// What frames painted at its own zoom.
    #[must_use]
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// Rasters held.
    #[must_use]
    pub(crate) fn rasters(&self) -> usize {
        match self.own {
            Own::Nothing | Own::Shown => 1,
            Own::Beneath(_) => 2,
        }
    }

    /// Forgets everything; what children show comes back with [`Planes::derive`].
    pub(crate) fn clear(&mut self) {
        *self = Self::empty();
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.own == Own::Nothing && self.shown.is_empty()
    }

    /// Paints a frame at the tile's own zoom.
    pub(crate) fn paint(&mut self, patch: &Raster) -> Change {
        let beneath = match &mut self.own {
            Own::Shown => false,
            Own::Beneath(own) => blend(own, patch).is_some(),
            Own::Nothing if self.shown.is_empty() => {
                self.own = Own::Shown;
                false
            }
            Own::Nothing => {
                self.own = Own::Beneath(patch.clone());
                true
            }
        };
        match (blend(&mut self.shown, patch), beneath) {
            (Some(rect), _) => Change::Shown(rect),
            (None, true) => Change::Beneath,
            (None, false) => Change::None,
        }
    }

    /// Works `rect` out anew after children changed there; see [`derive`].
    pub(crate) fn derive(&mut self, children: [Below<'_>; 4], rect: Rect) -> Change {
        let changed = match &self.own {
            Own::Nothing => derive(&mut self.shown, None, children, rect),
            Own::Beneath(own) => derive(&mut self.shown, Some(own), children, rect),
            Own::Shown => {
                let own = self.shown.clone();
                let changed = derive(&mut self.shown, Some(&own), children, rect);
                if changed.is_some() {
                    self.own = Own::Beneath(own);
                }
                changed
            }
        };
        changed.map_or(Change::None, Change::Shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pixel: u32) -> Raster {
        let mut raster = Raster::empty();
        for y in 0..256 {
            raster.row_mut(y).fill(pixel);
        }
        raster
    }

    #[test]
    fn painting_and_deriving_in_either_order_shows_the_same() {
        let (patch, child) = (plain(0x40_11_22_33), plain(0x80_aa_bb_cc));
        let children = [
            Below::Pixels(&child),
            Below::Nothing,
            Below::Nothing,
            Below::Nothing,
        ];
        let mut painted_first = Planes::empty();
        painted_first.paint(&patch);
        assert_eq!(painted_first.own(), &Own::Shown);
        painted_first.derive(children, Rect::FULL);
        let mut derived_first = Planes::empty();
        derived_first.derive(children, Rect::FULL);
        derived_first.paint(&patch);
        assert_eq!(painted_first, derived_first);
        assert_eq!(painted_first.rasters(), 2);
        assert_eq!(painted_first.shown().row(0)[0], 0x80_aa_bb_cc);
        assert_eq!(painted_first.shown().row(0)[255], 0x40_11_22_33);
    }

    #[test]
    fn paint_beneath_heavier_children_is_remembered() {
        let heavy = plain(0xf0_aa_bb_cc);
        let mut tile = Planes::empty();
        tile.derive([Below::Pixels(&heavy); 4], Rect::FULL);
        assert_eq!(tile.paint(&plain(0x10_01_02_03)), Change::Beneath);
        assert_eq!(tile.paint(&plain(0x10_01_02_03)), Change::None);
        assert_eq!(tile.own(), &Own::Beneath(plain(0x10_01_02_03)));
    }

    #[test]
    fn where_a_child_is_unknown_the_tile_stays_as_it_is() {
        let (good, other) = (plain(0x80_aa_bb_cc), plain(0x90_11_22_33));
        for own in [None, Some(plain(0x40_01_02_03))] {
            let mut tile = Planes::empty();
            if let Some(own) = &own {
                tile.paint(own);
            }
            tile.derive([Below::Pixels(&good); 4], Rect::FULL);
            let unknown = [
                Below::Unknown,
                Below::Pixels(&other),
                Below::Nothing,
                Below::Unknown,
            ];
            tile.derive(unknown, Rect::FULL);
            assert_eq!(tile.shown().row(0)[0], 0x80_aa_bb_cc);
            assert_eq!(tile.shown().row(0)[255], 0x90_11_22_33);
            let beneath = own.map_or(0, |_| 0x40_01_02_03);
            assert_eq!(tile.shown().row(255)[0], beneath);
            assert_eq!(tile.shown().row(255)[255], 0x80_aa_bb_cc);
        }
    }

    #[test]
    fn children_that_add_nothing_leave_one_plane() {
        let mut tile = Planes::empty();
        tile.paint(&plain(0xf0_aa_bb_cc));
        let light = plain(0x10_01_02_03);
        assert_eq!(
            tile.derive([Below::Pixels(&light); 4], Rect::FULL),
            Change::None
        );
        assert_eq!(tile.rasters(), 1);
    }
}
