//! Painting frames into tiles, up to what is ready to be committed.
//!
//! Pipeline: the tiles of a frame in parallel (orthorectify, blend), then the parents zoom by zoom
//! (only the pixels above what changed, and no further up than pixels change), then encoding in
//! parallel. Several frames may be painted before the parents are worked out, once for all of them.
//!
//! A tile that is damaged in the store is begun anew when it is painted, and what its children hold comes
//! back into it. Until then the tiles above it keep what they show of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use sovereign_model::geo::mercator::{MercatorPoint, geodetic_from_mercator};
use sovereign_model::geo::{Bounds, TileCoord};

use crate::domain::planes::{Change, Planes};
use crate::domain::project::Frame;
use crate::domain::pyramid::{Below, needs_child, parent_rect};
use crate::domain::raster::{Rect, TILE_SIDE};
use crate::store::{Found, Fresh, Store, StoreError, Stored};

/// Tiles being painted.
pub(crate) struct Canvas<'s> {
    store: &'s Store,
    min_zoom: u8,
    tiles: HashMap<TileCoord, Working>,
    /// Pixels that have to be worked out anew from children.
    pending: BTreeMap<TileCoord, Rect>,
    damaged: Vec<TileCoord>,
}

struct Working {
    planes: Planes,
    /// What is shown differs from the store here.
    shown: Option<Rect>,
    /// What is remembered differs from the store.
    rewrite: bool,
}

impl Working {
    fn note(&mut self, change: Change) -> Option<Rect> {
        match change {
            Change::None => None,
            Change::Beneath => {
                self.rewrite = true;
                None
            }
            Change::Shown(rect) => {
                self.rewrite = true;
                self.shown = Some(self.shown.map_or(rect, |shown| shown.union(rect)));
                Some(rect)
            }
        }
    }
}

/// What a frame did.
#[derive(Debug, Default)]
pub(crate) struct Strokes {
    /// Tiles of its zoom that show something else now.
    pub(crate) changed: Vec<TileCoord>,
    /// Ground where they do; `None` when they are none.
    pub(crate) bounds: Option<Bounds>,
}

/// Everything that was painted, ready to be committed.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Tiles to write, ordered by place.
    pub(crate) tiles: Vec<Fresh>,
    /// Of those, the ones that show something else than before.
    pub(crate) changed: Vec<TileCoord>,
    /// Tiles that were found damaged, each once.
    pub(crate) damaged: Vec<TileCoord>,
}

/// A tile taken out to be worked on, perhaps in another thread.
enum Taken {
    Working(Working),
    Damaged(Working),
}

impl<'s> Canvas<'s> {
    /// A canvas over what the store holds; parents are made up to `min_zoom`.
    #[must_use]
    pub(crate) fn new(store: &'s Store, min_zoom: u8) -> Self {
        Self {
            store,
            min_zoom,
            tiles: HashMap::new(),
            pending: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    /// Tiles held in memory.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Paints a frame into `tiles`; returns those that show something else now, and the ground where.
    /// `None` when none of them has a pixel of the frame.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn paint(
        &mut self,
        frame: &Frame,
        tiles: &[TileCoord],
    ) -> Result<Option<Strokes>, StoreError> {
        let store = self.store;
        let taken: Vec<_> = tiles
            .iter()
            .map(|&coord| (coord, self.tiles.remove(&coord)))
            .collect();
        let painted = taken
            .into_par_iter()
            .map(|(coord, working)| {
                let Some(patch) = frame.orthorectify(coord) else {
                    return Ok((coord, working.map(Taken::Working), None));
                };
                let mut taken = take(store, coord, working)?;
                let (Taken::Working(tile) | Taken::Damaged(tile)) = &mut taken;
                let change = tile.planes.paint(&patch);
                let rect = tile.note(change);
                Ok((coord, Some(taken), Some(rect)))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let mut strokes = Strokes::default();
        let mut has_pixels = false;
        for (coord, taken, change) in painted {
            let Some(taken) = taken else { continue };
            self.put_back(coord, taken);
            let Some(change) = change else { continue };
            has_pixels = true;
            if let Some(rect) = change {
                strokes.changed.push(coord);
                self.expect_parent(coord, rect);
                let ground = bounds_of(coord, rect);
                let bounds = strokes.bounds;
                strokes.bounds = Some(bounds.map_or(ground, |bounds| bounds.union(&ground)));
            }
        }
        Ok(has_pixels.then_some(strokes))
    }

    /// Works out the parents and encodes what is to be written.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn finish(mut self) -> Result<Finished, StoreError> {
        for zoom in (self.min_zoom..=TileCoord::MAX_ZOOM).rev() {
            self.derive_zoom(zoom)?;
        }
        let mut rewritten: Vec<_> = self
            .tiles
            .into_iter()
            .filter(|(_, working)| working.rewrite)
            .collect();
        rewritten.sort_unstable_by_key(|(coord, _)| *coord);
        let changed = rewritten
            .iter()
            .filter(|(_, working)| working.shown.is_some())
            .map(|(coord, _)| *coord)
            .collect();
        let tiles = rewritten
            .into_par_iter()
            .map(|(coord, working)| Fresh::encode(coord, working.planes))
            .collect();
        self.damaged.sort_unstable();
        self.damaged.dedup();
        Ok(Finished {
            tiles,
            changed,
            damaged: self.damaged,
        })
    }

    /// Works out what is pending at one zoom; the zoom below it is done.
    fn derive_zoom(&mut self, zoom: u8) -> Result<(), StoreError> {
        // Reading a damaged tile makes more of it pending, at the same zoom: then once more around.
        loop {
            let pending: Vec<_> = self
                .pending
                .extract_if(.., |coord, _| coord.z() == zoom)
                .map(|(coord, rect)| (coord, rect, self.tiles.remove(&coord)))
                .collect();
            if pending.is_empty() {
                return Ok(());
            }
            let (store, tiles) = (self.store, &self.tiles);
            let derived = pending
                .into_par_iter()
                .map(|(coord, rect, working)| {
                    let mut taken = take(store, coord, working)?;
                    let held = children_of(store, tiles, coord, rect)?;
                    let children = held.each_ref().map(|child| match child {
                        Child::Working(planes) => Below::Pixels(planes.shown()),
                        Child::Stored(stored) => Below::Pixels(stored.planes.shown()),
                        Child::Nothing => Below::Nothing,
                        Child::Damaged(_) => Below::Unknown,
                    });
                    let (Taken::Working(tile) | Taken::Damaged(tile)) = &mut taken;
                    let change = tile.planes.derive(children, rect);
                    let rect = tile.note(change);
                    let damaged = held.map(|child| match child {
                        Child::Damaged(coord) => Some(coord),
                        Child::Working(_) | Child::Stored(_) | Child::Nothing => None,
                    });
                    Ok((coord, taken, rect, damaged))
                })
                .collect::<Result<Vec<_>, StoreError>>()?;
            for (coord, taken, rect, damaged) in derived {
                self.put_back(coord, taken);
                self.damaged.extend(damaged.into_iter().flatten());
                if let Some(rect) = rect {
                    self.expect_parent(coord, rect);
                }
            }
        }
    }

    fn put_back(&mut self, coord: TileCoord, taken: Taken) {
        let working = match taken {
            Taken::Working(working) => working,
            Taken::Damaged(working) => {
                self.damaged.push(coord);
                self.pending.insert(coord, Rect::FULL);
                working
            }
        };
        self.tiles.insert(coord, working);
    }

    pub(crate) fn expect_parent(&mut self, coord: TileCoord, changed: Rect) {
        let Some(parent) = coord.parent().filter(|p| p.z() >= self.min_zoom) else {
            return;
        };
        let rect = parent_rect(quadrant_of(coord), changed);
        self.pending
            .entry(parent)
            .and_modify(|pending| *pending = pending.union(rect))
            .or_insert(rect);
    }
}

/// The tile as it is being worked on, or a copy of what the store has.
fn take(store: &Store, coord: TileCoord, working: Option<Working>) -> Result<Taken, StoreError> {
    if let Some(working) = working {
        return Ok(Taken::Working(working));
    }
    let fresh = |planes, rewrite| Working {
        planes,
        shown: None,
        rewrite,
    };
    Ok(match store.load(coord)? {
        Found::Tile(stored) => Taken::Working(fresh(stored.planes.clone(), false)),
        Found::Nothing => Taken::Working(fresh(Planes::empty(), false)),
        // Written again even if it stays empty: what is there now cannot be served.
        Found::Damaged => Taken::Damaged(fresh(Planes::empty(), true)),
    })
}

enum Child<'t> {
    Working(&'t Planes),
    Stored(Arc<Stored>),
    Nothing,
    Damaged(TileCoord),
}

/// The children of which `rect` of the parent shows something.
fn children_of<'t>(
    store: &Store,
    tiles: &'t HashMap<TileCoord, Working>,
    parent: TileCoord,
    rect: Rect,
) -> Result<[Child<'t>; 4], StoreError> {
    let mut held = [const { Child::Nothing }; 4];
    let Some(children) = parent.children() else {
        return Ok(held);
    };
    for (quadrant, coord) in children.into_iter().enumerate() {
        if !needs_child(quadrant, rect) {
            continue;
        }
        held[quadrant] = match tiles.get(&coord) {
            Some(working) => Child::Working(&working.planes),
            None => match store.load(coord)? {
                Found::Tile(stored) => Child::Stored(stored),
                Found::Nothing => Child::Nothing,
                Found::Damaged => Child::Damaged(coord),
            },
        };
    }
    Ok(held)
}

fn quadrant_of(coord: TileCoord) -> usize {
    (coord.y() % 2 * 2 + coord.x() % 2) as usize
}

/// Ground under some pixels of a tile.
fn bounds_of(coord: TileCoord, rect: Rect) -> Bounds {
    let (corner, side) = (coord.north_west(), coord.side());
    let at = |x: usize, y: usize| {
        geodetic_from_mercator(MercatorPoint {
            x: corner.x + side * x as f64 / TILE_SIDE as f64,
            y: corner.y + side * y as f64 / TILE_SIDE as f64,
        })
    };
    let (north_west, south_east) = (at(rect.x0, rect.y0), at(rect.x1, rect.y1));
    Bounds {
        west_deg: north_west.longitude_deg,
        south_deg: south_east.latitude_deg,
        east_deg: south_east.longitude_deg,
        north_deg: north_west.latitude_deg,
    }
}
