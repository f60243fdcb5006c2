//! A tile with all that has to be remembered of it.
//!
//! A tile shows the larger of two planes: what frames painted at its own zoom, and what its children
//! average to. Most tiles have only one of them, and then it is kept once.

use super::project::Laid;
use super::pyramid::{Below, derive};
use super::raster::{Raster, Rect};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Nothing,
    /// Exactly what the tile shows: its children, if any, add nothing.
    Shown,
    /// This, while the tile shows it together with its children.
    Beneath(Raster),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    shown: Raster,
    own: Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// What is remembered changed, what is shown did not.
    Beneath,
    /// These pixels of what is shown changed.
    Shown(Rect),
}

impl Planes {
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self {
            shown: Raster::empty(),
            own: Own::Nothing,
        }
    }

    #[must_use]
    pub(crate) fn from_parts(shown: Raster, own: Own) -> Self {
        Self { shown, own }
    }

    #[must_use]
    pub(crate) fn shown(&self) -> &Raster {
        &self.shown
    }

    #[must_use]
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

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

    pub(crate) fn is_empty(&self) -> bool {
        self.own == Own::Nothing && self.shown.is_empty()
    }

    /// Paints at the tile's own zoom what `lay` lays onto a raster; `None` when that is nothing.
    pub(crate) fn paint(&mut self, lay: impl Fn(&mut Raster) -> Laid) -> Option<Change> {
        if self.own == Own::Nothing && !self.shown.is_empty() {
            self.own = Own::Beneath(Raster::empty());
        }
        let beneath = match &mut self.own {
            Own::Beneath(own) => Some(lay(own)),
            Own::Shown | Own::Nothing => None,
        };
        let shown = lay(&mut self.shown);
        match &self.own {
            Own::Nothing if shown.covers => self.own = Own::Shown,
            Own::Beneath(own) if !shown.covers && own.is_empty() => self.own = Own::Nothing,
            Own::Nothing | Own::Shown | Own::Beneath(_) => {}
        }
        let beneath = beneath.and_then(|laid| laid.changed);
        let change = match (shown.changed, beneath) {
            (Some(rect), _) => Change::Shown(rect),
            (None, Some(_)) => Change::Beneath,
            (None, None) => Change::None,
        };
        shown.covers.then_some(change)
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

    /// Lays every pixel of `patch` that wins.
    fn with(patch: &Raster) -> impl Fn(&mut Raster) -> Laid {
        |base: &mut Raster| {
            let mut changed = None;
            for y in 0..256 {
                for (base, &pixel) in base.row_mut(y).iter_mut().zip(patch.row(y)) {
                    if pixel > *base {
                        *base = pixel;
                        changed = Some(Rect::FULL);
                    }
                }
            }
            Laid {
                covers: true,
                changed,
            }
        }
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
        painted_first.paint(with(&patch));
        assert_eq!(painted_first.own(), &Own::Shown);
        painted_first.derive(children, Rect::FULL);
        let mut derived_first = Planes::empty();
        derived_first.derive(children, Rect::FULL);
        derived_first.paint(with(&patch));
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
        let light = plain(0x10_01_02_03);
        assert_eq!(tile.paint(with(&light)), Some(Change::Beneath));
        assert_eq!(tile.paint(with(&light)), Some(Change::None));
        assert_eq!(tile.own(), &Own::Beneath(light));
    }

    #[test]
    fn a_frame_without_pixels_here_leaves_a_tile_as_it_is() {
        let heavy = plain(0xf0_aa_bb_cc);
        let mut derived = Planes::empty();
        derived.derive([Below::Pixels(&heavy); 4], Rect::FULL);
        for mut tile in [Planes::empty(), derived] {
            let before = tile.clone();
            assert_eq!(tile.paint(|_| Laid::default()), None);
            assert_eq!(tile, before);
        }
    }

    #[test]
    fn where_a_child_is_unknown_the_tile_stays_as_it_is() {
        let (good, other) = (plain(0x80_aa_bb_cc), plain(0x90_11_22_33));
        for own in [None, Some(plain(0x40_01_02_03))] {
            let mut tile = Planes::empty();
            if let Some(own) = &own {
                tile.paint(with(own));
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
        tile.paint(with(&plain(0xf0_aa_bb_cc)));
        let light = plain(0x10_01_02_03);
        assert_eq!(
            tile.derive([Below::Pixels(&light); 4], Rect::FULL),
            Change::None
        );
        assert_eq!(tile.rasters(), 1);
    }
}
