//! One guest of the lab.
//!
//! Knows: how it is put together from parts, started, watched and restarted.
//! Refuses to know: what it is used for.

use super::agent::Agent;
use super::domain::Description;
use super::parts;
use super::{Lab, PREFIX};
use crate::command::Run;
use crate::step::{detail, said};
use base::cancel::Cancel;
use base::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MEMORY_MIB: u32 = 256;

/// A guest that is defined; it goes with the lab.
pub struct Guest<'a> {
    lab: &'a Lab,
    name: String,
    folder: PathBuf,
}

impl<'a> Guest<'a> {
    /// Makes a guest with a disk of its own and defines it. `name` is given the lab's prefix.
    pub fn make(lab: &'a Lab, name: &str, cancel: &Cancel) -> Result<Self> {
        let built = parts::root_disk(lab.folder(), cancel)?;
        let guest = Self::known(lab, name)?;
        let disk = guest.folder.join("root.qcow2");
        copy_sparse(&built, &disk, cancel)?;
        let description = Description {
            name: guest.name.clone(),
            disks: vec![disk],
            console: guest.console(),
            memory_mib: MEMORY_MIB,
        };
        let xml = guest.folder.join("machine.xml");
        std::fs::write(&xml, description.xml())
            .map_err(|error| Error::io(format!("writing {}", xml.display()), error))?;
        lab.virsh()
            .call(&["define", &xml.to_string_lossy()], cancel)?;
        Ok(guest)
    }

    /// A guest that is defined already.
    pub fn known(lab: &'a Lab, name: &str) -> Result<Self> {
        let folder = lab.scratch(name)?;
        Ok(Self {
            lab,
            name: format!("{PREFIX}{name}"),
            folder,
        })
    }

    /// Its full name, as the hypervisor knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The agent inside.
    pub fn agent(&self) -> Agent<'_> {
        Agent::of(self.lab.virsh(), &self.name)
    }

    /// Where its serial console is written.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Starts it and waits for its agent.
    pub fn start(&self, cancel: &Cancel) -> Result<()> {
        self.lab.virsh().call(&["start", &self.name], cancel)?;
        let waited = self.agent().wait(cancel)?;
        detail(format!("{} answers after {}", self.name, said(waited)));
        Ok(())
    }

    /// Restarts it from inside and waits until it is back.
    pub fn restart(&self, cancel: &Cancel) -> Result<()> {
        let agent = self.agent();
        let before = agent.run("cat /proc/sys/kernel/random/boot_id", cancel)?;
        self.lab
            .virsh()
            .call(&["reboot", &self.name, "--mode", "agent"], cancel)?;
        let started = Instant::now();
        loop {
            agent.wait(cancel)?;
            let now = agent.run("cat /proc/sys/kernel/random/boot_id", cancel);
            if now.as_ref().is_ok_and(|now| *now != before) {
                return Ok(());
            }
            if started.elapsed() > super::agent::BOOT_DEADLINE {
                return Err(Error::new(
                    base::Kind::Timeout,
                    "xtask.lab.restart",
                    format!("{} did not restart", self.name),
                ));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn copy_sparse(from: &Path, to: &Path, cancel: &Cancel) -> Result<()> {
    Run::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .capture(cancel)
        .map(drop)
}
