//! Where things lie in a repository (format page, section "Layout").
//!
//! Knows: every name below the root. Refuses to know: what is in the files.

use crate::id::{PackId, SegmentId};
use base::Result;
use base::files::Path;
use base::id::{PointId, WriterId};

/// The format's major version: another one is refused untouched.
pub(crate) const FORMAT_MAJOR: u16 = 1;
/// The format's minor version: what it adds may be ignored by older programs.
pub(crate) const FORMAT_MINOR: u16 = 0;

/// Every folder a new repository has.
pub(crate) const FOLDERS: &[&str] = &[
    "keys",
    "packs",
    "packs/data",
    "packs/tree",
    "index",
    "points",
    "deleted",
    "writers",
    "readers",
    "fenced",
    "collect",
];

/// Makes folders that are missing: a copy of a repository may lack those that were empty.
pub(crate) fn make_folders(files: &dyn base::files::Files) -> Result<()> {
    for name in FOLDERS {
        files.make_folder(&folder(name)?)?;
    }
    Ok(())
}

/// What a pack or segment holds: the two never share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Content {
    /// Blocks of disks and files.
    Data,
    /// Tree nodes.
    Tree,
}

impl Content {
    /// Both, in the order in which they become durable.
    pub(crate) const ALL: [Self; 2] = [Self::Data, Self::Tree];

    /// The number in formats.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
        }
    }

    /// From the number in formats.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Tree),
            _ => None,
        }
    }

    /// The folder of its packs.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Data => "packs/data",
            Self::Tree => "packs/tree",
        }
    }
}

pub(crate) fn folder(name: &str) -> Result<Path> {
    Path::new(name)
}

/// The repository's own description and its copy.
pub(crate) const CONFIG: [&str; 2] = ["repository", "repository.copy"];
/// The file that keeps room for deleting.
pub(crate) const RESERVE: &str = "reserve";

pub(crate) fn pack_folder(content: Content, id: &PackId) -> Result<Path> {
    Path::new(format!("{}/{:02x}", content.folder(), id.bytes()[0]))
}

pub(crate) fn pack(content: Content, id: &PackId) -> Result<Path> {
    pack_folder(content, id)?.join(id)
}

pub(crate) fn segment(id: &SegmentId) -> Result<Path> {
    Path::new(format!("index/{id}"))
}

pub(crate) fn point(id: PointId) -> Result<Path> {
    Path::new(format!("points/{id}"))
}

pub(crate) fn deleted(id: PointId) -> Result<Path> {
    Path::new(format!("deleted/{id}"))
}

pub(crate) fn fenced(id: WriterId) -> Result<Path> {
    Path::new(format!("fenced/{id}"))
}

pub(crate) fn collect_state(generation: u64) -> Result<Path> {
    Path::new(format!("collect/{generation:020}"))
}

pub(crate) fn collect_lock() -> Result<Path> {
    Path::new("collect/lock")
}
