//! A restore point as all processes speak of it.
//!
//! Knows: what a person sees in a list, and the files of a point. Refuses to know: blocks.

use super::counters::Counters;
use base::clock::Timestamp;
use base::digest::Digest;
use base::id::{JobId, MachineId, PointId, RepositoryId, SessionId};
use base::size::ByteCount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How sure one can be of what programs in the guest had written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a power cut.
    #[default]
    Crash,
    /// The guest's file systems were frozen for the moment of the point.
    FileSystem,
    /// The machine was off.
    PoweredOff,
}

/// How the disks of a point were read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointKind {
    /// All of every disk was read.
    #[default]
    Full,
    /// Of at least one disk only what its tracker marked was read. The point is complete all the
    /// same: every point restores by itself.
    Incremental,
}

/// The machine a point is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointMachine {
    /// Ours: the same over renames.
    pub id: MachineId,
    /// Its name when the point was made.
    pub name: String,
    /// `libvirt`, `image` or `simulated`.
    pub platform: String,
    /// The platform's own id (libvirt: domain UUID).
    pub platform_id: String,
    /// The hypervisor or host it ran on, as named then.
    pub host: String,
}

/// A disk in a point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointDisk {
    /// The name in the machine: `vda`.
    pub name: String,
    /// Size the guest sees.
    pub size: ByteCount,
    /// Canonical digest of its content: equal content, equal root.
    pub root: Digest,
    /// Whether only changes were read for it.
    pub kind: PointKind,
    /// Where it was, for a restore in place: `path`, `format`.
    pub attributes: BTreeMap<String, String>,
    /// What the change tracker must still have for the next run to build on this point
    /// (libvirt: `checkpoint`).
    pub tracker: BTreeMap<String, String>,
}

/// A small file in a point: configuration, NVRAM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointFile {
    /// Name inside the point: `domain.xml`.
    pub path: String,
    /// Its size.
    pub size: ByteCount,
    /// Canonical digest of its content.
    pub root: Digest,
}

/// All that is to be recorded with a new point, besides disks and files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointDraft {
    /// The machine.
    pub machine: PointMachine,
    /// The job it is made by.
    pub job: Option<(JobId, String)>,
    /// The run it is made in.
    pub session: SessionId,
    /// How sure one can be of its content.
    pub consistency: Consistency,
    /// The point its trackers built on.
    pub parent: Option<PointId>,
}

/// A restore point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// Where it is.
    pub repository: RepositoryId,
    /// When the repository received it. Retention counts by this.
    pub created: Timestamp,
    /// What was recorded with it.
    pub draft: PointDraft,
    /// Whether all was read.
    pub kind: PointKind,
    /// Its disks.
    pub disks: Vec<PointDisk>,
    /// Its small files.
    pub files: Vec<PointFile>,
    /// What making it took.
    pub counters: Counters,
}

impl Point {
    /// The disk of that name.
    pub fn disk(&self, name: &str) -> Option<&PointDisk> {
        self.disks.iter().find(|disk| disk.name == name)
    }
}
