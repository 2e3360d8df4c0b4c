//! A part of a disk as a disk.
//!
//! Knows: where it starts and ends. Refuses to know: what partition that is.

use base::Result;
use base::block::{BlockRead, BlockWrite, Extent, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};

/// A part of a disk. What lies outside cannot be reached through it.
pub struct Window<D> {
    disk: D,
    range: ByteRange,
}

impl<D: BlockRead> Window<D> {
    /// The bytes of `range` of `disk`.
    ///
    /// # Errors
    /// `Invalid` where the range reaches past the end of the disk.
    pub fn new(disk: D, range: ByteRange) -> Result<Self> {
        check_range(range, disk.size())?;
        Ok(Self { disk, range })
    }

    /// The place of a range in the disk below.
    fn below(&self, offset: ByteOffset, length: u64) -> Result<ByteRange> {
        check_range(ByteRange::new(offset.0, length), self.range.length)?;
        Ok(ByteRange::new(self.range.offset.0 + offset.0, length))
    }
}

impl<D: BlockRead> BlockRead for Window<D> {
    fn size(&self) -> ByteCount {
        self.range.length
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.disk
            .read_at(self.below(offset, buffer.len() as u64)?.offset, buffer)
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        let mut extents = self
            .disk
            .extents(self.below(range.offset, range.length.0)?)?;
        for extent in &mut extents {
            extent.range.offset = ByteOffset(extent.range.offset.0 - self.range.offset.0);
        }
        Ok(extents)
    }
}

impl<D: BlockWrite> BlockWrite for Window<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        self.disk
            .write_at(self.below(offset, bytes.len() as u64)?.offset, bytes)
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        self.disk
            .write_zeroes(self.below(range.offset, range.length.0)?)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
