//! Merging two planes of a tile: per pixel the larger (weight, red, green, blue) wins.
//!
//! A maximum is commutative, associative and idempotent, so any order of frames, and any frame painted
//! twice, ends in the same pixels. Degenerate case: equal weights are decided by colour, which picks
//! the brighter red first; along a seam of two frames that is a line one weight step wide.

use super::raster::{Raster, Rect, TILE_SIDE};

/// Merges `patch` into `base`; returns what changed, `None` when nothing did.
pub(crate) fn blend(base: &mut Raster, patch: &Raster) -> Option<Rect> {
    let mut changed = None;
    for y in 0..TILE_SIDE {
        let (base, patch) = (base.row_mut(y), patch.row(y));
        let Some((x0, x1)) = run_where(base, patch, |base, patch| patch > base) else {
            continue;
        };
        for (base, patch) in base[x0..x1].iter_mut().zip(&patch[x0..x1]) {
            *base = (*base).max(*patch);
        }
        changed = Some(Rect::with_run(changed, y, x0, x1));
    }
    changed
}

/// Smallest run of columns that holds every pixel of which `differs`.
pub(super) fn run_where(
    a: &[u32],
    b: &[u32],
    differs: impl Fn(u32, u32) -> bool,
) -> Option<(usize, usize)> {
    // Most rows do not differ at all, and this pass compares many pixels at once.
    if !a
        .iter()
        .zip(b)
        .fold(false, |any, (&a, &b)| any | differs(a, b))
    {
        return None;
    }
    let first = a.iter().zip(b).position(|(&a, &b)| differs(a, b))?;
    let last = a.iter().zip(b).rposition(|(&a, &b)| differs(a, b))?;
    Some((first, last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raster_from_points(points: &[(usize, usize, u32)]) -> Raster {
        let mut raster = Raster::empty();
        for &(x, y, pixel) in points {
            raster.row_mut(y)[x] = pixel;
        }
        raster
    }

    #[test]
    fn the_change_is_the_smallest_rectangle_around_what_changed() {
        let mut base = raster_from_points(&[(1, 1, 0xff_00_00_00)]);
        let patch =
            raster_from_points(&[(1, 1, 0x01_ff_ff_ff), (10, 20, 5 << 24), (30, 25, 1 << 24)]);
        assert_eq!(
            blend(&mut base, &patch),
            Some(Rect {
                x0: 10,
                y0: 20,
                x1: 31,
                y1: 26
            })
        );
        assert_eq!(base.row(1)[1], 0xff_00_00_00, "the heavier pixel stays");
        assert_eq!(
            blend(&mut base, &patch),
            None,
            "painting twice changes nothing"
        );
    }

    fn patch() -> impl Strategy<Value = Vec<(usize, usize, u32)>> {
        // Few places and few weights, so that patches meet.
        prop::collection::vec(
            (0..8_usize, 0..8_usize, (1..4_u32, 0..3_u32))
                .prop_map(|(x, y, (w, c))| (x, y, w << 24 | c)),
            1..40,
        )
    }

    proptest! {
        #[test]
        fn any_order_of_patches_gives_the_same_pixels(
            patches in prop::collection::vec(patch(), 1..6),
            seed in any::<u64>(),
        ) {
            let patches: Vec<Raster> = patches.iter().map(|points| raster_from_points(points)).collect();
            let mut forward = Raster::empty();
            for patch in &patches {
                blend(&mut forward, patch);
            }
            let mut order: Vec<usize> = (0..patches.len()).collect();
            order.sort_by_key(|&i| (seed.rotate_left(i as u32 * 7)) ^ i as u64);
            let mut shuffled = Raster::empty();
            for i in order {
                blend(&mut shuffled, &patches[i]);
            }
            prop_assert!(forward == shuffled);
        }
    }
}
