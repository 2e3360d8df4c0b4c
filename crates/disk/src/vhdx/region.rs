//! The region table of a VHDX: where the metadata and the table of blocks are.
//!
//! Knows: both copies of it and their checksum. Refuses to know: the regions' insides.

use super::{SECTION, checksum, corrupt, guid, read_piece, unsupported};
use crate::field::Fields;
use base::Result;
use base::block::BlockRead;
use base::size::MIB;

const REGION_BAT: [u8; 16] = guid("2DC27766-F623-4200-9D64-115E9BFD4A08");
const REGION_METADATA: [u8; 16] = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E");
/// The most entries the 64 KiB of the table hold.
const ENTRIES_MAX: u32 = 2047;

/// A region: where it starts and how long it is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The two regions we need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Regions {
    pub(super) bat: Region,
    pub(super) metadata: Region,
}

impl Regions {
    /// Reads the first copy of the table that is sound.
    pub(super) fn read(file: &dyn BlockRead) -> Result<Self> {
        let first = read_piece(file, 3 * SECTION, SECTION, "region table")
            .and_then(|bytes| Self::parse(&bytes, file.size().0));
        first.or_else(|first| {
            read_piece(file, 4 * SECTION, SECTION, "region table")
                .and_then(|bytes| Self::parse(&bytes, file.size().0))
                .map_err(|_| first)
        })
    }

    fn parse(bytes: &[u8], file_size: u64) -> Result<Self> {
        let fields = Fields::new(bytes, "disk.vhdx.region-table", "region table");
        if fields.bytes(0, 4)? != b"regi" || checksum(bytes) != fields.le32(4)? {
            return Err(corrupt("region-table", "the region table is damaged"));
        }
        let count = fields.le32(8)?;
        if count > ENTRIES_MAX {
            return Err(corrupt(
                "region-table",
                format!("a region table of {count} entries"),
            ));
        }
        let (mut bat, mut metadata) = (None, None);
        for index in 0..count as usize {
            let at = 16 + index * 32;
            let id = fields.bytes(at, 16)?;
            let offset = fields.le64(at + 16)?;
            let length = u64::from(fields.le32(at + 24)?);
            let known = if id == REGION_BAT {
                &mut bat
            } else if id == REGION_METADATA {
                &mut metadata
            } else if fields.le32(at + 28)? & 1 != 0 {
                return Err(unsupported(
                    "region",
                    "the disk needs a region we do not know",
                ));
            } else {
                continue;
            };
            let end = offset.checked_add(length);
            if offset < MIB
                || !offset.is_multiple_of(MIB)
                || end.is_none_or(|end| end > file_size)
                || known.is_some()
            {
                return Err(corrupt("region", "a region lies at an impossible place"));
            }
            *known = Some(Region { offset, length });
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Self { bat, metadata }),
            _ => Err(corrupt(
                "region-missing",
                "the table of blocks or the metadata is missing",
            )),
        }
    }
}
