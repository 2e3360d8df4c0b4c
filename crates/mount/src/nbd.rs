//! The network block device protocol, both sides, in our own words.
//!
//! Knows: how an export is named, reached, read, mapped and written over one connection, and how
//! disks are served to other programs. Refuses to know: who needs the bytes and for what.
//!
//! A client in three lines:
//!
//! ```no_run
//! use base::block::BlockRead;
//! use mount::nbd::{ConnectOptions, NbdAddress, NbdClient};
//! # fn main() -> base::Result<()> {
//! let address: NbdAddress = "nbd+unix:///vda?socket=/run/backup.sock".parse()?;
//! let disk = NbdClient::connect(&address, ConnectOptions::default().bitmap("backup-vda"))?;
//! for changed in disk.changed_extents("backup-vda", base::size::ByteRange::new(0, disk.size().0)) {
//!     println!("{:?}", changed?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `docs/protocols/nbd.md` says which part of the protocol is spoken and with whom it was tried.

mod address;
mod changes;
mod client;
mod server;
mod stream;
pub mod wire;

pub use address::{NBD_PORT, NbdAddress, NbdSocket};
pub use changes::ChangedExtents;
pub use client::{
    BASE_ALLOCATION, BlockSizes, ConnectOptions, ExportEntry, NbdClient, PendingRead, StatusRun,
    dirty_bitmap_context, list_exports,
};
pub use server::{
    Export, ExportTable, Listen, NbdServer, RunningServer, ServerLimits, StatusSource,
};
pub use stream::{ByteStream, HangUp};
