//! The descriptor of a VMware disk: a few lines of text.
//!
//! Knows: content ids, the parent's name, and the list of extents. Refuses to know: the extents'
//! insides.

use super::{SECTOR, corrupt, unsupported};
use base::{Error, Kind, Result};

/// The longest descriptor we read, in bytes: some thousand extents.
pub(super) const LENGTH_MAX: u64 = 1 << 20;
/// The most extents; each costs an open file. 1024 of 2 GiB make a disk of 2 TiB, the largest that
/// products ever split.
const EXTENTS_MAX: usize = 1024;
/// The content id that means "no parent".
const NO_PARENT: u32 = 0xffff_ffff;

/// How the bytes of an extent are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExtentStorage {
    /// In a file, one after the other, from this sector on.
    Flat { first_sector: u64 },
    /// In a file with a grain directory.
    Sparse,
    /// Nowhere: zeros.
    Zero,
}

/// One extent of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExtentLine {
    pub(super) sectors: u64,
    pub(super) storage: ExtentStorage,
    /// Empty for zeros.
    pub(super) file: String,
}

/// What the descriptor says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) create_type: String,
    pub(super) content_id: u32,
    /// The content id the parent had when this disk was made on it.
    pub(super) parent_content_id: u32,
    pub(super) parent_name: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
}

impl Descriptor {
    /// Reads a descriptor; what follows the first zero byte is padding.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        // Names may be in any of the old encodings that the descriptor states; all of them and
        // UTF-8 agree on ASCII, and what is not UTF-8 names no file we could find.
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut descriptor = Self {
            create_type: String::new(),
            content_id: NO_PARENT,
            parent_content_id: NO_PARENT,
            parent_name: None,
            extents: Vec::new(),
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(extent) = parse_extent(line)? {
                if descriptor.extents.len() == EXTENTS_MAX {
                    return Err(Error::new(
                        Kind::Limit,
                        "disk.vmdk.too-many-extents",
                        format!("the disk has more than {EXTENTS_MAX} extents"),
                    ));
                }
                descriptor.extents.push(extent);
            } else if let Some((key, value)) = line.split_once('=') {
                descriptor.set(key.trim(), value.trim().trim_matches('"'))?;
            }
        }
        if descriptor.parent_content_id == NO_PARENT {
            descriptor.parent_name = None;
        } else if descriptor.parent_name.is_none() {
            return Err(corrupt(
                "parent-name",
                "the disk has a parent but does not name it",
            ));
        }
        Ok(descriptor)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let content_id = || {
            u32::from_str_radix(value, 16)
                .map_err(|_| corrupt("content-id", format!("\u{201c}{key}\u{201d} is no number")))
        };
        match key.to_ascii_lowercase().as_str() {
            "cid" => self.content_id = content_id()?,
            "parentcid" => self.parent_content_id = content_id()?,
            "createtype" => value.clone_into(&mut self.create_type),
            "parentfilenamehint" => self.parent_name = Some(value.to_owned()),
            // The version, and the disk database: what virtual hardware saw the disk.
            _ => {}
        }
        Ok(())
    }
}

/// `ACCESS SECTORS TYPE "FILE" [FIRST-SECTOR ...]`; `None` where the line is something else.
fn parse_extent(line: &str) -> Result<Option<ExtentLine>> {
    let mut words = line.splitn(4, char::is_whitespace);
    let access = words.next().unwrap_or_default();
    match access {
        "RW" | "RDONLY" => {}
        "NOACCESS" => {
            return Err(unsupported(
                "no-access",
                "an extent of the disk may not be read",
            ));
        }
        _ => return Ok(None),
    }
    let malformed = || {
        corrupt(
            "extent-line",
            "an extent's line in the descriptor is malformed",
        )
    };
    let sectors: u64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(malformed)?;
    if sectors.checked_mul(SECTOR).is_none() {
        return Err(malformed());
    }
    let kind = words.next().ok_or_else(malformed)?;
    let rest = words.next().unwrap_or_default().trim();
    if kind == "ZERO" {
        let storage = ExtentStorage::Zero;
        return Ok(Some(ExtentLine {
            sectors,
            storage,
            file: String::new(),
        }));
    }
    let mut parts = rest.strip_prefix('"').ok_or_else(malformed)?.splitn(2, '"');
    let file = parts.next().ok_or_else(malformed)?.to_owned();
    let after = parts.next().ok_or_else(malformed)?;
    let first_sector = match after.split_whitespace().next() {
        None => 0,
        Some(word) => word.parse().map_err(|_| malformed())?,
    };
    let storage = match kind {
        "FLAT" | "VMFS" => ExtentStorage::Flat { first_sector },
        "SPARSE" | "VMFSSPARSE" => ExtentStorage::Sparse,
        "SESPARSE" => {
            return Err(
                unsupported("sesparse", "the disk is a seSparse snapshot of ESXi")
                    .hint("consolidate the snapshot, or back up the machine through its host"),
            );
        }
        "VMFSRDM" | "VMFSRAW" => {
            return Err(unsupported("rdm", "the disk is mapped to a raw device")
                .hint("back up the machine through its host"));
        }
        _ => {
            return Err(unsupported(
                "extent-type",
                format!("an extent of type {kind:.20}"),
            ));
        }
    };
    Ok(Some(ExtentLine {
        sectors,
        storage,
        file,
    }))
}
