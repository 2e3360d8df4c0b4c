//! A machine as its platform sees it, and the files that define it.
//!
//! Knows: names, states, disks and which of them can be tracked. Refuses to know: what is on a disk.

use base::size::ByteCount;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The platform's own key of a machine: stable over renames and restarts, unique on that platform.
/// For libvirt the UUID, for images the path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineKey(pub String);

impl fmt::Display for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for MachineKey {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The host behind a platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The name it gives itself.
    pub name: String,
    /// The kind of platform: `libvirt`, `image`, `simulated`.
    pub platform: String,
    /// The product and its version, as people say it.
    pub version: String,
}

/// Whether a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// Executes instructions.
    Running,
    /// In memory, but executes nothing.
    Paused,
    /// Switched off.
    Off,
    /// On, but stopped because reading or writing a disk failed.
    Stalled,
}

/// Whether an agent in the guest answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentPresence {
    /// The machine has no channel to an agent.
    NoChannel,
    /// There is a channel; nobody is connected to it.
    Silent,
    /// It answers.
    Connected,
    /// It answers that the file systems are frozen.
    Frozen,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The platform's key.
    pub key: MachineKey,
    /// The name people gave it.
    pub name: String,
    /// Whether it runs.
    pub power: Power,
    /// Whether an agent has been seen, as cheaply as the platform knows it (nobody is asked).
    pub agent: AgentPresence,
    /// Its disks, in the order of its definition. Only writable hard disks: no CD-ROM, no floppy.
    pub disks: Vec<MachineDisk>,
}

impl Machine {
    /// The disk with this target name.
    pub fn disk(&self, target: &str) -> Option<&MachineDisk> {
        self.disks.iter().find(|disk| disk.target == target)
    }
}

/// One disk of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MachineDisk {
    /// What the machine calls it (`vda`): unique within the machine.
    pub target: String,
    /// Where it lies, as the host says it: a path, or `rbd:pool/name` and the like.
    pub source: String,
    /// The path on the host, where it is a file or a block device.
    pub path: Option<String>,
    /// The image format as the platform names it (`raw`, `qcow2`), where known.
    pub format: Option<String>,
    /// The size that the guest sees.
    pub capacity: ByteCount,
    /// The space it takes on the host, where known.
    pub allocated: Option<ByteCount>,
    /// Whether the platform can tell which blocks change.
    pub trackable: Trackable,
}

/// Whether changes of a disk can be tracked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trackable {
    /// They can.
    Yes,
    /// They cannot, for this reason.
    No {
        /// As a person reads it.
        reason: String,
    },
}

/// All that defines a machine besides its disks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Definition {
    /// The kind of platform that wrote it: the `platform` of its [`Host`].
    pub platform: String,
    /// The files, each under the name it gets in a point.
    pub files: Vec<DefinitionFile>,
    /// What could not be had and why; shown as warnings.
    pub warnings: Vec<String>,
}

impl Definition {
    /// The bytes of the file with this name, where they are held here.
    pub fn bytes_of(&self, name: &str) -> Option<&[u8]> {
        self.files
            .iter()
            .find(|file| file.name == name)
            .and_then(|file| match &file.content {
                Content::Bytes(bytes) => Some(bytes.as_slice()),
                Content::HostPath(_) => None,
            })
    }
}

/// One file of a definition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DefinitionFile {
    /// A plain file name without slashes, for example `domain.xml` or `nvram.fd`.
    pub name: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a file of a definition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of the file at this path on the platform's host; the mover there reads them.
    HostPath(String),
}
