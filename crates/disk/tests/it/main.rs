//! The formats against QEMU's own tools, and against hostile images.

mod content;
mod qcow2;
mod qemu;
mod vhd;
mod vmdk;
