//! A simulated disk: files in memory that forget, tear and reorder as real ones may.
//!
//! Knows: processes that use it through [`SimFiles`], what each call makes durable, what a crash may
//! leave, the faults to strike and the log of all calls. Everything is a pure function of the calls
//! and of seeds. Refuses to know: what the files mean.
//!
//! A disk can be looked at as it would be found after a crash at any moment ([`SimDisk::crash`]),
//! again and again with other outcomes, while the history that led there is run only once
//! ([`SimDisk::record`]).

mod content;
mod fault;
mod files;
mod log;
mod promise;
mod tree;

pub use fault::{Call, Fault, Injection};
pub use files::SimFiles;
pub use log::Event;
pub use promise::{Broken, On};
pub use tree::Outcome;

use base::digest::Digest;
use fault::Faults;
use log::Log;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tree::{NodeId, Tree};

/// Stands before every call of a process: a scheduler lets one process pass at a time.
pub trait Gate: Send + Sync {
    /// Returns when the call may be made.
    fn pass(&self, call: Call);
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    tree: Tree,
    log: Log,
    /// Processes by number; true while alive.
    processes: BTreeMap<u64, bool>,
    /// The number of the next process. Goes on over crashes, so that no two are the same.
    next_process: u64,
    /// Which process holds the lock of which file, and the number of that holding.
    locks: BTreeMap<NodeId, (u64, u64)>,
    lockings: u64,
    faults: Faults,
    broken: Vec<Broken>,
    /// Most bytes that fit.
    quota: Option<u64>,
    moments: Option<Vec<Moment>>,
}

/// A disk as it was just before a call, kept by [`SimDisk::record`].
#[derive(Clone)]
pub struct Moment {
    /// How many events were logged before.
    pub events: u64,
    tree: Tree,
    log: Log,
    quota: Option<u64>,
    next_process: u64,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without faults or quota.
    pub fn new() -> Self {
        let (tree, log) = (Tree::new(), Log::new());
        Self::found(Moment {
            events: 0,
            tree,
            log,
            quota: None,
            next_process: 1,
        })
    }

    fn found(moment: Moment) -> Self {
        Self(Arc::new(Mutex::new(State {
            tree: moment.tree,
            log: moment.log,
            processes: BTreeMap::new(),
            next_process: moment.next_process,
            locks: BTreeMap::new(),
            lockings: 0,
            faults: Faults::default(),
            broken: Vec::new(),
            quota: moment.quota,
            moments: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process and its door to the disk.
    pub fn process(&self) -> SimFiles {
        self.gated_process(None)
    }

    /// A new process that asks `gate` before every call.
    pub fn gated_process(&self, gate: Option<Arc<dyn Gate>>) -> SimFiles {
        let mut state = self.state();
        let number = state.next_process;
        state.next_process += 1;
        state.processes.insert(number, true);
        drop(state);
        SimFiles::new(self.clone(), number, gate)
    }

    /// The number that the next process will have.
    pub fn next_process(&self) -> u64 {
        self.state().next_process
    }

    /// Ends a process at once: its locks are free, all it does from now on fails.
    pub fn kill(&self, process: u64) {
        self.state().kill(process);
    }

    /// Strikes with a fault when its call comes.
    pub fn inject(&self, injection: Injection) {
        self.state().faults.add(injection);
    }

    /// Strikes one call of these kinds in `one_in`, at random from `seed`.
    pub fn inject_rate(&self, calls: &[Call], one_in: u64, fault: Fault, seed: u64) {
        self.state().faults.add_rate(calls, one_in, fault, seed);
    }

    /// Takes back all faults that have not struck.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// How many faults have struck.
    pub fn faults_struck(&self) -> u64 {
        self.state().faults.struck
    }

    /// Breaks a promise of the door from now on. Disks made by [`Self::crash`] keep all promises.
    pub fn break_promise(&self, broken: Broken) {
        self.state().broken.push(broken);
    }

    /// Sets the most bytes that fit. May be less than what is there already.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.state().quota = quota;
    }

    /// Bytes that count against the quota.
    pub fn used(&self) -> u64 {
        self.state().tree.used()
    }

    /// Writes a line into the log.
    pub fn note(&self, text: impl Into<String>) {
        let mut state = self.state();
        let number = state.log.count();
        let event = Event {
            number,
            process: None,
            call: None,
            path: text.into(),
            to: None,
            amount: 0,
            failed: None,
        };
        state.log.push(event, &[]);
    }

    /// How many events were logged.
    pub fn events_logged(&self) -> u64 {
        self.state().log.count()
    }

    /// All events.
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.state().log.events()
    }

    /// The digest of all events with their bytes: equal for equal runs.
    pub fn log_digest(&self) -> Digest {
        Digest(*self.state().log.digest().as_bytes())
    }

    /// The digest of all names and bytes as processes see them.
    pub fn content_digest(&self) -> Digest {
        Digest(*self.state().tree.digest().as_bytes())
    }

    /// Keeps the disk as it is before each call that changes anything, from now on.
    pub fn record(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The recorded moments, and one for now. Recording ends.
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment());
        moments
    }

    /// The disk as it is now, to crash later or several times.
    pub fn moment(&self) -> Moment {
        self.state().moment()
    }

    /// The disk as the next start of the machine finds it. This one is not changed.
    pub fn crash(&self, outcome: Outcome) -> Self {
        self.moment().crash(outcome)
    }

    /// Paths of all files, in order.
    pub fn files(&self) -> Vec<String> {
        self.state()
            .tree
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    /// Changes the stored bytes of a file behind everybody's back. False where it is missing.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some((_, node)) = state
            .tree
            .files()
            .into_iter()
            .find(|(name, _)| name == path)
        else {
            return false;
        };
        let Ok(content) = state.tree.file_mut(node) else {
            return false;
        };
        content.damage(change);
        true
    }
}

impl Moment {
    /// The disk as the next start of the machine finds it, had it crashed here.
    pub fn crash(&self, outcome: Outcome) -> SimDisk {
        let tree = self.tree.after_crash(outcome);
        let disk = SimDisk::found(Self {
            tree,
            ..self.clone()
        });
        disk.note(format!("crash: {outcome:?}"));
        disk
    }

    /// The disk as other processes go on with it, had all processes of before been killed here: it
    /// looks as if nothing was lost, and what was not synced may still be lost later.
    pub fn killed(&self) -> SimDisk {
        let disk = SimDisk::found(self.clone());
        disk.note("all processes were killed");
        disk
    }

    /// How many changes of names a crash may lose here.
    pub fn pending_changes(&self) -> usize {
        self.tree.pending_changes()
    }
}

impl State {
    fn moment(&self) -> Moment {
        Moment {
            events: self.log.count(),
            tree: self.tree.clone(),
            log: self.log.clone(),
            quota: self.quota,
            next_process: self.next_process,
        }
    }

    fn kill(&mut self, process: u64) {
        self.processes.insert(process, false);
        self.locks.retain(|_, (holder, _)| *holder != process);
    }
}

#[cfg(test)]
mod tests;
