//! The data plane: moving the bytes of disks from where they are read to where they are kept, and
//! back.
//!
//! Knows: repositories, disk images, block devices and NBD exports of its own host, and streams to
//! other agents. Refuses to know: jobs, machines' states, snapshots, the database.
//!
//! # The storeys of this room
//! - [`pipeline`]: threads and bounded channels between a disk and a repository.
//! - [`source`] and [`sink`]: opening what is read and what is written.
//! - [`executor`]: does every command of [`protocol::words::agent`], in whatever process it is.
//! - [`stream`]: the same pipelines with a network between their two halves.
//! - [`agent`]: one process for one session's work on one host, led over a link.
//! - [`service`]: starts, lists and ends the agents of a host.
//! - [`client`]: a person's prompt over the executor, without any server.

pub mod agent;
pub mod client;
pub mod executor;
pub mod pipeline;
pub mod service;
pub mod sink;
pub mod source;
pub mod stream;
pub mod task;
