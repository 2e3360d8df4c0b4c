//! The header of a qcow2 image and its extensions.
//!
//! Knows: every field, its bounds, and which features we have. Refuses to know: the tables.

use crate::field::Fields;
use crate::inflate::Compression;
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset};
use base::{Error, Kind, Result};

/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Cluster sizes from 512 bytes to 2 MiB, as powers of two.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The largest L1 table, in entries; QEMU's bound (32 MiB).
const L1_ENTRIES_MAX: u64 = 4 << 20;
/// The longest name of a backing file; the format's bound.
const BACKING_NAME_MAX: u32 = 1023;
/// The length of the version 2 header, and of the version 3 header that we write.
const LENGTH_V2: usize = 72;
const LENGTH_V3: usize = 112;

const FEATURE_DIRTY: u64 = 1 << 0;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_DATA_FILE: u64 = 1 << 2;
const FEATURE_COMPRESSION: u64 = 1 << 3;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;
const FEATURES_KNOWN: u64 = (1 << 5) - 1;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// What the header says, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u64,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) dirty: bool,
    pub(super) corrupt: bool,
    pub(super) extended_l2: bool,
    pub(super) compression: Compression,
    pub(super) backing_name: Option<String>,
    pub(super) backing_format: Option<String>,
    /// `Some` where the data is in another file; empty where the name is missing.
    pub(super) data_file: Option<String>,
}

impl Header {
    /// Reads and checks the header of `file`.
    pub(super) fn read(file: &dyn BlockRead) -> Result<Self> {
        let length = file.size().0;
        let mut start = vec![0; length.min(LENGTH_V3 as u64) as usize];
        file.read_at(ByteOffset::ZERO, &mut start)?;
        let fields = fields(&start);
        if fields.be32(0)? != MAGIC {
            return Err(corrupt("magic", "the signature is missing"));
        }
        let cluster_bits = fields.be32(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(corrupt(
                "cluster-size",
                format!("a cluster of 2^{cluster_bits} bytes"),
            ));
        }
        // Extensions and the backing name lie in the first cluster.
        let mut first = vec![0; length.min(1 << cluster_bits) as usize];
        file.read_at(ByteOffset::ZERO, &mut first)?;
        Self::parse(
            if first.len() < start.len() {
                &start
            } else {
                &first
            },
            cluster_bits,
        )
    }

    fn parse(bytes: &[u8], cluster_bits: u32) -> Result<Self> {
        let fields = fields(bytes);
        let version = fields.be32(4)?;
        let (features, header_length) = match version {
            2 => (0, LENGTH_V2),
            3 => (fields.be64(72)?, fields.be32(100)? as usize),
            _ => return Err(unsupported("version", format!("qcow2 version {version}"))),
        };
        if version == 3 && (header_length < 104 || header_length > bytes.len()) {
            return Err(corrupt(
                "header-length",
                format!("a header of {header_length} bytes"),
            ));
        }
        // Counts are of 2^6 bits at most. Reading needs none of them, but a header that lies here is
        // not to be trusted elsewhere.
        if version == 3 && fields.be32(96)? > 6 {
            return Err(corrupt(
                "refcount-bits",
                "reference counts of an impossible width",
            ));
        }
        match fields.be32(32)? {
            0 => {}
            2 => return Err(encrypted("LUKS")),
            _ => return Err(encrypted("AES")),
        }
        let has_type = features & FEATURE_COMPRESSION != 0;
        let mut header = Self {
            version,
            cluster_bits,
            size: fields.be64(24)?,
            l1_offset: fields.be64(40)?,
            l1_entries: u64::from(fields.be32(36)?),
            refcount_table_offset: fields.be64(48)?,
            refcount_table_clusters: fields.be32(56)?,
            snapshots: fields.be32(60)?,
            dirty: features & FEATURE_DIRTY != 0,
            corrupt: features & FEATURE_CORRUPT != 0,
            extended_l2: features & FEATURE_EXTENDED_L2 != 0,
            compression: compression(if has_type { fields.byte(104)? } else { 0 })?,
            backing_name: None,
            backing_format: None,
            data_file: (features & FEATURE_DATA_FILE != 0).then(String::new),
        };
        header.read_backing_name(fields)?;
        let names = header.read_extensions(fields, header_length)?;
        let unknown = features & !FEATURES_KNOWN;
        if unknown != 0 {
            return Err(unknown_feature(unknown.trailing_zeros(), names));
        }
        header.check()?;
        Ok(header)
    }

    fn read_backing_name(&mut self, fields: Fields) -> Result<()> {
        let (offset, length) = (fields.be64(8)?, fields.be32(16)?);
        if offset == 0 || length == 0 {
            return Ok(());
        }
        if length > BACKING_NAME_MAX {
            return Err(corrupt(
                "backing-name",
                format!("a backing name of {length} bytes"),
            ));
        }
        let offset = ByteCount(offset).as_usize()?;
        self.backing_name = Some(text(fields.bytes(offset, length as usize)?)?);
        Ok(())
    }

    /// Reads the extensions; gives back the table of feature names, which is only of use in an
    /// error. Ends with the first cluster at the latest.
    fn read_extensions<'a>(&mut self, fields: Fields<'a>, mut at: usize) -> Result<&'a [u8]> {
        let mut names: &[u8] = &[];
        // Version 2 images before extensions existed have the backing name right here.
        let name_at = fields.be64(8)?;
        while fields.bytes(at, 8).is_ok() && (name_at == 0 || (at as u64) < name_at) {
            let kind = fields.be32(at)?;
            let length = fields.be32(at + 4)? as usize;
            if kind == EXTENSION_END {
                break;
            }
            let body = fields.bytes(at + 8, length)?;
            match kind {
                EXTENSION_BACKING_FORMAT => self.backing_format = Some(text(body)?),
                EXTENSION_FEATURE_NAMES => names = body,
                EXTENSION_DATA_FILE if self.data_file.is_some() => {
                    self.data_file = Some(text(body)?);
                }
                // Others (bitmaps, unknown ones) do not change what the disk reads as.
                _ => {}
            }
            at += 8 + length.next_multiple_of(8);
        }
        Ok(names)
    }

    fn check(&self) -> Result<()> {
        crate::file::check_disk_size(self.size)?;
        if self.extended_l2 && self.cluster_bits < 14 {
            return Err(corrupt(
                "subcluster-size",
                "subclusters smaller than a sector",
            ));
        }
        if self.l1_entries > L1_ENTRIES_MAX {
            return Err(Error::new(
                Kind::Limit,
                "disk.qcow2.l1-too-large",
                format!("an L1 table of {} entries", self.l1_entries),
            ));
        }
        if self.l1_entries < self.l1_entries_needed() {
            return Err(corrupt(
                "l1-too-small",
                format!(
                    "the L1 table does not cover a disk of {}",
                    ByteCount(self.size)
                ),
            ));
        }
        if self.l1_entries > 0 && !self.l1_offset.is_multiple_of(self.cluster_size()) {
            return Err(corrupt(
                "l1-unaligned",
                "the L1 table does not start at a cluster",
            ));
        }
        if self.l1_offset.checked_add(self.l1_entries * 8).is_none() {
            return Err(corrupt("l1-outside", "the L1 table lies outside the file"));
        }
        Ok(())
    }

    /// The size of a cluster in bytes.
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The size of an L2 entry in bytes.
    pub(super) fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// How many bytes of the disk one L2 table describes.
    pub(super) fn l2_coverage(&self) -> u64 {
        (self.cluster_size() / self.l2_entry_size()) << self.cluster_bits
    }

    /// How many L1 entries the disk needs.
    pub(super) fn l1_entries_needed(&self) -> u64 {
        self.size.div_ceil(self.l2_coverage())
    }

    /// The header as the bytes of a version 3 image without extensions.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH_V3 + 8];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_be_bytes());
        put(4, &3_u32.to_be_bytes());
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(36, &(self.l1_entries as u32).to_be_bytes());
        put(40, &self.l1_offset.to_be_bytes());
        put(48, &self.refcount_table_offset.to_be_bytes());
        put(56, &self.refcount_table_clusters.to_be_bytes());
        // Reference counts of 2^4 bits.
        put(96, &4_u32.to_be_bytes());
        put(100, &(LENGTH_V3 as u32).to_be_bytes());
        bytes
    }
}

fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields::new(bytes, "disk.qcow2.header-short", "qcow2 header")
}

fn compression(byte: u8) -> Result<Compression> {
    match byte {
        0 => Ok(Compression::Deflate),
        1 => Ok(Compression::Zstd),
        _ => Err(unsupported(
            "compression",
            format!("compression type {byte}"),
        )),
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| corrupt("name", "a name that is not UTF-8"))
}

/// An error of kind `Corrupt` about this image.
pub(super) fn corrupt(reason: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("disk.qcow2.{reason}"), message)
        .hint("`qemu-img check` tells more; restore the image from a backup if it stays broken")
}

fn unsupported(reason: &str, what: String) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("disk.qcow2.{reason}-unsupported"),
        format!("the image needs {what}, which Backstay does not know"),
    )
    .hint("convert it with qemu-img convert -O qcow2")
}

fn encrypted(how: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        "disk.qcow2.encrypted",
        format!("the image is encrypted ({how}) and Backstay has no key for it"),
    )
    .hint("back up the running machine through its hypervisor, or decrypt with qemu-img convert")
}

fn unknown_feature(bit: u32, names: &[u8]) -> Error {
    let name = names
        .chunks_exact(48)
        .find(|entry| entry[0] == 0 && u32::from(entry[1]) == bit)
        .map(|entry| {
            String::from_utf8_lossy(&entry[2..])
                .trim_matches('\0')
                .to_owned()
        })
        .map(|name| {
            name.chars()
                .filter(|letter| !letter.is_control())
                .collect::<String>()
        });
    match name {
        Some(name) => unsupported("feature", format!("the feature \u{201c}{name}\u{201d}")),
        None => unsupported("feature", format!("a feature (bit {bit})")),
    }
}
