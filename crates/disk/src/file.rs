//! A file or block device of this machine, read and written at any place.
//!
//! Knows: the system calls for size, holes, zeroing and syncing, and their fall-backs.
//! Refuses to know: which format the bytes have.

use base::block::Extent;
use base::size::{ByteRange, MIB};
use base::{Error, Kind, Result};
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What one wants to do with a file or device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only read it.
    Read,
    /// Read and write it.
    Write,
}

/// A file that an image format writes: it grows where it is written past its end.
///
/// The formats' writers take this instead of a file so that tests can put a disk that forgets
/// unsynced writes beneath them.
pub(crate) trait GrowingFile: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> Result<u64>;
    /// Fills `buffer` from `offset` on; an error where the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Grows or cuts the file; what is new reads as zeros.
    fn set_length(&self, length: u64) -> Result<()>;
    /// Makes `range` read as zeros, giving its space back where the file system can.
    fn write_zeroes(&self, range: ByteRange) -> Result<()>;
    /// Returns when all that was written before is on stable storage.
    fn sync(&self) -> Result<()>;
}

/// A regular file or block device.
#[derive(Debug)]
pub(crate) struct HostFile {
    file: File,
    shown: String,
    is_device: bool,
}

impl HostFile {
    /// Opens an existing file or block device; anything else (folder, pipe, socket) is refused.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self> {
        let doing = || format!("opening {}", path.display());
        let fd = retry(|| rustix::fs::open(path, open_flags(access), Mode::empty()))
            .map_err(|error| Error::io(doing(), error.into()))?;
        Self::from_file(File::from(fd), path)
    }

    /// Takes a file that is open already.
    pub(crate) fn from_file(file: File, path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| Error::io(format!("looking at {shown}"), error.into()))?;
        let is_device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => false,
            FileType::BlockDevice => true,
            _ => {
                return Err(Error::invalid(
                    "disk.file.not-a-file",
                    format!("{shown} is neither a file nor a block device"),
                )
                .hint("name a disk image file or a block device such as /dev/sdb"));
            }
        };
        Ok(Self {
            file,
            shown,
            is_device,
        })
    }

    /// Makes a new file; the name must be free. Nobody else may read it (disks hold secrets), and
    /// its name is durable.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::io(format!("creating {}", path.display()), error))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Error::io(format!("syncing {}", folder.display()), error))?;
        Self::from_file(file, path)
    }

    /// Whether it is a block device.
    pub(crate) fn is_device(&self) -> bool {
        self.is_device
    }

    /// The file itself, for system calls that only one format needs.
    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    /// How many bytes it occupies on its file system; a device occupies all of it.
    pub(crate) fn allocated(&self) -> Result<u64> {
        if self.is_device {
            return self.length();
        }
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.failed("looking at", error))?;
        Ok(metadata.blocks().saturating_mul(512))
    }

    /// The first extent at or after `range.offset`, at most `range` long: a hole of the file reads
    /// as zeros. Only right for files that nobody writes meanwhile.
    pub(crate) fn extent(&self, range: ByteRange) -> Extent {
        let (at, length) = (range.offset.0, range.length.0);
        if self.is_device {
            return Extent::data(at, length);
        }
        let end = range.end().0;
        let data = match retry(|| rustix::fs::seek(&self.file, SeekFrom::Data(at))) {
            Ok(data) => data.min(end),
            // No data from here to the end of the file.
            Err(Errno::NXIO) => end,
            // A file system without holes.
            Err(_) => return Extent::data(at, length),
        };
        if data > at {
            return Extent::zero(at, data - at);
        }
        match retry(|| rustix::fs::seek(&self.file, SeekFrom::Hole(at))) {
            Ok(hole) if hole > at => Extent::data(at, hole.min(end) - at),
            _ => Extent::data(at, length),
        }
    }

    fn failed(&self, verb: &str, error: impl Into<std::io::Error>) -> Error {
        Error::io(format!("{verb} {}", self.shown), error.into())
    }
}

impl GrowingFile for HostFile {
    fn length(&self) -> Result<u64> {
        retry(|| rustix::fs::seek(&self.file, SeekFrom::End(0)))
            .map_err(|error| self.failed("measuring", error))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::corrupt(
                    "disk.file.short",
                    format!(
                        "{} ends before offset {offset}+{}",
                        self.shown,
                        buffer.len()
                    ),
                )
                .hint("the file was cut off or is being changed by somebody else")
            } else {
                self.failed("reading", error)
            }
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| self.failed("writing", error))
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.file
            .set_len(length)
            .map_err(|error| self.failed("resizing", error))
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        let (offset, length) = (range.offset.0, range.length.0);
        if length == 0 {
            return Ok(());
        }
        let ways = [
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        ];
        for way in ways {
            match retry(|| rustix::fs::fallocate(&self.file, way, offset, length)) {
                Ok(()) => return Ok(()),
                // This file system or device cannot, or not at this alignment.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::NODEV) => {}
                Err(error) => return Err(self.failed("zeroing", error)),
            }
        }
        let zeros = vec![0; length.min(MIB) as usize];
        let mut at = offset;
        while at < range.end().0 {
            let step = (range.end().0 - at).min(MIB);
            self.write_at(at, &zeros[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| self.failed("syncing", error))
    }
}

/// Non-blocking, so that a pipe in the place of an image cannot hold us; it has no effect on files
/// and block devices.
pub(crate) fn open_flags(access: Access) -> OFlags {
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match access {
        Access::Read => flags | OFlags::RDONLY,
        Access::Write => flags | OFlags::RDWR,
    }
}

/// Repeats a system call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// An error unless `size` is one a disk can have.
pub(crate) fn check_disk_size(size: u64) -> Result<()> {
    if size > base::limit::DISK_SIZE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "disk.size.too-large",
            format!(
                "a disk of {} is larger than any disk can be",
                base::size::ByteCount(size)
            ),
        ));
    }
    Ok(())
}
