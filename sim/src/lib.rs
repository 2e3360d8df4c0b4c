//! The simulated world: everything that can go wrong, from one seed, again and again.
//!
//! Knows: a disk that forgets, tears and lies; a clock that jumps; processes that are killed or run
//! in any order; histories of commands and the oracles that judge what is left.
//! Refuses to know: the real disk, clock and network. Nothing in the product uses this crate.
//!
//! # Reading order
//! [`disk`] (what a crash may leave), [`engine`] (what is under judgement), [`history`] (commands
//! and what they promise), [`oracle`] (the three questions), [`worlds`] (what goes wrong where).

pub mod catalogue;
pub mod clock;
pub mod disk;
pub mod engine;
pub mod history;
pub mod oracle;
pub mod schedule;
pub mod workload;
pub mod worlds;
