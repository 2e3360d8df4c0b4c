//! The data plane tried as a whole: pipelines on memory disks, commands on real images, agents as
//! real processes over TLS on the loopback.

// Clippy's own exception covers test functions, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod client;
mod commands;
mod hostile;
mod large;
mod pipeline;
mod processes;
mod remote;
mod threads;
mod world;
