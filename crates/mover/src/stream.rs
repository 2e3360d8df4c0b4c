//! Disks on their way between two agents.
//!
//! Knows: what the two ends of a bulk stream say to each other. Refuses to know: how the bytes of
//! the stream travel, and which orders made the agents speak.
//!
//! | file | holds |
//! |---|---|
//! | [`message`] | the messages and how they stand in records |
//! | [`wires`] | both directions of a stream as a crew of threads uses them |
//! | [`send_disk`], [`receive_disk`] | a backup: the source's half, the repository's half |
//! | [`send_image`], [`receive_image`] | a restore: the repository's half, the target's half |
//!
//! `docs/protocols/agent.md` is the page for other implementations.

pub mod message;
pub mod receive_disk;
pub mod receive_image;
pub mod send_disk;
pub mod send_image;
pub mod wires;
