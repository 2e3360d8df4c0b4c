//! Publishing: making a file durable under its final name, so that others see it whole or not.
//!
//! Knows: the one order that survives every crash: the bytes are synced under a working name, the
//! file is moved to a free name, the folder of that name is synced.
//! Refuses to know: what is in the file.

use base::files::{Files, Path};
use base::{Kind, Result};

/// Moves a *synced* file, named by content, to its final name and makes the name durable. Where the
/// name is taken, the same object is there already, or what damage has left of it: ours takes its
/// place, which changes nothing or mends it.
pub(crate) fn publish_file(files: &dyn Files, from: &Path, to: &Path) -> Result<()> {
    match files.publish(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Exists => files.replace(from, to)?,
        Err(error) => return Err(error),
    }
    files.sync_folder(&to.folder())
}

/// Writes a small file under a working name, then gives it its final, free name.
pub(crate) fn publish_bytes(
    files: &dyn Files,
    working: &Path,
    to: &Path,
    bytes: &[u8],
) -> Result<()> {
    write_synced(files, working, bytes)?;
    files.publish(working, to)?;
    files.sync_folder(&to.folder())
}

/// Writes a small file and makes its bytes durable (not yet its name).
pub(crate) fn write_synced(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = files.create(path)?;
    file.append(bytes)?;
    file.sync()
}

/// Removes a file; it may be gone already.
pub(crate) fn remove_if_there(files: &dyn Files, path: &Path) -> Result<bool> {
    match files.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder whose parent exists, durably.
pub(crate) fn make_folder(files: &dyn Files, path: &Path) -> Result<()> {
    files.make_folder(path)?;
    files.sync_folder(&path.folder())
}
