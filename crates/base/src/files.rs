//! What a folder of files must promise.
//!
//! Knows: the few deeds the store needs from a file system, and what each leaves behind after a
//! crash. Refuses to know: which file system it is. The real one is [`crate::os::OsFiles`]; the
//! simulated one that forgets, tears and reorders lives in `sim`.
//!
//! # Promises
//! - Bytes written to a file are durable once its [`FileWrite::sync`] has returned, not before.
//! - A name made, moved or removed in a folder is durable once [`Files::sync_folder`] of that
//!   folder has returned, not before. Until then a crash may keep any subset of such changes.
//! - [`Files::publish`] and [`Files::rename_folder`] are atomic: all see the old names or the new.
//! - After a failed `sync` nothing is known about the file: drop it and write another one.

use crate::error::{Error, Result};
use crate::size::{ByteCount, ByteOffset};
use std::fmt;
use std::sync::Arc;

/// A place below the root of a [`Files`]: names joined by `/`, without `.`, `..` or empty parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// The root itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// A checked path.
    ///
    /// # Errors
    /// `Invalid` for absolute paths, `.`, `..`, empty parts, NUL bytes and parts over 255 bytes.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let fine = text.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.len() <= 255
                && !part.contains('\0')
        });
        if text.is_empty() || fine {
            Ok(Self(text))
        } else {
            Err(Error::invalid(
                "base.files.path-malformed",
                format!("\u{201c}{text}\u{201d} is not a path inside a repository"),
            ))
        }
    }

    /// The path of `name` in this folder. `name` may have several parts.
    pub fn join(&self, name: impl fmt::Display) -> Result<Self> {
        Self::new(if self.0.is_empty() {
            name.to_string()
        } else {
            format!("{}/{name}", self.0)
        })
    }

    /// The folder it is in; the root is in itself.
    pub fn folder(&self) -> Self {
        Self(
            self.0
                .rsplit_once('/')
                .map_or(String::new(), |(folder, _)| folder.to_owned()),
        )
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// As text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// One name in a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The name, without its folder.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// The length of a file; 0 for a folder.
    pub length: ByteCount,
}

/// How much room there is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    /// All of it.
    pub total: ByteCount,
    /// What we may still write.
    pub free: ByteCount,
}

/// A file open for reading, from any thread.
pub trait FileRead: Send + Sync {
    /// Its length.
    fn length(&self) -> Result<ByteCount>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `Corrupt` with code `base.files.short` where the file ends before.
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()>;
}

/// A new file open for writing from its start to its end.
pub trait FileWrite: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Returns when all that was appended is on stable storage.
    fn sync(&mut self) -> Result<()>;
}

/// Held while a process lives; see [`Files::try_lock`].
pub trait FileLock: Send + Sync {}

/// The door to a folder of files.
pub trait Files: Send + Sync {
    /// Creates a file for writing.
    ///
    /// # Errors
    /// `Exists` where the name is taken; `NotFound` where the folder is missing.
    fn create(&self, path: &Path) -> Result<Box<dyn FileWrite>>;

    /// Opens a file for reading. Files that were removed meanwhile stay readable where the system
    /// allows it; callers must not rely on it.
    fn open(&self, path: &Path) -> Result<Arc<dyn FileRead>>;

    /// Moves a file to a name that must be free, atomically.
    ///
    /// # Errors
    /// `Exists` where `to` is taken (the file stays where it was); `NotFound` where `from` or the
    /// folder of `to` is gone.
    fn publish(&self, from: &Path, to: &Path) -> Result<()>;

    /// Moves a file to a name, replacing what has that name, atomically.
    fn replace(&self, from: &Path, to: &Path) -> Result<()>;

    /// Moves a folder with all that is in it to a name that must be free, atomically.
    ///
    /// # Errors
    /// `NotFound` where it is gone: somebody else moved it first.
    fn rename_folder(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` where it is gone.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes a folder; it may be there already. Folders above it must exist.
    fn make_folder(&self, path: &Path) -> Result<()>;

    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> Result<()>;

    /// What is in a folder, in the order of names.
    ///
    /// # Errors
    /// `NotFound` where the folder is missing: that is never an empty list.
    fn list(&self, folder: &Path) -> Result<Vec<Entry>>;

    /// Returns when all changes of names in `folder` are on stable storage.
    fn sync_folder(&self, folder: &Path) -> Result<()>;

    /// How much room there is.
    fn space(&self) -> Result<Space>;

    /// Takes the lock of a file (made where missing) if nobody has it; `None` if somebody has.
    /// The system lets go of it when the holder drops it or its process ends in any way, so a lock
    /// that is free proves that its holder is dead, and no clock is asked.
    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn FileLock>>>;
}

/// Reads a whole file of at most `limit` bytes.
pub fn read_all(files: &dyn Files, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = files.open(path)?;
    let length = file.length()?;
    if length.0 > limit {
        return Err(Error::new(
            crate::Kind::Limit,
            "base.files.too-large",
            format!(
                "{path} is {length}, more than the {} allowed",
                ByteCount(limit)
            ),
        ));
    }
    let mut bytes = vec![0; length.as_usize()?];
    file.read_at(ByteOffset::ZERO, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for bad in ["/etc", "a//b", "../x", "a/./b", "a/..", "a\0b", "a/"] {
            assert!(Path::new(bad).is_err(), "{bad}");
        }
        let path = Path::root().join("packs").unwrap().join("ab/cd").unwrap();
        assert_eq!(path.as_str(), "packs/ab/cd");
        assert_eq!(path.folder().as_str(), "packs/ab");
        assert_eq!(path.name(), "cd");
        assert_eq!(Path::new("x").unwrap().folder(), Path::root());
    }
}
