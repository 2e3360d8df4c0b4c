//! Images and small files of the host.
//!
//! Knows: what an image is, and reading, writing and removing files by absolute path. Refuses to
//! know: why the files matter.

use crate::sink::sync_folder;
use crate::source::absolute;
use base::limit::POINT_FILE_SIZE_MAX;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::agent::{AgentResponse, ImageDescription};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

pub(super) fn read(path: &str) -> Result<AgentResponse> {
    let path = absolute(path)?;
    // Non-blocking, so that a pipe in the place of the file cannot hold us.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| opening(path, error))?;
    let metadata = file.metadata().map_err(|error| opening(path, error))?;
    if !metadata.is_file() {
        return Err(not_a_file(path));
    }
    let mut bytes = Vec::new();
    file.take(POINT_FILE_SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(format!("reading {}", path.display()), error))?;
    if bytes.len() as u64 > POINT_FILE_SIZE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "mover.file.too-large",
            format!(
                "{} has more than {}",
                path.display(),
                ByteCount(POINT_FILE_SIZE_MAX)
            ),
        ));
    }
    Ok(AgentResponse::Bytes(bytes))
}

pub(super) fn write(path: &str, bytes: &[u8]) -> Result<AgentResponse> {
    let path = absolute(path)?;
    let doing = |error| Error::io(format!("writing {}", path.display()), error);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(doing)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        drop(std::fs::remove_file(path));
        return Err(doing(error));
    }
    sync_folder(path)?;
    Ok(AgentResponse::Done)
}

pub(super) fn remove(paths: &[String]) -> Result<AgentResponse> {
    for path in paths {
        let path = absolute(path)?;
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

fn opening(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("opening {}", path.display()), error)
}

fn not_a_file(path: &Path) -> Error {
    Error::invalid(
        "mover.file.not-a-file",
        format!("{} is not a file", path.display()),
    )
}
