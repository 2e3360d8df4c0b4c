//! Making a point.
//!
//! Knows: blocks in, one published point out, and the order that makes it crash-proof.
//! Refuses to know: threads, pipelines and where blocks come from; any thread may call.

use crate::cut::{Cutter, Segment};
use crate::id::{BlockId, Root};
use crate::point::{Point, PointDraft, PointFile};
use crate::repository::not_yet;
use base::Result;
use base::id::{PointId, WriterId};
use base::size::ByteCount;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// zstd's level; 0 stores without compression.
    pub level: i32,
    /// Compute each block's id again before it is stored. Needed where blocks come over a network.
    pub check_ids: bool,
    /// Open each sealed frame again and compare it with the plain bytes before it is written: bad
    /// memory and a bad compressor show up now and not in five years.
    pub check_frames: bool,
    /// Plain bytes after which a frame is closed.
    pub frame_size: ByteCount,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            level: 1,
            check_ids: true,
            check_frames: true,
            frame_size: ByteCount(128 << 10),
        }
    }
}

/// A block to store.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// Its id, from [`Cutter::block_id`].
    pub id: BlockId,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What a put did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PutCount {
    /// Blocks that were new.
    pub blocks: u64,
    /// Their plain bytes.
    pub plain: ByteCount,
    /// Bytes they take in packs.
    pub stored: ByteCount,
}

/// One writer: a folder and a lock in the repository while it lives. Share it by reference or
/// `Arc`; all methods may be called from many threads. Dropped without commit it leaves nothing
/// visible.
pub struct Writer {}

impl Writer {
    /// Its id.
    pub fn id(&self) -> WriterId {
        WriterId::from_bytes([0; 16])
    }

    /// What cuts and names blocks as this repository does.
    pub fn cutter(&self) -> &Cutter {
        unreachable!()
    }

    /// Which of these blocks need not be put: the repository has them or this writer got them.
    pub fn have(&self, ids: &[BlockId]) -> Result<Vec<bool>> {
        let _ = ids;
        Err(not_yet())
    }

    /// Stores blocks, skipping those that are there. Neighbours are compressed together, so hand
    /// in the new blocks of one window at once and in order. Compresses and seals in the calling
    /// thread. After any error the writer refuses to commit.
    ///
    /// # Errors
    /// `Corrupt` `store.block.id-mismatch` where bytes and id do not fit (with `check_ids`).
    pub fn put(&self, blocks: &[NewBlock<'_>]) -> Result<PutCount> {
        let _ = blocks;
        Err(not_yet())
    }

    /// Takes a point as base of new trees and pins it, so that what it holds cannot be collected
    /// while this writer lives.
    ///
    /// # Errors
    /// `NotFound` where it is not there (any more).
    pub fn base(&self, point: PointId) -> Result<Point> {
        let _ = point;
        Err(not_yet())
    }

    /// Begins a tree of a disk of `size`. Windows that are not set are taken from `base` (a root of
    /// a point given to [`Self::base`], or one finished by this writer), or are zero.
    pub fn tree(&self, size: ByteCount, base: Option<Root>) -> Result<TreeWriter> {
        let _ = (size, base);
        Err(not_yet())
    }

    /// Cuts, names and stores a small file.
    pub fn put_file(&self, path: &str, bytes: &[u8]) -> Result<PointFile> {
        let _ = (path, bytes);
        Err(not_yet())
    }

    /// Makes all durable, then publishes the point: data packs, their index, tree packs, their
    /// index, the record. Before the last step nothing is visible.
    pub fn commit(&self, draft: PointDraft) -> Result<Point> {
        let _ = draft;
        Err(not_yet())
    }

    /// Leaves without a point.
    pub fn abort(self) -> Result<()> {
        Err(not_yet())
    }
}

/// A tree being written. Windows may be set in any order from many threads.
pub struct TreeWriter {}

impl TreeWriter {
    /// How many windows the disk has.
    pub fn window_count(&self) -> u64 {
        0
    }

    /// The segments of a window in the base; empty where it is zero or there is no base.
    pub fn base_window(&self, index: u64) -> Result<Vec<Segment>> {
        let _ = index;
        Err(not_yet())
    }

    /// Sets a window: segments that cover it, in order; every block must be there already.
    ///
    /// # Errors
    /// `Invalid` where lengths do not fit or the cut is not canonical; `NotFound`
    /// `store.block.unknown` where a block is neither in the repository nor was put.
    pub fn set_window(&self, index: u64, segments: &[Segment]) -> Result<()> {
        let _ = (index, segments);
        Err(not_yet())
    }

    /// Writes the inner nodes; the root.
    pub fn finish(self) -> Result<Root> {
        Err(not_yet())
    }
}
