//! Layers: disks made of other disks.
//!
//! Knows: copy-on-write, a part of a disk, and a disk that fails on purpose.
//! Refuses to know: what the disks below are.

mod fault;
mod overlay;
mod pages;
mod window;

#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultDisk};
pub use overlay::Overlay;
pub use window::Window;
