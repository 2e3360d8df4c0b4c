//! One bit for each index entry.
//!
//! Knows: that a bit an entry is all the memory that walking a whole repository may take.
//! Refuses to know: what a bit means.

use crate::id::SegmentId;
use std::collections::HashMap;

/// Marks on entries, by segment and number.
#[derive(Default)]
pub(crate) struct Marks {
    bits: HashMap<SegmentId, Vec<u64>>,
}

impl Marks {
    /// Marks an entry of a segment that has `count`; false where it was marked before.
    pub(crate) fn set(&mut self, segment: SegmentId, count: u64, number: u64) -> bool {
        let words = self
            .bits
            .entry(segment)
            .or_insert_with(|| vec![0; count.div_ceil(64) as usize]);
        let Some(word) = words.get_mut((number / 64) as usize) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Whether an entry is marked.
    pub(crate) fn has(&self, segment: SegmentId, number: u64) -> bool {
        self.bits
            .get(&segment)
            .and_then(|words| words.get((number / 64) as usize))
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// How many entries are marked.
    pub(crate) fn count(&self) -> u64 {
        self.bits
            .values()
            .flatten()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}
