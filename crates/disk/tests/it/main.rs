//! The formats against QEMU's own tools, and against hostile images.

// Everything here is a test, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod allocation;
mod content;
mod hostile;
mod qcow2;
mod qemu;
mod vhd;
mod vmdk;
