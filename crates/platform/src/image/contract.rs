//! The contract, kept by plain images.
//!
//! Knows: that a backup of images is only a look at them before and after.
//! Refuses to know: what a running machine is; everything about that is refused with reasons.

use super::{Identity, ImageDisk, ImageMachine, Images, NOT_TRACKABLE, look};
use crate::contract::{
    Access, AgentPresence, Backup, BackupDisk, BackupRequest, Backups, Content, Control,
    Definition, DefinitionFile, FullCause, Guests, Host, Hygiene, Inventory, Keep, Machine,
    MachineKey, Power, ProvisionOptions, Provisioned, Provisioning, Resource, ResourceKind,
    RunningBackup, Token, Tracker, Tracking, failure,
};
use base::cancel::Cancel;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::time::Duration;

/// The file name of the list of images in a definition.
const DEFINITION_FILE: &str = "images.json";

impl Inventory for Images {
    fn host(&self) -> Result<Host> {
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let platform = "image".to_owned();
        Ok(Host {
            name,
            platform,
            version: "disk images of this host".to_owned(),
        })
    }

    fn machines(&self) -> Result<Vec<Machine>> {
        let mut machines: Vec<_> = self.lock().machines.values().map(look).collect();
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    fn machine(&self, machine: &MachineKey) -> Result<Machine> {
        self.lock().machine(machine).map(look)
    }

    fn definition(&self, machine: &MachineKey) -> Result<Definition> {
        let state = self.lock();
        let machine = state.machine(machine)?;
        let bytes = serde_json::to_vec_pretty(machine).map_err(|error| {
            Error::new(Kind::Bug, "platform.image.definition", error.to_string())
        })?;
        let file = DefinitionFile {
            name: DEFINITION_FILE.to_owned(),
            content: Content::Bytes(bytes),
        };
        let (platform, warnings) = ("image".to_owned(), Vec::new());
        Ok(Definition {
            platform,
            files: vec![file],
            warnings,
        })
    }
}

impl Guests for Images {
    fn freeze(&self, machine: &MachineKey, _timeout: Duration) -> Result<u32> {
        Err(failure::machine_inactive(
            &self.machine(machine)?.name,
            "freezing file systems",
        ))
    }

    fn thaw(&self, machine: &MachineKey) -> Result<u32> {
        self.machine(machine).map(|_| 0)
    }

    fn agent(&self, machine: &MachineKey) -> Result<AgentPresence> {
        self.machine(machine).map(|machine| machine.agent)
    }

    fn wait_for_agent(
        &self,
        machine: &MachineKey,
        _timeout: Duration,
        _cancel: &Cancel,
    ) -> Result<()> {
        Err(failure::agent_absent(&self.machine(machine)?.name))
    }
}

impl Backups for Images {
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup> {
        let mut state = self.lock();
        let machine = state.machine(&request.machine)?;
        if let Some((token, _)) = state.running.get(&request.machine) {
            return Err(failure::busy(&machine.name, &describe(token).description));
        }
        if request.disks.is_empty() {
            return Err(Error::invalid(
                "platform.backup.request-malformed",
                "a backup needs at least one disk, and each disk once",
            ));
        }
        let mut seen = Vec::new();
        let mut disks = Vec::new();
        for wanted in &request.disks {
            let disk = machine
                .disks
                .iter()
                .find(|disk| disk.target == wanted.target)
                .ok_or_else(|| failure::disk_unknown(&machine.name, &wanted.target))?;
            let identity = Identity::of(&disk.path)?;
            seen.push((disk.path.clone(), identity));
            disks.push(BackupDisk {
                target: disk.target.clone(),
                capacity: ByteCount(identity.size),
                access: Access::Image {
                    path: disk.path.clone(),
                    format: None,
                },
                tracking: Tracking::Full {
                    cause: FullCause::NotTrackable,
                    reason: NOT_TRACKABLE.to_owned(),
                },
                tracker: None,
            });
        }
        state
            .running
            .insert(request.machine.clone(), (request.token.clone(), seen));
        let (machine, token) = (request.machine.clone(), request.token.clone());
        Ok(Backup {
            machine,
            token,
            disks,
            notes: Vec::new(),
        })
    }

    /// Besides what the contract says: with [`Keep::Tracker`] an error of kind `Conflict` where an image
    /// was written to while it was read. The backup has ended all the same.
    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()> {
        let mut state = self.lock();
        match state.running.get(machine) {
            Some((running, _)) if running == token => {}
            _ => return Ok(()),
        }
        let seen = state
            .running
            .remove(machine)
            .map(|(_, seen)| seen)
            .unwrap_or_default();
        if keep == Keep::Nothing {
            return Ok(());
        }
        for (path, before) in seen {
            if Identity::of(&path).ok() != Some(before) {
                return Err(Error::new(
                    Kind::Conflict,
                    "platform.image.changed-meanwhile",
                    format!("{path} was written to while it was backed up"),
                )
                .hint("what was read may not fit together: back it up while nothing uses it"));
            }
        }
        Ok(())
    }

    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>> {
        let state = self.lock();
        state.machine(machine)?;
        Ok(state.running.get(machine).map(|(token, _)| describe(token)))
    }

    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>> {
        self.machine(machine).map(|_| Vec::new())
    }

    fn delete_tracker(&self, _machine: &MachineKey, _name: &str) -> Result<()> {
        Ok(())
    }
}

fn describe(token: &Token) -> RunningBackup {
    let description = format!("a backup of Backstay runs ({token})");
    RunningBackup {
        token: Some(token.clone()),
        description,
    }
}

impl Control for Images {
    fn power(&self, machine: &MachineKey) -> Result<Power> {
        self.machine(machine).map(|machine| machine.power)
    }

    fn start(&self, machine: &MachineKey) -> Result<()> {
        self.machine(machine)?;
        Err(failure::unsupported("image", "starting a machine"))
    }

    fn start_paused(&self, machine: &MachineKey) -> Result<()> {
        self.start(machine)
    }

    fn stop(&self, machine: &MachineKey, _timeout: Duration, _cancel: &Cancel) -> Result<()> {
        self.machine(machine).map(drop)
    }

    fn destroy(&self, machine: &MachineKey) -> Result<()> {
        self.machine(machine).map(drop)
    }
}

impl Provisioning for Images {
    /// Notes where the images lie. Names and targets follow the definition; a definition of another
    /// platform gives its disks as the options name them.
    fn provision(
        &self,
        definition: &Definition,
        options: &ProvisionOptions,
    ) -> Result<Provisioned> {
        let saved: Option<ImageMachine> = match definition.bytes_of(DEFINITION_FILE) {
            Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|error| {
                Error::invalid(
                    "platform.provision.definition-missing",
                    format!("the definition's file {DEFINITION_FILE} cannot be read"),
                )
                .caused_by(error)
            })?),
            None => None,
        };
        if let Some(saved) = &saved
            && let Some(strange) = options
                .disks
                .iter()
                .find(|disk| !saved.disks.iter().any(|known| known.target == disk.target))
        {
            return Err(Error::invalid(
                "platform.provision.disk-unknown",
                format!("the saved machine has no disk {}", strange.target),
            ));
        }
        let name = options
            .name
            .clone()
            .or(saved.map(|saved| saved.name))
            .unwrap_or_else(|| "image".to_owned());
        let disks = options
            .disks
            .iter()
            .map(|disk| ImageDisk {
                target: disk.target.clone(),
                path: disk.path.clone(),
            })
            .collect();
        let mut state = self.lock();
        let key = state.add(ImageMachine { name, disks })?;
        Ok(Provisioned {
            machine: look(state.machine(&key)?),
            warnings: Vec::new(),
        })
    }

    fn undefine(&self, machine: &MachineKey) -> Result<()> {
        let mut state = self.lock();
        state.running.remove(machine);
        state.machines.remove(machine);
        Ok(())
    }
}

impl Hygiene for Images {
    fn resources(&self) -> Result<Vec<Resource>> {
        let state = self.lock();
        let mut resources: Vec<Resource> = state
            .running
            .iter()
            .map(|(machine, (token, _))| Resource {
                token: token.clone(),
                machine: Some(machine.clone()),
                kind: ResourceKind::Backup,
                name: machine.0.clone(),
            })
            .collect();
        resources.sort();
        Ok(resources)
    }

    fn clean_up(&self, token: &Token, _keep: Keep) -> Result<Vec<Resource>> {
        let found = self.resources_of(token)?;
        self.lock()
            .running
            .retain(|_, (running, _)| running != token);
        Ok(found)
    }
}
