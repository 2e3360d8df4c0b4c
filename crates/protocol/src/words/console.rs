//! What the command line asks of the server.
//!
//! Knows: nouns and verbs, as people type them. Refuses to know: how answers are shown.

use super::job::{Job, JobSettings, PlatformAddress};
use super::manager::FoundMachine;
use super::point::Point;
use super::repository::{RepositoryLocation, RepositoryOptions, RepositorySummary};
use super::secret::Secret;
use super::session::{LogLine, RestoreDisk, RestoreMachine, Session, Stop};
use base::clock::Timestamp;
use base::id::{HostId, JobId, MachineId, PointId, RepositoryId, SessionId};
use base::size::ByteCount;
use serde::{Deserialize, Serialize};

/// A request. Names may be given wherever an id may: `key` is either.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConsoleRequest {
    /// Who are you, and how are you? Answer: `Status`.
    Status,

    /// All hosts. Answer: `Hosts`.
    HostList,
    /// Adds a host whose mover service runs. Answer: `Host`.
    HostAdd {
        /// Unique name.
        name: String,
        /// `address:port` of its mover service.
        mover: String,
    },
    /// Forgets a host nothing uses. Answer: `Done`.
    HostRemove {
        /// Name or id.
        key: String,
    },

    /// All repositories. Answer: `Repositories`.
    RepositoryList,
    /// Makes a repository. Answer: `Session`.
    RepositoryCreate {
        /// Unique name.
        name: String,
        /// Name or id of the host it is on.
        host: String,
        /// Where.
        location: RepositoryLocation,
        /// Its password; required where `options.encrypted`.
        password: Option<Secret>,
        /// Choices.
        options: RepositoryOptions,
    },
    /// Takes in a repository that exists, with all its points. Answer: `Session` (a rescan).
    RepositoryOpen {
        /// Unique name.
        name: String,
        /// Name or id of the host it is on.
        host: String,
        /// Where.
        location: RepositoryLocation,
        /// Its password.
        password: Option<Secret>,
    },
    /// Looks what points it has. Answer: `Session`.
    RepositoryRescan {
        /// Name or id.
        key: String,
    },
    /// Frees what no point needs. Answer: `Session`.
    RepositoryCollect {
        /// Name or id.
        key: String,
    },
    /// Forgets a repository no job uses; its files stay. Answer: `Done`.
    RepositoryRemove {
        /// Name or id.
        key: String,
    },

    /// All jobs. Answer: `Jobs`.
    JobList,
    /// Makes a job. Answer: `Job`.
    JobCreate(JobSettings),
    /// Changes a job; a run at work keeps the old settings. Answer: `Job`.
    JobUpdate {
        /// Name or id.
        key: String,
        /// All settings.
        settings: JobSettings,
    },
    /// Removes a job; its points stay. Answer: `Done`.
    JobDelete {
        /// Name or id.
        key: String,
    },
    /// Starts a run. Answer: `Session`.
    JobRun {
        /// Name or id.
        key: String,
        /// Read everything and compare.
        read_all: bool,
    },

    /// Sessions, newest first. Answer: `Sessions`.
    SessionList {
        /// Of this job only (name or id).
        job: Option<String>,
        /// At most so many. One answer may hold fewer.
        limit: u32,
        /// Those listed after this one.
        after: Option<(Timestamp, SessionId)>,
    },
    /// One session with its tasks. Answer: `Session`.
    SessionShow {
        /// Id, or its last eight digits.
        key: String,
    },
    /// Waits until the session has changed since `seen`, or 10 s. Answer: `Followed`.
    SessionFollow {
        /// Which.
        session: SessionId,
        /// Revision seen last; 0 at first.
        seen: u64,
        /// Number of the last log line seen; 0 at first.
        line: u64,
    },
    /// Asks a session to stop. Answer: `Done`.
    SessionStop {
        /// Id, or its last eight digits.
        key: String,
        /// How.
        stop: Stop,
    },

    /// Machines known from runs and from looking. Answer: `Machines`.
    MachineList {
        /// How many came already.
        from: u64,
    },
    /// Looks what machines a platform has. Answer: `Session`.
    MachineDiscover {
        /// Name or id of the host.
        host: String,
        /// The platform there.
        platform: PlatformAddress,
    },

    /// Points, newest first. Answer: `Points`.
    PointList {
        /// Of this machine (name or id).
        machine: Option<String>,
        /// In this repository (name or id).
        repository: Option<String>,
        /// Those listed after this one.
        after: Option<(Timestamp, PointId)>,
    },
    /// One point. Answer: `Point`.
    PointShow {
        /// Id, or its last eight digits.
        key: String,
    },
    /// Deletes points. Answer: `Session`.
    PointDelete {
        /// Ids or last eight digits.
        keys: Vec<String>,
    },

    /// Restores a machine. Answer: `Session`.
    RestoreMachine(RestoreMachine),
    /// Restores one disk into a file. Answer: `Session`.
    RestoreDisk(RestoreDisk),
    /// Checks points. Answer: `Session`.
    Verify {
        /// Name or id of the repository.
        repository: String,
        /// One point, or all.
        point: Option<PointId>,
        /// Read and check every stored byte.
        read_data: bool,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConsoleResponse {
    /// It is done.
    Done,
    /// The server.
    Status(ServerStatus),
    /// Hosts.
    Hosts(Vec<Host>),
    /// A host.
    Host(Host),
    /// Repositories.
    Repositories(Vec<Repository>),
    /// Jobs.
    Jobs(Vec<JobOverview>),
    /// A job.
    Job(Job),
    /// Sessions, without their tasks.
    Sessions {
        /// The sessions.
        sessions: Vec<Session>,
        /// Whether there are more after the last of them.
        more: bool,
    },
    /// A session.
    Session(Box<Session>),
    /// A session that is followed.
    Followed {
        /// How it is now.
        session: Box<Session>,
        /// New lines.
        lines: Vec<LogLine>,
        /// The revision to ask on from.
        revision: u64,
    },
    /// Machines.
    Machines {
        /// The machines.
        machines: Vec<Machine>,
        /// Whether there are more.
        more: bool,
    },
    /// Points.
    Points {
        /// The points.
        points: Vec<Point>,
        /// Whether there are more after the last of them.
        more: bool,
    },
    /// A point.
    Point(Box<Point>),
}

/// How the server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Version of the program.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Sessions at work.
    pub sessions_running: u32,
    /// Version of the database's schema.
    pub schema_version: u32,
}

/// A host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// `address:port` of its mover service.
    pub mover: String,
    /// Whether it answered when last asked, and its version then.
    pub online: Option<String>,
}

/// A repository as the server knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// Its name.
    pub name: String,
    /// The host it is on.
    pub host: HostId,
    /// Where.
    pub location: RepositoryLocation,
    /// Whether its data is sealed.
    pub encrypted: bool,
    /// Points known.
    pub points: u64,
    /// Room of its file system, when last asked.
    pub capacity: ByteCount,
    /// Free of it.
    pub free: ByteCount,
    /// Bytes of packs.
    pub stored: ByteCount,
    /// What it said of itself when last opened.
    pub summary: Option<RepositorySummary>,
}

/// A job with what a list shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobOverview {
    /// The job.
    pub job: Job,
    /// Its last run.
    pub last: Option<Box<Session>>,
    /// When it runs next by itself.
    pub next: Option<Timestamp>,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Ours; absent where it was seen but never backed up.
    pub id: Option<MachineId>,
    /// As the platform has it, or as it was in its newest point.
    pub found: FoundMachine,
    /// Its platform's name.
    pub platform: String,
    /// The host of its platform.
    pub host: HostId,
    /// The jobs that cover it.
    pub jobs: Vec<JobId>,
    /// How many points it has.
    pub points: u64,
    /// Its newest point.
    pub newest: Option<Timestamp>,
}
