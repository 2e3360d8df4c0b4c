//! Giving out the clusters of an image that is being written, and counting them in the file.
//!
//! Knows: which clusters are used (each once: the writer makes no snapshots), which were given
//! back, and the two levels of reference counts. Refuses to know: what the clusters are for.
//!
//! A cluster that was given back waits until the tables that pointed at it are durable: only then
//! [`Allocator::recycle`] lets it be given out again.

use crate::file::GrowingFile;
use base::size::ByteRange;
use base::{Error, Kind, Result};
use std::collections::BTreeSet;

/// Bytes of one count.
const COUNT_SIZE: u64 = 2;

/// The clusters of one image.
pub(super) struct Allocator {
    cluster_size: u64,
    table_offset: u64,
    /// One bit a cluster.
    used: Vec<u64>,
    /// The first cluster that was never used.
    next: u64,
    /// How many clusters the table of reference counts can count.
    capacity: u64,
    free: Vec<u64>,
    waiting: Vec<u64>,
    /// Where the block of counts of each range lies; 0 where it has none yet.
    blocks: Vec<u64>,
    dirty_blocks: BTreeSet<usize>,
    table_dirty: bool,
}

impl Allocator {
    /// An image whose first `reserved` clusters hold its header and fixed tables, among them the
    /// table of reference counts: `table_clusters` of them from the second one on.
    pub(super) fn new(cluster_size: u64, table_clusters: u64, reserved: u64) -> Self {
        let per_table_cluster = (cluster_size / 8) * (cluster_size / COUNT_SIZE);
        let mut allocator = Self {
            cluster_size,
            table_offset: cluster_size,
            used: Vec::new(),
            next: 0,
            capacity: table_clusters * per_table_cluster,
            free: Vec::new(),
            waiting: Vec::new(),
            blocks: Vec::new(),
            dirty_blocks: BTreeSet::new(),
            table_dirty: true,
        };
        for cluster in 0..reserved {
            allocator.mark(cluster, true);
        }
        allocator.next = reserved;
        // The reserved clusters need their blocks too, and these may begin a new range again.
        let mut range = 0;
        while range * allocator.counts_per_block() < allocator.next {
            allocator.add_block(range);
            range += 1;
        }
        allocator
    }

    /// How many clusters of a table of reference counts cover a file of `clusters` clusters.
    pub(super) fn table_clusters(cluster_size: u64, clusters: u64) -> u64 {
        let per_block = cluster_size / COUNT_SIZE;
        clusters.div_ceil(per_block).div_ceil(cluster_size / 8)
    }

    fn counts_per_block(&self) -> u64 {
        self.cluster_size / COUNT_SIZE
    }

    /// The length of the file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.next * self.cluster_size
    }

    /// The offset of a cluster that is nobody's and reads as zeros.
    ///
    /// # Errors
    /// `Limit` where the table of reference counts, whose size is fixed, counts no further.
    pub(super) fn allocate(&mut self) -> Result<u64> {
        if let Some(cluster) = self.free.pop() {
            self.mark(cluster, true);
            return Ok(cluster * self.cluster_size);
        }
        // One for the cluster, one for the block of counts it may need.
        if self.next + 2 > self.capacity {
            return Err(Error::new(
                Kind::Limit,
                "disk.qcow2.file-too-large",
                "the image cannot grow further: too many clusters were given back and not flushed",
            )
            .hint("flush more often"));
        }
        let range = self.next / self.counts_per_block();
        if self
            .blocks
            .get(range as usize)
            .is_none_or(|block| *block == 0)
        {
            self.add_block(range);
        }
        let cluster = self.next;
        self.next += 1;
        self.mark(cluster, true);
        Ok(cluster * self.cluster_size)
    }

    /// Takes back the cluster at `offset`.
    pub(super) fn release(&mut self, offset: u64) {
        self.waiting.push(offset / self.cluster_size);
    }

    /// How many clusters wait to be recycled.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets clusters that were given back be used again; nothing durable points at them any more.
    /// Their old bytes are taken out of the file.
    pub(super) fn recycle(&mut self, file: &dyn GrowingFile) -> Result<()> {
        while let Some(cluster) = self.waiting.last().copied() {
            let range = ByteRange::new(cluster * self.cluster_size, self.cluster_size);
            file.write_zeroes(range)?;
            self.waiting.pop();
            self.mark(cluster, false);
            self.free.push(cluster);
        }
        Ok(())
    }

    /// Writes the counts that changed. The caller syncs.
    pub(super) fn store(&mut self, file: &dyn GrowingFile) -> Result<()> {
        while let Some(range) = self.dirty_blocks.first().copied() {
            let block = self.blocks[range];
            file.write_at(block, &self.block_bytes(range as u64))?;
            self.dirty_blocks.remove(&range);
        }
        if self.table_dirty {
            let bytes: Vec<u8> = self
                .blocks
                .iter()
                .flat_map(|block| block.to_be_bytes())
                .collect();
            file.write_at(self.table_offset, &bytes)?;
            self.table_dirty = false;
        }
        Ok(())
    }

    /// Puts a new block of counts into the cluster that comes next, wherever that is counted.
    fn add_block(&mut self, range: u64) {
        let cluster = self.next;
        self.next += 1;
        let range = range as usize;
        if self.blocks.len() <= range {
            self.blocks.resize(range + 1, 0);
        }
        self.blocks[range] = cluster * self.cluster_size;
        self.table_dirty = true;
        self.mark(cluster, true);
    }

    fn mark(&mut self, cluster: u64, used: bool) {
        let (word, bit) = ((cluster / 64) as usize, cluster % 64);
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        if used {
            self.used[word] |= 1 << bit;
        } else {
            self.used[word] &= !(1 << bit);
        }
        self.dirty_blocks
            .insert((cluster / self.counts_per_block()) as usize);
    }

    fn block_bytes(&self, range: u64) -> Vec<u8> {
        let first = range * self.counts_per_block();
        let mut bytes = vec![0; self.cluster_size as usize];
        for (index, count) in bytes.chunks_exact_mut(COUNT_SIZE as usize).enumerate() {
            let cluster = first + index as u64;
            let word = self.used.get((cluster / 64) as usize).copied().unwrap_or(0);
            count[1] = (word >> (cluster % 64) & 1) as u8;
        }
        bytes
    }
}
