//! The hash of a page that decides whether a cut may fall before it.
//!
//! Knows: one frozen function of a key and 4096 bytes. It needs to be fast and even, not secret:
//! it is neither an id nor a checksum.
//! Refuses to know: what is done with it.
//!
//! Eight lanes of 64 bits; each word is masked with the lane's key and its halves are multiplied,
//! which compilers turn into vector code on every processor since SSE2.

use super::PAGE;
use serde::{Deserialize, Serialize};

/// The key: eight words, one a lane.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct PageKey([u64; 8]);

/// An odd constant with well mixed bits (the golden ratio's first 64).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl PageKey {
    /// From 64 bytes, little-endian words.
    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = [0; 8];
        for (word, eight) in key.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*eight);
        }
        Self(key)
    }

    /// The hash of one page.
    pub(super) fn hash(&self, page: &[u8; PAGE]) -> u64 {
        let mut sums = self.0;
        for stripe in page.as_chunks::<64>().0 {
            for (lane, eight) in stripe.as_chunks::<8>().0.iter().enumerate() {
                let word = u64::from_le_bytes(*eight);
                let masked = word ^ self.0[lane];
                let product = (masked & 0xffff_ffff).wrapping_mul(masked >> 32);
                sums[lane] = sums[lane].wrapping_add(product);
                sums[lane ^ 1] = sums[lane ^ 1].wrapping_add(word);
            }
        }
        sums.iter().fold(0, |hash: u64, sum| {
            let mixed = (hash ^ sum).wrapping_mul(MIX);
            mixed ^ (mixed >> 32)
        })
    }

    /// The hash of a page that may be cut off by the end of the disk: as if zeros followed.
    pub(super) fn hash_padded(&self, page: &[u8]) -> u64 {
        match page.first_chunk::<PAGE>() {
            Some(whole) => self.hash(whole),
            None => {
                let mut padded = [0; PAGE];
                padded[..page.len()].copy_from_slice(page);
                self.hash(&padded)
            }
        }
    }
}
