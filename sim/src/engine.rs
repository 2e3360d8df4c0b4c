//! What a store must do to be judged here.
//!
//! Knows: a handful of deeds, each done by a process that may die at any call. The real store and
//! the toy that proves the simulator both do them, so that each oracle is written once.
//! Refuses to know: how a store keeps its bytes.

pub mod store;
mod toy;

pub use self::store::Store;
pub use self::toy::{Toy, ToyCollect, ToySync};

use crate::clock::SimClock;
use crate::disk::SimFiles;
use base::Result;
use base::random::SeededRandom;
use std::sync::Arc;

/// What a process holds: its door to the disk, a clock and randomness of its own.
#[derive(Clone)]
pub struct Process {
    /// The disk.
    pub files: SimFiles,
    /// The clock.
    pub clock: Arc<SimClock>,
    /// Randomness.
    pub random: Arc<SeededRandom>,
}

impl Process {
    /// A process whose randomness follows from `seed` and its number.
    pub fn new(files: SimFiles, clock: Arc<SimClock>, seed: u64) -> Self {
        let random = SeededRandom::new(seed ^ files.process().wrapping_mul(0x9e37_79b9));
        Self {
            files,
            clock,
            random: Arc::new(random),
        }
    }
}

/// A point that a store lists. The label says which bytes it must hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// What its maker called it.
    pub label: String,
    /// What the store calls it.
    pub id: String,
}

/// All that a store lists.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Listing {
    /// Points that can be read, says the store.
    pub points: Vec<Listed>,
    /// Points of which the store says that they are damaged.
    pub damaged: Vec<String>,
}

impl Listing {
    /// The id of the point with this label.
    pub fn id_of(&self, label: &str) -> Option<&str> {
        self.points
            .iter()
            .find(|point| point.label == label)
            .map(|point| point.id.as_str())
    }
}

/// A store under judgement. Each deed is one process's whole work, from opening on.
pub trait Engine: Send + Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// Whether a process may be refused because another one is at work.
    fn refuses_when_busy(&self) -> bool {
        false
    }

    /// Whether the store can do without this file: made anew from others when it is damaged.
    fn can_do_without(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Makes an empty repository.
    fn create(&self, process: &Process) -> Result<()>;

    /// Stores a disk as a point. When it returns without error the point must be safe.
    fn backup(&self, process: &Process, label: &str, disk: &[u8]) -> Result<()>;

    /// All points.
    fn list(&self, process: &Process) -> Result<Listing>;

    /// The bytes of a point.
    fn restore(&self, process: &Process, id: &str) -> Result<Vec<u8>>;

    /// Deletes a point.
    fn delete(&self, process: &Process, id: &str) -> Result<()>;

    /// Frees what no point needs.
    fn collect(&self, process: &Process) -> Result<()>;

    /// Reads all and says what is wrong.
    fn verify(&self, process: &Process) -> Result<Vec<String>>;
}

/// The store of this name: `store` (full reads), `store-changed` (changed pages only), `toy`.
pub fn named(name: &str) -> Option<Arc<dyn Engine>> {
    Some(match name {
        "store" => Arc::new(Store::open(false)),
        "store-changed" => Arc::new(Store::open(true)),
        "toy" => Arc::new(Toy::right()),
        _ => return None,
    })
}
