//! Publishing disks to other programs, and reaching disks that other programs publish.
//!
//! Knows: the wire protocols by which a `BlockRead` or `BlockWrite` crosses a process or a host
//! (NBD today). Refuses to know: what lies behind a disk, repositories, jobs, hypervisors.

pub mod nbd;
