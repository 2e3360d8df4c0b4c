//! The metadata of a VHDX: sizes, and the parent.
//!
//! Knows: the items every disk has and the parent locator. Refuses to know: items for programs
//! other than disks, unless they say that they must be known.

use super::region::Region;
use super::{SECTION, corrupt, guid, parse_guid, read_piece, unsupported};
use crate::field::Fields;
use crate::image::SectorSize;
use crate::reference::utf16_le;
use base::Result;
use base::block::BlockRead;
use base::size::{ByteCount, GIB, MIB};
use std::collections::HashMap;

const FILE_PARAMETERS: [u8; 16] = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
const VIRTUAL_SIZE: [u8; 16] = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8");
const DISK_ID: [u8; 16] = guid("BECA12AB-B2E6-4523-93EF-C309E000C746");
const LOGICAL_SECTOR: [u8; 16] = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F");
const PHYSICAL_SECTOR: [u8; 16] = guid("CDA348C7-445D-4471-9CC9-E9885251C556");
const PARENT_LOCATOR: [u8; 16] = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");
const LOCATOR_VHDX: [u8; 16] = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913");
const ITEMS_MAX: u16 = 2047;
/// The largest item, by the specification.
const ITEM_LENGTH_MAX: u64 = MIB;
/// The largest disk, by the specification.
const SIZE_MAX: u64 = 64 * 1024 * GIB;

/// The parent of a differencing disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Parent {
    /// Its data-write ids when this disk was made on it; the second one may be missing.
    pub(super) ids: Vec<[u8; 16]>,
    pub(super) relative: String,
    pub(super) absolute: String,
}

/// What the metadata says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Metadata {
    pub(super) size: u64,
    pub(super) block_size: u64,
    pub(super) sector_size: SectorSize,
    /// All blocks stay allocated: a fixed disk.
    pub(super) fixed: bool,
    pub(super) parent: Option<Parent>,
}

impl Metadata {
    /// Reads the table of items and those that matter.
    pub(super) fn read(file: &dyn BlockRead, region: Region) -> Result<Self> {
        let items = read_items(file, region)?;
        let item = |id: &[u8; 16], length: usize| -> Result<&Vec<u8>> {
            items
                .get(id)
                .filter(|item| item.len() >= length)
                .ok_or_else(|| corrupt("metadata-missing", "an item of the metadata is missing"))
        };
        let number = |id: &[u8; 16]| -> Result<u32> {
            Fields::new(item(id, 4)?, "disk.vhdx.metadata", "metadata item").le32(0)
        };
        let parameters = item(&FILE_PARAMETERS, 8)?;
        let parameters = Fields::new(parameters, "disk.vhdx.metadata", "file parameters");
        let flags = parameters.le32(4)?;
        let size = Fields::new(item(&VIRTUAL_SIZE, 8)?, "disk.vhdx.metadata", "size").le64(0)?;
        let mut metadata = Self {
            size,
            block_size: u64::from(parameters.le32(0)?),
            sector_size: SectorSize {
                logical: number(&LOGICAL_SECTOR)?,
                physical: items
                    .get(&PHYSICAL_SECTOR)
                    .map_or(Ok(512), |_| number(&PHYSICAL_SECTOR))?,
            },
            fixed: flags & 1 != 0,
            parent: None,
        };
        metadata.check()?;
        if flags & 2 != 0 {
            metadata.parent = Some(parse_locator(item(&PARENT_LOCATOR, 20)?)?);
        }
        Ok(metadata)
    }

    fn check(&self) -> Result<()> {
        let logical = u64::from(self.sector_size.logical);
        if logical != 512 && logical != 4096 {
            return Err(corrupt(
                "sector-size",
                format!("sectors of {logical} bytes"),
            ));
        }
        if !self.block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&self.block_size) {
            return Err(corrupt(
                "block-size",
                format!("blocks of {} bytes", self.block_size),
            ));
        }
        if self.size > SIZE_MAX || !self.size.is_multiple_of(logical) {
            return Err(corrupt(
                "size",
                format!("a disk of {}", ByteCount(self.size)),
            ));
        }
        Ok(())
    }
}

fn read_items(file: &dyn BlockRead, region: Region) -> Result<HashMap<[u8; 16], Vec<u8>>> {
    let table = read_piece(
        file,
        region.offset,
        SECTION.min(region.length),
        "metadata table",
    )?;
    let fields = Fields::new(&table, "disk.vhdx.metadata-table", "metadata table");
    let count = fields.le16(10)?;
    if fields.bytes(0, 8)? != b"metadata" || count > ITEMS_MAX {
        return Err(corrupt("metadata-table", "the metadata table is damaged"));
    }
    let known = [
        FILE_PARAMETERS,
        VIRTUAL_SIZE,
        DISK_ID,
        LOGICAL_SECTOR,
        PHYSICAL_SECTOR,
        PARENT_LOCATOR,
    ];
    let mut items = HashMap::new();
    for index in 0..usize::from(count) {
        let at = 32 + index * 32;
        let mut id = [0; 16];
        id.copy_from_slice(fields.bytes(at, 16)?);
        let (offset, length) = (
            u64::from(fields.le32(at + 16)?),
            u64::from(fields.le32(at + 20)?),
        );
        if !known.contains(&id) {
            if fields.le32(at + 24)? & 4 != 0 {
                return Err(unsupported(
                    "metadata",
                    "the disk needs metadata we do not know",
                ));
            }
            continue;
        }
        if length > ITEM_LENGTH_MAX || offset + length > region.length {
            return Err(corrupt(
                "metadata-item",
                "an item of the metadata lies outside of it",
            ));
        }
        // An id that comes twice would let two readers see two disks.
        if items
            .insert(
                id,
                read_piece(file, region.offset + offset, length, "item")?,
            )
            .is_some()
        {
            return Err(corrupt(
                "metadata-item",
                "an item of the metadata is there twice",
            ));
        }
    }
    Ok(items)
}

fn parse_locator(bytes: &[u8]) -> Result<Parent> {
    let fields = Fields::new(bytes, "disk.vhdx.parent-locator", "parent locator");
    if fields.bytes(0, 16)? != LOCATOR_VHDX {
        return Err(unsupported(
            "parent-locator",
            "the parent is named in an unknown way",
        ));
    }
    let mut parent = Parent::default();
    for index in 0..usize::from(fields.le16(18)?) {
        let at = 20 + index * 12;
        let text = |place: usize, length: usize| -> Result<String> {
            let start = fields.le32(at + place)? as usize;
            Ok(utf16_le(
                fields.bytes(start, usize::from(fields.le16(at + length)?))?,
            ))
        };
        let (key, value) = (text(0, 8)?, text(4, 10)?);
        match key.as_str() {
            "parent_linkage" | "parent_linkage2" => parent.ids.extend(parse_guid(&value)),
            "relative_path" => parent.relative = value,
            "absolute_win32_path" => parent.absolute = value,
            _ => {}
        }
    }
    if parent.ids.is_empty() {
        return Err(corrupt("parent-locator", "the parent's id is missing"));
    }
    Ok(parent)
}
