//! A hypervisor that exists only in memory, for tests and simulations.
//!
//! Knows: machines with sparse disks, trackers with a granule of 64 KiB, guests that can be frozen; and how
//! to do everything wrong that real ones do: lie about changes, stall, lose or break trackers, resize,
//! make anew, vanish, and lose the connection at any step.
//! Refuses to know: real time and real randomness. One seed gives one history.

mod backups;
mod contract;
mod disk;
mod state;

pub use disk::{CLUSTER, SparseDisk};

use crate::contract::{AgentPresence, MachineKey, Power, Token, failure};
use base::clock::Clock;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use state::{Machine, State};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a disk that was made untrackable is read whole.
const NOT_TRACKABLE: &str = "the simulated disk is told not to be tracked";

/// What goes wrong from now on.
#[derive(Clone, Debug, Default)]
pub struct Mischief {
    /// One in so many changed clusters is called unchanged; 0 is none.
    pub hide_one_in: u64,
    /// The connection is lost before the step with this number (counted by [`Simulated::steps`]) takes
    /// effect; everything fails then until [`Simulated::reconnect`].
    pub lose_connection_at: Option<u64>,
    /// As before, but the step takes effect and only its answer is lost.
    pub lose_answer_at: Option<u64>,
    /// Each call waits this long, and then fails with a timeout.
    pub stall: Option<Duration>,
    /// The agent fails to thaw so many times.
    pub fail_thaws: u32,
}

/// The simulated hypervisor. Share it by `Arc`; the test keeps one handle, the code under test another.
pub struct Simulated {
    state: Mutex<State>,
    random: SeededRandom,
    clock: Option<Arc<dyn Clock>>,
}

impl Simulated {
    /// An empty world. The seed decides identities, workloads and lies.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::default(),
            random: SeededRandom::new(seed),
            clock: None,
        }
    }

    /// The same, with a clock for stalls and for the dates of trackers.
    pub fn with_clock(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock: Some(clock),
            ..Self::new(seed)
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_machine<T>(
        &self,
        key: &MachineKey,
        act: impl FnOnce(&mut Machine) -> Result<T>,
    ) -> Result<T> {
        act(self.lock().machine(key)?)
    }

    fn fresh_key(&self) -> MachineKey {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        MachineKey(
            uuid::Builder::from_random_bytes(bytes)
                .into_uuid()
                .to_string(),
        )
    }

    /// One step of a call: counted, and the place where connections get lost. `act` takes effect at once.
    fn step<T>(&self, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        if let (Some(stall), Some(clock)) = (state.mischief.stall, &self.clock) {
            let clock = Arc::clone(clock);
            drop(state);
            clock.sleep(stall);
            return Err(Error::new(
                Kind::Timeout,
                "platform.simulated.stalled",
                "the hypervisor does not answer",
            ));
        }
        if state.disconnected {
            return Err(disconnected());
        }
        let number = state.steps;
        state.steps += 1;
        if state.mischief.lose_connection_at == Some(number) {
            state.disconnected = true;
            return Err(disconnected());
        }
        let answer = act(&mut state);
        if state.mischief.lose_answer_at == Some(number) {
            state.disconnected = true;
            return Err(disconnected());
        }
        answer
    }
}

fn disconnected() -> Error {
    Error::new(
        Kind::Unreachable,
        "platform.simulated.disconnected",
        "the connection to the hypervisor is lost",
    )
}

/// What only a test can do.
impl Simulated {
    /// Adds a machine that runs, with an agent and with empty disks of these names and sizes.
    pub fn add_machine(&self, name: &str, disks: &[(&str, ByteCount)]) -> MachineKey {
        let key = self.fresh_key();
        self.lock()
            .machines
            .insert(key.clone(), Machine::new(name, disks));
        key
    }

    /// From now on, this goes wrong.
    pub fn set_mischief(&self, mischief: Mischief) {
        self.lock().mischief = mischief;
    }

    /// How many steps calls have taken so far: a run's number of steps is the difference.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// The connection is there again. Nothing on the hypervisor changed meanwhile.
    pub fn reconnect(&self) {
        let mut state = self.lock();
        state.disconnected = false;
        state.mischief.lose_connection_at = None;
        state.mischief.lose_answer_at = None;
    }

    /// Writes as the guest would.
    pub fn write(
        &self,
        machine: &MachineKey,
        target: &str,
        offset: ByteOffset,
        bytes: &[u8],
    ) -> Result<()> {
        self.with_machine(machine, |machine| machine.write(target, offset, bytes))
    }

    /// Writes `count` times at seeded places of all disks, between one byte and two clusters each time;
    /// one time in eight zeros.
    pub fn work(&self, machine: &MachineKey, count: u32) -> Result<()> {
        for _ in 0..count {
            let mut state = self.lock();
            let machine = state.machine(machine)?;
            let Some((target, size)) = machine.pick_disk(&self.random) else {
                return Ok(());
            };
            let length = (1 + self.random.below(2 * CLUSTER)).min(size);
            let offset = self.random.below(size - length + 1);
            let mut bytes = vec![0; ByteCount(length).as_usize()?];
            if !self.random.one_in(8) {
                self.random.fill(&mut bytes);
            }
            machine.write(&target, ByteOffset(offset), &bytes)?;
        }
        Ok(())
    }

    /// A copy of a disk as it is now: what a restore of a backup begun now must give.
    pub fn disk_now(&self, machine: &MachineKey, target: &str) -> Result<Arc<SparseDisk>> {
        self.with_machine(machine, |machine| {
            machine
                .disk(target)
                .map(|disk| Arc::new(disk.content.clone()))
        })
    }

    /// Grows or shrinks a disk.
    pub fn resize(&self, machine: &MachineKey, target: &str, size: ByteCount) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.disk_mut(target)?.content.resize(size);
            Ok(())
        })
    }

    /// Switches a guest's agent on or off, or takes its channel away.
    pub fn set_agent(&self, machine: &MachineKey, agent: AgentPresence) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.agent = agent;
            Ok(())
        })
    }

    /// Makes a disk one that cannot be tracked, as raw images are.
    pub fn make_untrackable(&self, machine: &MachineKey, target: &str) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.disk_mut(target)?.trackable = false;
            Ok(())
        })
    }

    /// Forgets a tracker behind everybody's back.
    pub fn lose_tracker(&self, machine: &MachineKey, name: &str) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.trackers.retain(|tracker| tracker.name != name);
            Ok(())
        })
    }

    /// The hypervisor's process of this machine is killed: it is off, its backup is gone, and all its
    /// trackers are broken.
    pub fn kill(&self, machine: &MachineKey) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.power = Power::Off;
            machine.frozen = false;
            machine.running = None;
            for tracker in &mut machine.trackers {
                tracker.broken = true;
            }
            Ok(())
        })
    }

    /// The machine is removed and made anew with the same name and disks, but another identity.
    pub fn recreate(&self, machine: &MachineKey) -> Result<MachineKey> {
        let key = self.fresh_key();
        let mut state = self.lock();
        let mut anew = state
            .machines
            .remove(machine)
            .ok_or_else(|| failure::machine_unknown(machine))?;
        anew.trackers.clear();
        anew.running = None;
        anew.held_by = None;
        anew.frozen = false;
        state.machines.insert(key.clone(), anew);
        Ok(key)
    }

    /// The machine is removed.
    pub fn vanish(&self, machine: &MachineKey) {
        self.lock().machines.remove(machine);
    }

    /// Somebody else's backup begins (true) or ends (false) on the machine.
    pub fn foreign_backup(&self, machine: &MachineKey, runs: bool) -> Result<()> {
        self.with_machine(machine, |machine| {
            machine.running = runs.then_some(state::Running { token: None });
            Ok(())
        })
    }

    /// Whether the guest's file systems are frozen now.
    pub fn is_frozen(&self, machine: &MachineKey) -> bool {
        self.lock()
            .machines
            .get(machine)
            .is_some_and(|machine| machine.frozen)
    }

    /// What runs have left behind apart from trackers: running backups, held machines, scratch files and
    /// frozen guests. Must be empty when nobody works.
    pub fn leaks(&self) -> Vec<String> {
        self.lock().leaks()
    }

    /// All trackers with a token, over all machines.
    pub fn tracker_tokens(&self) -> Vec<Token> {
        let state = self.lock();
        let trackers = state
            .machines
            .values()
            .flat_map(|machine| &machine.trackers);
        trackers
            .filter_map(|tracker| Token::recognise(&tracker.name))
            .collect()
    }
}

/// The ranges of `clusters` clusters' numbers, neighbours merged, cut at `size`.
fn ranges(clusters: impl IntoIterator<Item = u64>, size: ByteCount) -> Vec<ByteRange> {
    let mut ranges: Vec<ByteRange> = Vec::new();
    for cluster in clusters {
        let start = cluster * CLUSTER;
        let length = CLUSTER.min(size.0.saturating_sub(start));
        match ranges.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.end().0 == start => last.length.0 += length,
            _ => ranges.push(ByteRange::new(start, length)),
        }
    }
    ranges
}
