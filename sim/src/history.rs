//! Commands one after another, and what may be expected of the repository at each moment of them.
//!
//! Knows: which points are promised, possible or gone, by label, and the bytes each must have.
//! Refuses to know: how it is judged.

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::engine::{Engine, Process};
use crate::workload;
use base::random::SeededRandom;
use base::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What a person or a schedule asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Back up the disk as it is in this generation; the label is made of the number.
    Backup(u64),
    /// Delete the point of this generation.
    Delete(u64),
    /// Free what no point needs.
    Collect,
    /// Read everything.
    Verify,
    /// Restore the point of this generation and compare.
    Restore(u64),
}

/// The label of the point of a generation.
pub fn label(generation: u64) -> String {
    format!("generation-{generation}")
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup(generation) => write!(f, "backup {generation}"),
            Self::Delete(generation) => write!(f, "delete {generation}"),
            Self::Collect => f.write_str("collect"),
            Self::Verify => f.write_str("verify"),
            Self::Restore(generation) => write!(f, "restore {generation}"),
        }
    }
}

/// The ground on which commands run: who stores, what is backed up, one seed.
#[derive(Clone)]
pub struct Ground {
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Pages of the disk that is backed up.
    pub pages: usize,
    /// Disks made already: each oracle asks for the same few again and again.
    disks: Arc<Mutex<BTreeMap<u64, Arc<Vec<u8>>>>>,
}

impl Ground {
    /// A ground for `engine`, where everything follows from `seed`.
    pub fn new(engine: Arc<dyn Engine>, seed: u64, pages: usize) -> Self {
        Self {
            engine,
            seed,
            pages,
            disks: Arc::default(),
        }
    }

    /// The bytes of a generation.
    pub fn disk(&self, generation: u64) -> Arc<Vec<u8>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(workload::disk(self.seed, self.pages, generation));
        Arc::clone(disks.entry(generation).or_insert_with(make))
    }

    /// A new process on `disk`.
    pub fn process(&self, disk: &SimDisk) -> Process {
        self.process_of(disk.process())
    }

    /// The process behind this door. Later processes live at later times; one in three has a wall
    /// clock that is wrong by up to ten years either way, for nothing may depend on it.
    pub fn process_of(&self, files: crate::disk::SimFiles) -> Process {
        const DECADE_MICROS: u64 = 10 * 365 * 86_400 * 1_000_000;
        let clock = SimClock::new();
        clock.advance(std::time::Duration::from_secs(60 * files.process()));
        let random = SeededRandom::new(self.seed ^ files.process().wrapping_mul(0x5851_f42d));
        if random.one_in(3) {
            let micros = i64::try_from(random.below(2 * DECADE_MICROS)).unwrap_or(0);
            clock.jump(micros - i64::try_from(DECADE_MICROS).unwrap_or(0));
        }
        Process::new(files, Arc::new(clock), self.seed)
    }

    /// An empty repository on a new disk, all durable.
    ///
    /// # Errors
    /// Those of the store.
    pub fn new_repository(&self) -> Result<SimDisk> {
        let disk = SimDisk::new();
        let process = self.process(&disk);
        self.engine.create(&process)?;
        process.files.end();
        Ok(disk)
    }

    /// The id of the point of a generation.
    fn find(&self, process: &Process, generation: u64) -> Result<String> {
        let listing = self.engine.list(process)?;
        listing
            .id_of(&label(generation))
            .map(str::to_owned)
            .ok_or_else(|| {
                let message = format!("no point is called {}", label(generation));
                Error::new(Kind::NotFound, "sim.point.not-listed", message)
            })
    }

    /// Runs one command as one process, from opening to its end.
    ///
    /// # Errors
    /// Those of the store; `NotFound` for a point that is not listed.
    pub fn run(&self, process: &Process, command: Command) -> Result<()> {
        match command {
            Command::Backup(generation) => {
                self.engine
                    .backup(process, &label(generation), &self.disk(generation))
            }
            Command::Delete(generation) => self
                .engine
                .delete(process, &self.find(process, generation)?),
            Command::Restore(generation) => {
                let id = self.find(process, generation)?;
                if self.engine.restore(process, &id)? == *self.disk(generation) {
                    return Ok(());
                }
                let message = format!("{} restores wrong bytes", label(generation));
                Err(Error::corrupt("sim.restore.wrong", message))
            }
            Command::Collect => self.engine.collect(process),
            Command::Verify => {
                let wrong = self.engine.verify(process)?;
                match wrong.first() {
                    None => Ok(()),
                    Some(first) => Err(Error::corrupt("sim.verify.damage", first.clone())),
                }
            }
        }
    }
}

/// A command that was run, with the place of its events in the log.
#[derive(Clone, Debug)]
pub struct Step {
    /// What.
    pub command: Command,
    /// Events logged before it began.
    pub begin: u64,
    /// Events logged when it had ended.
    pub end: u64,
    /// The code of its error.
    pub failed: Option<String>,
}

/// Runs commands one after another, each in a process of its own, whether or not earlier ones fail.
pub fn run(ground: &Ground, disk: &SimDisk, commands: &[Command]) -> Vec<Step> {
    let mut steps = Vec::new();
    for command in commands {
        disk.note(format!("begin: {command}"));
        let begin = disk.events_logged();
        let process = ground.process(disk);
        let failed = ground.run(&process, *command).err();
        process.files.end();
        let end = disk.events_logged();
        match &failed {
            None => disk.note(format!("done: {command}")),
            Some(error) => disk.note(format!("failed: {command}: {error:?}")),
        }
        let failed = failed.map(|error| error.code().to_owned());
        steps.push(Step {
            command: *command,
            begin,
            end,
            failed,
        });
    }
    steps
}

/// What may be expected of a point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// A backup said that it is safe, and nobody asked to delete it.
    Promised,
    /// It may be there or not; if it is, it must restore.
    Possible,
    /// A delete said that it is gone.
    Gone,
}

/// What may be expected of all points, by generation.
pub type Expected = BTreeMap<u64, Standing>;

/// What may be expected when `events` events have happened, after `before`.
pub fn expected(before: &Expected, steps: &[Step], events: u64) -> Expected {
    let mut expected = before.clone();
    for step in steps.iter().filter(|step| step.begin <= events) {
        let done = step.failed.is_none() && step.end <= events;
        match step.command {
            Command::Backup(generation) => {
                let standing = if done {
                    Standing::Promised
                } else {
                    Standing::Possible
                };
                expected.insert(generation, standing);
            }
            Command::Delete(generation) => {
                // A delete that found nothing has changed nothing.
                let found = step.failed.as_deref() != Some("sim.point.not-listed");
                if found {
                    let standing = if done {
                        Standing::Gone
                    } else {
                        Standing::Possible
                    };
                    expected.insert(generation, standing);
                }
            }
            Command::Collect | Command::Verify | Command::Restore(_) => {}
        }
    }
    expected
}
