//! A sparse disk in memory whose copies share what they have in common.
//!
//! Knows: clusters of 64 KiB. Refuses to know: who changes it.

use super::ranges;
use base::Result;
use base::block::{BlockRead, Extent, check_range, is_zero, push_extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The granule of sharing and of tracking, in bytes: that of QEMU's bitmaps.
pub const CLUSTER: u64 = 64 * 1024;

/// A sparse disk. Cloning copies a list, not the bytes.
#[derive(Clone, Debug, Default)]
pub struct SparseDisk {
    size: u64,
    clusters: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl SparseDisk {
    /// A disk of zeros.
    pub const fn new(size: ByteCount) -> Self {
        Self {
            size: size.0,
            clusters: BTreeMap::new(),
        }
    }

    /// Writes, and gives the numbers of the clusters that were touched.
    pub fn write(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<std::ops::Range<u64>> {
        check_range(
            ByteRange::new(offset.0, bytes.len() as u64),
            ByteCount(self.size),
        )?;
        for (number, at, piece) in pieces(offset.0, bytes.len()) {
            let cluster = self
                .clusters
                .entry(number)
                .or_insert_with(|| Arc::new(vec![0; CLUSTER as usize]));
            let cluster = Arc::make_mut(cluster);
            cluster[at..at + piece.len()].copy_from_slice(&bytes[piece]);
            if is_zero(cluster) {
                self.clusters.remove(&number);
            }
        }
        let end = (offset.0 + bytes.len() as u64).div_ceil(CLUSTER);
        Ok(offset.0 / CLUSTER..if bytes.is_empty() {
            offset.0 / CLUSTER
        } else {
            end
        })
    }

    /// Cuts off or appends zeros.
    pub fn resize(&mut self, size: ByteCount) {
        self.size = size.0;
        self.clusters.split_off(&size.0.div_ceil(CLUSTER));
        let tail = size.0 % CLUSTER;
        if tail != 0
            && let Some(last) = self.clusters.get_mut(&(size.0 / CLUSTER))
        {
            Arc::make_mut(last)[tail as usize..].fill(0);
        }
    }

    /// The ranges that hold data.
    pub fn data(&self) -> Vec<ByteRange> {
        ranges(self.clusters.keys().copied(), ByteCount(self.size))
    }
}

/// The parts of a range by cluster: number, place in the cluster, place in the range.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let place = offset + done as u64;
            let at = (place % CLUSTER) as usize;
            let count = (CLUSTER as usize - at).min(length - done);
            let piece = done..done + count;
            done += count;
            (place / CLUSTER, at, piece)
        })
    })
}

impl BlockRead for SparseDisk {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_range(
            ByteRange::new(offset.0, buffer.len() as u64),
            ByteCount(self.size),
        )?;
        for (number, at, piece) in pieces(offset.0, buffer.len()) {
            let count = piece.len();
            match self.clusters.get(&number) {
                Some(cluster) => buffer[piece].copy_from_slice(&cluster[at..at + count]),
                None => buffer[piece].fill(0),
            }
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, ByteCount(self.size))?;
        let mut extents = Vec::new();
        let mut at = range.offset.0;
        let first = at / CLUSTER;
        let end = range.end().0;
        for number in self
            .clusters
            .range(first..end.div_ceil(CLUSTER))
            .map(|(number, _)| *number)
        {
            let start = (number * CLUSTER).max(at);
            let stop = ((number + 1) * CLUSTER).min(end);
            push_extent(&mut extents, Extent::zero(at, start - at));
            push_extent(&mut extents, Extent::data(start, stop - start));
            at = stop;
        }
        push_extent(&mut extents, Extent::zero(at, end - at));
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::block::BlockWrite;
    use base::block::all_extents;
    use base::memory::MemoryDisk;
    use base::random::{Random, SeededRandom};

    #[test]
    fn a_sparse_disk_reads_like_a_plain_one() {
        let size = 10 * CLUSTER + 1000;
        let random = SeededRandom::new(5);
        let mut sparse = SparseDisk::new(ByteCount(size));
        let plain = MemoryDisk::new(ByteCount(size)).unwrap();
        for _ in 0..300 {
            let length = random.below(3 * CLUSTER);
            let offset = random.below(size - length + 1);
            let mut bytes = vec![0; length as usize];
            if !random.one_in(3) {
                random.fill(&mut bytes);
            }
            sparse.write(ByteOffset(offset), &bytes).unwrap();
            plain.write_at(ByteOffset(offset), &bytes).unwrap();
        }
        let mut read = vec![0; size as usize];
        sparse.read_at(ByteOffset(0), &mut read).unwrap();
        assert!(read == plain.to_vec());
        for extent in all_extents(&sparse, ByteRange::new(77, size - 99)).unwrap() {
            let range = extent.range.offset.0 as usize..extent.range.end().0 as usize;
            assert!(extent.kind == base::block::ExtentKind::Data || is_zero(&read[range]));
        }
        let smaller = 3 * CLUSTER + 10;
        sparse.resize(ByteCount(smaller));
        sparse.resize(ByteCount(size));
        read[smaller as usize..].fill(0);
        let mut again = vec![1; size as usize];
        sparse.read_at(ByteOffset(0), &mut again).unwrap();
        assert!(again == read);
    }
}
