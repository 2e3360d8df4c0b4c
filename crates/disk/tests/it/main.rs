//! The formats against QEMU's own tools, and against hostile images.

mod allocation;
mod content;
mod hostile;
mod qcow2;
mod qemu;
mod vhd;
mod vmdk;
