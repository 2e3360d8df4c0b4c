//! What the server answers: one file a noun, and one for managers.
//!
//! Knows: requests and the rules they must keep. Refuses to know: links and bytes.

pub mod console;
pub(crate) mod host;
pub(crate) mod job;
mod machine;
pub mod manager;
mod point;
mod repository;
mod session;
