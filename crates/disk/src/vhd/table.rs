//! Finding where a piece of a dynamic disk lies: the table of blocks and the bitmaps of sectors.
//!
//! Knows: pages of both, loaded when asked for. Refuses to know: what an absent sector reads as.

use super::header::Header;
use super::{SECTOR, corrupt};
use crate::cache::Cache;
use base::Result;
use base::block::BlockRead;
use base::size::ByteOffset;
use std::sync::Arc;

/// The table is loaded in pages of this many entries.
const TABLE_PAGE: u64 = 4096;
const ABSENT: u32 = u32::MAX;
/// Pages of the table kept, 16 KiB each, and bitmaps kept, 512 bytes each in usual disks.
pub(super) const PAGES: usize = 64;

/// The table and bitmaps of one disk.
pub(super) struct Table {
    header: Header,
    entries: u64,
    file: Arc<dyn BlockRead>,
    pages: Cache<Vec<u8>>,
    bitmaps: Cache<Vec<u8>>,
}

impl Table {
    /// The table of a disk of `size` bytes; `pages` of it, and as many bitmaps, are kept.
    pub(super) fn new(header: Header, size: u64, file: Arc<dyn BlockRead>, pages: usize) -> Self {
        let entries = size.div_ceil(header.block_size);
        Self {
            header,
            entries,
            file,
            pages: Cache::new(pages),
            bitmaps: Cache::new(pages),
        }
    }

    /// Where the byte at `offset` lies in the file, if it is there, and for how many bytes from
    /// there the answer holds.
    pub(super) fn locate(&self, offset: u64) -> Result<(Option<u64>, u64)> {
        let block_size = self.header.block_size;
        let (block, within) = (offset / block_size, offset % block_size);
        let entry = self.entry(block)?;
        if entry == ABSENT {
            return Ok((None, block_size - within));
        }
        let bitmap_at = u64::from(entry) * SECTOR;
        let bitmap_length = (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        let bitmap = self
            .bitmaps
            .get(bitmap_at, || self.read(bitmap_at, bitmap_length))?;
        let sector = within / SECTOR;
        let present = bit(&bitmap, sector);
        // Sectors come in runs of one kind: take what is left of this run.
        let last = block_size / SECTOR;
        let end = (sector + 1..last)
            .find(|next| bit(&bitmap, *next) != present)
            .unwrap_or(last);
        let host = bitmap_at + bitmap_length + within;
        Ok((present.then_some(host), end * SECTOR - within))
    }

    fn entry(&self, block: u64) -> Result<u32> {
        let first = block / TABLE_PAGE * TABLE_PAGE;
        let page = self.pages.get(first, || {
            let count = self.entries.saturating_sub(first).min(TABLE_PAGE);
            self.read(self.header.table_offset + first * 4, count * 4)
        })?;
        let (words, _) = page.as_chunks::<4>();
        words
            .get((block - first) as usize)
            .map(|word| u32::from_be_bytes(*word))
            .ok_or_else(|| {
                corrupt(
                    "table-short",
                    "the table of blocks ends before the disk does",
                )
            })
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        if at
            .checked_add(length)
            .is_none_or(|end| end > self.file.size().0)
        {
            return Err(corrupt(
                "block-outside",
                format!("a block at {at:#x} lies outside the file"),
            ));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_at(ByteOffset(at), &mut bytes)?;
        Ok(bytes)
    }
}

/// Bits are counted from the highest of each byte.
fn bit(bitmap: &[u8], index: u64) -> bool {
    let byte = bitmap.get((index / 8) as usize).copied().unwrap_or(0);
    byte >> (7 - index % 8) & 1 != 0
}
