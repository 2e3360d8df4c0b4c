//! Worlds: each lets one kind of thing go wrong, everywhere it can, and asks the oracles.
//!
//! Knows: how many states were judged and the first failure with all that replays it.
//! Refuses to know: how a store works inside.

mod crash;
mod damage;
mod error;
mod full;
mod interleave;
mod tracker;

pub use crash::{Crashes, Seen, crashes, crashes_unseen};
pub use damage::{damages, phantoms};
pub use error::errors;
pub use full::full_disk;
pub use interleave::{Scene, interleavings, random_interleavings, scenes};
pub use tracker::trackers;

use crate::disk::{Event, SimDisk};
use crate::history::{Command, Expected, Ground, Standing};
use crate::oracle::Complaint;
use base::digest::Digest;
use std::fmt;
use std::sync::Arc;

/// A state in which an oracle cried.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which state, in words that name it exactly.
    pub state: String,
    /// What is wrong.
    pub complaint: Complaint,
    /// All that happened on the disk, up to the complaint.
    pub events: Vec<Arc<Event>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.state, self.complaint)
    }
}

/// What a world found.
#[derive(Clone, Default)]
pub struct Tally {
    /// States judged.
    pub states: u64,
    /// States not judged because an equal one was.
    pub equal: u64,
    /// The first failure; the world stops there.
    pub failure: Option<Failure>,
    /// The disk of the state that was judged last.
    pub last: Option<SimDisk>,
    hasher: blake3::Hasher,
}

impl Tally {
    /// Counts a judged state; true if the world goes on.
    fn count(
        &mut self,
        disk: &SimDisk,
        state: impl FnOnce() -> String,
        verdict: Result<(), Complaint>,
    ) -> bool {
        self.states += 1;
        self.hasher.update(&disk.log_digest().0);
        self.last = Some(disk.clone());
        if let Err(complaint) = verdict {
            let events = disk.events();
            self.failure = Some(Failure {
                state: state(),
                complaint,
                events,
            });
        }
        self.failure.is_none()
    }

    /// A failure outside any state.
    fn broken(what: impl Into<String>, error: &base::Error) -> Self {
        let complaint = Complaint::new(crate::oracle::Oracle::Commands, format!("{error:?}"));
        let failure = Failure {
            state: what.into(),
            complaint,
            events: Vec::new(),
        };
        Self {
            failure: Some(failure),
            ..Self::default()
        }
    }

    /// The digest of all that happened in all states: equal for equal seeds.
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }

    /// Adds what another world found.
    pub fn add(&mut self, other: Self) {
        self.states += other.states;
        self.equal += other.equal;
        self.hasher.update(&other.digest().0);
        self.last = other.last;
        if self.failure.is_none() {
            self.failure = other.failure;
        }
    }
}

/// A repository with some points, all durable, and what may be expected of it.
struct Prepared {
    disk: SimDisk,
    expected: Expected,
}

/// Makes a repository and runs commands that must all succeed.
fn prepare(ground: &Ground, commands: &[Command]) -> base::Result<Prepared> {
    let disk = ground.new_repository()?;
    let mut expected = Expected::new();
    for command in commands {
        let process = ground.process(&disk);
        ground.run(&process, *command)?;
        process.files.end();
        match command {
            Command::Backup(generation) => {
                expected.insert(*generation, Standing::Promised);
            }
            Command::Delete(generation) => {
                expected.insert(*generation, Standing::Gone);
            }
            Command::Collect | Command::Verify | Command::Restore(_) => {}
        }
    }
    Ok(Prepared { disk, expected })
}

/// A part of a long walk: every `stride`-th place, from `first` on. Neighbouring seeds take
/// neighbouring parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The first place.
    pub first: u64,
    /// How far to the next; at least 1.
    pub stride: u64,
}

impl Part {
    /// Every place.
    pub const ALL: Self = Self {
        first: 0,
        stride: 1,
    };

    /// The part of `stride` that `seed` takes.
    pub fn of(seed: u64, stride: u64) -> Self {
        Self {
            first: seed % stride.max(1),
            stride: stride.max(1),
        }
    }
}

/// A seed made of others.
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x243f_6a88_85a3_08d3, |all, part| {
        (all ^ part)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}
