//! The commands of an agent: the data plane's whole vocabulary.
//!
//! Knows: repositories, points, disks and images on the agent's own host, and streams to other
//! agents. Refuses to know: jobs, machines' states, hypervisor snapshots, the database.
//!
//! An agent keeps at most one open repository and one point in the making. Long work is a *task*:
//! a command starts it, `Progress` asks how far it is, `Cancel` ends it. All ends with the link to
//! whoever started the agent: what was not committed is thrown away.

use super::counters::Counters;
use super::point::{Point, PointDisk, PointDraft, PointFile, PointKind};
use super::repository::{Compression, RepositoryAccess, RepositoryOptions, RepositorySummary};
use super::secret::Secret;
use base::digest::Digest;
use base::error::Kind;
use base::id::{PointId, StreamId};
use base::size::{ByteCount, ByteRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Number of a task inside one agent.
pub type TaskNumber = u32;

/// A command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AgentRequest {
    /// Makes an empty repository and opens it. Answer: `Repository`.
    CreateRepository {
        /// Where, and the password for it.
        access: RepositoryAccess,
        /// Choices.
        options: RepositoryOptions,
    },
    /// Opens a repository. Answer: `Repository`.
    OpenRepository {
        /// Where, and the key.
        access: RepositoryAccess,
    },
    /// Points of the open repository in order of their ids, as many as one message holds. Answer:
    /// `Points`.
    ListPoints {
        /// Those after this one; from the first on where none is given.
        after: Option<PointId>,
    },
    /// One point. Answer: `Point`.
    ShowPoint {
        /// Which.
        point: PointId,
    },
    /// A piece of a small file of a point (configuration, NVRAM). Answer: `Piece`.
    ReadFile {
        /// Which point.
        point: PointId,
        /// Its name in the point.
        path: String,
        /// Where the piece begins.
        from: ByteCount,
    },
    /// Bytes of a disk of a point, at most 1 MiB. Answer: `Bytes`.
    ReadDisk {
        /// Which point.
        point: PointId,
        /// Which disk.
        disk: String,
        /// Which bytes.
        range: ByteRange,
    },
    /// What ranges of a disk hold data. Answer: `Ranges`, at most 65,536 of them from `from` on.
    MapDisk {
        /// Which point.
        point: PointId,
        /// Which disk.
        disk: String,
        /// Where to begin.
        from: ByteCount,
    },
    /// Where two points' disks of one name differ. Answer: `Ranges`.
    DiffDisk {
        /// One point.
        point: PointId,
        /// The other.
        other: PointId,
        /// Which disk.
        disk: String,
        /// Where to begin.
        from: ByteCount,
    },
    /// Removes points. Answer: `Done`.
    DeletePoints {
        /// Which. Those that are gone already are no error.
        points: Vec<PointId>,
    },
    /// Frees what no point needs. A task; result `Collected`.
    Collect,
    /// Checks points. A task; result `Verified`.
    Verify {
        /// One point, or all.
        point: Option<PointId>,
        /// Read and check every stored byte.
        read_data: bool,
    },

    /// Begins a point in the open repository. Answer: `Done`.
    BeginPoint {
        /// The id it will have: chosen by the manager, since trackers are named after it.
        point: PointId,
        /// Compression of what is new.
        compression: Compression,
    },
    /// Reads a disk here and writes it to the point in the making: both parts in one process. A
    /// task; result `Disk`.
    CopyDisk {
        /// What and how.
        order: DiskOrder,
    },
    /// Receives a disk from another agent and writes it to the point in the making. Listens.
    /// Answer: `Listening`; a task; result `Disk`.
    ReceiveDisk {
        /// What; `source` is used by the sender only and is absent here.
        order: DiskOrder,
        /// The stream it may come by.
        stream: StreamTicket,
    },
    /// Reads a disk here and sends it to an agent that listens. A task; result `Sent`.
    SendDisk {
        /// What and how.
        order: DiskOrder,
        /// `address:port` of the receiving agent.
        to: String,
        /// The stream to use.
        stream: StreamTicket,
    },
    /// Adds a small file to the point in the making, piece by piece. Answer: `Done` while more
    /// follows, then `File`.
    PutFile {
        /// Its name in the point.
        path: String,
        /// Where these bytes stand: right after those that came before. 0 begins the file.
        from: ByteCount,
        /// Bytes of it, at most 1 MiB.
        bytes: Vec<u8>,
        /// Whether another piece follows.
        more: bool,
    },
    /// Publishes the point in the making: all its disks and files are durable first. Answer:
    /// `Point`.
    CommitPoint {
        /// What to record.
        draft: PointDraft,
        /// Per disk what the tracker must still have for the next run.
        trackers: BTreeMap<String, BTreeMap<String, String>>,
    },
    /// Throws the point in the making away. Answer: `Done`. Idempotent.
    AbortPoint,

    /// Writes a disk of a point to a file or device here. A task; result `Restored`.
    RestoreDisk {
        /// Which point.
        point: PointId,
        /// Which disk.
        disk: String,
        /// Where to.
        target: ImageTarget,
    },
    /// Sends a disk of a point to an agent that listens. A task; result `Sent`.
    SendPointDisk {
        /// Which point.
        point: PointId,
        /// Which disk.
        disk: String,
        /// `address:port` of the receiving agent.
        to: String,
        /// The stream to use.
        stream: StreamTicket,
    },
    /// Receives a disk and writes it to a file or device here. Listens. Answer: `Listening`; a
    /// task; result `Restored`.
    ReceiveImage {
        /// Size of the disk.
        size: ByteCount,
        /// Where to.
        target: ImageTarget,
        /// The stream it may come by.
        stream: StreamTicket,
    },

    /// What an image file or device here is. Answer: `Image`.
    ProbeImage {
        /// Absolute path.
        path: String,
    },
    /// Reads a piece of a small file of the host (NVRAM beside a machine), of at most 64 MiB in
    /// all. Answer: `Piece`.
    ReadHostFile {
        /// Absolute path.
        path: String,
        /// Where the piece begins.
        from: ByteCount,
    },
    /// Writes a small file of the host that must not exist, piece by piece. One whose last piece
    /// never comes is removed. Answer: `Done`.
    WriteHostFile {
        /// Absolute path.
        path: String,
        /// Where these bytes stand: right after those that came before. 0 begins the file.
        from: ByteCount,
        /// Bytes of it, at most 1 MiB.
        bytes: Vec<u8>,
        /// Whether another piece follows.
        more: bool,
    },
    /// Removes files of the host that an undone restore has made. Gone is no error. Answer: `Done`.
    RemoveHostFiles {
        /// Absolute paths.
        paths: Vec<String>,
    },

    /// How far a task is. Waits up to `wait_millis` for it to end. Answer: `Task`.
    Progress {
        /// Which.
        task: TaskNumber,
        /// How long to wait.
        wait_millis: u32,
    },
    /// Asks a task to stop. Answer: `Done`.
    Cancel {
        /// Which.
        task: TaskNumber,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AgentResponse {
    /// It is done.
    Done,
    /// The open repository.
    Repository(RepositorySummary),
    /// Points in order of their ids.
    Points {
        /// The points.
        points: Vec<Point>,
        /// Whether there are more after the last of them.
        more: bool,
    },
    /// A point.
    Point(Box<Point>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A piece of a file.
    Piece(Piece),
    /// Ranges in order, and where to ask on; none where this was all.
    Ranges(Vec<ByteRange>, Option<ByteCount>),
    /// A file was added.
    File(PointFile),
    /// An image.
    Image(ImageDescription),
    /// A task was started.
    Started(TaskNumber),
    /// A task was started and listens at `address:port`.
    Listening(TaskNumber, String),
    /// A task.
    Task(Box<TaskReport>),
}

/// A piece of a small file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// Its bytes, at most 1 MiB.
    pub bytes: Vec<u8>,
    /// Size of the whole file.
    pub total: ByteCount,
    /// Another number where the file is not the one it was: pieces do not belong together then.
    pub revision: u64,
}

/// How much of a disk to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadMode {
    /// All of it; what the repository has is found by its content.
    All,
    /// Only what the tracker marks; the rest is as in the base.
    Changed,
}

/// A disk to back up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskOrder {
    /// Its name in the machine.
    pub name: String,
    /// Where the source part reads it; absent in the target part's order.
    pub source: Option<DiskSource>,
    /// Size as the platform says; checked against the source.
    pub size: ByteCount,
    /// The same disk in an earlier point. With `Changed`, what is not read is taken from it.
    pub base: Option<PointId>,
    /// How much to read.
    pub mode: ReadMode,
    /// Attributes to record.
    pub attributes: BTreeMap<String, String>,
}

/// Where a disk can be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSource {
    /// An NBD export on a Unix socket of this host.
    NbdUnix {
        /// Path of the socket.
        socket: String,
        /// Name of the export.
        export: String,
        /// Meta context that marks what changed: `qemu:dirty-bitmap:backup-vda`.
        changed: Option<String>,
    },
    /// An NBD export on a TCP port.
    NbdTcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Name of the export.
        export: String,
        /// Meta context that marks what changed.
        changed: Option<String>,
    },
    /// An image file or block device of this host.
    Image {
        /// Absolute path.
        path: String,
    },
}

/// Where a disk is restored to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageTarget {
    /// Absolute path.
    pub path: String,
    /// `raw` or `qcow2`.
    pub format: String,
    /// Overwrite a file or device that is there, instead of making a new file.
    pub overwrite: bool,
}

/// Permission for one bulk stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamTicket {
    /// The stream.
    pub id: StreamId,
    /// 64 hexadecimal digits only the two ends know.
    pub token: Secret,
}

/// What an image is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageDescription {
    /// `raw`, `qcow2`, `vmdk`, `vhdx`, `vhd`.
    pub format: String,
    /// Size the guest sees.
    pub size: ByteCount,
    /// Bytes allocated on the host.
    pub allocated: ByteCount,
    /// Things to know, in words.
    pub notes: Vec<String>,
}

/// How far a task is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskReport {
    /// In numbers.
    pub counters: Counters,
    /// Things a person should know, each said once: code and sentence.
    pub warnings: Vec<(String, String)>,
    /// The end, if it has come.
    pub end: Option<TaskEnd>,
}

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskEnd {
    /// A disk is in the point in the making.
    Disk(PointDisk),
    /// A disk was sent and the receiver has acknowledged all of it.
    Sent,
    /// A disk was written and is durable. The root of what was written, recomputed on the way.
    Restored {
        /// Canonical digest of the written content.
        root: Digest,
    },
    /// Collected.
    Collected {
        /// Bytes that came free.
        freed: ByteCount,
        /// Bytes copied to new packs.
        rewritten: ByteCount,
        /// Packs that had to stay because a writer or reader is at work.
        waiting: u64,
    },
    /// Verified.
    Verified {
        /// Points that are whole.
        whole: Vec<PointId>,
        /// Blocks checked.
        blocks: u64,
        /// What is damaged.
        damages: Vec<Damage>,
    },
    /// It failed.
    Failed {
        /// What sort.
        kind: Kind,
        /// Stable code.
        code: String,
        /// The sentence with its causes.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    /// The point, where one is known.
    pub point: Option<PointId>,
    /// The disk or file in it.
    pub file: String,
    /// The range of it; empty where it is not data.
    pub range: ByteRange,
    /// In words, with the object's name.
    pub what: String,
}

impl TaskReport {
    /// Whether the kind of a finished disk says that only changes were read.
    pub fn is_incremental(&self) -> bool {
        matches!(&self.end, Some(TaskEnd::Disk(disk)) if disk.kind == PointKind::Incremental)
    }
}
