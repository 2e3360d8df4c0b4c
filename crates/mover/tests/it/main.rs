//! The data plane tried as a whole: pipelines on memory disks, commands on real images, agents as
//! real processes over TLS on the loopback.

mod client;
mod commands;
mod pipeline;
mod processes;
mod remote;
mod threads;
mod world;
