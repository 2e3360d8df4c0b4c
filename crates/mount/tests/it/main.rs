//! The NBD client and server against the programs that others wrote, against each other, and
//! against peers that mean harm.

// Clippy's own exception covers test functions, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod client_nbdkit;
mod client_qemu;
mod hostile_clients;
mod hostile_servers;
mod pair;
mod peers;
mod server_peers;
mod tls;
