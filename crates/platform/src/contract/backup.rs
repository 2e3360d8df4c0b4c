//! A consistent view of a machine's disks, and what changed in them.
//!
//! Knows: what a run asks for and what it gets: where to read each disk and how far its tracker can be
//! believed. Refuses to know: how the bytes are read and where they go.

use super::machine::MachineKey;
use super::token::Token;
use base::block::BlockRead;
use base::size::{ByteCount, ByteRange};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What a run asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupRequest {
    /// The machine.
    pub machine: MachineKey,
    /// The name that everything made for this run carries; also the name of the new tracker.
    pub token: Token,
    /// Whether to start a new tracker on the disks that can be tracked.
    pub track: bool,
    /// The disks, at least one. Disks that are not named are left alone.
    pub disks: Vec<DiskRequest>,
}

/// One disk of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskRequest {
    /// Its target name.
    pub target: String,
    /// The tracker of the point that this run builds on, as that run got it from
    /// [`BackupDisk::tracker`]; `None` asks for the whole disk.
    pub base: Option<DiskTracker>,
}

/// What must be kept with a point so that the next run can ask for the changes of one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskTracker {
    /// The machine it was made on: a tracker from elsewhere is not believed.
    pub machine: MachineKey,
    /// The tracker's name.
    pub name: Token,
    /// The disk's target name.
    pub target: String,
    /// Where the disk lay.
    pub source: String,
    /// How large it was: another size is not believed.
    pub capacity: ByteCount,
    /// The platform's own words about the tracker, from which a lost record of it can be made again.
    /// May be empty. Never interpreted outside the platform.
    pub document: String,
}

/// What a run gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// The machine.
    pub machine: MachineKey,
    /// The name it carries; end it by this.
    pub token: Token,
    /// One entry for each requested disk, in the order of the request.
    pub disks: Vec<BackupDisk>,
    /// What a person should know, for example that the machine was off and is held paused.
    pub notes: Vec<String>,
}

/// One disk of a consistent view.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackupDisk {
    /// Its target name.
    pub target: String,
    /// Its size in this view.
    pub capacity: ByteCount,
    /// Where to read it.
    pub access: Access,
    /// What is known about changes.
    pub tracking: Tracking,
    /// What the next run hands in as [`DiskRequest::base`]; `None` where the disk is not tracked.
    pub tracker: Option<DiskTracker>,
}

/// Where to read the bytes of a disk. All but `Memory` can travel to an agent on the platform's host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// An NBD export, read only. Zeros are told by the context `base:allocation`.
    Nbd {
        /// Where the server listens.
        address: NbdAddress,
        /// The export's name.
        export: String,
        /// The metadata context whose flag 1 marks changed ranges; only with [`Tracking::Changed`].
        dirty_context: Option<String>,
    },
    /// A file or block device on the platform's host.
    Image {
        /// Its path.
        path: String,
        /// Its format as the platform names it; `None` means: look.
        format: Option<String>,
    },
    /// A disk in this process. Only the simulated platform gives it, and it cannot travel.
    #[serde(skip)]
    Memory(MemoryAccess),
}

/// Where an NBD server listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NbdAddress {
    /// A Unix socket on the platform's host.
    Unix {
        /// Its path.
        path: String,
    },
    /// A TCP port.
    Tcp {
        /// Name or address of the host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A disk in this process and, with [`Tracking::Changed`], the ranges said to have changed.
#[derive(Clone)]
pub struct MemoryAccess {
    /// The disk.
    pub disk: Arc<dyn BlockRead>,
    /// Changed ranges in order; `None` where nothing is known.
    pub changed: Option<Vec<ByteRange>>,
}

impl fmt::Debug for MemoryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemoryAccess({}, changed {:?})",
            self.disk.size(),
            self.changed
        )
    }
}

impl PartialEq for MemoryAccess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.disk, &other.disk) && self.changed == other.changed
    }
}

/// What is known about the changes of a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracking {
    /// Everything outside the changed ranges is as it was at that tracker's moment.
    Changed {
        /// The tracker's name.
        since: Token,
    },
    /// Nothing is known: read all, and compare with what is stored.
    Full {
        /// Why.
        cause: FullCause,
        /// Why, as a person reads it.
        reason: String,
    },
}

/// Why all of a disk must be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullCause {
    /// No base was handed in: a first run, or a full one that somebody asked for.
    NoBase,
    /// This disk cannot be tracked.
    NotTrackable,
    /// The tracker is gone.
    TrackerMissing,
    /// The tracker is there but its map is broken, as after a crash of the hypervisor.
    TrackerInconsistent,
    /// The disk has another size than at the tracker's moment.
    Resized,
    /// The disk lies elsewhere than at the tracker's moment.
    Moved,
    /// The tracker belongs to another machine, or the machine was made anew.
    Foreign,
}

impl FullCause {
    /// Whether a person should be warned: something that worked before does not now.
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::NoBase | Self::NotTrackable)
    }
}

/// A running backup of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunningBackup {
    /// Its token, if Backstay began it; `None` for somebody else's.
    pub token: Option<Token>,
    /// What is known of it, as a person reads it.
    pub description: String,
}

/// What an open view costs the machine. Look every few seconds: a view that fills its space stops the
/// guest, so end the backup before it does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Strain {
    /// The guest stands still because a disk, or the view's space, failed. Ending the backup lets it go on.
    pub stalled: bool,
    /// Space that the view takes, for what the guest overwrites, where known.
    pub used: Option<ByteCount>,
    /// Space that is left for it, where known.
    pub free: Option<ByteCount>,
}

/// A tracker as the platform lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tracker {
    /// Its name.
    pub name: String,
    /// Its token, if Backstay made it.
    pub token: Option<Token>,
    /// When it was made, in seconds since 1970, where known.
    pub created: Option<i64>,
    /// Target names of the disks it covers.
    pub disks: Vec<String>,
}

/// What to keep when a backup ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The new tracker, for the next run: the point was published.
    Tracker,
    /// Nothing: the run failed or its tracker is of no use.
    Nothing,
}
