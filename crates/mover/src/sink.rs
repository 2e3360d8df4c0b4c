//! Opening what a disk is restored to.
//!
//! Knows: new files, files that are replaced, and block devices; that a restore which fails leaves
//! no half file and no damaged old one. Refuses to know: where the bytes come from.

use crate::source::absolute;
use base::block::BlockWrite;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::agent::ImageTarget;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A target open for a restore. Dropped before [`Sink::keep`] it removes what it made.
pub struct Sink {
    disk: Option<Box<dyn BlockWrite>>,
    made: Option<Made>,
}

/// A file made for this restore.
struct Made {
    /// Where it is written.
    path: PathBuf,
    /// The old file it takes the place of at the end.
    replaces: Option<PathBuf>,
}

impl Sink {
    /// Opens a target for a disk of `size`. A new file belongs to its maker alone (mode 0600). An
    /// old file is replaced by a new one at the end, with the old one's owner and mode, so it stays
    /// as it was until then; a block device is written in place.
    ///
    /// # Errors
    /// `Exists` (`mover.target.exists`) where something is there and it was not said to overwrite
    /// it; `Invalid` for other formats, relative paths, and devices that are too small.
    pub fn open(target: &ImageTarget, size: ByteCount) -> Result<Self> {
        let path = absolute(&target.path)?;
        let old = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(format!("looking at {}", path.display()), error)),
        };
        match old {
            None => Self::make(path.to_owned(), None, &target.format, size),
            Some(_) if !target.overwrite => Err(Error::new(
                Kind::Exists,
                "mover.target.exists",
                format!("{} is there already", path.display()),
            )
            .hint("choose another name, or say that it may be overwritten")),
            Some(old) if old.file_type().is_block_device() => {
                Self::device(path, &target.format, size)
            }
            Some(old) if old.is_file() => Self::replace(path, &old, &target.format, size),
            Some(_) => Err(Error::invalid(
                "mover.target.not-a-file",
                format!("{} is neither a file nor a block device", path.display()),
            )),
        }
    }

    fn make(
        path: PathBuf,
        replaces: Option<PathBuf>,
        format: &str,
        size: ByteCount,
    ) -> Result<Self> {
        let disk = create(&path, format, size).inspect_err(|error| {
            // Whatever failed after the name was ours leaves an empty file.
            if !matches!(error.kind(), Kind::Exists | Kind::Invalid) {
                drop(std::fs::remove_file(&path));
            }
        })?;
        let sink = Self {
            disk: Some(disk),
            made: Some(Made { path, replaces }),
        };
        sink.set_mode(0o600)?;
        Ok(sink)
    }

    fn replace(
        path: &Path,
        old: &std::fs::Metadata,
        format: &str,
        size: ByteCount,
    ) -> Result<Self> {
        let real = std::fs::canonicalize(path)
            .map_err(|error| Error::io(format!("resolving {}", path.display()), error))?;
        let beside = beside(&real)?;
        let sink = Self::make(beside, Some(real), format, size)?;
        if let Some(made) = &sink.made {
            // Only root may give files away; for others the new file stays their own.
            if let Err(error) =
                std::os::unix::fs::chown(&made.path, Some(old.uid()), Some(old.gid()))
            {
                tracing::info!("{} keeps its maker as owner: {error}", made.path.display());
            }
            sink.set_mode(old.permissions().mode() & 0o7777)?;
        }
        Ok(sink)
    }

    fn device(path: &Path, format: &str, size: ByteCount) -> Result<Self> {
        if format != "raw" {
            return Err(Error::new(
                Kind::Unsupported,
                "mover.target.device-format",
                format!(
                    "{} is a block device and takes raw bytes only",
                    path.display()
                ),
            )
            .hint("restore in the format raw"));
        }
        let device = disk::raw::open_device(path, disk::Access::Write)?;
        let room = base::block::BlockRead::size(&device);
        if room < size {
            return Err(crate::pipeline::restore::too_small(room, size));
        }
        Ok(Self {
            disk: Some(Box::new(device)),
            made: None,
        })
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let Some(made) = &self.made else {
            return Ok(());
        };
        std::fs::set_permissions(&made.path, std::fs::Permissions::from_mode(mode)).map_err(
            |error| {
                Error::io(
                    format!("setting the mode of {}", made.path.display()),
                    error,
                )
            },
        )
    }

    /// What to write to.
    ///
    /// # Errors
    /// Never before [`Sink::keep`].
    pub fn target(&self) -> Result<crate::pipeline::restore::Target<'_>> {
        let disk = self.disk.as_deref().ok_or_else(|| {
            Error::new(
                Kind::Bug,
                "mover.target.closed",
                "the target was closed before its end",
            )
        })?;
        // A file made just now is all zeros; what a device holds is not known.
        Ok(crate::pipeline::restore::Target {
            disk,
            blank: self.made.is_some(),
        })
    }

    /// Makes what was written stay, under its own name, on stable storage.
    ///
    /// # Errors
    /// Those of the file system; the old file, if there was one, is as it was then.
    pub fn keep(mut self) -> Result<()> {
        if let Some(disk) = self.disk.take() {
            disk.flush()?;
        }
        let Some(made) = &self.made else {
            return Ok(());
        };
        let name = made.replaces.as_deref().unwrap_or(&made.path).to_owned();
        if let Some(old) = &made.replaces {
            std::fs::rename(&made.path, old)
                .map_err(|error| Error::io(format!("replacing {}", old.display()), error))?;
        }
        self.made = None;
        sync_folder(&name)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.disk.take());
        if let Some(made) = &self.made
            && let Err(error) = std::fs::remove_file(&made.path)
        {
            tracing::warn!("the half file {} stays: {error}", made.path.display());
        }
    }
}

fn create(path: &Path, format: &str, size: ByteCount) -> Result<Box<dyn BlockWrite>> {
    match format {
        "raw" => Ok(Box::new(disk::raw::create(path, size)?)),
        "qcow2" => Ok(Box::new(disk::qcow2::create(path, size)?)),
        other => Err(unknown_format(other)),
    }
}

/// A free name for the file that will take the place of `path`.
fn beside(path: &Path) -> Result<PathBuf> {
    use base::random::Random;
    let mut random = [0; 6];
    base::os::OsRandom.fill(&mut random);
    let tail: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().ok_or_else(|| {
        Error::invalid(
            "mover.target.no-name",
            format!("{} names no file", path.display()),
        )
    })?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".backstay-{tail}"));
    Ok(path.with_file_name(beside))
}

/// Returns when the name of a file is on stable storage.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("syncing the folder {}", folder.display()), error))
}

fn unknown_format(format: &str) -> Error {
    Error::invalid(
        "mover.target.format",
        format!("\u{201c}{format}\u{201d} is not a format that can be written"),
    )
    .hint("choose raw or qcow2")
}

#[cfg(test)]
mod tests;
