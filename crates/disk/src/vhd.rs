//! Virtual PC disks (VHD): fixed, dynamic and differencing.
//!
//! Knows: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0: a footer at the end, its
//! copy at the start of dynamic disks, a table of blocks, and in each block a bitmap of sectors.
//! Refuses to know: split disks, and disks with a saved state.

mod header;
mod reader;
mod table;

#[cfg(test)]
mod tests;

pub(crate) use reader::open;

use base::{Error, Kind};

/// The sector of this format in bytes.
const SECTOR: u64 = 512;

/// An error of kind `Corrupt` about a VHD.
fn corrupt(reason: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("disk.vhd.{reason}"), message)
        .hint("copy the file again, or restore it from a backup")
}
