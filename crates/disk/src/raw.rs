//! Raw images and block devices: the bytes of the disk and nothing else.
//!
//! Knows: files with holes, block devices, and how both are made to read as zeros.
//! Refuses to know: partitions and file systems on the disk.

mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::RawDisk;
pub use writer::{create, open_device, open_writable};

use crate::file::{Access, HostFile};
use base::Result;
use std::path::Path;

/// Opens an existing file or block device for reading, without looking at its content.
///
/// # Errors
/// `NotFound`, `Denied`; `Invalid` where it is neither a file nor a block device.
pub fn open(path: &Path) -> Result<RawDisk> {
    RawDisk::new(HostFile::open(path, Access::Read)?)
}
