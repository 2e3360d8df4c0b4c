//! The contract, kept by the simulated hypervisor, apart from backups.
//!
//! Knows: each call as a list of steps, between which the connection may be lost.
//! Refuses to know: which faults a test wants.

use super::state::Machine as Simulation;
use super::{NOT_TRACKABLE, Simulated};
use crate::contract::{
    AgentPresence, Backups, Content, Control, Definition, DefinitionFile, Guests, Host, Hygiene,
    Identity, Inventory, Keep, Machine, MachineDisk, MachineKey, Power, ProvisionOptions,
    Provisioned, Provisioning, Resource, ResourceKind, Token, Trackable, failure,
};
use base::block::BlockRead;
use base::cancel::Cancel;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DEFINITION_FILE: &str = "machine.json";

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
