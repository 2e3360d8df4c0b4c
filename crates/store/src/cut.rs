//! Cutting a window of a disk into pieces and naming them (format page, section "Cutting").
//!
//! Knows: the rule, its parameters and the keys of names. Pure functions of bytes.
//! Refuses to know: which disk it is and what the repository has.

use crate::id::BlockId;
use base::Result;
use base::size::{ByteCount, ByteRange};
use serde::{Deserialize, Serialize};

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

/// One piece of a window that was cut again after a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecutPiece {
    /// A segment of the old leaf that did not change.
    Kept(Segment),
    /// New bytes to be named and put.
    New(Vec<u8>),
    /// A run of zeros of this many bytes.
    Zero(u32),
}

/// The parameters of cutting: fixed when the repository is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CutParameters {
    /// Bytes of one window: a power of two.
    pub window: u32,
    /// Least bytes of a block, except before zeros and at the end of a window.
    pub min: u32,
    /// Average bytes between cuts, as a power of two.
    pub avg: u32,
    /// Most bytes of a block.
    pub max: u32,
    /// Least zero pages that make a zero run.
    pub zero_run: u32,
}

/// Cuts and names. Small, cloneable, and can be sent to an agent that reads a disk elsewhere; it
/// holds the key of names (not of seals), so it is sent over protected links only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cutter {
    parameters: CutParameters,
}

impl Cutter {
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
        let _ = window;
        Vec::new()
    }

    /// The id of a block of data.
    pub fn block_id(&self, bytes: &[u8]) -> BlockId {
        let _ = bytes;
        BlockId::default()
    }

    /// Cuts a window again of which only `dirty` changed (ranges within the window; widened to
    /// pages). Gives exactly what [`Self::cut`] of the new bytes gives, but reads only dirty ranges
    /// through `source` and, where clean neighbours are needed, old blocks through `stored`.
    ///
    /// `old` are the window's segments before (they may cover another length than `length` only
    /// if all bytes from the shorter end on are dirty).
    ///
    /// # Errors
    /// Those of the two readers; `Invalid` where ranges or segments do not fit the window.
    pub fn recut(
        &self,
        old: &[Segment],
        length: u32,
        dirty: &[ByteRange],
        source: &mut dyn FnMut(ByteRange, &mut [u8]) -> Result<()>,
        stored: &mut dyn FnMut(&BlockId, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<RecutPiece>> {
        let _ = (old, length, dirty, source, stored);
        Err(crate::repository::not_yet())
    }
}
