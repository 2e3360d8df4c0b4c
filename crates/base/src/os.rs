//! The real clock, randomness and files of this machine.
//!
//! Knows: system calls. Refuses to know: what they are used for. Tests and simulations use others.

mod files;
mod time;

pub use files::OsFiles;
pub use time::{OsClock, OsRandom};
