//! A disk in memory, for tests and for small overlays.
//!
//! Knows: a vector of bytes. Refuses to know: durability (`flush` does nothing).

use crate::block::{BlockRead, BlockWrite, Extent, check_range, is_zero, push_extent};
use crate::error::Result;
use crate::size::{ByteCount, ByteOffset, ByteRange, KIB};
use std::sync::{PoisonError, RwLock};

/// A disk in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    bytes: RwLock<Vec<u8>>,
    size: u64,
}

impl MemoryDisk {
    /// A disk of zeros.
    pub fn new(size: ByteCount) -> Result<Self> {
        Ok(Self::from(vec![0; size.as_usize()?]))
    }

    /// A copy of all its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl From<Vec<u8>> for MemoryDisk {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            size: bytes.len() as u64,
            bytes: RwLock::new(bytes),
        }
    }
}

impl MemoryDisk {
    /// The place of a checked range in the vector.
    fn place(&self, offset: ByteOffset, length: usize) -> Result<std::ops::Range<usize>> {
        check_range(
            ByteRange::new(offset.0, length as u64),
            ByteCount(self.size),
        )?;
        let start = ByteCount(offset.0).as_usize()?;
        Ok(start..start + length)
    }
}

impl BlockRead for MemoryDisk {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let place = self.place(offset, buffer.len())?;
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        buffer.copy_from_slice(&bytes[place]);
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        let place = self.place(range.offset, range.length.as_usize()?)?;
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let mut extents = Vec::new();
        let mut at = range.offset.0;
        for page in bytes[place].chunks((4 * KIB) as usize) {
            let length = page.len() as u64;
            push_extent(
                &mut extents,
                if is_zero(page) {
                    Extent::zero(at, length)
                } else {
                    Extent::data(at, length)
                },
            );
            at += length;
        }
        Ok(extents)
    }
}

impl BlockWrite for MemoryDisk {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let place = self.place(offset, bytes.len())?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)[place].copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        let place = self.place(range.offset, range.length.as_usize()?)?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)[place].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::all_extents;

    #[test]
    fn reads_what_was_written_and_tells_zeros_from_data() {
        let disk = MemoryDisk::new(ByteCount(20 * KIB)).unwrap();
        disk.write_at(ByteOffset(8 * KIB), b"backstay").unwrap();
        let mut buffer = [0; 8];
        disk.read_at(ByteOffset(8 * KIB), &mut buffer).unwrap();
        assert_eq!(&buffer, b"backstay");
        assert!(disk.read_at(ByteOffset(20 * KIB - 4), &mut buffer).is_err());
        assert!(disk.read_at(ByteOffset(u64::MAX), &mut buffer).is_err());
        assert_eq!(
            all_extents(&disk, ByteRange::new(0, 20 * KIB)).unwrap(),
            vec![
                Extent::zero(0, 8 * KIB),
                Extent::data(8 * KIB, 4 * KIB),
                Extent::zero(12 * KIB, 8 * KIB)
            ]
        );
    }
}
