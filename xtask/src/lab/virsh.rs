//! libvirt's own command line: the independent client that tests judge Backstay by.
//!
//! Knows: how to call it and how machines are listed and removed.
//! Refuses to know: Backstay's own libvirt client; using it here would prove nothing.

use crate::command::Run;
use base::Result;
use base::cancel::Cancel;
use std::time::Duration;

/// Long, because libvirt asks QEMU what it can do before the first start, and a busy machine is slow.
const DEADLINE: Duration = Duration::from_secs(180);

/// A connection's address; each call is a process of its own.
#[derive(Clone, Debug)]
pub struct Virsh {
    address: String,
}

impl Virsh {
    /// The system's hypervisor.
    pub fn system() -> Self {
        Self {
            address: "qemu:///system".to_owned(),
        }
    }

    /// A call that has not been made yet.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.to(Run::new("virsh"))
            .args(arguments)
            .deadline(DEADLINE)
    }

    /// Directs a call of `virsh` to this hypervisor, with words that do not depend on the language.
    pub fn to(&self, run: Run) -> Run {
        run.args(["-q", "-c", &self.address]).env("LC_ALL", "C")
    }

    /// Calls it and hands back what it printed.
    pub fn call(&self, arguments: &[&str], cancel: &Cancel) -> Result<String> {
        Ok(self.run(arguments).capture(cancel)?.text())
    }

    /// The names of all machines, running or not.
    pub fn names(&self, cancel: &Cancel) -> Result<Vec<String>> {
        self.list(&["list", "--all", "--name"], cancel)
    }

    /// The names of machines that run.
    pub fn running(&self, cancel: &Cancel) -> Result<Vec<String>> {
        self.list(&["list", "--name"], cancel)
    }

    fn list(&self, arguments: &[&str], cancel: &Cancel) -> Result<Vec<String>> {
        let text = self.call(arguments, cancel)?;
        Ok(text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Ends a machine if it runs and forgets it, with its checkpoints and its managed save. Its
    /// disks stay.
    pub fn remove(&self, name: &str, cancel: &Cancel) -> Result<()> {
        if self.running(cancel)?.iter().any(|running| running == name) {
            self.call(&["destroy", name], cancel)?;
        }
        // A transient machine is gone now.
        if self.names(cancel)?.iter().any(|known| known == name) {
            self.call(
                &[
                    "undefine",
                    name,
                    "--managed-save",
                    "--checkpoints-metadata",
                    "--snapshots-metadata",
                    "--nvram",
                ],
                cancel,
            )?;
        }
        Ok(())
    }
}
