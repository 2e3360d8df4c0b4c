//! Small files that hold keys and certificates.
//!
//! Knows: how to write one so that it is whole or absent after a crash and only its owner reads it,
//! and how to notice one that others can read. Refuses to know: what is in it.

use base::{Error, Kind, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// The largest of them: a chain of certificates or a long revocation list.
const SIZE_MAX: u64 = 64 << 20;

/// Makes a folder that only its owner enters; it may be there already.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Error::io(format!("making the folder {}", folder.display()), error))
}

/// Writes a file whole, replacing what is there.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = folder.join(name);
    let new = folder.join(format!("{name}.new"));
    let doing = || format!("writing {}", path.display());
    let _ = std::fs::remove_file(&new);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        Error::io(doing(), error)
    })
}

/// Reads a file of text that anybody may read.
pub(crate) fn read(folder: &Path, name: &str) -> Result<String> {
    Ok(std::mem::take(&mut *read_checked(folder, name, 0)?))
}

/// Reads a file of text that nobody but its owner may read.
///
/// # Errors
/// `Denied` (`protocol.key.exposed`) where others can read it.
pub(crate) fn read_secret(folder: &Path, name: &str) -> Result<Zeroizing<String>> {
    read_checked(folder, name, 0o077)
}

fn read_checked(folder: &Path, name: &str, forbidden: u32) -> Result<Zeroizing<String>> {
    let path = folder.join(name);
    let doing = || format!("reading {}", path.display());
    let file = File::open(&path).map_err(|error| Error::io(doing(), error))?;
    let facts = file.metadata().map_err(|error| Error::io(doing(), error))?;
    if facts.mode() & forbidden != 0 {
        return Err(Error::new(
            Kind::Denied,
            "protocol.key.exposed",
            format!("{} can be read by others than its owner", path.display()),
        )
        .hint(format!(
            "consider the key known to others and make a new one, or run: chmod 600 {}",
            path.display()
        )));
    }
    // One more than allowed, so that a larger file is seen, and no reallocation leaves copies.
    let capacity = usize::try_from(facts.len().min(SIZE_MAX)).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(SIZE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Error::io(doing(), error))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "protocol.key.too-large",
            format!("{} is too large to be a key or certificate", path.display()),
        ));
    }
    Ok(text)
}
