//! Cutting a window of a disk into pieces and naming them (format page, section "Cutting").
//!
//! Knows: the rule, its parameters and the keys of names. Pure functions of bytes.
//! Refuses to know: which disk it is and what the repository has.

mod page;
mod recut;
mod rule;
#[cfg(test)]
mod tests;

pub use recut::RecutPiece;

use crate::id::BlockId;
use base::limit::PAGE_SIZE;
use base::size::{ByteCount, KIB, MIB};
use base::{Error, Result};
use page::PageKey;
use serde::{Deserialize, Serialize};

/// Bytes of a page.
pub(crate) const PAGE: usize = PAGE_SIZE as usize;

/// One segment of a leaf: a run of zeros or a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Segment {
    /// Its length in bytes: a multiple of 4096 except at the end of a disk.
    pub length: u32,
    /// The block; `None` for zeros.
    pub block: Option<BlockId>,
}

/// One piece of a window as it was cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where in the window.
    pub range: std::ops::Range<usize>,
    /// Whether it is a run of zeros, which is not stored.
    pub zero: bool,
}

/// The parameters of cutting: fixed when the repository is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CutParameters {
    /// Bytes of one window: a power of two, 64 KiB to 64 MiB.
    pub window: u32,
    /// Least bytes between two cuts by content: a multiple of 4096.
    pub min: u32,
    /// Bytes between two pages that look like a cut, on average: 4096 times a power of two.
    pub avg: u32,
    /// Most bytes of a block: a multiple of 4096, at most 1 MiB.
    pub max: u32,
    /// Least zero pages that make a run of zeros, 1 to 64.
    pub zero_run: u32,
}

impl Default for CutParameters {
    /// Measured, see `docs/decisions/0001-cutting.md`.
    fn default() -> Self {
        Self {
            window: (4 * MIB) as u32,
            min: (8 * KIB) as u32,
            avg: (32 * KIB) as u32,
            max: (128 * KIB) as u32,
            zero_run: 4,
        }
    }
}

impl CutParameters {
    /// An error unless the parameters make sense together.
    ///
    /// # Errors
    /// `Invalid` `store.cut.parameters`.
    pub fn check(&self) -> Result<()> {
        let page = PAGE as u32;
        let fine = self.window.is_power_of_two()
            && (64 * KIB as u32..=64 * MIB as u32).contains(&self.window)
            && self.min >= page
            && self.min.is_multiple_of(page)
            && self.avg >= page
            && self.avg.is_power_of_two()
            && self.max.is_multiple_of(page)
            && self.min <= self.max
            && self.max <= (MIB as u32).min(self.window)
            && (1..=64).contains(&self.zero_run);
        if fine {
            Ok(())
        } else {
            Err(Error::invalid(
                "store.cut.parameters",
                format!("these cutting parameters do not fit together: {self:?}"),
            ))
        }
    }
}

/// Cuts and names. Small, cloneable, and can be sent to an agent that reads a disk elsewhere; it
/// holds the key of names (not of seals), so it is sent over protected links only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cutter {
    parameters: CutParameters,
    /// Keys the hash that looks for cuts, so that lengths of blocks do not tell known content.
    page_key: PageKey,
    /// Keys the ids of blocks.
    id_key: [u8; 32],
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutter({:?})", self.parameters)
    }
}

impl Cutter {
    /// From parameters and the two keys; see [`crate::key`] for how they are derived.
    pub(crate) fn new(
        parameters: CutParameters,
        page_key: &[u8; 64],
        id_key: [u8; 32],
    ) -> Result<Self> {
        parameters.check()?;
        Ok(Self {
            parameters,
            page_key: PageKey::from_bytes(page_key),
            id_key,
        })
    }

    /// The parameters.
    pub const fn parameters(&self) -> &CutParameters {
        &self.parameters
    }

    /// Bytes of one window.
    pub const fn window_size(&self) -> ByteCount {
        ByteCount(self.parameters.window as u64)
    }

    /// Cuts one window (at most [`Self::window_size`] bytes; shorter only at the end of a disk).
    /// The pieces cover it in order. A window of zeros is one zero piece.
    pub fn cut(&self, window: &[u8]) -> Vec<Piece> {
        let mut pages = rule::Whole {
            window,
            key: &self.page_key,
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        while at * PAGE < window.len() {
            let Ok(found) = rule::next(&mut pages, &self.parameters, at);
            let end = (found.end * PAGE).min(window.len());
            pieces.push(Piece {
                range: at * PAGE..end,
                zero: found.zero,
            });
            at = found.end;
        }
        pieces
    }

    /// The id of a block of data.
    pub fn block_id(&self, bytes: &[u8]) -> BlockId {
        BlockId::from_bytes(*blake3::keyed_hash(&self.id_key, bytes).as_bytes())
    }
}
