//! Finding where a piece of the disk lies: the L1 and L2 tables.
//!
//! Knows: entries, their flags, compressed clusters and subclusters. Pages of both tables are
//! loaded when asked for and kept in one bounded cache.
//! Refuses to know: what is in the clusters.

use super::header::{Header, corrupt};
use crate::cache::Cache;
use base::Result;
use base::block::BlockRead;
use base::size::{ByteOffset, KIB};
use std::sync::Arc;

/// Tables are loaded in pages of this size, so that one entry of a 2 MiB table costs little.
const PAGE_SIZE: u64 = 64 * KIB;
/// Pages kept for an image without parents: 4 MiB, which describes 32 GiB of disk with the usual clusters of 64 KiB.
pub(super) const PAGES: usize = 64;

const FLAG_COPIED: u64 = 1 << 63;
const FLAG_COMPRESSED: u64 = 1 << 62;
const FLAG_ZERO: u64 = 1;
/// The bits of an entry that hold an offset in the file.
pub(super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Where a piece of the disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At this offset of the data file.
    Data(u64),
    /// Compressed: where, and at most how many bytes.
    Compressed(u64, u64),
    /// Nowhere: it reads as zeros.
    Zero,
    /// Not in this image: in its backing image, or zeros.
    Hole,
}

/// The two levels of tables of one image.
pub(super) struct Tables {
    header: Header,
    file: Arc<dyn BlockRead>,
    pages: Cache<Vec<u64>>,
    /// Whether data lies in another file, where offset 0 is a place like any other.
    external: bool,
}

impl Tables {
    /// Tables of `header` in `file`, of which `pages` are kept.
    pub(super) fn new(header: Header, file: Arc<dyn BlockRead>, pages: usize) -> Self {
        let external = header.data_file.is_some();
        Self {
            header,
            file,
            pages: Cache::new(pages),
            external,
        }
    }

    /// Where the byte at `offset` lies, and for how many bytes from there the answer holds.
    pub(super) fn locate(&self, offset: u64) -> Result<(Place, u64)> {
        let header = &self.header;
        let coverage = header.l2_coverage();
        let (index, within) = (offset / coverage, offset % coverage);
        let table_end = header.l1_offset + header.l1_entries * 8;
        let l1_entry = self.entry(header.l1_offset, index, table_end)?;
        let l2_offset = l1_entry & OFFSET_MASK;
        if l2_offset == 0 {
            return Ok((Place::Hole, coverage - within));
        }
        let cluster_size = header.cluster_size();
        if !l2_offset.is_multiple_of(cluster_size) {
            return Err(corrupt(
                "l2-unaligned",
                "an L2 table does not start at a cluster",
            ));
        }
        let table_end = l2_offset + cluster_size;
        let index = (within / cluster_size) * (header.l2_entry_size() / 8);
        let entry = self.entry(l2_offset, index, table_end)?;
        let in_cluster = offset % cluster_size;
        if entry & FLAG_COMPRESSED != 0 {
            return Ok((self.compressed(entry)?, cluster_size - in_cluster));
        }
        if header.extended_l2 {
            let bitmap = self.entry(l2_offset, index + 1, table_end)?;
            return self.subcluster(entry, bitmap, in_cluster);
        }
        let place = match self.host_offset(entry)? {
            _ if entry & FLAG_ZERO != 0 && header.version >= 3 => Place::Zero,
            _ if entry & FLAG_ZERO != 0 => {
                return Err(corrupt("l2-entry", "a zero cluster in a version 2 image"));
            }
            Some(host) => Place::Data(host + in_cluster),
            None => Place::Hole,
        };
        Ok((place, cluster_size - in_cluster))
    }

    /// The entry `index` of the table at `table`, which ends at `end`.
    fn entry(&self, table: u64, index: u64, end: u64) -> Result<u64> {
        let at = table + index * 8;
        let page_at = table + (index * 8) / PAGE_SIZE * PAGE_SIZE;
        let page = self.pages.get(page_at, || {
            let length = end.saturating_sub(page_at).min(PAGE_SIZE);
            if page_at
                .checked_add(length)
                .is_none_or(|end| end > self.file.size().0)
            {
                return Err(corrupt(
                    "table-outside",
                    format!("a table at {page_at:#x} lies outside the file"),
                ));
            }
            let mut bytes = vec![0; length as usize];
            self.file.read_at(ByteOffset(page_at), &mut bytes)?;
            let (words, _) = bytes.as_chunks::<8>();
            Ok(words.iter().map(|word| u64::from_be_bytes(*word)).collect())
        })?;
        page.get(((at - page_at) / 8) as usize)
            .copied()
            .ok_or_else(|| corrupt("table-short", "a table ends before the disk does"))
    }

    /// The offset in a standard entry, or `None` where the cluster is not allocated.
    fn host_offset(&self, entry: u64) -> Result<Option<u64>> {
        let host = entry & OFFSET_MASK;
        if !host.is_multiple_of(self.header.cluster_size()) {
            return Err(corrupt(
                "data-unaligned",
                "a cluster of data at an impossible offset",
            ));
        }
        let at_zero = self.external && entry & FLAG_COPIED != 0;
        Ok((host != 0 || at_zero).then_some(host))
    }

    fn compressed(&self, entry: u64) -> Result<Place> {
        if self.external {
            return Err(corrupt(
                "compressed",
                "a compressed cluster beside an external data file",
            ));
        }
        // The low bits are an offset, the bits above it the number of further sectors.
        let shift = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << shift) - 1);
        let sectors = (entry & (FLAG_COMPRESSED - 1)) >> shift;
        let length = (sectors + 1) * 512 - offset % 512;
        let rest = self.file.size().0.saturating_sub(offset);
        if rest == 0 {
            return Err(corrupt(
                "compressed",
                "a compressed cluster lies outside the file",
            ));
        }
        Ok(Place::Compressed(offset, length.min(rest)))
    }

    /// One of the 32 subclusters: the low half of `bitmap` says which are data, the high half which
    /// are zeros.
    fn subcluster(&self, entry: u64, bitmap: u64, in_cluster: u64) -> Result<(Place, u64)> {
        let size = self.header.cluster_size() / 32;
        let index = in_cluster / size;
        let is_data = bitmap >> index & 1 != 0;
        let is_zero = bitmap >> (32 + index) & 1 != 0;
        let place = match (is_data, is_zero, self.host_offset(entry)?) {
            (true, true, _) => {
                return Err(corrupt("subcluster", "a subcluster is both data and zeros"));
            }
            (true, false, Some(host)) => Place::Data(host + in_cluster),
            (true, false, None) => {
                return Err(corrupt(
                    "subcluster",
                    "a subcluster of data without a cluster",
                ));
            }
            (false, true, _) => Place::Zero,
            (false, false, _) => Place::Hole,
        };
        Ok((place, size - in_cluster % size))
    }
}
