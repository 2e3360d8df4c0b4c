//! One run of anything: backup, restore, verify, rescan, collect.
//!
//! Knows: the one schema all kinds share. Refuses to know: what a kind does.

use super::counters::Counters;
use super::job::{ImageMachine, JobSettings, PlatformAddress};
use super::repository::{RepositoryAccess, RepositoryOptions};
use base::clock::Timestamp;
use base::id::{HostId, JobId, PointId, RepositoryId, SessionId, TaskId};
use serde::{Deserialize, Serialize};

/// What a session does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// A run of a backup job.
    Backup {
        /// The job.
        job: JobId,
        /// Read everything and compare, whatever the trackers say.
        read_all: bool,
    },
    /// A machine from a point.
    RestoreMachine(RestoreMachine),
    /// One disk of a point into a file.
    RestoreDisk(RestoreDisk),
    /// Makes an empty repository.
    CreateRepository {
        /// The repository as the server will know it.
        repository: RepositoryId,
        /// Choices.
        options: RepositoryOptions,
    },
    /// Finds the points that are in a repository, whoever made them.
    RescanRepository {
        /// Which.
        repository: RepositoryId,
    },
    /// Frees what no point needs.
    CollectRepository {
        /// Which.
        repository: RepositoryId,
    },
    /// Proves that points are whole.
    Verify {
        /// Which repository.
        repository: RepositoryId,
        /// One point, or all.
        point: Option<PointId>,
        /// Read and check every stored byte, not only the structure.
        read_data: bool,
    },
    /// Removes points.
    DeletePoints {
        /// Which repository.
        repository: RepositoryId,
        /// Which points.
        points: Vec<PointId>,
    },
    /// Looks what machines a platform has.
    Discover {
        /// The host to ask from.
        host: HostId,
        /// The platform.
        platform: PlatformAddress,
    },
}

impl SessionKind {
    /// The word people see: `backup`, `restore-machine`, ...
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::RestoreMachine(_) => "restore-machine",
            Self::RestoreDisk(_) => "restore-disk",
            Self::CreateRepository { .. } => "create-repository",
            Self::RescanRepository { .. } => "rescan",
            Self::CollectRepository { .. } => "collect",
            Self::Verify { .. } => "verify",
            Self::DeletePoints { .. } => "delete-points",
            Self::Discover { .. } => "discover",
        }
    }
}

/// A machine from a point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreMachine {
    /// From where.
    pub repository: RepositoryId,
    /// Which point.
    pub point: PointId,
    /// To the host with this id.
    pub host: HostId,
    /// Onto this platform there.
    pub platform: PlatformAddress,
    /// As a new machine of this name, or over the machine it came from.
    pub target: RestoreTarget,
    /// Folder for the disks of a new machine; the platform's default where none is given.
    pub folder: Option<String>,
    /// Start it afterwards.
    pub start: bool,
    /// Why, for the record.
    pub reason: String,
}

/// Where a machine is restored to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTarget {
    /// A new machine.
    New {
        /// Its name; must be free.
        name: String,
        /// Keep the network cards' addresses instead of making new ones.
        keep_mac: bool,
    },
    /// The machine the point was made of: stopped, its disks overwritten.
    Original,
}

/// One disk of a point into a file or device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreDisk {
    /// From where.
    pub repository: RepositoryId,
    /// Which point.
    pub point: PointId,
    /// Which disk of it.
    pub disk: String,
    /// To the host with this id.
    pub host: HostId,
    /// Absolute path there.
    pub path: String,
    /// `raw` or `qcow2`.
    pub format: String,
    /// Why, for the record.
    pub reason: String,
}

/// How far a session or task is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Not begun.
    Queued,
    /// Its manager is being started.
    Starting,
    /// It waits; the text says for what.
    Waiting(String),
    /// At work.
    Running,
    /// Cleaning up.
    Finishing,
    /// Ended: all done.
    Success,
    /// Ended: done, with something a person should know.
    Warning,
    /// Ended: not done.
    Failed,
    /// Ended on request.
    Stopped,
}

impl SessionState {
    /// Whether it has ended.
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Success | Self::Warning | Self::Failed | Self::Stopped
        )
    }

    /// The word people see.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Waiting(_) => "waiting",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// How serious a line of the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For the record.
    Info,
    /// Something a person should know: the session ends at best as `Warning`.
    Warning,
    /// Something was not done: the task, and with it the session, fails.
    Error,
}

/// A line of a session's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Number in the session, from 1.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// How serious.
    pub level: Level,
    /// Stable code: `backup.tracker.lost`.
    pub code: String,
    /// The machine or disk it is about; empty for the session.
    pub subject: String,
    /// The sentence.
    pub text: String,
}

/// A unit of work of a session: a machine or one of its disks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What it is about: `web1` or `web1/vda`.
    pub name: String,
    /// How far it is.
    pub state: SessionState,
    /// In numbers.
    pub counters: Counters,
}

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What it does.
    pub kind: SessionKind,
    /// What people call it: the job's or repository's name.
    pub name: String,
    /// Who asked: `schedule` or a person.
    pub initiator: String,
    /// How far it is.
    pub state: SessionState,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Sum over its tasks.
    pub counters: Counters,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// What it found, for kinds whose result is more than a state.
    pub outcome: Option<Outcome>,
}

/// What a session found or made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Points that were made.
    Points(Vec<PointId>),
    /// Verified: how much was checked and what is damaged (point, disk or file, what).
    Verified {
        /// Points that are whole.
        whole: u64,
        /// Blocks checked.
        blocks: u64,
        /// Damages, in words.
        damages: Vec<String>,
    },
    /// Collected: bytes freed.
    Collected {
        /// Bytes that came free.
        freed: base::size::ByteCount,
        /// Bytes copied to new packs on the way.
        rewritten: base::size::ByteCount,
    },
    /// How many machines were found.
    Machines(u64),
    /// The machine that was made: the platform's id.
    Restored(String),
}

/// What to do when asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// At once: what is unfinished is thrown away.
    Now,
    /// After the machines at work; no new ones.
    AfterCurrent,
}

/// All a manager needs to know to run a session. Made by the server, handed over once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionOrder {
    /// The session.
    pub id: SessionId,
    /// What to do.
    pub kind: SessionKind,
    /// The job's settings, for a backup.
    pub job: Option<JobSettings>,
    /// The repository: where, its key, and the host whose mover serves it.
    pub repository: Option<OrderedRepository>,
    /// The hosts that take part, with the address of their mover service.
    pub hosts: Vec<OrderedHost>,
    /// Image machines known to the server, for restores to and from images.
    pub image_machines: Vec<ImageMachine>,
}

/// A repository as a manager gets it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderedRepository {
    /// Its id.
    pub id: RepositoryId,
    /// Its name.
    pub name: String,
    /// Where, and the key.
    pub access: RepositoryAccess,
    /// The host whose mover serves it.
    pub host: HostId,
}

/// A host as a manager gets it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderedHost {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// `address:port` of its mover service.
    pub mover: String,
}
