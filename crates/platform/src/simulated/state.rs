//! What is on the simulated hypervisor.
//!
//! Knows: machines, disks, trackers, running backups. Refuses to know: the contract.

use super::Mischief;
use super::disk::SparseDisk;
use crate::contract::{AgentPresence, MachineKey, Power, Token, failure};
use base::Result;
use base::block::BlockRead;
use base::random::SeededRandom;
use base::size::{ByteCount, ByteOffset};
use std::collections::{BTreeMap, BTreeSet};

/// All of it.
#[derive(Default)]
pub struct State {
    pub machines: BTreeMap<MachineKey, Machine>,
    /// The runs that have scratch files.
    pub scratch: BTreeSet<Token>,
    pub mischief: Mischief,
    pub steps: u64,
    pub disconnected: bool,
    /// Counts trackers, to put them in order where there is no clock.
    pub trackers_made: i64,
}

/// A machine.
pub struct Machine {
    pub name: String,
    pub power: Power,
    pub agent: AgentPresence,
    pub frozen: bool,
    pub disks: Vec<Disk>,
    pub trackers: Vec<Tracker>,
    pub running: Option<Running>,
    pub held_by: Option<Token>,
}

/// A disk.
pub struct Disk {
    pub target: String,
    pub source: String,
    pub content: SparseDisk,
    pub trackable: bool,
}

/// A tracker: for each disk the clusters written since it began.
pub struct Tracker {
    pub name: String,
    pub created: i64,
    pub broken: bool,
    pub dirty: BTreeMap<String, BTreeSet<u64>>,
}

/// A running backup; without a token it is somebody else's.
pub struct Running {
    pub token: Option<Token>,
}

impl State {
    pub fn machine(&mut self, key: &MachineKey) -> Result<&mut Machine> {
        self.machines
            .get_mut(key)
            .ok_or_else(|| failure::machine_unknown(key))
    }

    pub fn leaks(&self) -> Vec<String> {
        let mut leaks: Vec<String> = self
            .scratch
            .iter()
            .map(|token| format!("scratch files of {token}"))
            .collect();
        for machine in self.machines.values() {
            let name = &machine.name;
            if let Some(token) = machine.running.as_ref().and_then(|run| run.token.as_ref()) {
                leaks.push(format!("backup {token} on {name}"));
            }
            if let Some(token) = &machine.held_by {
                leaks.push(format!("{name} held for {token}"));
            }
            if machine.frozen {
                leaks.push(format!("{name} frozen"));
            }
        }
        leaks
    }
}

impl Machine {
    pub fn new(name: &str, disks: &[(&str, ByteCount)]) -> Self {
        let disk = |(target, size): &(&str, ByteCount)| Disk {
            target: (*target).to_owned(),
            source: format!("/simulated/{name}/{target}"),
            content: SparseDisk::new(*size),
            trackable: true,
        };
        Self {
            name: name.to_owned(),
            power: Power::Running,
            agent: AgentPresence::Connected,
            frozen: false,
            disks: disks.iter().map(disk).collect(),
            trackers: Vec::new(),
            running: None,
            held_by: None,
        }
    }

    pub fn disk(&self, target: &str) -> Result<&Disk> {
        self.disks
            .iter()
            .find(|disk| disk.target == target)
            .ok_or_else(|| failure::disk_unknown(&self.name, target))
    }

    pub fn disk_mut(&mut self, target: &str) -> Result<&mut Disk> {
        self.disks
            .iter_mut()
            .find(|disk| disk.target == target)
            .ok_or_else(|| failure::disk_unknown(&self.name, target))
    }

    pub fn tracker(&self, name: &str) -> Option<&Tracker> {
        self.trackers.iter().find(|tracker| tracker.name == name)
    }

    /// Any of the disks with at least one byte, and its size.
    pub fn pick_disk(&self, random: &SeededRandom) -> Option<(String, u64)> {
        let disks: Vec<_> = self
            .disks
            .iter()
            .filter(|disk| disk.content.size() > ByteCount::ZERO)
            .collect();
        let index = usize::try_from(random.below(disks.len() as u64)).unwrap_or(0);
        disks
            .get(index)
            .map(|disk| (disk.target.clone(), disk.content.size().0))
    }

    /// Writes, and every tracker of the disk takes note.
    pub fn write(&mut self, target: &str, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let touched = self.disk_mut(target)?.content.write(offset, bytes)?;
        for tracker in &mut self.trackers {
            if let Some(dirty) = tracker.dirty.get_mut(target) {
                dirty.extend(touched.clone());
            }
        }
        Ok(())
    }
}
