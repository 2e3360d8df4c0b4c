//! Reading raw images and block devices.
//!
//! Knows: the size once at opening, and the holes of files. Refuses to know: writing.

use crate::extent::EXTENTS_PER_ANSWER;
use crate::file::{GrowingFile, HostFile, check_disk_size};
use crate::image::SectorSize;
use base::Result;
use base::block::{BlockRead, Extent, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};
use std::sync::atomic::AtomicBool;

/// A raw image or block device. It is a `BlockWrite` too; where it was opened for reading, the
/// system refuses the writes.
#[derive(Debug)]
pub struct RawDisk {
    pub(super) file: HostFile,
    pub(super) size: u64,
    /// Once a sync failed the system may have dropped what was written: it is not told twice.
    pub(super) sync_failed: AtomicBool,
}

impl RawDisk {
    pub(crate) fn new(file: HostFile) -> Result<Self> {
        let size = file.length()?;
        check_disk_size(size)?;
        Ok(Self {
            file,
            size,
            sync_failed: AtomicBool::new(false),
        })
    }

    /// Whether it is a block device rather than a file.
    pub fn is_device(&self) -> bool {
        self.file.is_device()
    }

    /// How many bytes the file occupies; all of it for a device.
    pub fn allocated(&self) -> Result<ByteCount> {
        self.file.allocated().map(ByteCount)
    }

    /// The sector size of a device; 512 bytes for files, which have none.
    pub fn sector_size(&self) -> SectorSize {
        let mut sectors = SectorSize {
            logical: 512,
            physical: 512,
        };
        if self.file.is_device() {
            if let Ok(logical) = rustix::fs::ioctl_blksszget(self.file.as_file()) {
                sectors.logical = logical;
            }
            if let Ok(physical) = rustix::fs::ioctl_blkpbszget(self.file.as_file()) {
                sectors.physical = physical;
            }
        }
        sectors
    }
}

impl BlockRead for RawDisk {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        self.file.read_at(offset.0, buffer)
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        let mut extents = Vec::new();
        let mut at = range.offset.0;
        while at < range.end().0 && extents.len() < EXTENTS_PER_ANSWER {
            let extent = self.file.extent(ByteRange::new(at, range.end().0 - at));
            at = extent.range.end().0;
            base::block::push_extent(&mut extents, extent);
        }
        Ok(extents)
    }
}
