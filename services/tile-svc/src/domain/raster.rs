//! The pixels of one tile.

use sovereign_model::{Digest, DigestBuilder};

pub(crate) const TILE_SIDE: usize = 256;
pub(crate) const TILE_PIXELS: usize = TILE_SIDE * TILE_SIDE;
pub(crate) const TILE_BYTES: usize = TILE_PIXELS * 4;

/// The pixels of one tile, rows from the north. A pixel is `weight << 24 | red << 16 | green << 8 | blue`,
/// and 0 where there is nothing: its order as a number is the order in which pixels win over each other.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Raster(Box<[u32]>);

impl Raster {
    #[must_use]
    pub(crate) fn empty() -> Self {
        // Written at once: memory that is zero by itself would cost a fault at the first look and one more
        // at the first pixel.
        Self(std::iter::repeat_n(0, TILE_PIXELS).collect())
    }

    /// From red, green, blue and weight bytes, as [`Raster::write_rgbw`] gives them; `None` when there
    /// are not exactly [`TILE_BYTES`] of them, or one without weight has a colour.
    #[must_use]
    pub(crate) fn from_rgbw(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != TILE_BYTES {
            return None;
        }
        let (pixels, _) = bytes.as_chunks();
        let pixels: Box<[u32]> = pixels
            .iter()
            .map(|rgbw| u32::from_be_bytes(*rgbw).rotate_right(8))
            .collect();
        pixels
            .iter()
            .all(|&pixel| pixel == 0 || weight(pixel) > 0)
            .then_some(Self(pixels))
    }

    pub(crate) fn write_rgbw(&self, bytes: &mut [u8; TILE_BYTES]) {
        let (pixels, _) = bytes.as_chunks_mut();
        for (rgbw, pixel) in pixels.iter_mut().zip(&self.0) {
            *rgbw = pixel.rotate_left(8).to_be_bytes();
        }
    }

    #[must_use]
    pub(crate) fn pixels(&self) -> &[u32] {
        &self.0
    }

    #[must_use]
    pub(crate) fn row(&self, y: usize) -> &[u32] {
        &self.0[y * TILE_SIDE..(y + 1) * TILE_SIDE]
    }

    pub(crate) fn row_mut(&mut self, y: usize) -> &mut [u32] {
        &mut self.0[y * TILE_SIDE..(y + 1) * TILE_SIDE]
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|&pixel| pixel == 0)
    }
}

impl std::fmt::Debug for Raster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let covered = self.0.iter().filter(|&&pixel| pixel != 0).count();
        write!(f, "Raster({covered} of {TILE_PIXELS} pixels)")
    }
}

/// A tile with twice as many pixels along each side: its four children (north-west, north-east, south-west,
/// south-east) where they have something, each of its own pixels four times elsewhere.
#[must_use]
pub(crate) fn doubled(own: &Raster, children: [Option<&Raster>; 4]) -> Vec<u32> {
    let mut pixels = Vec::with_capacity(4 * TILE_PIXELS);
    for y in 0..2 * TILE_SIDE {
        for half in 0..2 {
            let child = children[y / TILE_SIDE * 2 + half];
            let finer = child.map(|child| child.row(y % TILE_SIDE));
            let coarser = &own.row(y / 2)[half * TILE_SIDE / 2..][..TILE_SIDE / 2];
            pixels.extend((0..TILE_SIDE).map(|x| match finer.map(|row| row[x]) {
                None | Some(0) => coarser[x / 2],
                Some(pixel) => pixel,
            }));
        }
    }
    pixels
}

/// Digest of a tile, of bytes that [`Raster::write_rgbw`] wrote: SHA-256 over width and height (32-bit
/// little-endian each) and the bytes, the same on every machine and for every format the tile is served
/// in.
#[must_use]
pub(crate) fn digest_of_rgbw(bytes: &[u8]) -> Digest {
    let side = (TILE_SIDE as u32).to_le_bytes();
    let mut digest = DigestBuilder::new();
    digest.update(&side);
    digest.update(&side);
    digest.update(bytes);
    digest.finish()
}

#[must_use]
pub(crate) fn weight(pixel: u32) -> u32 {
    pixel >> 24
}

#[must_use]
pub(crate) fn rgb(pixel: u32) -> [u8; 3] {
    let [_, r, g, b] = pixel.to_be_bytes();
    [r, g, b]
}

/// Some pixels of a tile: columns `x0..x1` of rows `y0..y1`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x0: usize,
    pub(crate) y0: usize,
    pub(crate) x1: usize,
    pub(crate) y1: usize,
}

impl Rect {
    pub(crate) const FULL: Rect = Rect {
        x0: 0,
        y0: 0,
        x1: TILE_SIDE,
        y1: TILE_SIDE,
    };

    #[must_use]
    pub(crate) fn union(self, other: Rect) -> Rect {
        Rect {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }

    pub(crate) fn with_run(rect: Option<Rect>, y: usize, x0: usize, x1: usize) -> Rect {
        let run = Rect {
            x0,
            y0: y,
            x1,
            y1: y + 1,
        };
        rect.map_or(run, |rect| rect.union(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_pixels_are_the_same_tile() {
        let mut raster = Raster::empty();
        raster.row_mut(3)[5] = 0x80_11_22_33;
        let rgbw = |raster: &Raster| {
            let mut bytes = [0; TILE_BYTES];
            raster.write_rgbw(&mut bytes);
            bytes
        };
        let bytes = rgbw(&raster);
        assert_eq!(&bytes[(3 * 256 + 5) * 4..][..4], &[0x11, 0x22, 0x33, 0x80]);
        assert_eq!(Raster::from_rgbw(&bytes), Some(raster.clone()));
        assert_ne!(
            digest_of_rgbw(&bytes),
            digest_of_rgbw(&rgbw(&Raster::empty()))
        );
        assert!(!raster.is_empty());
    }

    #[test]
    fn bytes_that_are_no_tile_are_refused() {
        assert_eq!(Raster::from_rgbw(&[0; TILE_BYTES - 4]), None);
        let mut colour_without_weight = vec![0; TILE_BYTES];
        colour_without_weight[0] = 1;
        assert_eq!(Raster::from_rgbw(&colour_without_weight), None);
    }

    #[test]
    fn a_doubled_tile_shows_its_children_and_itself_between_them() {
        let grey = |value: u8, columns: std::ops::Range<usize>| {
            let mut raster = Raster::empty();
            for y in 0..TILE_SIDE {
                raster.row_mut(y)[columns.clone()]
                    .fill(u32::from_be_bytes([9, value, value, value]));
            }
            raster
        };
        let (own, child) = (grey(10, 0..256), grey(200, 100..256));
        let pixels = doubled(&own, [None, Some(&child), None, None]);
        let at = |x: usize, y: usize| rgb(pixels[y * 512 + x])[0];
        assert_eq!(
            (at(0, 0), at(355, 0), at(356, 0), at(511, 255)),
            (10, 10, 200, 200)
        );
        assert_eq!((at(511, 256), at(0, 511)), (10, 10));
        assert_eq!(pixels.len(), 512 * 512);
    }
}
