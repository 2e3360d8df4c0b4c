//! Virtual disk image formats, all seen as one thing: a disk that can be read at any place.
//!
//! Knows: raw, qcow2, vmdk, vhdx and vhd, the chains and sets of files they form, and layers that
//! stack on any disk.
//! Refuses to know: repositories, hypervisors, file systems inside the disk.
//!
//! Start at [`open`]: it recognises an image by its content, opens the files it refers to through
//! an [`Opener`] (which decides what an image may refer to) and gives an [`Image`].
//! Everything read here may be hostile: all arithmetic is checked, all tables are cached within
//! bounds, and no allocation follows a number from a file.

mod cache;
mod chain;
mod extent;
mod field;
mod file;
mod image;
mod in_use;
mod inflate;
pub mod layer;
mod opener;
mod probe;
pub mod qcow2;
pub mod raw;
mod reference;
mod vhd;
mod vhdx;
mod vmdk;

pub use file::Access;
pub use image::{
    Format, Image, ImageInfo, OpenOptions, ParentInfo, SectorSize, open, open_file, open_with,
};
pub use opener::{FileHandle, FolderOpener, LoneOpener, MemoryOpener, Opener};
pub use probe::probe;
