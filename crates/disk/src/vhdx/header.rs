//! The signature and the two headers of a VHDX.
//!
//! Knows: which header counts. Refuses to know: the log they point at.

use super::{SECTION, checksum, corrupt, read_piece, unsupported};
use crate::field::Fields;
use base::Result;
use base::block::BlockRead;

const LENGTH: u64 = 4096;

/// What the current header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence: u64,
    /// Changes whenever the content of the disk does: children remember it.
    pub(super) data_write_id: [u8; 16],
    /// All zeros where the log is empty.
    pub(super) log_id: [u8; 16],
    pub(super) log_offset: u64,
    pub(super) log_length: u64,
}

impl Header {
    /// Reads the valid header with the highest sequence number.
    pub(super) fn read(file: &dyn BlockRead) -> Result<Self> {
        if read_piece(file, 0, 8, "signature")? != b"vhdxfile" {
            return Err(corrupt("signature", "the signature is missing"));
        }
        let first = read_piece(file, SECTION, LENGTH, "header").and_then(|b| Self::parse(&b));
        let second = read_piece(file, 2 * SECTION, LENGTH, "header").and_then(|b| Self::parse(&b));
        match (first, second) {
            (Ok(first), Ok(second)) if second.sequence > first.sequence => Ok(second),
            (Ok(first), _) => Ok(first),
            (Err(_), Ok(second)) => Ok(second),
            (Err(error), Err(_)) => Err(error.context("both headers are damaged")),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let fields = Fields::new(bytes, "disk.vhdx.header", "VHDX header");
        if fields.bytes(0, 4)? != b"head" || checksum(bytes) != fields.le32(4)? {
            return Err(corrupt("header", "a header is damaged"));
        }
        let (log_version, version) = (fields.le16(64)?, fields.le16(66)?);
        if (log_version, version) != (0, 1) {
            return Err(unsupported(
                "version",
                format!("VHDX version {version}.{log_version}"),
            ));
        }
        let id = |at| -> Result<[u8; 16]> {
            let mut id = [0; 16];
            id.copy_from_slice(fields.bytes(at, 16)?);
            Ok(id)
        };
        Ok(Self {
            sequence: fields.le64(8)?,
            data_write_id: id(32)?,
            log_id: id(48)?,
            log_length: u64::from(fields.le32(68)?),
            log_offset: fields.le64(72)?,
        })
    }
}
