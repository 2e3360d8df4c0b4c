//! One sparse extent: finding its grains and reading them.
//!
//! Knows: the grain directory and tables, loaded when asked for, and compressed grains.
//! Refuses to know: the other extents and the parent.

use super::header::SparseHeader;
use super::{SECTOR, corrupt};
use crate::cache::Cache;
use crate::inflate::{Compression, inflate};
use base::Result;
use base::block::BlockRead;
use base::size::{ByteOffset, KIB, MIB};
use std::sync::Arc;

/// The directory is loaded in pages of this many entries.
const DIRECTORY_PAGE: u64 = 4096;
/// Pages of directory and tables kept for a disk of one extent, at most 16 KiB each.
pub(super) const PAGES: usize = 64;
/// Unpacked grains kept, in bytes.
const UNPACKED_MAX: u64 = 2 * MIB;
/// How much longer than the grain a compressed grain may be: deflate never adds more.
const PACKED_EXTRA: u64 = 4 * KIB;
/// Grain offset (8 bytes) and length (4 bytes) before a compressed grain.
const MARKER_LENGTH: u64 = 12;

/// Where a piece of the extent lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At this byte of the extent's file.
    Data(u64),
    /// In the compressed grain at this byte.
    Compressed(u64),
    /// Nowhere: it reads as zeros.
    Zero,
    /// Not in this disk: in its parent, or zeros.
    Hole,
}

/// One sparse extent.
pub(super) struct SparseExtent {
    header: SparseHeader,
    pub(super) file: Arc<dyn BlockRead>,
    pages: Cache<Vec<u32>>,
    unpacked: Cache<Vec<u8>>,
}

impl SparseExtent {
    /// The extent in `file`; `pages` of its tables, and as many grains at most, are kept.
    pub(super) fn new(header: SparseHeader, file: Arc<dyn BlockRead>, pages: usize) -> Self {
        let grains = UNPACKED_MAX / (header.grain_sectors * SECTOR);
        let unpacked = Cache::new(pages.min(grains as usize));
        Self {
            header,
            file,
            pages: Cache::new(pages),
            unpacked,
        }
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    pub(super) fn grain_size(&self) -> u64 {
        self.header.grain_sectors * SECTOR
    }

    /// Where the byte at `offset` lies, and for how many bytes from there the answer holds.
    pub(super) fn locate(&self, offset: u64) -> Result<(Place, u64)> {
        let (grain_size, entries) = (self.grain_size(), self.header.table_entries);
        let coverage = grain_size * entries;
        let (table, within) = (offset / coverage, offset % coverage);
        let table_at = u64::from(self.directory_entry(table)?) * SECTOR;
        if table_at == 0 {
            return Ok((Place::Hole, coverage - within));
        }
        let page = self.page(table_at, entries)?;
        let entry = page[(within / grain_size) as usize];
        let in_grain = within % grain_size;
        let place = match u64::from(entry) {
            0 => Place::Hole,
            1 if self.header.zero_grains => Place::Zero,
            sector if self.header.compressed => Place::Compressed(sector * SECTOR),
            sector => Place::Data(sector * SECTOR + in_grain),
        };
        Ok((place, grain_size - in_grain))
    }

    fn directory_entry(&self, index: u64) -> Result<u32> {
        let first = index / DIRECTORY_PAGE * DIRECTORY_PAGE;
        let count = self
            .header
            .directory_entries
            .saturating_sub(first)
            .min(DIRECTORY_PAGE);
        let page = self.page(self.header.directory_offset + first * 4, count)?;
        page.get((index - first) as usize)
            .copied()
            .ok_or_else(|| corrupt("directory-short", "the grain directory is too short"))
    }

    /// `count` entries at byte `at` of the file.
    fn page(&self, at: u64, count: u64) -> Result<Arc<Vec<u32>>> {
        let page = self.pages.get(at, || {
            let end = at.checked_add(count * 4);
            if end.is_none_or(|end| end > self.file.size().0) {
                return Err(corrupt(
                    "table-outside",
                    format!("a grain table at {at:#x} lies outside the file"),
                ));
            }
            let mut bytes = vec![0; (count * 4) as usize];
            self.file.read_at(ByteOffset(at), &mut bytes)?;
            let (words, _) = bytes.as_chunks::<4>();
            Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
        })?;
        if page.len() as u64 != count {
            return Err(corrupt(
                "tables-overlap",
                "a grain table lies on another table",
            ));
        }
        Ok(page)
    }

    /// Reads uncompressed bytes at `host`.
    pub(super) fn read_data(&self, host: u64, buffer: &mut [u8]) -> Result<()> {
        let end = host.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.file.size().0) {
            return Err(corrupt(
                "data-outside",
                format!("a grain at {host:#x} lies outside the file"),
            )
            .hint("the file was cut off; copy it again or restore it from a backup"));
        }
        self.file.read_at(ByteOffset(host), buffer)
    }

    /// Reads from byte `at` of the compressed grain at `host`, which holds the extent's bytes from
    /// `grain_start` on.
    pub(super) fn read_compressed(
        &self,
        host: u64,
        grain_start: u64,
        at: usize,
        buffer: &mut [u8],
    ) -> Result<()> {
        let grain = self.unpacked.get(host, || self.unpack(host, grain_start))?;
        match grain.get(at..at + buffer.len()) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(corrupt("grain-short", "a compressed grain is too short")),
        }
        Ok(())
    }

    fn unpack(&self, host: u64, grain_start: u64) -> Result<Vec<u8>> {
        let mut at = host;
        let mut length = self.grain_size() + PACKED_EXTRA;
        if self.header.markers {
            let mut marker = [0; MARKER_LENGTH as usize];
            self.read_data(host, &mut marker)?;
            let marker = crate::field::Fields::new(&marker, "disk.vmdk.marker", "grain marker");
            let claimed = u64::from(marker.le32(8)?);
            if marker.le64(0)? != grain_start / SECTOR || claimed == 0 || claimed > length {
                return Err(corrupt(
                    "marker",
                    format!("the marker of a grain at {host:#x}"),
                ));
            }
            (at, length) = (host + MARKER_LENGTH, claimed);
        } else {
            length = length.min(self.file.size().0.saturating_sub(host));
        }
        let mut packed = vec![0; length as usize];
        self.read_data(at, &mut packed)?;
        // The last grain may be cut at the end of the disk.
        let size = self.grain_size().min(self.size() - grain_start);
        let mut grain = vec![0; size as usize];
        inflate(Compression::Zlib, &packed, &mut grain)?;
        Ok(grain)
    }
}
