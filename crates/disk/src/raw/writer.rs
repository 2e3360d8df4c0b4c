//! Writing raw images and block devices.
//!
//! Knows: sparse files, and zeroing without storing zeros. Refuses to know: when to sync; the
//! caller asks for it with `flush`.

use super::reader::RawDisk;
use crate::file::{Access, GrowingFile, HostFile, check_disk_size};
use base::block::{BlockWrite, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Makes a new sparse raw image of `size` zeros.
///
/// # Errors
/// `Exists` where the name is taken; `Full`, `Denied` and others of the system.
pub fn create(path: &Path, size: ByteCount) -> Result<RawDisk> {
    check_disk_size(size.0)?;
    let file = HostFile::create(path)?;
    file.set_length(size.0)?;
    RawDisk::new(file)
}

/// Opens an existing raw image or block device for writing.
///
/// # Errors
/// `NotFound`, `Denied`; `Invalid` where it is neither a file nor a block device.
pub fn open_writable(path: &Path) -> Result<RawDisk> {
    RawDisk::new(HostFile::open(path, Access::Write)?)
}

/// Opens a block device.
///
/// For writing it is opened exclusively: a device that is mounted, or held by LVM, RAID or another
/// process in the same way, is refused.
///
/// # Errors
/// `Conflict` where it is in use; `Invalid` where it is not a block device.
pub fn open_device(path: &Path, access: Access) -> Result<RawDisk> {
    let file = match access {
        Access::Read => HostFile::open(path, access)?,
        Access::Write => open_exclusive(path)?,
    };
    if !file.is_device() {
        return Err(Error::invalid(
            "disk.raw.not-a-device",
            format!("{} is a file, not a block device", path.display()),
        )
        .hint("name the device, such as /dev/sdb, or treat the file as an image"));
    }
    RawDisk::new(file)
}

fn open_exclusive(path: &Path) -> Result<HostFile> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    // O_EXCL without O_CREAT means "not in use by the system" and is defined for devices only.
    let probe = HostFile::open(path, Access::Read)?;
    if !probe.is_device() {
        return Ok(probe);
    }
    let flags = crate::file::open_flags(Access::Write) | OFlags::EXCL;
    match crate::file::retry(|| rustix::fs::open(path, flags, Mode::empty())) {
        Ok(fd) => HostFile::from_file(fd.into(), path),
        Err(Errno::BUSY) => Err(Error::new(
            Kind::Conflict,
            "disk.raw.device-busy",
            format!("{} is mounted or in use", path.display()),
        )
        .hint("unmount its file systems and stop LVM or RAID on it, then try again")),
        Err(error) => Err(Error::io(
            format!("opening {}", path.display()),
            error.into(),
        )),
    }
}

impl BlockWrite for RawDisk {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        check_range(
            ByteRange::new(offset.0, bytes.len() as u64),
            ByteCount(self.size),
        )?;
        self.file.write_at(offset.0, bytes)
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        check_range(range, ByteCount(self.size))?;
        self.file.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(Error::new(
                Kind::Io,
                "disk.raw.sync-failed-before",
                "a sync of this disk failed before; what it holds is not known",
            )
            .hint("write the disk anew, to another place if the error stays"));
        }
        self.file
            .sync()
            .inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }
}
