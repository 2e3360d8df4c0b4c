//! The contract on real and simulated platforms, and hostile peers.

// What the workspace allows in tests, also in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod hostile;
mod lab;
mod libvirt_backup;
mod libvirt_cut;
mod libvirt_failures;
mod libvirt_restore;
mod simulated;
mod ssh;
mod xml;
