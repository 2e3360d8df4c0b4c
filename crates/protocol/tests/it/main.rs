//! Links, calls and streams between two real ends: in memory, on loopback and on Unix sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod cuts;
mod hostile;
mod links;
mod local;
mod streams;
mod world;
