//! The ground floor: nouns that every other room shares, and the only doors to storage, clock and
//! randomness.
//!
//! Knows: typed identifiers, sizes and offsets, what it means to read or write blocks, what a
//! folder of files must promise, and how an error is said.
//! Refuses to know: any format, any network, any hypervisor, who calls it.

pub mod block;
pub mod cancel;
pub mod clock;
pub mod digest;
pub mod error;
pub mod files;
pub mod id;
pub mod limit;
pub mod memory;
pub mod os;
pub mod random;
pub mod size;

pub use error::{Error, Kind, Result};
