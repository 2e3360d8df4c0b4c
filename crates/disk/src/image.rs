//! An open image: the disk in it, and what there is to say about it.
//!
//! Knows: what all formats have in common. Refuses to know: how any of them stores bytes.

use crate::chain::Chain;
use crate::opener::{FileHandle, FolderOpener, Opener};
use base::Result;
use base::block::{BlockRead, Extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU copy-on-write 2 and 3.
    Qcow2,
    /// VMware.
    Vmdk,
    /// Hyper-V since 2012.
    Vhdx,
    /// Virtual PC, Xen, older Hyper-V, Azure.
    Vhd,
}

impl Format {
    /// Its usual short name, such as `qcow2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
        }
    }

    /// The format of a short name, as people, libvirt and image headers write it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "raw" | "file" | "host_device" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            "vmdk" => Some(Self::Vmdk),
            "vhdx" => Some(Self::Vhdx),
            "vhd" | "vpc" => Some(Self::Vhd),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sectors a disk shows its guest, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SectorSize {
    /// The smallest piece it reads or writes.
    pub logical: u32,
    /// The smallest piece it writes without reading first.
    pub physical: u32,
}

impl Default for SectorSize {
    fn default() -> Self {
        Self {
            logical: 512,
            physical: 512,
        }
    }
}

/// One image below another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ParentInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The size of the disk in it.
    pub virtual_size: ByteCount,
}

/// What there is to say about an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ImageInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Which variant of the format, in the words of the format: `v3`, `streamOptimized`, `dynamic`.
    pub variant: String,
    /// The size of the disk in it.
    pub virtual_size: ByteCount,
    /// How many bytes its own files occupy, parents not counted.
    pub allocated: ByteCount,
    /// The piece by which the format stores data (cluster, grain, block); `None` for raw.
    pub block_size: Option<ByteCount>,
    /// The sectors the guest sees.
    pub sector_size: SectorSize,
    /// Its other files: extents, external data. Parents are below.
    pub files: Vec<PathBuf>,
    /// The images below it, nearest first.
    pub parents: Vec<ParentInfo>,
    /// What a person should know: it was not closed cleanly, a log was replayed, a format was
    /// guessed.
    pub warnings: Vec<String>,
}

impl ImageInfo {
    /// What is known of every image; the format adds the rest.
    pub(crate) fn new(file: &FileHandle, format: Format, variant: &str, size: ByteCount) -> Self {
        let warnings = match file.in_use {
            true => vec![
                "another program writes it now (a running machine?): what is read may fit \
                 together no more than after a power cut"
                    .to_owned(),
            ],
            false => Vec::new(),
        };
        Self {
            path: file.path.clone(),
            format,
            variant: variant.to_owned(),
            virtual_size: size,
            allocated: file.allocated,
            block_size: None,
            sector_size: SectorSize::default(),
            files: Vec::new(),
            parents: Vec::new(),
            warnings,
        }
    }

    /// Adds the image below and all those below it.
    pub(crate) fn add_parent(&mut self, parent: &ImageInfo) {
        self.parents.push(ParentInfo {
            path: parent.path.clone(),
            format: parent.format,
            virtual_size: parent.virtual_size,
        });
        self.parents.extend(parent.parents.iter().cloned());
        for warning in &parent.warnings {
            self.warnings
                .push(format!("{}: {warning}", parent.path.display()));
        }
    }
}

/// An image open for reading.
#[derive(Clone)]
pub struct Image {
    pub(crate) disk: Arc<dyn BlockRead>,
    pub(crate) info: ImageInfo,
    /// What children remember of it to notice that it was changed, in formats that have that.
    pub(crate) identity: Option<[u8; 16]>,
}

impl Image {
    /// An image of a format that gives it no identity.
    pub(crate) fn new(disk: Arc<dyn BlockRead>, info: ImageInfo) -> Self {
        Self {
            disk,
            info,
            identity: None,
        }
    }

    /// What there is to say about it.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// The disk in it, to be shared.
    pub fn disk(&self) -> Arc<dyn BlockRead> {
        self.disk.clone()
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl BlockRead for Image {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        self.disk.extents(range)
    }
}

/// How to open an image.
#[derive(Clone, Copy, Default, Debug)]
pub struct OpenOptions {
    /// The format, where it is known. A raw image's content belongs to the guest, who can make it
    /// look like any other format: always say `Raw` where something you trust says so.
    pub format: Option<Format>,
}

/// Opens the image or block device at `path`, recognising its format by its content. It may refer
/// to files in its own folder.
///
/// # Errors
/// `Unsupported` for unknown formats and features, `Corrupt` and `Invalid` for broken images,
/// `Denied` for references that leave the folder, `NotFound` for missing parents.
pub fn open(path: &Path) -> Result<Image> {
    open_with(path, &FolderOpener::beside(path)?, OpenOptions::default())
}

/// Opens the image or block device at `path`; `opener` decides what it may refer to.
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, opener: &dyn Opener, options: OpenOptions) -> Result<Image> {
    open_file(FileHandle::open(path)?, opener, options)
}

/// Opens the image in `file`; `opener` decides what it may refer to.
///
/// # Errors
/// As [`open`].
pub fn open_file(file: FileHandle, opener: &dyn Opener, options: OpenOptions) -> Result<Image> {
    Chain::new(opener).open(file, options.format)
}
