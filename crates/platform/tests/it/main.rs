//! The contract on real and simulated platforms, and hostile peers.

mod conformance;
mod hostile;
mod lab;
mod libvirt_backup;
mod libvirt_failures;
mod simulated;
mod xml;
