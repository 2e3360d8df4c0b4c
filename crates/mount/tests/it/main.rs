//! The NBD client and server against the programs that others wrote, against each other, and
//! against peers that mean harm.

mod client_nbdkit;
mod client_qemu;
mod peers;
