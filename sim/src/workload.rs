//! Disks that change from backup to backup.
//!
//! Knows: pages of random bytes, of text, of zeros and repeated ones, and a few of them rewritten,
//! zeroed or copied in each generation. Refuses to know: what is done with them.

use base::random::{Random, SeededRandom};

/// A page of a guest.
pub const PAGE: usize = 4096;

/// The disk of `seed` with this many pages after `generation` rounds of change.
pub fn disk(seed: u64, pages: usize, generation: u64) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = vec![0; pages * PAGE];
    for page in bytes.chunks_mut(PAGE) {
        match random.below(6) {
            0 => {}
            1 => text(&random, page),
            _ => random.fill(page),
        }
    }
    for round in 1..=generation {
        change(
            &mut bytes,
            &SeededRandom::new(seed ^ round.wrapping_mul(0xa5a5_1234)),
        );
    }
    bytes
}

/// One round of change: one page is zeroed, one becomes a copy of another, some are rewritten.
fn change(bytes: &mut [u8], random: &SeededRandom) {
    let pages = (bytes.len() / PAGE) as u64;
    let pick = || usize::try_from(random.below(pages)).unwrap_or(0) * PAGE;
    let at = pick();
    bytes[at..at + PAGE].fill(0);
    let (from, to) = (pick(), pick());
    bytes.copy_within(from..from + PAGE, to);
    for _ in 0..1 + pages / 8 {
        let at = pick();
        random.fill(&mut bytes[at..at + PAGE]);
    }
}

fn text(random: &SeededRandom, page: &mut [u8]) {
    const WORDS: [&[u8]; 4] = [b"mast ", b"stay ", b"rope\n", b"wind "];
    for chunk in page.chunks_mut(5) {
        let word = WORDS[usize::try_from(random.below(4)).unwrap_or(0)];
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_differ_in_few_pages_and_repeat_exactly() {
        let (one, two) = (disk(7, 32, 1), disk(7, 32, 2));
        assert_eq!(one, disk(7, 32, 1));
        let changed = one
            .chunks(PAGE)
            .zip(two.chunks(PAGE))
            .filter(|(a, b)| a != b)
            .count();
        assert!((1..=7).contains(&changed), "{changed}");
        assert!(
            one.chunks(PAGE)
                .any(|page| page.iter().all(|byte| *byte == 0))
        );
        assert_ne!(disk(8, 32, 1), one);
    }
}
