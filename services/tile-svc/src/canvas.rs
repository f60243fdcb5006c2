//! Painting frames into tiles, up to what is ready to be committed.
//!
//! Pipeline: the tiles of a frame in parallel (orthorectified where they win), then the parents zoom by zoom
//! (only the pixels above what changed, and no further up than pixels change), then encoding in
//! parallel. Several frames may be painted before the parents are worked out, once for all of them.
//!
//! A tile that is damaged in the store is begun anew when it is painted, and what its children hold comes
//! back into it. Until then the tiles above it keep what they show of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use sovereign_model::geo::TileCoord;

use crate::domain::layer::{Layer, Place};
use crate::domain::planes::{Change, Planes};
use crate::domain::project::Frame;
use crate::domain::pyramid::{Below, needs_child, parent_rect};
use crate::domain::raster::{Rect, TILE_BYTES};
use crate::store::{Found, Fresh, Store, StoreError, Stored};

pub(crate) struct Canvas {
    store: Arc<Store>,
    layer: Layer,
    min_zoom: u8,
    tiles: HashMap<TileCoord, Working>,
    /// Pixels that have to be worked out anew from children.
    pending: BTreeMap<TileCoord, Rect>,
    damaged: Vec<TileCoord>,
}

struct Working {
    planes: Planes,
    shown: Option<Rect>,
    rewrite: bool,
    before: Option<Planes>,
}

impl Working {
    /// What a tile that was begun anew shows differently now: all of it or nothing.
    fn rect_since_before(&mut self) -> Option<Option<Rect>> {
        let before = self.before.as_ref()?;
        self.shown = (before.shown() != self.planes.shown()).then_some(Rect::FULL);
        Some(self.shown)
    }

    fn is_new(&self) -> bool {
        match &self.before {
            Some(before) => *before != self.planes,
            None => self.rewrite,
        }
    }

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

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tiles: Vec<Fresh>,
    pub(crate) removed: Vec<TileCoord>,
    pub(crate) changed: Vec<TileCoord>,
    pub(crate) damaged: Vec<TileCoord>,
}

enum Taken {
    Working(Working),
    Damaged(Working),
}

impl Canvas {
    pub(crate) fn new(store: Arc<Store>, layer: Layer, min_zoom: u8) -> Self {
        Self {
            store,
            layer,
            min_zoom,
            tiles: HashMap::new(),
            pending: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Begins tiles anew: what frames painted at their own zoom is forgotten, and has to be painted again.
    pub(crate) fn begin_anew(&mut self, tiles: &[TileCoord]) -> Result<(), StoreError> {
        for &coord in tiles {
            let taken = take(&self.store, self.place(coord), self.tiles.remove(&coord))?;
            let mut working = match taken {
                Taken::Working(mut working) => {
                    let before = working.planes.clone();
                    working.before.get_or_insert(before);
                    working
                }
                Taken::Damaged(working) => {
                    self.damaged.push(coord);
                    working
                }
            };
            working.planes.clear();
            working.rewrite = true;
            self.pending.insert(coord, Rect::FULL);
            self.tiles.insert(coord, working);
        }
        Ok(())
    }

    fn place(&self, coord: TileCoord) -> Place {
        Place {
            layer: self.layer,
            coord,
        }
    }

    /// Paints a frame into `tiles`; those that it has pixels in, `None` when there are none.
    pub(crate) fn paint(
        &mut self,
        frame: &Frame,
        tiles: &[TileCoord],
    ) -> Result<Option<Vec<TileCoord>>, StoreError> {
        let (store, layer) = (&self.store, self.layer);
        let taken: Vec<_> = tiles
            .iter()
            .map(|&coord| (coord, self.tiles.remove(&coord)))
            .collect();
        let painted = taken
            .into_par_iter()
            .map(|(coord, working)| {
                let is_new = working.is_none();
                let mut taken = take(store, Place { layer, coord }, working)?;
                let (Taken::Working(tile) | Taken::Damaged(tile)) = &mut taken;
                let change = tile.planes.paint(|raster| frame.lay(coord, raster));
                let change = change.map(|change| tile.note(change));
                // What has nothing of the frame is only kept where it was worked on already.
                let taken = (change.is_some() || !is_new).then_some(taken);
                Ok((coord, taken, change))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let mut covered = Vec::new();
        for (coord, taken, change) in painted {
            let Some(taken) = taken else { continue };
            self.put_back(coord, taken);
            let Some(change) = change else { continue };
            covered.push(coord);
            if let Some(rect) = change {
                self.expect_parent(coord, rect);
            }
        }
        Ok((!covered.is_empty()).then_some(covered))
    }

    pub(crate) fn finish(mut self) -> Result<Finished, StoreError> {
        for zoom in (self.min_zoom..=TileCoord::MAX_ZOOM).rev() {
            self.derive_zoom(zoom)?;
        }
        let mut rewritten: Vec<_> = self
            .tiles
            .into_iter()
            .filter(|(_, working)| working.is_new())
            .collect();
        rewritten.sort_unstable_by_key(|(coord, _)| *coord);
        let changed = rewritten
            .iter()
            .filter(|(_, working)| working.shown.is_some())
            .map(|(coord, _)| *coord)
            .collect();
        let (empty, full): (Vec<_>, Vec<_>) = rewritten
            .into_iter()
            .partition(|(_, working)| working.planes.is_empty());
        let layer = self.layer;
        let tiles = full
            .into_par_iter()
            .map_init(
                || Box::new([0; TILE_BYTES]),
                |rgbw, (coord, working)| {
                    Fresh::encode(Place { layer, coord }, working.planes, rgbw)
                },
            )
            .collect();
        self.damaged.sort_unstable();
        self.damaged.dedup();
        Ok(Finished {
            tiles,
            removed: empty.into_iter().map(|(coord, _)| coord).collect(),
            changed,
            damaged: self.damaged,
        })
    }

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
            let (store, tiles, layer) = (&self.store, &self.tiles, self.layer);
            let derived = pending
                .into_par_iter()
                .map(|(coord, rect, working)| {
                    let place = Place { layer, coord };
                    let mut taken = take(store, place, working)?;
                    let held = children_of(store, tiles, place, rect)?;
                    let children = held.each_ref().map(|child| match child {
                        Child::Working(planes) => Below::Pixels(planes.shown()),
                        Child::Stored(stored) => Below::Pixels(stored.planes.shown()),
                        Child::Nothing => Below::Nothing,
                        Child::Damaged(_) => Below::Unknown,
                    });
                    let (Taken::Working(tile) | Taken::Damaged(tile)) = &mut taken;
                    let change = tile.planes.derive(children, rect);
                    let rect = tile.note(change);
                    let rect = tile.rect_since_before().unwrap_or(rect);
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

fn take(store: &Store, place: Place, working: Option<Working>) -> Result<Taken, StoreError> {
    if let Some(working) = working {
        return Ok(Taken::Working(working));
    }
    let fresh = |planes, rewrite| Working {
        planes,
        shown: None,
        rewrite,
        before: None,
    };
    Ok(match store.load(place)? {
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

fn children_of<'t>(
    store: &Store,
    tiles: &'t HashMap<TileCoord, Working>,
    parent: Place,
    rect: Rect,
) -> Result<[Child<'t>; 4], StoreError> {
    let mut held = [const { Child::Nothing }; 4];
    let layer = parent.layer;
    let Some(children) = parent.coord.children() else {
        return Ok(held);
    };
    for (quadrant, coord) in children.into_iter().enumerate() {
        if !needs_child(quadrant, rect) {
            continue;
        }
        held[quadrant] = match tiles.get(&coord) {
            Some(working) => Child::Working(&working.planes),
            None => match store.load(Place { layer, coord })? {
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
