//! A folder of this machine behind the [`Files`] door.
//!
//! Knows: the system calls, their retries and their durability rules. Paths are resolved beneath
//! the root only, and symbolic links are never followed, so that nothing planted in a repository
//! leads outside it. Refuses to know: what is in the files.

use crate::error::{Error, Kind, Result};
use crate::files::{Entry, FileLock, FileRead, FileWrite, Files, Path, Space};
use crate::size::{ByteCount, ByteOffset};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A folder of this machine.
#[derive(Debug)]
pub struct OsFiles {
    root: OwnedFd,
    shown: std::path::PathBuf,
}

const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);

impl OsFiles {
    /// Opens an existing folder.
    pub fn open(root: impl Into<std::path::PathBuf>) -> Result<Self> {
        let shown = root.into();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = fs::open(&shown, flags, Mode::empty())
            .map_err(|error| failed(format!("opening the folder {}", shown.display()), error))?;
        Ok(Self { root, shown })
    }

    /// Makes the folder, and those above it, where missing, and opens it.
    pub fn create_root(root: impl Into<std::path::PathBuf>) -> Result<Self> {
        let shown = root.into();
        std::fs::create_dir_all(&shown)
            .map_err(|error| Error::io(format!("making the folder {}", shown.display()), error))?;
        Self::open(shown)
    }

    /// The folder, as the person named it.
    pub fn root(&self) -> &std::path::Path {
        &self.shown
    }

    fn doing(&self, verb: &str, path: &Path) -> String {
        format!("{verb} {}/{path}", self.shown.display())
    }

    fn open_at(&self, verb: &str, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let text = if path.as_str().is_empty() {
            "."
        } else {
            path.as_str()
        };
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match fs::openat2(&self.root, text, flags, mode, resolve) {
                // EAGAIN: a folder above was renamed during the look-up.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NOSYS) => return self.open_at_old(verb, path, flags, mode),
                other => return other.map_err(|error| failed(self.doing(verb, path), error)),
            }
        }
    }

    /// Kernels before 5.6 have no `openat2`: walk down part by part, following no links.
    fn open_at_old(&self, verb: &str, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let say = |error| failed(self.doing(verb, path), error);
        let walk = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut folder = fs::openat(&self.root, ".", walk, Mode::empty()).map_err(say)?;
        let mut parts = path
            .as_str()
            .split('/')
            .filter(|part| !part.is_empty())
            .peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let with = if last { flags | OFlags::NOFOLLOW } else { walk };
            let mode = if last { mode } else { Mode::empty() };
            folder = fs::openat(&folder, part, with, mode).map_err(say)?;
        }
        Ok(folder)
    }

    fn folder(&self, verb: &str, path: &Path) -> Result<OwnedFd> {
        self.open_at(
            verb,
            path,
            OFlags::DIRECTORY | OFlags::RDONLY,
            Mode::empty(),
        )
    }

    fn rename(&self, verb: &str, from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
        let from_folder = self.folder(verb, &from.folder())?;
        let to_folder = self.folder(verb, &to.folder())?;
        retry(|| fs::renameat_with(&from_folder, from.name(), &to_folder, to.name(), flags))
            .map_err(|error| failed(self.doing(verb, to), error))
    }
}

impl Files for OsFiles {
    fn create(&self, path: &Path) -> Result<Box<dyn FileWrite>> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let fd = self.open_at("creating", path, flags, FILE_MODE)?;
        Ok(Box::new(OsFileWrite {
            file: File::from(fd),
            shown: self.doing("writing", path),
        }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn FileRead>> {
        let fd = self.open_at("opening", path, OFlags::RDONLY, Mode::empty())?;
        Ok(Arc::new(OsFileRead {
            file: File::from(fd),
            shown: self.doing("reading", path),
        }))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename("publishing", from, to, RenameFlags::NOREPLACE)
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename("replacing", from, to, RenameFlags::empty())
    }

    fn rename_folder(&self, from: &Path, to: &Path) -> Result<()> {
        self.rename("moving", from, to, RenameFlags::NOREPLACE)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let folder = self.folder("removing", &path.folder())?;
        retry(|| fs::unlinkat(&folder, path.name(), AtFlags::empty()))
            .map_err(|error| failed(self.doing("removing", path), error))
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        let folder = self.folder("making the folder", &path.folder())?;
        match retry(|| fs::mkdirat(&folder, path.name(), FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(failed(self.doing("making the folder", path), error)),
        }
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        let folder = self.folder("removing the folder", &path.folder())?;
        retry(|| fs::unlinkat(&folder, path.name(), AtFlags::REMOVEDIR))
            .map_err(|error| failed(self.doing("removing the folder", path), error))
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        let say = |error| failed(self.doing("listing", folder), error);
        let fd = self.folder("listing", folder)?;
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&fd).map_err(say)? {
            let entry = entry.map_err(say)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let stat = match fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed between the two calls.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(say(error)),
            };
            let kind = fs::FileType::from_raw_mode(stat.st_mode);
            let is_folder = kind == fs::FileType::Directory;
            if !is_folder && kind != fs::FileType::RegularFile {
                continue;
            }
            let length = u64::try_from(stat.st_size).unwrap_or(0);
            entries.push(Entry {
                name: name.to_owned(),
                is_folder,
                length: ByteCount(if is_folder { 0 } else { length }),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        let fd = self.folder("syncing", folder)?;
        retry(|| fs::fsync(&fd)).map_err(|error| failed(self.doing("syncing", folder), error))
    }

    fn space(&self) -> Result<Space> {
        let stat = fs::fstatvfs(&self.root).map_err(|error| {
            failed(self.doing("asking for free space of", &Path::root()), error)
        })?;
        let unit = stat.f_frsize.max(1);
        Ok(Space {
            total: ByteCount(stat.f_blocks.saturating_mul(unit)),
            free: ByteCount(stat.f_bavail.saturating_mul(unit)),
        })
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
        let flags = OFlags::CREATE | OFlags::RDWR;
        let fd = self.open_at("locking", path, flags, FILE_MODE)?;
        match retry(|| fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(Box::new(OsFileLock { _fd: fd }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(self.doing("locking", path), error)),
        }
    }
}

struct OsFileRead {
    file: File,
    shown: String,
}

impl FileRead for OsFileRead {
    fn length(&self) -> Result<ByteCount> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| Error::io(&self.shown, error))?;
        Ok(ByteCount(metadata.len()))
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset.0).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::corrupt(
                    "base.files.short",
                    format!("{}: the file is too short", self.shown),
                )
            } else {
                Error::io(&self.shown, error)
            }
        })
    }
}

struct OsFileWrite {
    file: File,
    shown: String,
}

impl FileWrite for OsFileWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        std::io::Write::write_all(&mut self.file, bytes)
            .map_err(|error| Error::io(&self.shown, error))
    }

    fn sync(&mut self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| Error::io(&self.shown, error))
    }
}

struct OsFileLock {
    _fd: OwnedFd,
}

impl FileLock for OsFileLock {}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn failed(doing: String, error: Errno) -> Error {
    if error == Errno::LOOP || error == Errno::XDEV {
        return Error::new(Kind::Denied, "base.files.link", doing)
            .hint("a symbolic link lies on the way; Backstay follows none inside its folders");
    }
    Error::io(doing, error.into())
}

#[cfg(test)]
mod tests;
