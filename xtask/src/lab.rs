//! The lab: a real hypervisor with real guests on this machine, put up and taken down again.
//!
//! Knows: where the lab keeps its things, that only one is up at a time, what a previous run may
//! have left behind, and the order of taking down.
//! Refuses to know: what is tried in it.
//!
//! Everything of the lab lies in one folder, every guest's name starts with one prefix, and only
//! what carries both is ever removed: other machines of this hypervisor are not touched.

pub mod agent;
mod daemons;
mod domain;
pub mod door;
pub mod export;
pub mod guest;
mod parts;
mod virsh;

pub use virsh::Virsh;

use crate::marked::Mark;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use daemons::Daemons;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What the name of every machine of the lab starts with.
pub const PREFIX: &str = "backstay-lab-";
const FOLDER: &str = "/var/lib/backstay-lab";
const FOLDER_VARIABLE: &str = "BACKSTAY_LAB";

/// A lab that is up. Taken down when dropped, unless it was told to stay.
pub struct Lab {
    folder: PathBuf,
    virsh: Virsh,
    daemons: Option<Daemons>,
    _lock: File,
}

impl Lab {
    /// Puts the lab up: folder, daemons, and nothing left of a previous run.
    pub fn up(cancel: &Cancel) -> Result<Self> {
        let mut lab = Self::claim()?;
        lab.daemons = Some(Daemons::up(&lab.folder, cancel)?);
        lab.remove_leftovers(cancel)?;
        Ok(lab)
    }

    /// The lab that an earlier run left up on purpose, with its guests.
    pub fn enter(cancel: &Cancel) -> Result<Self> {
        let lab = Self::claim()?;
        if !Daemons::served() {
            return Err(
                Error::new(Kind::NotFound, "xtask.lab.down", "the lab is not up")
                    .hint("put it up with `cargo xtask lab up`"),
            );
        }
        cancel.check()?;
        Ok(lab)
    }

    fn claim() -> Result<Self> {
        if !crate::need::is_root() {
            return Err(Error::new(
                Kind::Denied,
                "xtask.lab.rights",
                "the lab needs the system's libvirt, which answers root",
            )
            .hint("run the same command as root"));
        }
        let folder = std::env::var_os(FOLDER_VARIABLE).map_or(FOLDER.into(), PathBuf::from);
        make_folder(&folder)?;
        let lock = lock(&folder.join("lock"))?;
        Ok(Self {
            folder,
            virsh: Virsh::system(),
            daemons: None,
            _lock: lock,
        })
    }

    /// The folder of the lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder inside the lab that goes away with it.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join("run").join(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// The same, and the hypervisor's own user may write into it (sockets, scratch files).
    pub fn open_scratch(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.scratch(name)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))
            .map_err(|error| Error::io(format!("opening {}", folder.display()), error))?;
        Ok(folder)
    }

    /// What every program carries that is started for this lab.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.folder)
    }

    /// The lab's way to talk to the hypervisor.
    pub fn virsh(&self) -> &Virsh {
        &self.virsh
    }

    /// Leaves the lab up when this program ends.
    pub fn stay_up(mut self) {
        self.daemons = None;
    }

    /// Takes everything down now and says what could not be.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        // Whoever asked to stop wants this to be finished all the same.
        let cancel = Cancel::new();
        let daemons = self
            .daemons
            .take()
            .unwrap_or_else(|| Daemons::of(&self.folder));
        let mut first = Ok(());
        if Daemons::served() {
            first = self.remove_leftovers(&cancel);
        }
        let stopped = daemons.down(&self.virsh, &cancel);
        first.and(stopped)
    }

    /// Removes every machine of the lab and everything that guests and runs left in its folder.
    fn remove_leftovers(&self, cancel: &Cancel) -> Result<()> {
        self.mark().end();
        for name in self.virsh.names(cancel)? {
            if name.starts_with(PREFIX) {
                detail(format!("removing the machine {name}"));
                self.virsh.remove(&name, cancel)?;
            }
        }
        remove_folder(&self.folder.join("run"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.daemons.is_some()
            && let Err(error) = self.take_down()
        {
            eprintln!("the lab could not be taken down whole: {error}");
            eprintln!("  what to do: `cargo xtask lab down` tries again");
        }
    }
}

/// Makes a folder that the hypervisor's user can walk through.
pub fn make_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| Error::io(format!("making the folder {}", folder.display()), error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(failed)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    let failed = |error| Error::io(format!("opening {}", path.display()), error);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            Kind::Conflict,
            "xtask.lab.busy",
            "another run is using the lab on this machine",
        )
        .hint("wait for it to end, or set BACKSTAY_LAB to another folder")),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
