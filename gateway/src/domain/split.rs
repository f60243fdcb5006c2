//! Cuts a list of items into pieces that each fit a size limit, in order.

use std::ops::Range;

/// Ranges of items whose sizes add up to at most `budget`, greedily, covering all items in order.
/// One empty range for no items, so that a change without tiles still travels. An item larger than
/// the budget gets a range of its own.
pub(crate) fn ranges_within(sizes: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, size) in sizes.iter().enumerate() {
        if index > start && sum + size > budget {
            ranges.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += size;
    }
    ranges.push(start..sizes.len());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_list_is_one_empty_piece() {
        assert_eq!(ranges_within(&[], 10), vec![Range { start: 0, end: 0 }]);
    }

    #[test]
    fn what_fits_stays_whole_and_what_does_not_is_cut_late() {
        assert_eq!(ranges_within(&[4, 6], 10), vec![Range { start: 0, end: 2 }]);
        assert_eq!(ranges_within(&[4, 6, 1], 10), [0..2, 2..3]);
        assert_eq!(ranges_within(&[11, 1], 10), [0..1, 1..2]);
    }

    proptest! {
        #[test]
        fn pieces_cover_everything_in_order_within_the_budget(
            sizes in proptest::collection::vec(1_usize..50, 0..200),
            budget in 50_usize..200,
        ) {
            let ranges = ranges_within(&sizes, budget);
            let covered: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..sizes.len()).collect::<Vec<_>>());
            for range in ranges {
                prop_assert!(sizes[range].iter().sum::<usize>() <= budget);
            }
        }
    }
}
