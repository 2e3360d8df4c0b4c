//! The headers of sparse extents.
//!
//! Knows: `KDMV` (Workstation, exports) with its footer, and `COWD` (ESX snapshots).
//! Refuses to know: the grain tables they point at.

use super::{SECTOR, corrupt, unsupported};
use crate::field::Fields;
use base::block::BlockRead;
use base::size::{ByteOffset, MIB};
use base::{Error, Kind, Result};

const MAGIC_SPARSE: &[u8] = b"KDMV";
const MAGIC_COWD: &[u8] = b"COWD";
/// The directory's place is in the footer at the end of the file.
const DIRECTORY_AT_END: u64 = u64::MAX;
const FLAG_NEWLINES: u32 = 1 << 0;
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
/// Grains of `COWD` tables: always this many.
const COWD_TABLE_ENTRIES: u64 = 4096;
/// The largest directory, in bytes: 64 TiB in grains of 64 KiB need 8 MiB.
const DIRECTORY_MAX: u64 = 64 * MIB;
/// The largest grain, in sectors (1 MiB); products write 64 KiB.
const GRAIN_SECTORS_MAX: u64 = 2048;

/// Where things are in a sparse extent; offsets and sizes in sectors unless named otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SparseHeader {
    pub(super) capacity: u64,
    pub(super) grain_sectors: u64,
    pub(super) table_entries: u64,
    /// In bytes.
    pub(super) directory_offset: u64,
    pub(super) directory_entries: u64,
    /// Where the embedded descriptor is, and how long it may be; 0 where there is none.
    pub(super) descriptor_offset: u64,
    pub(super) descriptor_sectors: u64,
    pub(super) compressed: bool,
    /// Compressed grains begin with a marker.
    pub(super) markers: bool,
    /// A table entry of 1 means a grain of zeros.
    pub(super) zero_grains: bool,
}

impl SparseHeader {
    /// Reads the header at the start of `file`, and the footer where it refers to that.
    pub(super) fn read(file: &dyn BlockRead) -> Result<Self> {
        let bytes = read_sector(file, 0)?;
        if bytes.starts_with(MAGIC_COWD) {
            return Self::parse_cowd(&bytes, file.size().0);
        }
        let header = Self::parse(&bytes)?;
        let header = match header.directory_offset {
            DIRECTORY_AT_END => Self::read_footer(file)?,
            _ => header,
        };
        header.check(file.size().0)?;
        Ok(header)
    }

    /// The footer is a copy of the header with the directory's place filled in; it lies before the
    /// end-of-stream marker, which is one sector of zeros.
    fn read_footer(file: &dyn BlockRead) -> Result<Self> {
        let sectors = file.size().0 / SECTOR;
        let at = sectors.checked_sub(2).ok_or_else(|| short("footer"))?;
        let footer = Self::parse(&read_sector(file, at)?)
            .map_err(|error| error.context("the footer of the stream is missing or damaged"))?;
        if footer.directory_offset == DIRECTORY_AT_END {
            return Err(corrupt(
                "footer",
                "the footer does not say where the directory is",
            ));
        }
        Ok(footer)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::new(bytes, "disk.vmdk.header-short", "VMDK header");
        if fields.bytes(0, 4)? != MAGIC_SPARSE {
            return Err(corrupt("magic", "a sparse extent without its signature"));
        }
        let version = fields.le32(4)?;
        if !(1..=3).contains(&version) {
            return Err(unsupported(
                "version",
                format!("a sparse extent of version {version}"),
            ));
        }
        let flags = fields.le32(8)?;
        if flags & FLAG_NEWLINES != 0 && fields.bytes(73, 4)? != b"\n \r\n" {
            return Err(
                corrupt("newlines", "a transfer as text has damaged the file")
                    .hint("copy the file again, in binary mode"),
            );
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        if compressed && fields.le16(77)? != 1 {
            return Err(unsupported(
                "compression",
                "grains compressed in an unknown way",
            ));
        }
        let capacity = fields.le64(12)?;
        let grain_sectors = fields.le64(20)?;
        let table_entries = u64::from(fields.le32(44)?);
        check_shape(capacity, grain_sectors, table_entries)?;
        let directory = fields.le64(56)?;
        let directory_offset = match directory {
            DIRECTORY_AT_END => DIRECTORY_AT_END,
            sector => sector
                .checked_mul(SECTOR)
                .ok_or_else(|| outside("grain directory"))?,
        };
        Ok(Self {
            capacity,
            grain_sectors,
            table_entries,
            directory_offset,
            directory_entries: capacity.div_ceil(grain_sectors * table_entries),
            descriptor_offset: fields.le64(28)?,
            descriptor_sectors: fields.le64(36)?,
            compressed,
            markers: flags & FLAG_MARKERS != 0,
            zero_grains: flags & FLAG_ZERO_GRAINS != 0,
        })
    }

    fn parse_cowd(bytes: &[u8], file_size: u64) -> Result<Self> {
        let fields = Fields::new(bytes, "disk.vmdk.header-short", "COWD header");
        let capacity = u64::from(fields.le32(12)?);
        let grain_sectors = u64::from(fields.le32(16)?);
        check_shape(capacity, grain_sectors, COWD_TABLE_ENTRIES)?;
        let header = Self {
            capacity,
            grain_sectors,
            table_entries: COWD_TABLE_ENTRIES,
            directory_offset: u64::from(fields.le32(20)?) * SECTOR,
            directory_entries: capacity.div_ceil(grain_sectors * COWD_TABLE_ENTRIES),
            descriptor_offset: 0,
            descriptor_sectors: 0,
            compressed: false,
            markers: false,
            zero_grains: true,
        };
        header.check(file_size)?;
        Ok(header)
    }

    fn check(&self, file_size: u64) -> Result<()> {
        let length = self
            .directory_entries
            .checked_mul(4)
            .filter(|size| *size <= DIRECTORY_MAX);
        let Some(length) = length else {
            return Err(Error::new(
                Kind::Limit,
                "disk.vmdk.directory-too-large",
                format!("a grain directory of {} entries", self.directory_entries),
            ));
        };
        let end = self.directory_offset.checked_add(length);
        if end.is_none_or(|end| end > file_size) {
            return Err(outside("grain directory"));
        }
        Ok(())
    }
}

fn check_shape(capacity: u64, grain_sectors: u64, table_entries: u64) -> Result<()> {
    if !grain_sectors.is_power_of_two() || grain_sectors > GRAIN_SECTORS_MAX {
        return Err(corrupt(
            "grain-size",
            format!("grains of {grain_sectors} sectors"),
        ));
    }
    if table_entries == 0 || table_entries > COWD_TABLE_ENTRIES {
        return Err(corrupt(
            "table-size",
            format!("grain tables of {table_entries} entries"),
        ));
    }
    let size = capacity.saturating_mul(SECTOR);
    crate::file::check_disk_size(size)
}

fn read_sector(file: &dyn BlockRead, sector: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; SECTOR as usize];
    let at = sector * SECTOR;
    if at.checked_add(SECTOR).is_none_or(|end| end > file.size().0) {
        return Err(short("header"));
    }
    file.read_at(ByteOffset(at), &mut bytes)?;
    Ok(bytes)
}

fn short(what: &str) -> Error {
    corrupt("header-short", format!("the file ends before its {what}"))
}

fn outside(what: &str) -> Error {
    corrupt("outside", format!("the {what} lies outside the file"))
        .hint("the file was cut off; copy it again or restore it from a backup")
}
