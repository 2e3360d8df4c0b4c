//! Opening what is backed up.
//!
//! Knows: NBD exports, image files and block devices, and what says which parts of them changed.
//! Refuses to know: who made the snapshot behind them.

use crate::pipeline::load::ChangeMap;
use base::block::{BlockRead, Extent};
use base::size::{ByteCount, ByteRange};
use base::{Error, Kind, Result};
use mount::nbd::{ConnectOptions, NbdAddress, NbdClient};
use protocol::words::agent::DiskSource;
use std::path::Path;
use std::sync::Arc;

/// The kind of meta context that QEMU marks changes with.
const BITMAP_PREFIX: &str = "qemu:dirty-bitmap:";

/// A disk open for a backup.
pub struct Source {
    disk: Arc<dyn BlockRead>,
    tracker: Option<Tracker>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// A dirty bitmap behind the same connection as the disk.
struct Tracker {
    client: Arc<NbdClient>,
    bitmap: String,
}

impl Source {
    /// Opens a source. `format` is what the platform says of an image file: it is believed more
    /// than the file's content, which belongs to the guest where the file is raw.
    ///
    /// # Errors
    /// Those of the format or the connection; `Invalid` for a path that is not absolute or a
    /// context that is no dirty bitmap.
    pub fn open(source: &DiskSource, format: Option<&str>) -> Result<Self> {
        match source {
            DiskSource::NbdUnix {
                socket,
                export,
                changed,
            } => nbd(
                &NbdAddress::unix(socket.as_str(), export.as_str()),
                changed.as_deref(),
            ),
            DiskSource::NbdTcp {
                host,
                port,
                export,
                changed,
            } => nbd(
                &NbdAddress::tcp(host.as_str(), *port, export.as_str()),
                changed.as_deref(),
            ),
            DiskSource::Image { path } => image(path, format),
        }
    }

    /// Its bytes.
    pub fn disk(&self) -> &dyn BlockRead {
        &*self.disk
    }

    /// What marks changes.
    ///
    /// # Errors
    /// `Invalid` (`mover.source.no-tracker`) where nothing does.
    pub fn changes(&self) -> Result<&dyn ChangeMap> {
        match &self.tracker {
            Some(tracker) => Ok(tracker),
            None => Err(Error::invalid(
                "mover.source.no-tracker",
                "only changes are to be read, but the source has nothing that marks them",
            )
            .hint("read all of the disk")),
        }
    }

    /// An error unless the disk has the size that the platform says.
    ///
    /// # Errors
    /// `Conflict` (`mover.source.size`).
    pub fn check_size(&self, told: ByteCount) -> Result<()> {
        let size = self.disk.size();
        if size == told {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            "mover.source.size",
            format!(
                "the disk has {} bytes, the platform says {}: it was resized meanwhile",
                size.0, told.0
            ),
        )
        .hint("run the job again"))
    }
}

impl ChangeMap for Tracker {
    fn changed(&self, range: ByteRange) -> Result<Vec<Extent>> {
        self.client.changed_extents(&self.bitmap, range).collect()
    }
}

fn nbd(address: &NbdAddress, changed: Option<&str>) -> Result<Source> {
    let bitmap = match changed {
        None => None,
        Some(context) => Some(context.strip_prefix(BITMAP_PREFIX).ok_or_else(|| {
            Error::invalid(
                "mover.source.context",
                format!("\u{201c}{context}\u{201d} does not name a dirty bitmap"),
            )
        })?),
    };
    let options = match bitmap {
        Some(name) => ConnectOptions::default().bitmap(name),
        None => ConnectOptions::default(),
    };
    let client = Arc::new(NbdClient::connect(address, options)?);
    let tracker = bitmap.map(|name| Tracker {
        client: Arc::clone(&client),
        bitmap: name.to_owned(),
    });
    Ok(Source {
        disk: client,
        tracker,
        notes: Vec::new(),
    })
}

fn image(path: &str, format: Option<&str>) -> Result<Source> {
    let path = absolute(path)?;
    let options = disk::OpenOptions {
        format: format.and_then(disk::Format::from_name),
    };
    // Links are resolved first: a chain's other files lie beside the real file.
    let real = std::fs::canonicalize(path)
        .map_err(|error| Error::io(format!("opening {}", path.display()), error))?;
    let opener = disk::FolderOpener::beside(&real)?;
    let image = disk::open_with(&real, &opener, options)?;
    Ok(Source {
        disk: image.disk(),
        tracker: None,
        notes: image.info().warnings.clone(),
    })
}

/// A path that means the same in every process.
///
/// # Errors
/// `Invalid` (`mover.path.relative`).
pub fn absolute(path: &str) -> Result<&Path> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::invalid(
        "mover.path.relative",
        format!("\u{201c}{}\u{201d} is not an absolute path", path.display()),
    )
    .hint("begin the path with /"))
}
