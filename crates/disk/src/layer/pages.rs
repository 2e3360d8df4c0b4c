//! A set of pages of a disk.
//!
//! Knows: which pages are in it, in memory that grows with what is touched and not with the disk.
//! Refuses to know: what it means to be in the set.

use std::collections::BTreeMap;

/// Pages that one piece of the map holds: 128 MiB of disk in 4 KiB of map.
const PAGES_PER_PIECE: u64 = 64 * WORDS_PER_PIECE as u64;
const WORDS_PER_PIECE: usize = 512;

/// A set of page numbers.
#[derive(Default)]
pub(super) struct PageSet {
    pieces: BTreeMap<u64, Box<[u64; WORDS_PER_PIECE]>>,
}

impl PageSet {
    /// Whether `page` is in the set.
    pub(super) fn contains(&self, page: u64) -> bool {
        self.pieces
            .get(&(page / PAGES_PER_PIECE))
            .is_some_and(|words| {
                let (word, bit) = place(page);
                words[word] >> bit & 1 != 0
            })
    }

    /// Puts `page` into the set.
    pub(super) fn insert(&mut self, page: u64) {
        let words = self
            .pieces
            .entry(page / PAGES_PER_PIECE)
            .or_insert_with(|| Box::new([0; WORDS_PER_PIECE]));
        let (word, bit) = place(page);
        words[word] |= 1 << bit;
    }

    /// How many pages are in the set.
    pub(super) fn len(&self) -> u64 {
        self.pieces
            .values()
            .flat_map(|words| words.iter())
            .map(|word| word.count_ones())
            .map(u64::from)
            .sum()
    }

    /// The first page after `page` that is in the set if `page` is not, and the other way round;
    /// `None` where there is none up to the last piece of the map.
    pub(super) fn next_change(&self, page: u64) -> Option<u64> {
        let inside = self.contains(page);
        let mut expected = page / PAGES_PER_PIECE;
        for (piece, words) in self.pieces.range(expected..) {
            // A piece that is missing holds no pages.
            if inside && *piece != expected {
                return Some(expected * PAGES_PER_PIECE);
            }
            let first = piece * PAGES_PER_PIECE;
            let from = page.max(first) - first;
            for index in (from / 64) as usize..WORDS_PER_PIECE {
                let differs = if inside { !words[index] } else { words[index] };
                let skip = if index as u64 == from / 64 {
                    from % 64
                } else {
                    0
                };
                let differs = differs & (u64::MAX << skip);
                if differs != 0 {
                    return Some(first + index as u64 * 64 + u64::from(differs.trailing_zeros()));
                }
            }
            expected = piece + 1;
        }
        inside.then_some(expected * PAGES_PER_PIECE)
    }
}

fn place(page: u64) -> (usize, u64) {
    ((page / 64) as usize % WORDS_PER_PIECE, page % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let random = SeededRandom::new(3);
        let (mut pages, mut model) = (PageSet::default(), BTreeSet::new());
        for _ in 0..40 {
            let start = random.below(4 * PAGES_PER_PIECE);
            for page in start..start + random.below(PAGES_PER_PIECE / 8) {
                pages.insert(page);
                model.insert(page);
            }
        }
        pages.insert(1 << 40);
        model.insert(1 << 40);
        assert_eq!(pages.len(), model.len() as u64);
        for _ in 0..2000 {
            let page = random.below(5 * PAGES_PER_PIECE);
            assert_eq!(pages.contains(page), model.contains(&page));
            let next = if model.contains(&page) {
                (page..).find(|page| !model.contains(page))
            } else {
                model.range(page..).next().copied()
            };
            assert_eq!(pages.next_change(page), next, "{page}");
        }
        assert_eq!(pages.next_change((1 << 40) + 1), None);
    }
}
