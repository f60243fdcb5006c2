//! A parent tile from its four children.
//!
//! A pixel of the parent is the average, by weight, of the 2 x 2 pixels under it that hold something,
//! so that edges do not darken; its weight is the average over all four, so that edges weigh less.
//! Where the parent's own zoom was painted too (a higher flight), the larger of the two wins as in
//! [`super::blend`]. The parent is thereby a function of its children and its own plane alone, whatever
//! the order in which they came to be.

use super::raster::{Raster, Rect, TILE_SIDE, weight};

const HALF: usize = TILE_SIDE / 2;

/// Where in the parent the pixels `changed` of its child at `quadrant` show.
/// Quadrants count as [`sovereign_model::geo::TileCoord::children`] does.
#[must_use]
pub(crate) fn parent_rect(quadrant: usize, changed: Rect) -> Rect {
    let (left, top) = (quadrant % 2 * HALF, quadrant / 2 * HALF);
    Rect {
        x0: left + changed.x0 / 2,
        y0: top + changed.y0 / 2,
        x1: left + changed.x1.div_ceil(2),
        y1: top + changed.y1.div_ceil(2),
    }
}

/// Whether pixels of the child at `quadrant` show in `rect` of the parent.
#[must_use]
pub(crate) fn needs_child(quadrant: usize, rect: Rect) -> bool {
    let (left, top) = (quadrant % 2 * HALF, quadrant / 2 * HALF);
    rect.x0 < left + HALF && rect.x1 > left && rect.y0 < top + HALF && rect.y1 > top
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Below<'t> {
    Pixels(&'t Raster),
    Nothing,
    /// It cannot be read: its quadrant of the parent stays as it is.
    Unknown,
}

/// Works out `rect` of `parent` anew from its children and its own plane, where there is one. Children
/// that [`needs_child`] does not ask for are not read. Returns what changed, `None` when nothing did.
pub(crate) fn derive(
    parent: &mut Raster,
    painted: Option<&Raster>,
    children: [Below<'_>; 4],
    rect: Rect,
) -> Option<Rect> {
    let mut changed = None;
    let mut fresh = [0_u32; TILE_SIDE];
    for y in rect.y0..rect.y1 {
        fresh.fill(0);
        for (half, fresh) in fresh.chunks_exact_mut(HALF).enumerate() {
            let left = half * HALF;
            let from = rect.x0.saturating_sub(left).min(HALF);
            let to = rect.x1.saturating_sub(left).min(HALF);
            let child = match children[y / HALF * 2 + half] {
                Below::Pixels(child) => child,
                Below::Nothing => continue,
                Below::Unknown => {
                    fresh[from..to].copy_from_slice(&parent.row(y)[left + from..left + to]);
                    continue;
                }
            };
            let row = y % HALF * 2;
            let (upper, lower) = (child.row(row), child.row(row + 1));
            for x in from..to {
                fresh[x] = average([
                    upper[x * 2],
                    upper[x * 2 + 1],
                    lower[x * 2],
                    lower[x * 2 + 1],
                ]);
            }
        }
        if let Some(painted) = painted {
            for (fresh, painted) in fresh[rect.x0..rect.x1]
                .iter_mut()
                .zip(&painted.row(y)[rect.x0..rect.x1])
            {
                *fresh = (*fresh).max(*painted);
            }
        }
        let row = &mut parent.row_mut(y)[rect.x0..rect.x1];
        let fresh = &fresh[rect.x0..rect.x1];
        if let Some((x0, x1)) = changed_run(row, fresh) {
            row.copy_from_slice(fresh);
            changed = Some(Rect::with_run(changed, y, rect.x0 + x0, rect.x0 + x1));
        }
    }
    changed
}

/// Smallest run of columns that holds every pixel that differs.
fn changed_run(a: &[u32], b: &[u32]) -> Option<(usize, usize)> {
    // Most rows do not differ at all, and this pass compares many pixels at once.
    if !a.iter().zip(b).fold(false, |any, (a, b)| any | (a != b)) {
        return None;
    }
    let first = a.iter().zip(b).position(|(a, b)| a != b)?;
    let last = a.iter().zip(b).rposition(|(a, b)| a != b)?;
    Some((first, last + 1))
}

const MAX_TOTAL: usize = 4 * 255;

/// `2^32 / total`, rounded up: multiplying by it and dropping 32 bits divides by `total` exactly, as
/// long as the product of dividend and divisor is below `2^32`; here it is below `2^28`.
const RECIPROCALS: [u64; MAX_TOTAL + 1] = {
    let mut reciprocals = [0; MAX_TOTAL + 1];
    let mut total = 1;
    while total <= MAX_TOTAL {
        reciprocals[total] = (1_u64 << 32) / total as u64 + 1;
        total += 1;
    }
    reciprocals
};

/// Average of four pixels, colours by weight; 0 when all four are empty.
fn average(pixels: [u32; 4]) -> u32 {
    let weights = pixels.map(weight);
    let total = weights[0] + weights[1] + weights[2] + weights[3];
    if total == 0 {
        return 0;
    }
    let reciprocal = RECIPROCALS[total as usize];
    let channel = |shift: u32| {
        let part = |i: usize| (pixels[i] >> shift & 0xff) * weights[i];
        let sum = part(0) + part(1) + part(2) + part(3) + total / 2;
        // A mean of bytes is a byte.
        ((u64::from(sum) * reciprocal) >> 32) as u32
    };
    let mean = ((total + 2) / 4).max(1);
    mean << 24 | channel(16) << 16 | channel(8) << 8 | channel(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_edge_keeps_its_colour_and_loses_weight() {
        let half_covered = average([0x80_64_32_0a, 0, 0x80_64_32_0a, 0]);
        assert_eq!(half_covered, 0x40_64_32_0a);
        assert_eq!(
            average([0x01_ff_ff_ff, 0, 0, 0]),
            0x01_ff_ff_ff,
            "never to nothing"
        );
        assert_eq!(average([0; 4]), 0);
    }

    #[test]
    fn colours_are_averaged_by_weight() {
        let pixel = average([3 << 24, 0x0164_6464, 0, 0]);
        assert_eq!(pixel, 0x01_19_19_19);
    }

    #[test]
    fn the_own_plane_shows_where_it_is_heavier() {
        let mut child = Raster::empty();
        child.row_mut(0).fill(0x40_00_00_ff);
        child.row_mut(1).fill(0x40_00_00_ff);
        let mut painted = Raster::empty();
        painted.row_mut(0)[0] = 0x80_ff_00_00;
        painted.row_mut(0)[1] = 0x10_ff_00_00;
        let mut parent = Raster::empty();
        let changed = derive(
            &mut parent,
            Some(&painted),
            [
                Below::Pixels(&child),
                Below::Nothing,
                Below::Nothing,
                Below::Nothing,
            ],
            Rect::FULL,
        );
        assert_eq!(parent.row(0)[..2], [0x80_ff_00_00, 0x40_00_00_ff]);
        assert_eq!(
            changed,
            Some(Rect {
                x0: 0,
                y0: 0,
                x1: 128,
                y1: 1
            })
        );
    }

    #[test]
    fn a_change_of_a_child_lands_in_its_quadrant() {
        let changed = Rect {
            x0: 3,
            y0: 0,
            x1: 4,
            y1: 256,
        };
        let expected = Rect {
            x0: 129,
            y0: 128,
            x1: 130,
            y1: 256,
        };
        assert_eq!(parent_rect(3, changed), expected);
        assert!(needs_child(3, expected));
        assert!(!needs_child(2, expected) && !needs_child(1, expected));
    }

    #[test]
    fn reciprocals_divide_exactly() {
        for (total, reciprocal) in (1..).zip(&RECIPROCALS[1..]) {
            for dividend in (0..=255).flat_map(|mean| {
                let product: u64 = mean * total;
                [product, product + total / 2, product + total - 1]
            }) {
                assert_eq!((dividend * reciprocal) >> 32, dividend / total);
            }
        }
    }

    proptest! {
        #[test]
        fn deriving_only_what_changed_equals_deriving_everything(
            before in prop::collection::vec((0..256_usize, 0..256_usize, 1..u32::MAX), 0..60),
            after in prop::collection::vec((0..256_usize, 0..256_usize, 1..u32::MAX), 1..20),
            quadrant in 0..4_usize,
        ) {
            let put = |child: &mut Raster, points: &[(usize, usize, u32)]| {
                let mut changed = None;
                for &(x, y, pixel) in points {
                    let (child, pixel) = (&mut child.row_mut(y)[x], pixel | 1 << 24);
                    if pixel > *child {
                        *child = pixel;
                        changed = Some(Rect::with_run(changed, y, x, x + 1));
                    }
                }
                changed
            };
            let derived = |parent: &mut Raster, child: &Raster, rect: Rect| {
                let mut children = [Below::Nothing; 4];
                children[quadrant] = Below::Pixels(child);
                derive(parent, None, children, rect)
            };
            let mut child = Raster::empty();
            put(&mut child, &before);
            let mut step_by_step = Raster::empty();
            derived(&mut step_by_step, &child, Rect::FULL);
            if let Some(changed) = put(&mut child, &after) {
                derived(&mut step_by_step, &child, parent_rect(quadrant, changed));
            }
            let mut at_once = Raster::empty();
            derived(&mut at_once, &child, Rect::FULL);
            prop_assert!(step_by_step == at_once);
        }
    }
}
