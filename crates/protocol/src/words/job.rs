//! What to back up, where to, and when.
//!
//! Knows: the settings of a job. Refuses to know: runs.

use super::repository::Compression;
use base::id::{HostId, JobId, RepositoryId};
use serde::{Deserialize, Serialize};

/// The machines a job covers: resolved anew at each run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Machines by name or by the platform's id.
    Machines(Vec<String>),
    /// All machines of the platform except these (names or ids).
    AllExcept(Vec<String>),
}

/// How to reach a platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlatformAddress {
    /// libvirt: `qemu:///system`, `qemu:///session?socket=PATH` or `qemu+ssh://user@host/system`.
    Libvirt {
        /// The connection's URI.
        uri: String,
    },
    /// Machines made of image files or block devices of the host.
    Image {
        /// Each machine: its name and its disks.
        machines: Vec<ImageMachine>,
    },
}

impl PlatformAddress {
    /// `libvirt` or `image`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Libvirt { .. } => "libvirt",
            Self::Image { .. } => "image",
        }
    }
}

/// A machine made of image files or block devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageMachine {
    /// What people call it.
    pub name: String,
    /// Its disks: name in the machine and absolute path.
    pub disks: Vec<(String, String)>,
}

/// When a job runs by itself.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Never.
    #[default]
    Manual,
    /// Each day at this time of the zone.
    Daily {
        /// 0 to 23.
        hour: u8,
        /// 0 to 59.
        minute: u8,
        /// IANA name: `Europe/Berlin`.
        zone: String,
    },
    /// Every so many minutes, counted from midnight of the zone.
    Periodic {
        /// 1 to 1440.
        minutes: u16,
        /// IANA name.
        zone: String,
    },
}

/// Freezing the guest's file systems for the moment of the point.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiesce {
    /// Where the guest agent answers; else go on with a warning.
    #[default]
    IfPossible,
    /// Fail the machine where it cannot be done.
    Required,
    /// Never.
    Off,
}

/// The settings of a backup job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobSettings {
    /// Unique name.
    pub name: String,
    /// The host whose mover reads: where the hypervisor or the images are.
    pub host: HostId,
    /// The platform on that host.
    pub platform: PlatformAddress,
    /// Which of its machines.
    pub selection: Selection,
    /// Where points go.
    pub repository: RepositoryId,
    /// When it runs by itself.
    pub schedule: Schedule,
    /// How many points of each machine are kept. At least 1.
    pub keep_points: u32,
    /// Freezing the guest.
    pub quiesce: Quiesce,
    /// How new data is compressed.
    pub compression: Compression,
    /// Whether the schedule is in force.
    pub enabled: bool,
}

/// A job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its settings.
    pub settings: JobSettings,
}
