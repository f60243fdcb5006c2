//! Merging pixels: per pixel the larger (weight, red, green, blue) wins.
//!
//! A maximum is commutative, associative and idempotent, so any order of frames, and any frame painted
//! twice, ends in the same pixels. Degenerate case: equal weights are decided by colour, which picks
//! the brighter red first; along a seam of two frames that is a line one weight step wide.

#[inline(always)]
pub(super) fn blend<const N: usize>(base: &mut [u32; N], pixels: &[u32; N]) -> bool {
    let mut changed = false;
    for (base, &pixel) in base.iter_mut().zip(pixels) {
        changed |= pixel > *base;
        *base = (*base).max(pixel);
    }
    changed
}

/// Whether pixels of these weights may change `base`, whatever their colours.
#[inline(always)]
pub(super) fn may_win<const N: usize>(base: &[u32; N], weights: &[u32; N]) -> bool {
    let pairs = base.iter().zip(weights);
    pairs.fold(false, |any, (&base, &weight)| {
        any | ((weight > 0) & ((weight << 24 | 0xFF_FF_FF) > base))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few weights and colours, so that they meet.
    fn pixel() -> impl Strategy<Value = u32> {
        (0..4_u32, 0..3_u32).prop_map(|(weight, colour)| match weight {
            0 => 0,
            weight => weight << 24 | colour,
        })
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_pixels_and_what_cannot_win_changes_nothing(
            spans in prop::collection::vec(prop::array::uniform8(pixel()), 1..6),
            seed in any::<u64>(),
        ) {
            let mut forward = [0; 8];
            for span in &spans {
                let before = forward;
                let may = may_win(&forward, &span.map(|pixel| pixel >> 24));
                prop_assert_eq!(blend(&mut forward, span), forward != before);
                prop_assert!(may || forward == before);
            }
            let mut order: Vec<usize> = (0..spans.len()).collect();
            order.sort_by_key(|&i| (seed.rotate_left(i as u32 * 7)) ^ i as u64);
            let mut shuffled = [0; 8];
            for i in order {
                blend(&mut shuffled, &spans[i]);
            }
            prop_assert_eq!(forward, shuffled);
        }
    }
}
