//! QEMU copy-on-write images, versions 2 and 3.
//!
//! Knows: the format as QEMU's `docs/interop/qcow2.rst` describes it: clusters found through two
//! levels of tables (L1, L2), compressed clusters, subclusters (extended L2), an external data
//! file, backing images, reference counts.
//! Refuses to know: internal snapshots (the active state is read, the others are left alone) and
//! encryption (refused).
//!
//! `header` reads and makes the header, `table` finds where a piece of the disk lies, `reader`
//! reads it, `refcount` gives out clusters of a new image and `writer` fills them.

mod header;
mod reader;
mod refcount;
mod table;
mod writer;

#[cfg(test)]
mod tests;

pub use writer::{Qcow2Writer, create};

pub(crate) use reader::open;
