//! The engine: threads and bounded channels between a disk and a repository.
//!
//! Knows: in which order the stages stand, how many threads each has, and how much memory all
//! together may hold. Refuses to know: who asked, and any network.

pub mod backup;
pub mod budget;
pub mod buffer;
pub mod crew;
pub mod gauge;
pub mod load;
pub mod pages;
pub mod restore;
pub mod stored;
