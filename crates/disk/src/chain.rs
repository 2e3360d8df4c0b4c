//! Images on images: opening one, and the ones below it, without going round in circles.
//!
//! Knows: which format's reader to call, and how deep a chain may be.
//! Refuses to know: how a format names its parent.

use crate::image::{Format, Image, ImageInfo};
use crate::opener::{FileHandle, Opener};
use crate::{probe, qcow2, vhd, vhdx, vmdk};
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The deepest chain of images. Hypervisors stop at 32 to 200; each level costs a table cache and
/// open files.
pub(crate) const CHAIN_DEPTH_MAX: usize = 128;

/// The images that are being opened, topmost first.
pub(crate) struct Chain<'a> {
    opener: &'a dyn Opener,
    above: Vec<PathBuf>,
}

impl<'a> Chain<'a> {
    /// Nothing is open yet.
    pub(crate) fn new(opener: &'a dyn Opener) -> Self {
        Self {
            opener,
            above: Vec::new(),
        }
    }

    /// Opens the image in `file` as `format`, or as what its content says.
    pub(crate) fn open(&self, file: FileHandle, format: Option<Format>) -> Result<Image> {
        if self.above.contains(&file.path) {
            return Err(Error::invalid(
                "disk.chain.loop",
                format!(
                    "{} is its own parent, directly or through others",
                    file.path.display()
                ),
            )
            .hint("the image is damaged or made with bad intent; restore it from a backup"));
        }
        if self.above.len() >= CHAIN_DEPTH_MAX {
            return Err(Error::new(
                Kind::Limit,
                "disk.chain.too-deep",
                format!("more than {CHAIN_DEPTH_MAX} images depend on each other"),
            )
            .hint("commit or consolidate snapshots first"));
        }
        let mut above = self.above.clone();
        above.push(file.path.clone());
        let below = Chain {
            opener: self.opener,
            above,
        };
        let shown = file.path.display().to_string();
        let format = match format {
            Some(format) => format,
            None => probe::probe(&*file.bytes)
                .map_err(|error| error.context(format!("{shown} could not be opened")))?,
        };
        let image = match format {
            Format::Raw => Ok(open_raw(file)),
            Format::Qcow2 => qcow2::open(file, &below),
            Format::Vmdk => vmdk::open(file, &below),
            Format::Vhdx => vhdx::open(file, &below),
            Format::Vhd => vhd::open(file, &below),
        };
        image.map_err(|error| error.context(format!("{shown} could not be opened as {format}")))
    }

    /// Opens the parent that the image at `from` calls `reference`.
    pub(crate) fn parent(
        &self,
        from: &Path,
        reference: &str,
        format: Option<Format>,
    ) -> Result<Image> {
        self.open(self.opener.open_related(from, reference)?, format)
    }

    /// How much of a cache's `capacity` an image at this depth gets: deep chains must not multiply
    /// the memory they take.
    pub(crate) fn share(&self, capacity: usize) -> usize {
        (capacity / self.above.len().max(1)).max(1)
    }

    /// Opens a further file of the image at `from`.
    pub(crate) fn file(&self, from: &Path, reference: &str) -> Result<FileHandle> {
        self.opener.open_related(from, reference)
    }
}

fn open_raw(file: FileHandle) -> Image {
    let mut info = ImageInfo::new(&file, Format::Raw, "raw", file.bytes.size());
    info.sector_size = file.sector_size;
    Image::new(file.bytes, info)
}
