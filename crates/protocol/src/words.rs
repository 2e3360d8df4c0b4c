//! Every word one process says to another: plain messages, and nothing that acts.
//!
//! Knows: the shape of each conversation. Refuses to know: who speaks, over which link, and what is
//! done about it. One file a conversation:
//!
//! | file | who asks | who answers |
//! |---|---|---|
//! | [`console`] | command line, later screens | server |
//! | [`manager`] | manager of one session | server |
//! | [`mover`] | manager | mover service of a host |
//! | [`agent`] | manager, or a person at `backstay client` | one agent |
//!
//! Messages are postcard-encoded: the order of variants and fields is the format. Add variants at
//! the end; change anything else only with a new protocol version.

pub mod agent;
pub mod console;
pub mod counters;
pub mod job;
pub mod manager;
pub mod mover;
pub mod point;
pub mod repository;
pub mod secret;
pub mod session;
pub mod span;
