//! QEMU copy-on-write images, versions 2 and 3.

use base::block::{BlockRead, BlockWrite, Extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::path::Path;

/// A qcow2 image open for writing.
pub struct Qcow2Writer {
    disk: crate::raw::RawDisk,
}

/// Makes a new qcow2 image (version 3) of `size` zeros.
///
/// # Errors
/// `Exists` where the name is taken.
pub fn create(path: &Path, _size: ByteCount) -> Result<Qcow2Writer> {
    Err(Error::new(
        Kind::Unsupported,
        "disk.qcow2.unsupported",
        format!("{} cannot be made yet", path.display()),
    ))
}

impl BlockRead for Qcow2Writer {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        self.disk.extents(range)
    }
}

impl BlockWrite for Qcow2Writer {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        self.disk.write_at(offset, bytes)
    }
    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        self.disk.write_zeroes(range)
    }
    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
