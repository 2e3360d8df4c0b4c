//! Who decides which other files an image may refer to.
//!
//! Knows: backing files, extents, data files and parents are named by the image itself, which may
//! be hostile, so that a name is only a wish; this module grants it or not.
//! Refuses to know: what the formats use the files for.

use crate::file::{Access, HostFile, open_flags, retry};
use crate::image::SectorSize;
use crate::raw::RawDisk;
use base::block::BlockRead;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The longest name an image may use for another file, in bytes (`PATH_MAX`).
const REFERENCE_LENGTH_MAX: usize = 4096;

/// An open file that holds an image or a part of one.
#[derive(Clone)]
pub struct FileHandle {
    /// Where it is. Names in the image are relative to its folder; also how cycles are noticed.
    pub path: PathBuf,
    /// Its bytes. They must not change while an image on them is open.
    pub bytes: Arc<dyn BlockRead>,
    /// How many bytes it occupies.
    pub allocated: ByteCount,
    /// The sectors of the device, or 512 for a file.
    pub sector_size: SectorSize,
    /// Another program, such as a running machine, says that it writes the file.
    pub in_use: bool,
}

impl FileHandle {
    /// A file or block device of this machine, open for reading.
    pub fn open(path: &Path) -> Result<Self> {
        let place = std::fs::canonicalize(path)
            .map_err(|error| Error::io(format!("opening {}", path.display()), error))?;
        Self::from_raw(place, RawDisk::new(HostFile::open(path, Access::Read)?)?)
    }

    /// Any bytes under a name.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Arc<dyn BlockRead>) -> Self {
        let allocated = bytes.size();
        Self {
            path: path.into(),
            bytes,
            allocated,
            sector_size: SectorSize::default(),
            in_use: false,
        }
    }

    fn from_raw(path: PathBuf, disk: RawDisk) -> Result<Self> {
        Ok(Self {
            in_use: crate::in_use::is_written_by_others(&path),
            path,
            allocated: disk.allocated()?,
            sector_size: disk.sector_size(),
            bytes: Arc::new(disk),
        })
    }
}

/// Opens the files that an image refers to, or refuses.
pub trait Opener: Send + Sync {
    /// Opens the file that the image at `from` calls `reference`.
    ///
    /// # Errors
    /// `Denied` where the image may not refer to it; `NotFound` where it does not exist.
    fn open_related(&self, from: &Path, reference: &str) -> Result<FileHandle>;
}

/// Grants files in the image's own folder, and in and below others where somebody allows them.
/// Symbolic links are followed
/// only while they stay inside.
#[derive(Debug, Default)]
pub struct FolderOpener {
    /// Each folder, and whether what is below it counts too.
    folders: Vec<(PathBuf, bool)>,
}

impl FolderOpener {
    /// Grants the files that lie beside `image`, not those in folders below: an image in `/` must
    /// not reach everything.
    pub fn beside(image: &Path) -> Result<Self> {
        let image = std::fs::canonicalize(image)
            .map_err(|error| Error::io(format!("opening {}", image.display()), error))?;
        let mut opener = Self::default();
        if let Some(folder) = image.parent() {
            opener.folders.push((folder.to_owned(), false));
        }
        Ok(opener)
    }

    /// Grants one more folder and all below it.
    pub fn allow(mut self, folder: &Path) -> Result<Self> {
        let folder = std::fs::canonicalize(folder)
            .map_err(|error| Error::io(format!("opening {}", folder.display()), error))?;
        self.folders.push((folder, true));
        Ok(self)
    }

    /// Opens `rest` below `folder` without ever leaving it.
    fn open_beneath(&self, folder: &Path, rest: &Path) -> Result<RawDisk, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let base = retry(|| rustix::fs::open(folder, flags, Mode::empty()))?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = open_flags(Access::Read);
        let fd = loop {
            match rustix::fs::openat2(&base, rest, flags, Mode::empty(), resolve) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Kernels before 5.6, and containers that refuse what they do not know: look where the links lead, then open that.
                Err(Errno::NOSYS | Errno::PERM) => {
                    let real = std::fs::canonicalize(folder.join(rest))
                        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                    if !real.starts_with(folder) {
                        return Err(Errno::XDEV);
                    }
                    break retry(|| rustix::fs::open(&real, flags, Mode::empty()))?;
                }
                other => break other?,
            }
        };
        HostFile::from_file(fd.into(), &folder.join(rest))
            .and_then(RawDisk::new)
            .map_err(|_| Errno::INVAL)
    }
}

impl Opener for FolderOpener {
    fn open_related(&self, from: &Path, reference: &str) -> Result<FileHandle> {
        let place = related_path(from, reference)?;
        for (folder, below) in &self.folders {
            let Ok(rest) = place.strip_prefix(folder) else {
                continue;
            };
            if !below && rest.components().count() > 1 {
                continue;
            }
            return match self.open_beneath(folder, rest) {
                Ok(disk) => FileHandle::from_raw(place, disk),
                Err(Errno::XDEV | Errno::LOOP) => Err(outside(from, reference)),
                Err(Errno::INVAL) => Err(Error::invalid(
                    "disk.opener.not-a-file",
                    format!("{} is neither a file nor a block device", place.display()),
                )),
                Err(error) => Err(Error::io(
                    format!(
                        "opening {}, which {} refers to",
                        place.display(),
                        from.display()
                    ),
                    error.into(),
                )),
            };
        }
        Err(outside(from, reference))
    }
}

/// Grants nothing: for images that must stand alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoneOpener;

impl Opener for LoneOpener {
    fn open_related(&self, from: &Path, reference: &str) -> Result<FileHandle> {
        Err(Error::new(
            Kind::Denied,
            "disk.opener.alone",
            format!(
                "{} refers to \u{201c}{}\u{201d}, but must stand alone here",
                from.display(),
                shown(reference)
            ),
        )
        .hint("convert it to an image without parents first"))
    }
}

/// Files in memory, by their paths: for tests and for parsers that get all parts handed in.
#[derive(Clone, Default)]
pub struct MemoryOpener {
    files: HashMap<PathBuf, Arc<dyn BlockRead>>,
}

impl MemoryOpener {
    /// Adds a file.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, bytes: Arc<dyn BlockRead>) -> Self {
        self.files.insert(path.into(), bytes);
        self
    }
}

impl Opener for MemoryOpener {
    fn open_related(&self, from: &Path, reference: &str) -> Result<FileHandle> {
        let place = related_path(from, reference)?;
        match self.files.get(&place) {
            Some(bytes) => Ok(FileHandle::from_bytes(place, bytes.clone())),
            None => Err(Error::new(
                Kind::NotFound,
                "disk.opener.not-found",
                format!(
                    "{} refers to {}, which is missing",
                    from.display(),
                    place.display()
                ),
            )),
        }
    }
}

/// Where `reference` in the image at `from` points, without `.` and `..`.
fn related_path(from: &Path, reference: &str) -> Result<PathBuf> {
    if reference.is_empty() || reference.len() > REFERENCE_LENGTH_MAX || reference.contains('\0') {
        return Err(Error::invalid(
            "disk.opener.reference-malformed",
            format!(
                "{} refers to a file by a name that cannot exist",
                from.display()
            ),
        ));
    }
    let joined = from
        .parent()
        .unwrap_or_else(|| Path::new("/"))
        .join(reference);
    let mut place = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            other => place.push(other),
        }
    }
    Ok(place)
}

fn outside(from: &Path, reference: &str) -> Error {
    Error::new(
        Kind::Denied,
        "disk.opener.outside",
        format!(
            "{} refers to \u{201c}{}\u{201d}, which lies outside the folders it may use",
            from.display(),
            shown(reference)
        ),
    )
    .hint(
        "if you trust this image, allow the folder of that file too, or move both into one folder",
    )
}

/// A name from an image, fit for a message.
fn shown(reference: &str) -> String {
    reference
        .chars()
        .take(200)
        .filter(|letter| !letter.is_control())
        .collect()
}
