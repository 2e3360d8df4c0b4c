//! The footer of a VHD, and the header that dynamic disks have beside it.
//!
//! Knows: fields, checksums and bounds. Refuses to know: the table of blocks.

use super::{SECTOR, corrupt};
use crate::field::Fields;
use crate::reference::{utf16_be, utf16_le};
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset, MIB};
use base::{Error, Kind, Result};

const FOOTER_LENGTH: usize = 512;
const HEADER_LENGTH: usize = 1024;
/// The largest table of blocks, in bytes: 2 TiB, which is all the format can hold, in blocks of
/// 512 KiB needs 16 MiB.
const TABLE_MAX: u64 = 64 * MIB;
/// The largest block; products write 2 MiB and 512 KiB.
const BLOCK_MAX: u64 = 256 * MIB;
/// The longest name in a parent locator.
const LOCATOR_MAX: u32 = 8192;

/// The kinds of disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskKind {
    Fixed,
    Dynamic,
    Differencing,
}

/// What the footer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) size: u64,
    pub(super) kind: DiskKind,
    pub(super) id: [u8; 16],
    /// Where the header of a dynamic disk is.
    pub(super) header_offset: u64,
    /// The footer at the end is broken; this is its copy at the start.
    pub(super) from_copy: bool,
}

impl Footer {
    /// Reads the footer at the end, or else its copy at the start.
    pub(super) fn read(file: &dyn BlockRead) -> Result<Self> {
        let length = file.size().0;
        if length < FOOTER_LENGTH as u64 {
            return Err(corrupt("footer", "the file is too short for a VHD"));
        }
        let mut bytes = vec![0; FOOTER_LENGTH];
        file.read_at(ByteOffset(length - FOOTER_LENGTH as u64), &mut bytes)?;
        let at_end = Self::parse(&bytes);
        if let Ok(footer) = at_end {
            return Ok(footer);
        }
        file.read_at(ByteOffset::ZERO, &mut bytes)?;
        match Self::parse(&bytes) {
            Ok(footer) if footer.kind != DiskKind::Fixed => Ok(Self {
                from_copy: true,
                ..footer
            }),
            _ => at_end,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::new(bytes, "disk.vhd.footer", "VHD footer");
        if fields.bytes(0, 8)? != b"conectix" {
            return Err(corrupt("footer", "the footer is missing"));
        }
        if checksum(bytes, 64) != fields.be32(64)? {
            return Err(corrupt("footer-checksum", "the footer is damaged"));
        }
        let kind = match fields.be32(60)? {
            2 => DiskKind::Fixed,
            3 => DiskKind::Dynamic,
            4 => DiskKind::Differencing,
            other => {
                return Err(corrupt(
                    "disk-type",
                    format!("a disk of the unknown type {other}"),
                ));
            }
        };
        let size = fields.be64(48)?;
        crate::file::check_disk_size(size)?;
        let mut id = [0; 16];
        id.copy_from_slice(fields.bytes(68, 16)?);
        Ok(Self {
            size,
            kind,
            id,
            header_offset: fields.be64(16)?,
            from_copy: false,
        })
    }
}

/// What the header of a dynamic or differencing disk says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) table_offset: u64,
    pub(super) table_entries: u64,
    pub(super) block_size: u64,
    pub(super) parent_id: [u8; 16],
    /// The parent's name relative to this disk, or empty.
    pub(super) parent_relative: String,
    /// The parent's name on the machine that made this disk, or empty.
    pub(super) parent_name: String,
}

impl Header {
    /// Reads the header that `footer` points at.
    pub(super) fn read(file: &dyn BlockRead, footer: &Footer) -> Result<Self> {
        let bytes = read_piece(file, footer.header_offset, HEADER_LENGTH, "header")?;
        let fields = Fields::new(&bytes, "disk.vhd.header", "VHD header");
        if fields.bytes(0, 8)? != b"cxsparse" {
            return Err(corrupt(
                "header",
                "the header of the dynamic disk is missing",
            ));
        }
        if checksum(&bytes, 36) != fields.be32(36)? {
            return Err(corrupt(
                "header-checksum",
                "the header of the dynamic disk is damaged",
            ));
        }
        let mut header = Self {
            table_offset: fields.be64(16)?,
            table_entries: u64::from(fields.be32(28)?),
            block_size: u64::from(fields.be32(32)?),
            parent_id: [0; 16],
            parent_relative: String::new(),
            parent_name: String::new(),
        };
        header.check(file, footer)?;
        if footer.kind == DiskKind::Differencing {
            header.parent_id.copy_from_slice(fields.bytes(40, 16)?);
            header.parent_name = utf16_be(fields.bytes(64, 512)?);
            header.read_locators(file, fields)?;
        }
        Ok(header)
    }

    fn check(&self, file: &dyn BlockRead, footer: &Footer) -> Result<()> {
        if !self.block_size.is_power_of_two() || !(SECTOR..=BLOCK_MAX).contains(&self.block_size) {
            return Err(corrupt(
                "block-size",
                format!("blocks of {} bytes", self.block_size),
            ));
        }
        let needed = footer.size.div_ceil(self.block_size);
        if self.table_entries < needed {
            return Err(corrupt(
                "table-too-small",
                format!(
                    "the table does not cover a disk of {}",
                    ByteCount(footer.size)
                ),
            ));
        }
        if needed * 4 > TABLE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "disk.vhd.table-too-large",
                format!("a table of {needed} blocks"),
            ));
        }
        let end = self.table_offset.checked_add(needed * 4);
        if end.is_none_or(|end| end > file.size().0) {
            return Err(corrupt(
                "table-outside",
                "the table of blocks lies outside the file",
            ));
        }
        Ok(())
    }

    /// The parent locators: eight places where names for different systems may be.
    fn read_locators(&mut self, file: &dyn BlockRead, fields: Fields) -> Result<()> {
        for locator in 0..8 {
            let at = 576 + locator * 24;
            let (code, length) = (fields.bytes(at, 4)?, fields.be32(at + 8)?);
            if length > LOCATOR_MAX || length == 0 {
                continue;
            }
            let read = || read_piece(file, fields.be64(at + 16)?, length as usize, "locator");
            match code {
                b"W2ru" => self.parent_relative = utf16_le(&read()?),
                b"W2ku" => self.parent_name = utf16_le(&read()?),
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_piece(file: &dyn BlockRead, at: u64, length: usize, what: &str) -> Result<Vec<u8>> {
    if at
        .checked_add(length as u64)
        .is_none_or(|end| end > file.size().0)
    {
        return Err(corrupt(
            "outside",
            format!("the {what} lies outside the file"),
        ));
    }
    let mut bytes = vec![0; length];
    file.read_at(ByteOffset(at), &mut bytes)?;
    Ok(bytes)
}

/// The one's complement of the sum of all bytes but the four of the checksum itself.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let all: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes
        .iter()
        .skip(at)
        .take(4)
        .map(|byte| u32::from(*byte))
        .sum();
    !(all - own)
}
