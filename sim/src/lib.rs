//! The simulated world: everything that can go wrong, from one seed, again and again.
//!
//! Knows: a disk that forgets, tears and lies; a clock that jumps; processes that are killed or run
//! in any order; histories of commands and the oracles that judge what is left.
//! Refuses to know: the real disk, clock and network. Nothing in the product uses this crate.

pub mod clock;
pub mod disk;
