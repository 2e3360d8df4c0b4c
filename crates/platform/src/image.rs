//! Disk images and block devices of a host, without any hypervisor.
//!
//! Knows: that they exist, how large their files are, and whether they changed while they were read.
//! Refuses to know: image formats (the mover opens them) and change tracking (there is none).
//!
//! A "machine" is a named list of images. Its key is the path of its first one.

mod contract;

use crate::contract::{
    AgentPresence, Machine, MachineDisk, MachineKey, Power, Token, Trackable, failure,
};
use base::size::ByteCount;
use base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why all of an image is read each time.
pub const NOT_TRACKABLE: &str =
    "images have no change tracking; all is read and compared with what is stored";

/// Images that belong together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageMachine {
    /// The name people gave it.
    pub name: String,
    /// Its images, at least one.
    pub disks: Vec<ImageDisk>,
}

/// One image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageDisk {
    /// Its name within the machine.
    pub target: String,
    /// An absolute path on the host.
    pub path: String,
}

impl ImageMachine {
    /// A machine of one image, named after its file.
    ///
    /// # Errors
    /// Kind `Invalid` where the path is not absolute or not UTF-8.
    pub fn of_file(path: &Path) -> Result<Self> {
        let text = path
            .to_str()
            .filter(|text| text.starts_with('/'))
            .ok_or_else(|| {
                Error::invalid(
                    "platform.image.path-malformed",
                    format!("\u{201c}{}\u{201d} is not an absolute path", path.display()),
                )
            })?;
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("image");
        let disk = ImageDisk {
            target: "disk0".to_owned(),
            path: text.to_owned(),
        };
        Ok(Self {
            name: stem.to_owned(),
            disks: vec![disk],
        })
    }

    /// Its key.
    pub fn key(&self) -> MachineKey {
        MachineKey(
            self.disks
                .first()
                .map(|disk| disk.path.clone())
                .unwrap_or_default(),
        )
    }
}

/// What tells whether an image is still the one it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Device and inode.
    pub inode: (u64, u64),
    /// Size in bytes.
    pub size: u64,
    /// Last write: seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Identity {
    /// That of the file or block device at `path`.
    pub fn of(path: &str) -> Result<Self> {
        let doing = || format!("examining the image {path}");
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(doing(), error))?;
        let size = if metadata.file_type().is_block_device() {
            // A device's size stands nowhere but at its end.
            std::fs::File::open(path)
                .and_then(|mut device| device.seek(SeekFrom::End(0)))
                .map_err(|error| Error::io(doing(), error))?
        } else if metadata.is_file() {
            metadata.len()
        } else {
            return Err(Error::invalid(
                "platform.image.not-a-disk",
                format!("{path} is neither a file nor a block device"),
            ));
        };
        Ok(Self {
            inode: (metadata.dev(), metadata.ino()),
            size,
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// The images of this host that Backstay was told of.
pub struct Images {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<MachineKey, ImageMachine>,
    /// Which run reads a machine now, and what its images were when it began.
    running: BTreeMap<MachineKey, (Token, Vec<(String, Identity)>)>,
}

impl Images {
    /// These machines.
    ///
    /// # Errors
    /// Kind `Invalid` where a machine has no disk, a path is not absolute, or two machines or targets
    /// are the same. Images that do not exist are not an error yet.
    pub fn new(machines: Vec<ImageMachine>) -> Result<Self> {
        let mut state = State::default();
        for machine in machines {
            state.add(machine)?;
        }
        Ok(Self {
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, machine: ImageMachine) -> Result<MachineKey> {
        let bad = |what: String| Err(Error::invalid("platform.image.machine-malformed", what));
        if machine.disks.is_empty() {
            return bad(format!("the machine {} has no images", machine.name));
        }
        for (index, disk) in machine.disks.iter().enumerate() {
            if !disk.path.starts_with('/') {
                return bad(format!("the path {} is not absolute", disk.path));
            }
            if machine.disks[..index]
                .iter()
                .any(|other| other.target == disk.target)
            {
                return bad(format!(
                    "the machine {} has {} twice",
                    machine.name, disk.target
                ));
            }
        }
        let key = machine.key();
        let taken = self
            .machines
            .values()
            .any(|other| other.name == machine.name);
        if taken || self.machines.contains_key(&key) {
            return Err(failure::machine_exists(&machine.name));
        }
        self.machines.insert(key.clone(), machine);
        Ok(key)
    }

    fn machine(&self, key: &MachineKey) -> Result<&ImageMachine> {
        self.machines
            .get(key)
            .ok_or_else(|| failure::machine_unknown(key))
    }
}

fn look(machine: &ImageMachine) -> Machine {
    let disks = machine.disks.iter().map(|disk| {
        let (capacity, reason) = match Identity::of(&disk.path) {
            Ok(identity) => (ByteCount(identity.size), NOT_TRACKABLE.to_owned()),
            Err(error) => (ByteCount::ZERO, error.to_string()),
        };
        let allocated = std::fs::metadata(&disk.path)
            .ok()
            .map(|found| ByteCount(found.blocks() * 512));
        MachineDisk {
            target: disk.target.clone(),
            source: disk.path.clone(),
            path: Some(disk.path.clone()),
            format: None,
            capacity,
            allocated,
            trackable: Trackable::No { reason },
        }
    });
    Machine {
        key: machine.key(),
        name: machine.name.clone(),
        power: Power::Off,
        agent: AgentPresence::NoChannel,
        disks: disks.collect(),
    }
}

#[cfg(test)]
mod tests;
