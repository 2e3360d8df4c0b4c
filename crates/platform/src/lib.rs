//! Where machines live: one contract over every hypervisor, and the rooms that keep it.
//!
//! Knows: which machines there are, how to freeze them, how to get a consistent view of their disks
//! with the blocks changed since last time, how to make a machine out of a saved definition, and how
//! to find and remove whatever an interrupted run left behind.
//! Refuses to know: repositories, image formats, and who asks for what when.
//!
//! Start with [`contract`]; then see `libvirt` for KVM, `image` for plain disk images and `simulated`
//! for the world that tests live in. `conformance` is the suite that each of them passes.

pub mod conformance;
pub mod contract;
pub mod image;
pub mod libvirt;
pub mod simulated;
