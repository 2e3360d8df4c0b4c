//! VMware disks.
//!
//! Knows: the descriptor (text that names extents and the parent), flat extents, sparse extents as
//! Workstation (`KDMV`) and ESX (`COWD`) write them, stream-optimised ones, and delta chains.
//! Refuses to know: raw device mappings and the `seSparse` format (both refused).
//!
//! Layouts follow VMware's "Virtual Disk Format 5.0". `descriptor` reads the text, `header` the
//! headers of sparse extents, `grain` finds grains and `reader` joins all of it to one disk.

mod descriptor;
mod grain;
mod header;
mod reader;

#[cfg(test)]
mod tests;

pub(crate) use reader::open;

use base::{Error, Kind};

/// The sector of this format in bytes.
const SECTOR: u64 = 512;

/// An error of kind `Corrupt` about a VMware disk.
fn corrupt(reason: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("disk.vmdk.{reason}"), message)
        .hint("restore the disk from a backup, or repair it with vmware-vdiskmanager -R")
}

/// An error of kind `Unsupported` about a VMware disk.
fn unsupported(reason: &str, message: impl Into<String>) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("disk.vmdk.{reason}-unsupported"),
        message,
    )
}
