//! Finding where a piece of a VHDX lies: the block allocation table (BAT) and, in differencing
//! disks, the bitmaps of sectors.
//!
//! Knows: pages of both, loaded when asked for. Refuses to know: the parent.

use super::metadata::Metadata;
use super::region::Region;
use super::{corrupt, read_piece};
use crate::cache::Cache;
use base::Result;
use base::block::BlockRead;
use base::size::{KIB, MIB};
use std::sync::Arc;

/// The table is loaded in pages of this size, the bitmaps in pages of `BITMAP_PAGE`.
const PAGE: u64 = 32 * KIB;
const BITMAP_PAGE: u64 = 4 * KIB;
pub(super) const PAGES: usize = 64;
/// Sectors whose bits one bitmap block holds.
const CHUNK_SECTORS: u64 = 1 << 23;

const NOT_PRESENT: u64 = 0;
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
const PRESENT: u64 = 6;
const PARTLY_PRESENT: u64 = 7;

/// Where a piece of the disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At this byte of the file.
    Data(u64),
    /// Nowhere: it reads as zeros.
    Zero,
    /// Not in this disk: in its parent, or zeros.
    Hole,
}

/// The table of one disk.
pub(super) struct Table {
    file: Arc<dyn BlockRead>,
    region: Region,
    block_size: u64,
    sector_size: u64,
    /// Payload blocks whose sectors one bitmap block describes.
    chunk_ratio: u64,
    differencing: bool,
    pages: Cache<Vec<u8>>,
    bitmaps: Cache<Vec<u8>>,
}

impl Table {
    /// The table in `region`, which must be long enough for the disk; `pages` of it are kept.
    pub(super) fn new(
        file: Arc<dyn BlockRead>,
        region: Region,
        metadata: &Metadata,
        pages: usize,
    ) -> Result<Self> {
        let sector_size = u64::from(metadata.sector_size.logical);
        let chunk_ratio = CHUNK_SECTORS * sector_size / metadata.block_size;
        let differencing = metadata.parent.is_some();
        let blocks = metadata.size.div_ceil(metadata.block_size);
        let entries = match blocks {
            0 => 0,
            // A bitmap entry follows every chunk, the last one only in differencing disks.
            _ if differencing => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            _ => blocks + (blocks - 1) / chunk_ratio,
        };
        if entries * 8 > region.length {
            return Err(corrupt(
                "table-too-small",
                "the table of blocks does not cover the disk",
            ));
        }
        Ok(Self {
            file,
            region,
            block_size: metadata.block_size,
            sector_size,
            chunk_ratio,
            differencing,
            pages: Cache::new(pages),
            bitmaps: Cache::new(pages),
        })
    }

    /// Where the byte at `offset` lies, and for how many bytes from there the answer holds.
    pub(super) fn locate(&self, offset: u64) -> Result<(Place, u64)> {
        let (block, within) = (offset / self.block_size, offset % self.block_size);
        let entry = self.entry(block + block / self.chunk_ratio)?;
        let host = entry & !(MIB - 1);
        let rest = self.block_size - within;
        match entry & 7 {
            NOT_PRESENT => Ok((Place::Hole, rest)),
            UNDEFINED | ZERO | UNMAPPED => Ok((Place::Zero, rest)),
            PRESENT => Ok((Place::Data(host.saturating_add(within)), rest)),
            PARTLY_PRESENT if self.differencing => self.partly(block, host, within),
            state => Err(corrupt(
                "block-state",
                format!("a block in the unknown state {state}"),
            )),
        }
    }

    fn entry(&self, index: u64) -> Result<u64> {
        let at = index * 8;
        let first = at / PAGE * PAGE;
        let page = self.pages.get(first, || {
            let length = self.region.length.saturating_sub(first).min(PAGE);
            read_piece(
                &*self.file,
                self.region.offset + first,
                length,
                "table of blocks",
            )
        })?;
        let (words, _) = page.as_chunks::<8>();
        words
            .get(((at - first) / 8) as usize)
            .map(|word| u64::from_le_bytes(*word))
            .ok_or_else(|| {
                corrupt(
                    "table-short",
                    "the table of blocks ends before the disk does",
                )
            })
    }

    /// A block of which some sectors are here and the others in the parent.
    fn partly(&self, block: u64, host: u64, within: u64) -> Result<(Place, u64)> {
        let chunk = block / self.chunk_ratio;
        let entry = self.entry((chunk + 1) * self.chunk_ratio + chunk)?;
        if entry & 7 != PRESENT {
            return Err(corrupt(
                "bitmap-missing",
                "the bitmap of a partly present block is missing",
            ));
        }
        let sectors_per_block = self.block_size / self.sector_size;
        let first = (block % self.chunk_ratio) * sectors_per_block + within / self.sector_size;
        let page_bits = BITMAP_PAGE * 8;
        let page_at = (entry & !(MIB - 1)).saturating_add(first / page_bits * BITMAP_PAGE);
        let bitmap = self.bitmaps.get(page_at, || {
            read_piece(&*self.file, page_at, BITMAP_PAGE, "bitmap of sectors")
        })?;
        // The run of equal bits, at most to the end of the block and of the page.
        let (start, last) = (first % page_bits, (first / page_bits + 1) * page_bits);
        let block_end = (block % self.chunk_ratio + 1) * sectors_per_block;
        let end = (last.min(block_end) - first / page_bits * page_bits).max(start + 1);
        let bit = |index: u64| bitmap[(index / 8) as usize] >> (index % 8) & 1 != 0;
        let here = bit(start);
        let run_end = (start + 1..end)
            .find(|index| bit(*index) != here)
            .unwrap_or(end);
        let length = (run_end - start) * self.sector_size - within % self.sector_size;
        let place = if here {
            Place::Data(host.saturating_add(within))
        } else {
            Place::Hole
        };
        Ok((place, length))
    }
}
