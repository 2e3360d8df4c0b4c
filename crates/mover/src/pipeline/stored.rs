//! The disk of an earlier point that a new one builds on.
//!
//! Knows: its root, its size and how to read its blocks. Refuses to know: what changed since.

use base::Result;
use base::size::ByteCount;
use store::{BlockId, Repository, Root};

/// A disk as an earlier point has it.
#[derive(Clone)]
pub struct StoredBase {
    /// The root of its tree.
    pub root: Root,
    /// Its size then.
    pub size: ByteCount,
    /// Where it is stored.
    pub repository: Repository,
}

impl StoredBase {
    /// Reads one of its blocks into a buffer of exactly its length.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn read_block(&self, id: &BlockId, buffer: &mut [u8]) -> Result<()> {
        self.repository.read_block(id, buffer)
    }
}
