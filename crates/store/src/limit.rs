//! Every bound of the repository format, with its unit and its reason.
//!
//! Knows: numbers. Refuses to know: how each file keeps to them.

use base::size::{GIB, KIB, MIB};

/// Plain bytes of one frame: what one read of one block may cost in memory. A frame holds at least
/// one block, and blocks are at most 1 MiB.
pub(crate) const FRAME_PLAIN_MAX: usize = (2 * MIB) as usize;
/// Blocks of one frame: a frame of the smallest tree nodes stays below.
pub(crate) const FRAME_BLOCKS_MAX: usize = 4096;
/// Bytes of a frame as stored; zstd and the seal add less than this over the plain bytes.
pub(crate) const FRAME_STORED_MAX: usize =
    FRAME_PLAIN_MAX + (64 * KIB) as usize + FRAME_BLOCKS_MAX * 36;
/// Plain bytes at which a frame of tree nodes is closed. Ids do not compress, so larger frames
/// would only make random reads dearer.
pub(crate) const NODE_FRAME: usize = (32 * KIB) as usize;
/// Bytes of a pack: offsets in it are 32 bits, and one is read whole when its trailer is lost.
pub(crate) const PACK_SIZE_MAX: u64 = GIB;
/// Bytes of a pack's trailer.
pub(crate) const TRAILER_SIZE_MAX: u64 = 64 * MIB;
/// Bytes of one tree node: a leaf of 4 KiB blocks in the largest window.
pub(crate) const NODE_SIZE_MAX: usize = MIB as usize;
/// Packs and replaced segments that one index segment may name.
pub(crate) const SEGMENT_PACKS_MAX: u32 = 4 * 1024 * 1024;
/// Entries of one index segment.
pub(crate) const SEGMENT_ENTRIES_MAX: u64 = 1 << 36;
/// Entries that a writer or a rebuild holds in memory before they go into a segment.
pub(crate) const ENTRIES_IN_MEMORY: usize = 512 * 1024;
/// Segments that are left alone; with more of them, collect merges.
pub(crate) const SEGMENTS_MANY: usize = 24;
/// Bytes of a sealed record (a point, a state of collection).
pub(crate) const RECORD_SIZE_MAX: u64 = 64 * MIB;
/// Bytes of `repository` and of a key slot.
pub(crate) const CONFIG_SIZE_MAX: u64 = 256 * KIB;
/// Bytes of plain frames kept in memory for readers.
pub(crate) const FRAME_CACHE_BYTES: usize = (32 * MIB) as usize;
/// Bytes of tree nodes kept in memory for readers.
pub(crate) const NODE_CACHE_BYTES: usize = (8 * MIB) as usize;
/// Packs kept open for readers.
pub(crate) const OPEN_PACKS_MAX: usize = 128;
/// Things wrong that one report lists.
pub(crate) const DAMAGE_MAX: usize = 10_000;
/// KiB of memory that a key slot may ask for: more is hostile.
pub(crate) const ARGON_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Passes that a key slot may ask for.
pub(crate) const ARGON_PASSES_MAX: u32 = 64;
