//! Images and small files of the host.
//!
//! Knows: what an image is, and reading, writing and removing files by absolute path, piece by
//! piece. Refuses to know: why the files matter.

use crate::sink::sync_folder;
use crate::source::absolute;
use base::limit::POINT_FILE_SIZE_MAX;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::paging::PIECE_SIZE;
use protocol::words::agent::{AgentResponse, ImageDescription, Piece};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files that may be in the writing at one time: nobody has a use for more.
const UNFINISHED_MAX: usize = 16;

/// Files that are being written and lack pieces.
#[derive(Default)]
pub(super) struct HostFiles {
    unfinished: Mutex<BTreeMap<PathBuf, Unfinished>>,
}

/// A file that lacks pieces.
struct Unfinished {
    file: File,
    length: u64,
}

pub(super) fn probe_image(path: &str) -> Result<AgentResponse> {
    let path = absolute(path)?;
    let real = std::fs::canonicalize(path).map_err(|error| opening(path, error))?;
    let image = disk::open(&real)?;
    let info = image.info();
    Ok(AgentResponse::Image(ImageDescription {
        format: info.format.name().to_owned(),
        size: info.virtual_size,
        allocated: info.allocated,
        notes: info.warnings.clone(),
    }))
}

/// A piece of a file.
pub(super) fn read(path: &str, from: ByteCount) -> Result<AgentResponse> {
    let path = absolute(path)?;
    let reading = |error| Error::io(format!("reading {}", path.display()), error);
    // Non-blocking, so that a pipe in the place of the file cannot hold us.
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| opening(path, error))?;
    let metadata = file.metadata().map_err(|error| opening(path, error))?;
    if !metadata.is_file() {
        return Err(not_a_file(path));
    }
    if metadata.len() > POINT_FILE_SIZE_MAX {
        return Err(too_large(path));
    }
    let mut bytes = Vec::new();
    let left = metadata.len().saturating_sub(from.0);
    if left > 0 {
        file.seek(SeekFrom::Start(from.0)).map_err(reading)?;
        file.take(left.min(PIECE_SIZE as u64))
            .read_to_end(&mut bytes)
            .map_err(reading)?;
    }
    Ok(AgentResponse::Piece(Piece {
        bytes,
        total: ByteCount(metadata.len()),
        revision: revision(&metadata),
    }))
}

/// Another number where a file was replaced or written to.
fn revision(metadata: &std::fs::Metadata) -> u64 {
    let seconds = metadata.mtime().cast_unsigned();
    let moment = seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(metadata.mtime_nsec().cast_unsigned());
    moment ^ metadata.ino().rotate_left(32)
}

impl HostFiles {
    fn unfinished(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Unfinished>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece of a file. What fails is removed again.
    pub(super) fn write(
        &self,
        path: &str,
        from: ByteCount,
        bytes: &[u8],
        more: bool,
    ) -> Result<AgentResponse> {
        let path = absolute(path)?;
        let mut unfinished = self.unfinished();
        let begun = if from == ByteCount::ZERO {
            begin(path, unfinished.len())?
        } else {
            unfinished.remove(path).ok_or_else(|| out_of_order(path))?
        };
        match begun.append(path, from, bytes, more) {
            Ok(begun) if more => drop(unfinished.insert(path.to_owned(), begun)),
            Ok(_) => sync_folder(path)?,
            Err(error) => {
                drop(std::fs::remove_file(path));
                return Err(error);
            }
        }
        Ok(AgentResponse::Done)
    }

    /// Removes files. Gone is no error.
    pub(super) fn remove(&self, paths: &[String]) -> Result<AgentResponse> {
        for path in paths {
            let path = absolute(path)?;
            drop(self.unfinished().remove(path));
            match std::fs::symlink_metadata(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(opening(path, error)),
                Ok(metadata) if !metadata.is_file() => return Err(not_a_file(path)),
                Ok(_) => {}
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("removing {}", path.display()), error));
                }
                _ => sync_folder(path)?,
            }
        }
        Ok(AgentResponse::Done)
    }

    /// Removes the files whose last piece never came.
    pub(super) fn remove_unfinished(&self) {
        for path in std::mem::take(&mut *self.unfinished()).into_keys() {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "removing an unfinished file");
            }
        }
    }
}

/// Makes a new file.
fn begin(path: &Path, unfinished: usize) -> Result<Unfinished> {
    if unfinished >= UNFINISHED_MAX {
        return Err(Error::new(
            Kind::Limit,
            "mover.file.unfinished",
            format!("{unfinished} files are in the writing already"),
        )
        .hint("send the last pieces of those first"));
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| writing(path, error))?;
    Ok(Unfinished { file, length: 0 })
}

impl Unfinished {
    fn append(mut self, path: &Path, from: ByteCount, bytes: &[u8], more: bool) -> Result<Self> {
        if from.0 != self.length {
            return Err(out_of_order(path));
        }
        self.length += bytes.len() as u64;
        if self.length > POINT_FILE_SIZE_MAX {
            return Err(too_large(path));
        }
        self.file
            .write_all(bytes)
            .and_then(|()| if more { Ok(()) } else { self.file.sync_all() })
            .map_err(|error| writing(path, error))?;
        Ok(self)
    }
}

/// Pieces have to follow each other.
fn out_of_order(path: &Path) -> Error {
    Error::new(
        Kind::Conflict,
        "mover.file.out-of-order",
        format!(
            "a piece of {} does not follow the one before",
            path.display()
        ),
    )
    .hint("send the file anew from its beginning")
}

fn too_large(path: &Path) -> Error {
    Error::new(
        Kind::Limit,
        "mover.file.too-large",
        format!(
            "{} has more than {}",
            path.display(),
            ByteCount(POINT_FILE_SIZE_MAX)
        ),
    )
}

fn writing(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("writing {}", path.display()), error)
}

fn opening(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("opening {}", path.display()), error)
}

fn not_a_file(path: &Path) -> Error {
    Error::invalid(
        "mover.file.not-a-file",
        format!("{} is not a file", path.display()),
    )
}
