//! The contract, kept by the simulated hypervisor.
//!
//! Knows: each call as a list of steps, between which the connection may be lost.
//! Refuses to know: which faults a test wants.

use super::state::{Machine as Simulation, Running, State, Tracker as SimulatedTracker};
use super::{Simulated, ranges};
use crate::contract::{
    Access, AgentPresence, Backup, BackupDisk, BackupRequest, Backups, Content, Control,
    Definition, DefinitionFile, DiskRequest, DiskTracker, FullCause, Guests, Host, Hygiene,
    Identity, Inventory, Keep, Machine, MachineDisk, MachineKey, MemoryAccess, Power,
    ProvisionOptions, Provisioned, Provisioning, Resource, ResourceKind, RunningBackup, Token,
    Trackable, Tracker, Tracking, failure,
};
use base::block::BlockRead;
use base::cancel::Cancel;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const DEFINITION_FILE: &str = "machine.json";
const NOT_TRACKABLE: &str = "the simulated disk is told not to be tracked";

/// What is kept of a machine.
#[derive(Serialize, Deserialize)]
struct Saved {
    name: String,
    key: MachineKey,
    disks: Vec<(String, ByteCount)>,
}

impl Inventory for Simulated {
    fn host(&self) -> Result<Host> {
        self.step(|_| {
            Ok(Host {
                name: "simulated".to_owned(),
                platform: "simulated".to_owned(),
                version: "simulated 1".to_owned(),
            })
        })
    }

    fn machines(&self) -> Result<Vec<Machine>> {
        self.step(|state| {
            let mut machines: Vec<_> = state
                .machines
                .iter()
                .map(|(key, machine)| look(key, machine))
                .collect();
            machines.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
            Ok(machines)
        })
    }

    fn machine(&self, machine: &MachineKey) -> Result<Machine> {
        self.step(|state| state.machine(machine).map(|found| look(machine, found)))
    }

    fn definition(&self, machine: &MachineKey) -> Result<Definition> {
        self.step(|state| {
            let found = state.machine(machine)?;
            let disks = found.disks.iter();
            let saved = Saved {
                name: found.name.clone(),
                key: machine.clone(),
                disks: disks
                    .map(|disk| (disk.target.clone(), disk.content.size()))
                    .collect(),
            };
            let bytes = serde_json::to_vec_pretty(&saved).map_err(|error| {
                Error::new(
                    Kind::Bug,
                    "platform.simulated.definition",
                    error.to_string(),
                )
            })?;
            let file = DefinitionFile {
                name: DEFINITION_FILE.to_owned(),
                content: Content::Bytes(bytes),
            };
            Ok(Definition {
                platform: "simulated".to_owned(),
                files: vec![file],
                warnings: Vec::new(),
            })
        })
    }
}

fn look(key: &MachineKey, machine: &Simulation) -> Machine {
    let disks = machine.disks.iter().map(|disk| MachineDisk {
        target: disk.target.clone(),
        source: disk.source.clone(),
        path: None,
        format: None,
        capacity: disk.content.size(),
        allocated: Some(disk.content.data().iter().map(|range| range.length).sum()),
        trackable: if disk.trackable {
            Trackable::Yes
        } else {
            Trackable::No {
                reason: NOT_TRACKABLE.to_owned(),
            }
        },
    });
    let agent = match (machine.agent, machine.power) {
        (AgentPresence::Connected, Power::Running) => AgentPresence::Connected,
        (AgentPresence::NoChannel, _) => AgentPresence::NoChannel,
        _ => AgentPresence::Silent,
    };
    Machine {
        key: key.clone(),
        name: machine.name.clone(),
        power: machine.power,
        agent,
        disks: disks.collect(),
    }
}

impl Guests for Simulated {
    fn freeze(&self, machine: &MachineKey, _timeout: Duration) -> Result<u32> {
        self.step(|state| {
            let machine = state.machine(machine)?;
            if machine.power != Power::Running {
                return Err(failure::machine_inactive(&machine.name, "freezing"));
            }
            if machine.agent != AgentPresence::Connected {
                return Err(failure::agent_absent(&machine.name));
            }
            if machine.frozen {
                return Err(failure::freeze_failed(
                    &machine.name,
                    "it is frozen already",
                ));
            }
            machine.frozen = true;
            Ok(1)
        })
    }

    fn thaw(&self, machine: &MachineKey) -> Result<u32> {
        self.step(|state| {
            if state.mischief.fail_thaws > 0 {
                state.mischief.fail_thaws -= 1;
                return Err(failure::agent_absent(&machine.0));
            }
            let machine = state.machine(machine)?;
            Ok(u32::from(std::mem::take(&mut machine.frozen)))
        })
    }

    fn agent(&self, machine: &MachineKey) -> Result<AgentPresence> {
        self.step(|state| {
            let found = state.machine(machine)?;
            Ok(if found.frozen {
                AgentPresence::Frozen
            } else {
                look(machine, found).agent
            })
        })
    }

    fn wait_for_agent(
        &self,
        machine: &MachineKey,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        match self.agent(machine)? {
            AgentPresence::Connected | AgentPresence::Frozen => Ok(()),
            AgentPresence::NoChannel => Err(failure::agent_absent(&machine.0)),
            AgentPresence::Silent => {
                // Nothing happens by itself in this world: waiting only takes its time.
                if let Some(clock) = &self.clock {
                    clock.sleep(timeout);
                }
                Err(Error::new(
                    Kind::Timeout,
                    "platform.agent.timeout",
                    format!("no guest agent answered in {machine}"),
                ))
            }
        }
    }
}

impl Backups for Simulated {
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup> {
        let begun = self.begin(request);
        // A refusal because of another backup must not end that one, nor touch a machine of the
        // same token: `end` goes by the token and so does neither.
        if begun.is_err() {
            let _ = self.end_backup(&request.machine, &request.token, Keep::Nothing);
        }
        begun
    }

    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()> {
        let gone = |error: &Error| error.code() == "platform.machine.unknown";
        let on_machine = |act: &dyn Fn(&mut Simulation)| {
            self.step(|state| state.machine(machine).map(act))
                .or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
        };
        on_machine(&|machine| {
            if machine
                .running
                .as_ref()
                .is_some_and(|run| run.token.as_ref() == Some(token))
            {
                machine.running = None;
            }
        })?;
        if keep == Keep::Nothing {
            on_machine(&|machine| {
                machine
                    .trackers
                    .retain(|tracker| tracker.name != token.as_str());
            })?;
        }
        on_machine(&|machine| {
            if machine.held_by.as_ref() == Some(token) {
                machine.held_by = None;
                if machine.power == Power::Paused {
                    machine.power = Power::Off;
                }
            }
        })?;
        self.step(|state| {
            state.scratch.remove(token);
            Ok(())
        })
    }

    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>> {
        self.step(|state| Ok(state.machine(machine)?.running.as_ref().map(describe)))
    }

    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>> {
        self.step(|state| {
            let trackers = state
                .machine(machine)?
                .trackers
                .iter()
                .map(|tracker| Tracker {
                    name: tracker.name.clone(),
                    token: Token::recognise(&tracker.name),
                    created: Some(tracker.created),
                    disks: tracker.dirty.keys().cloned().collect(),
                });
            Ok(trackers.collect())
        })
    }

    fn delete_tracker(&self, machine: &MachineKey, name: &str) -> Result<()> {
        self.step(|state| {
            if let Ok(machine) = state.machine(machine) {
                machine.trackers.retain(|tracker| tracker.name != name);
            }
            Ok(())
        })
    }
}

fn describe(running: &Running) -> RunningBackup {
    let description = match &running.token {
        Some(token) => format!("a backup of Backstay runs ({token})"),
        None => "a backup of another program runs".to_owned(),
    };
    RunningBackup {
        token: running.token.clone(),
        description,
    }
}

impl Simulated {
    fn begin(&self, request: &BackupRequest) -> Result<Backup> {
        let token = &request.token;
        if request.disks.is_empty() {
            return Err(Error::invalid(
                "platform.backup.request-malformed",
                "a backup needs at least one disk, and each disk once",
            ));
        }
        self.step(|state| {
            let machine = state.machine(&request.machine)?;
            match &machine.running {
                Some(running) => Err(failure::busy(&machine.name, &describe(running).description)),
                None => Ok(()),
            }
        })?;
        let mut notes = Vec::new();
        if self.step(|state| Ok(state.machine(&request.machine)?.power == Power::Off))? {
            self.step(|state| {
                state.machine(&request.machine)?.held_by = Some(token.clone());
                Ok(())
            })?;
            self.step(|state| {
                state.machine(&request.machine)?.power = Power::Paused;
                Ok(())
            })?;
            notes.push("the machine is off; it is held paused for the backup".to_owned());
        }
        self.step(|state| {
            state.scratch.insert(token.clone());
            Ok(())
        })?;
        let created = self.clock.as_ref().map(|clock| clock.now().unix_seconds());
        let disks = self.step(|state| self.begin_now(state, request, created))?;
        Ok(Backup {
            machine: request.machine.clone(),
            token: token.clone(),
            disks,
            notes,
        })
    }

    /// The one moment: views, changes since the bases, and the new tracker.
    fn begin_now(
        &self,
        state: &mut State,
        request: &BackupRequest,
        created: Option<i64>,
    ) -> Result<Vec<BackupDisk>> {
        let hide = state.mischief.hide_one_in;
        state.trackers_made += 1;
        let created = created.unwrap_or(state.trackers_made);
        let machine = state.machine(&request.machine)?;
        let mut disks = Vec::with_capacity(request.disks.len());
        let mut tracked = std::collections::BTreeMap::new();
        for wanted in &request.disks {
            let (tracking, changed) = changes(machine, request, wanted)?;
            let changed = changed.map(|clusters| {
                clusters
                    .into_iter()
                    .filter(|_| hide == 0 || !self.random.one_in(hide))
                    .collect()
            });
            let disk = machine.disk(&wanted.target)?;
            let capacity = disk.content.size();
            let track = request.track && disk.trackable;
            let tracker = track.then(|| DiskTracker {
                machine: request.machine.clone(),
                name: request.token.clone(),
                target: wanted.target.clone(),
                source: disk.source.clone(),
                capacity,
                document: String::new(),
            });
            if track {
                tracked.insert(wanted.target.clone(), Default::default());
            }
            disks.push(BackupDisk {
                target: wanted.target.clone(),
                capacity,
                access: Access::Memory(MemoryAccess {
                    disk: Arc::new(disk.content.clone()),
                    changed: changed.map(|clusters: Vec<u64>| ranges(clusters, capacity)),
                }),
                tracking,
                tracker,
            });
        }
        if !tracked.is_empty() {
            let name = request.token.as_str().to_owned();
            let tracker = SimulatedTracker {
                name,
                created,
                broken: false,
                dirty: tracked,
            };
            machine.trackers.push(tracker);
        }
        machine.running = Some(Running {
            token: Some(request.token.clone()),
        });
        Ok(disks)
    }
}

/// What is known about a disk's changes: the same ladder of doubts as on a real hypervisor.
fn changes(
    machine: &Simulation,
    request: &BackupRequest,
    wanted: &DiskRequest,
) -> Result<(Tracking, Option<Vec<u64>>)> {
    let disk = machine.disk(&wanted.target)?;
    let full = |cause, reason: &str| {
        Ok((
            Tracking::Full {
                cause,
                reason: reason.to_owned(),
            },
            None,
        ))
    };
    if !disk.trackable {
        return full(FullCause::NotTrackable, NOT_TRACKABLE);
    }
    let Some(base) = &wanted.base else {
        return full(FullCause::NoBase, "there is no earlier point to build on");
    };
    if base.machine != request.machine || base.target != wanted.target {
        return full(
            FullCause::Foreign,
            "the tracker belongs to another machine or disk",
        );
    }
    if base.capacity != disk.content.size() {
        return full(FullCause::Resized, "the disk had another size last time");
    }
    if base.source != disk.source {
        return full(FullCause::Moved, "the disk lay elsewhere last time");
    }
    let tracker = machine.tracker(base.name.as_str());
    let Some((tracker, dirty)) =
        tracker.and_then(|tracker| Some((tracker, tracker.dirty.get(&wanted.target)?)))
    else {
        return full(FullCause::TrackerMissing, "the tracker is gone");
    };
    if tracker.broken {
        return full(
            FullCause::TrackerInconsistent,
            "the tracker's map is broken",
        );
    }
    let since = base.name.clone();
    Ok((
        Tracking::Changed { since },
        Some(dirty.iter().copied().collect()),
    ))
}

impl Control for Simulated {
    fn power(&self, machine: &MachineKey) -> Result<Power> {
        self.step(|state| Ok(state.machine(machine)?.power))
    }

    fn start(&self, machine: &MachineKey) -> Result<()> {
        self.step(|state| {
            state.machine(machine)?.power = Power::Running;
            Ok(())
        })
    }

    fn start_paused(&self, machine: &MachineKey) -> Result<()> {
        self.step(|state| {
            let machine = state.machine(machine)?;
            if machine.power != Power::Off {
                return Err(failure::busy(&machine.name, "it is switched on already"));
            }
            machine.power = Power::Paused;
            Ok(())
        })
    }

    fn stop(&self, machine: &MachineKey, _timeout: Duration, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        self.destroy(machine)
    }

    fn destroy(&self, machine: &MachineKey) -> Result<()> {
        self.step(|state| {
            let machine = state.machine(machine)?;
            machine.power = Power::Off;
            // A backup does not outlive the process that serves it; trackers are saved.
            machine.running = None;
            machine.frozen = false;
            Ok(())
        })
    }
}

impl Provisioning for Simulated {
    fn provision(
        &self,
        definition: &Definition,
        options: &ProvisionOptions,
    ) -> Result<Provisioned> {
        let saved: Saved = definition
            .bytes_of(DEFINITION_FILE)
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .ok_or_else(|| {
                Error::invalid(
                    "platform.provision.definition-missing",
                    format!("the definition has no readable file {DEFINITION_FILE}"),
                )
            })?;
        let name = options.name.clone().unwrap_or(saved.name);
        let key = match options.identity {
            Identity::Same => saved.key,
            Identity::New(uuid) => MachineKey(uuid.to_string()),
        };
        let placed = |target: &str| options.disks.iter().find(|disk| disk.target == target);
        if let Some(disk) = options
            .disks
            .iter()
            .find(|disk| !saved.disks.iter().any(|(target, _)| *target == disk.target))
        {
            return Err(Error::invalid(
                "platform.provision.disk-unknown",
                format!("the saved machine has no disk {}", disk.target),
            ));
        }
        self.step(|state| {
            let taken = state.machines.values().any(|machine| machine.name == name);
            if taken || state.machines.contains_key(&key) {
                return Err(failure::machine_exists(&name));
            }
            let disks: Vec<(&str, ByteCount)> = saved
                .disks
                .iter()
                .filter(|(target, _)| placed(target).is_some())
                .map(|(target, size)| (target.as_str(), *size))
                .collect();
            let mut machine = Simulation::new(&name, &disks);
            machine.power = Power::Off;
            for disk in &mut machine.disks {
                if let Some(placement) = placed(&disk.target) {
                    disk.source.clone_from(&placement.path);
                }
            }
            let provisioned = Provisioned {
                machine: look(&key, &machine),
                warnings: Vec::new(),
            };
            state.machines.insert(key.clone(), machine);
            Ok(provisioned)
        })
    }

    fn undefine(&self, machine: &MachineKey) -> Result<()> {
        self.step(|state| {
            let Ok(found) = state.machine(machine) else {
                return Ok(());
            };
            if found.power != Power::Off {
                return Err(failure::busy(&found.name, "it is switched on"));
            }
            state.machines.remove(machine);
            Ok(())
        })
    }
}

impl Hygiene for Simulated {
    fn resources(&self) -> Result<Vec<Resource>> {
        self.step(|state| {
            let mut resources: Vec<Resource> = state
                .scratch
                .iter()
                .map(|token| Resource {
                    token: token.clone(),
                    machine: None,
                    kind: ResourceKind::Scratch,
                    name: token.to_string(),
                })
                .collect();
            for (key, machine) in &state.machines {
                let running = machine.running.as_ref().and_then(|run| run.token.clone());
                let held = machine.held_by.clone();
                let trackers = machine
                    .trackers
                    .iter()
                    .filter_map(|tracker| Token::recognise(&tracker.name));
                let found = running
                    .into_iter()
                    .map(|token| (token, ResourceKind::Backup))
                    .chain(
                        held.into_iter()
                            .map(|token| (token, ResourceKind::HeldMachine)),
                    )
                    .chain(trackers.map(|token| (token, ResourceKind::Tracker)));
                resources.extend(found.map(|(token, kind)| Resource {
                    name: token.to_string(),
                    token,
                    machine: Some(key.clone()),
                    kind,
                }));
            }
            resources.sort();
            Ok(resources)
        })
    }

    fn clean_up(&self, token: &Token, keep: Keep) -> Result<Vec<Resource>> {
        let mut found = self.resources_of(token)?;
        if keep == Keep::Tracker {
            found.retain(|resource| resource.kind != ResourceKind::Tracker);
        }
        let mut machines: Vec<&MachineKey> = found
            .iter()
            .filter_map(|resource| resource.machine.as_ref())
            .collect();
        machines.dedup();
        for machine in machines {
            self.end_backup(machine, token, keep)?;
        }
        self.step(|state| {
            state.scratch.remove(token);
            Ok(())
        })?;
        Ok(found)
    }
}
