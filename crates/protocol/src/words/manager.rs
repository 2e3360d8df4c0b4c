//! What a manager tells the server of its session.
//!
//! Knows: orders, log lines, counters, leases, points made and gone. Refuses to know: how they are
//! kept.

use super::counters::Counters;
use super::point::Point;
use super::session::{Level, Outcome, SessionOrder, SessionState, Stop, Task};
use super::span::Span;
use base::id::{HostId, PointId, RepositoryId, SessionId};
use base::size::ByteCount;
use serde::{Deserialize, Serialize};

/// A request of a manager. Each may be said again after a broken link without harm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ManagerRequest {
    /// I run this session (first thing said, also after the server was restarted). Answer: `Order`.
    Attach {
        /// The session.
        session: SessionId,
        /// My process, on the server's host.
        pid: u32,
    },
    /// I am alive. Answer: `Alive`.
    Heartbeat,
    /// The session's state changed. Answer: `Done`.
    State(SessionState),
    /// Lines for the log, with my own numbers so that a line said twice is kept once. Answer: `Done`.
    Log(Vec<NewLine>),
    /// A task is new or has changed. Answer: `Done`.
    Task(Task),
    /// The session's counters. Answer: `Done`.
    Counters(Counters),
    /// May I use this? Waits at the server's side up to a few seconds. Answer: `Lease`.
    Lease(Resource),
    /// I do not use it any more. Answer: `Done`.
    Release(Resource),
    /// These points are in the repository now. Answer: `Done`.
    PointsFound {
        /// Which repository.
        repository: RepositoryId,
        /// The points.
        points: Vec<Point>,
        /// Of which ids these are all it has, where the repository was looked through.
        complete: Option<Span<PointId>>,
    },
    /// These points are gone. Answer: `Done`.
    PointsGone {
        /// Which repository.
        repository: RepositoryId,
        /// The points.
        points: Vec<PointId>,
    },
    /// How full the repository is. Answer: `Done`.
    RepositorySpace {
        /// Which.
        repository: RepositoryId,
        /// Room of the file system.
        capacity: ByteCount,
        /// Free of it.
        free: ByteCount,
        /// Bytes of packs.
        stored: ByteCount,
    },
    /// Machines of a platform, as found now, in order of the platform's ids. Answer: `Done`.
    MachinesFound {
        /// The host asked from.
        host: HostId,
        /// The platform's name.
        platform: String,
        /// The machines.
        machines: Vec<FoundMachine>,
        /// Of which of the platform's ids these are all it has.
        complete: Span<String>,
    },
    /// The end. Nothing of the session is left anywhere. Answer: `Done`.
    Finish {
        /// `Success`, `Warning`, `Failed` or `Stopped`.
        state: SessionState,
        /// What was found or made.
        outcome: Option<Outcome>,
    },
    /// The repository said who it is. The server takes its own id for it from this; one that was
    /// known under another id is refused (`repository.changed`). Answer: `Done`.
    RepositoryIdentified {
        /// As it was ordered.
        repository: RepositoryId,
        /// What it says.
        summary: super::repository::RepositorySummary,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ManagerResponse {
    /// Noted.
    Done,
    /// The order.
    Order(Box<SessionOrder>),
    /// To `Heartbeat`: whether to stop.
    Alive(Option<Stop>),
    /// To `Lease`.
    Lease(LeaseAnswer),
}

/// A line for the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewLine {
    /// The manager's own number of it, from 1.
    pub number: u64,
    /// When.
    pub time: base::clock::Timestamp,
    /// How serious.
    pub level: Level,
    /// Stable code.
    pub code: String,
    /// The machine or disk it is about.
    pub subject: String,
    /// The sentence.
    pub text: String,
}

/// Something that only so many may use at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Resource {
    /// A reading task on a host.
    Proxy(HostId),
    /// A writing task on a repository.
    Repository(RepositoryId),
    /// A machine: two sessions must not work on one at a time.
    Machine {
        /// The host of its platform.
        host: HostId,
        /// The platform's id of it.
        platform_id: String,
    },
}

/// Whether it may be used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaseAnswer {
    /// Yes. It ends with `Release`, with the session, or 60 s after the last heartbeat.
    Granted,
    /// Not yet; ask again. The text says what it waits for.
    Wait(String),
}

/// A machine of a platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoundMachine {
    /// The platform's id (libvirt: domain UUID; image: the name).
    pub platform_id: String,
    /// Its name.
    pub name: String,
    /// `running`, `paused`, `off`.
    pub state: String,
    /// Its disks: name, size, format, path.
    pub disks: Vec<FoundDisk>,
    /// Whether a guest agent answers; none where the platform has no such thing.
    pub agent: Option<bool>,
}

/// A disk of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoundDisk {
    /// Name in the machine.
    pub name: String,
    /// Size, where known.
    pub size: ByteCount,
    /// Format.
    pub format: String,
    /// Path on the host.
    pub path: String,
    /// Whether its changes can be tracked.
    pub trackable: bool,
}
