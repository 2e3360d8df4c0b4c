//! The simulated platform behind a door that can be shut: what a dead manager does reaches nobody.
//!
//! Knows: how to pass everything on, counting deeds. Refuses to know: what they do. Disks in memory
//! are shown as image files, since agents of another process could not reach them.

use crate::scene::Fate;
use base::Result;
use base::cancel::Cancel;
use platform::contract::{
    Access, AgentPresence, Backup, BackupRequest, Backups, Control, Definition, Guests, Host,
    Hygiene, Inventory, Keep, Machine, MachineKey, Power, ProvisionOptions, Provisioned,
    Provisioning, Resource, RunningBackup, Token, Tracker,
};
use platform::simulated::Simulated;
use std::sync::Arc;
use std::time::Duration;

/// The platform as one manager sees it.
pub struct Shown {
    pub inner: Arc<Simulated>,
    pub fate: Arc<Fate>,
}

impl Shown {
    fn pass<T>(&self, deed: &str, call: impl FnOnce(&Simulated) -> Result<T>) -> Result<T> {
        self.fate.pass(deed, || call(&self.inner))
    }
}

impl Inventory for Shown {
    fn host(&self) -> Result<Host> {
        self.pass("host", |p| p.host())
    }
    fn machines(&self) -> Result<Vec<Machine>> {
        self.pass("machines", |p| p.machines())
    }
    fn machine(&self, machine: &MachineKey) -> Result<Machine> {
        self.pass("machine", |p| p.machine(machine))
    }
    fn definition(&self, machine: &MachineKey) -> Result<Definition> {
        self.pass("definition", |p| p.definition(machine))
    }
}

impl Guests for Shown {
    fn freeze(&self, machine: &MachineKey, timeout: Duration) -> Result<u32> {
        self.pass("freeze", |p| p.freeze(machine, timeout))
    }
    fn thaw(&self, machine: &MachineKey) -> Result<u32> {
        self.pass("thaw", |p| p.thaw(machine))
    }
    fn agent(&self, machine: &MachineKey) -> Result<AgentPresence> {
        self.pass("agent", |p| p.agent(machine))
    }
    fn wait_for_agent(
        &self,
        machine: &MachineKey,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<()> {
        self.pass("wait for agent", |p| {
            p.wait_for_agent(machine, timeout, cancel)
        })
    }
}

impl Backups for Shown {
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup> {
        let mut backup = self.pass("begin backup", |p| p.begin_backup(request))?;
        for disk in &mut backup.disks {
            let path = format!("/simulated/{}", disk.target);
            disk.access = Access::Image { path, format: None };
        }
        Ok(backup)
    }
    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()> {
        self.pass("end backup", |p| p.end_backup(machine, token, keep))
    }
    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>> {
        self.pass("running backup", |p| p.running_backup(machine))
    }
    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>> {
        self.pass("trackers", |p| p.trackers(machine))
    }
    fn delete_tracker(&self, machine: &MachineKey, name: &str) -> Result<()> {
        self.pass("delete tracker", |p| p.delete_tracker(machine, name))
    }
}

impl Control for Shown {
    fn power(&self, machine: &MachineKey) -> Result<Power> {
        self.pass("power", |p| p.power(machine))
    }
    fn start(&self, machine: &MachineKey) -> Result<()> {
        self.pass("start", |p| p.start(machine))
    }
    fn start_paused(&self, machine: &MachineKey) -> Result<()> {
        self.pass("start paused", |p| p.start_paused(machine))
    }
    fn stop(&self, machine: &MachineKey, timeout: Duration, cancel: &Cancel) -> Result<()> {
        self.pass("stop", |p| p.stop(machine, timeout, cancel))
    }
    fn destroy(&self, machine: &MachineKey) -> Result<()> {
        self.pass("destroy", |p| p.destroy(machine))
    }
}

impl Provisioning for Shown {
    fn provision(
        &self,
        definition: &Definition,
        options: &ProvisionOptions,
    ) -> Result<Provisioned> {
        self.pass("provision", |p| p.provision(definition, options))
    }
    fn undefine(&self, machine: &MachineKey) -> Result<()> {
        self.pass("undefine", |p| p.undefine(machine))
    }
}

impl Hygiene for Shown {
    fn resources(&self) -> Result<Vec<Resource>> {
        self.pass("resources", |p| p.resources())
    }
    fn clean_up(&self, token: &Token, keep: Keep) -> Result<Vec<Resource>> {
        self.pass("clean up", |p| p.clean_up(token, keep))
    }
}
