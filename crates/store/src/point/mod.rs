//! What a restore point says.
//!
//! Knows: the fields of a point's record and their meaning. Refuses to know: how it is sealed and
//! published, and what is in the disks.

mod published;

pub(crate) use published::{
    binding, check_draft, content_digest, ids, list, not_found, read, read_bytes,
};

use crate::id::Root;
use base::clock::Timestamp;
use base::id::{JobId, MachineId, PointId, RepositoryId, SessionId};
use base::size::ByteCount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the machine was frozen when the point was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a power cut.
    #[default]
    Crash,
    /// File systems were frozen.
    FileSystem,
    /// Applications were frozen too.
    Application,
    /// The machine was off.
    Off,
}

/// The machine a point was made of, as it was called then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointMachine {
    /// Its id, which survives renames.
    pub id: MachineId,
    /// Its name at that time.
    pub name: String,
    /// Where it ran: `libvirt`, `image`, ...
    pub platform: String,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// The job that made a point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointJob {
    /// Its id.
    pub id: JobId,
    /// Its name at that time.
    pub name: String,
}

/// One disk of a point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointDisk {
    /// The disk's name within the machine (`vda`, `scsi0:1`); unique within the point.
    pub name: String,
    /// Its size in bytes.
    pub size: ByteCount,
    /// Its content.
    pub root: Root,
    /// Whether only changed blocks were read for this disk.
    #[serde(default)]
    pub changed_blocks: bool,
    /// What the source says of the disk: `format`, `bus`, `serial`, ...
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What the next run needs to read changed blocks only (for example the checkpoint's name).
    /// Opaque to the repository.
    #[serde(default)]
    pub tracker: BTreeMap<String, String>,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// A file kept with the point: the machine's configuration, its NVRAM, ...
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointFile {
    /// Its path within the point: relative, `/` between parts, no `.` or `..`; unique.
    pub path: String,
    /// Its size in bytes.
    pub size: ByteCount,
    /// Its content.
    pub root: Root,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// What a run read and wrote, in bytes, as counted by who made the point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PointCounters {
    /// Size of all disks.
    pub processed: ByteCount,
    /// Read from the source.
    pub read: ByteCount,
    /// Sent to the repository.
    pub transferred: ByteCount,
    /// Plain bytes of blocks the repository did not have. Filled in by the writer.
    pub new: ByteCount,
    /// Added to the repository, packs and index. Filled in by the writer.
    pub stored: ByteCount,
}

/// What the maker of a point says of it; the repository adds the rest.
#[derive(Clone, PartialEq, Debug)]
pub struct PointDraft {
    /// The id it will have. Chosen by the maker, because what it makes elsewhere (checkpoints on a
    /// hypervisor) carries it before the point exists. Publishing refuses an id that is taken.
    pub id: PointId,
    /// The machine.
    pub machine: PointMachine,
    /// The job, if one asked for it.
    pub job: Option<PointJob>,
    /// The session that made it.
    pub session: Option<SessionId>,
    /// The disks, each with a root from [`crate::TreeWriter::finish`] of the same writer.
    pub disks: Vec<PointDisk>,
    /// The files, from [`crate::Writer::put_file`].
    pub files: Vec<PointFile>,
    /// The point whose trees were the base of this one.
    pub parent: Option<PointId>,
    /// How the machine was frozen.
    pub consistency: Consistency,
    /// Counters.
    pub counters: PointCounters,
    /// Free words of the maker: reasons of a full read, warnings.
    pub notes: Vec<String>,
}

/// A restore point.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// The repository it was made in.
    pub repository: RepositoryId,
    /// When it was published, by the clock of the process that wrote it.
    pub time: Timestamp,
    /// The machine.
    pub machine: PointMachine,
    /// The job, if one asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<PointJob>,
    /// The session that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The disks.
    pub disks: Vec<PointDisk>,
    /// The files.
    #[serde(default)]
    pub files: Vec<PointFile>,
    /// The point whose trees were the base of this one. Only a remark: a point never needs another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<PointId>,
    /// How the machine was frozen.
    #[serde(default)]
    pub consistency: Consistency,
    /// Counters.
    #[serde(default)]
    pub counters: PointCounters,
    /// Free words of the maker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Digest over the machine, the roots, sizes and names of all disks and files: two points with
    /// the same content have the same one.
    pub content: base::digest::Digest,
    /// Fields that a later version added; kept when the record is copied.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Point {
    /// The disk called `name`.
    ///
    /// # Errors
    /// `NotFound` with code `store.disk.not-found`.
    pub fn disk(&self, name: &str) -> base::Result<&PointDisk> {
        self.disks
            .iter()
            .find(|disk| disk.name == name)
            .ok_or_else(|| {
                let names: Vec<&str> = self.disks.iter().map(|disk| disk.name.as_str()).collect();
                base::Error::new(
                    base::Kind::NotFound,
                    "store.disk.not-found",
                    format!("the point {} has no disk \u{201c}{name}\u{201d}", self.id),
                )
                .hint(format!("its disks are: {}", names.join(", ")))
            })
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// `NotFound` with code `store.file.not-found`.
    pub fn file(&self, path: &str) -> base::Result<&PointFile> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .ok_or_else(|| {
                base::Error::new(
                    base::Kind::NotFound,
                    "store.file.not-found",
                    format!("the point {} has no file \u{201c}{path}\u{201d}", self.id),
                )
            })
    }

    /// The roots of all disks and files.
    pub fn roots(&self) -> Vec<Root> {
        self.disks
            .iter()
            .map(|d| d.root)
            .chain(self.files.iter().map(|f| f.root))
            .collect()
    }
}
