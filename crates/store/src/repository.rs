//! A repository, open.
//!
//! Knows: how to make one, open one, list its points and read from them.
//! Refuses to know: which file system holds it.

use crate::cut::{CutParameters, Cutter, Segment};
use crate::id::{BlockId, Root};
use crate::point::Point;
use crate::report::{
    CollectOptions, CollectReport, PointList, Progress, VerifyOptions, VerifyReport,
};
use crate::writer::{Writer, WriterOptions};
use base::block::{BlockRead, Extent};
use base::clock::{Clock, Timestamp};
use base::files::Files;
use base::id::{PointId, RepositoryId};
use base::random::Random;
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(crate) fn not_yet() -> Error {
    Error::new(Kind::Unsupported, "store.not-yet", "being built")
}

/// The doors a repository uses besides its files.
#[derive(Clone)]
pub struct Environment {
    /// The clock: labels points, decides nothing.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys, salts and ids.
    pub random: Arc<dyn Random>,
}

/// A password. Wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

/// How to make a repository.
#[derive(Clone)]
pub struct CreateOptions {
    /// Encrypt with keys behind this password.
    pub password: Option<Password>,
    /// How to cut; leave it at its default unless you measure.
    pub cut: CutParameters,
    /// Bytes of a pack at which the next one is begun.
    pub pack_size: ByteCount,
    /// Bytes kept back for deleting when the disk is full; `None`: 1 % of it, at most 256 MiB.
    pub reserve: Option<ByteCount>,
    /// Cost of guessing the password: KiB of memory of Argon2id.
    pub argon_memory_kib: u32,
    /// Cost of guessing the password: passes of Argon2id.
    pub argon_passes: u32,
}

/// What a repository says of itself.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Info {
    /// Its id.
    pub id: RepositoryId,
    /// When it was made.
    pub created: Timestamp,
    /// Format version, `major.minor`.
    pub format: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// How it cuts.
    pub cut: CutParameters,
    /// Bytes in packs.
    pub packs: ByteCount,
    /// Number of packs.
    pub pack_count: u64,
    /// Bytes in the index.
    pub index: ByteCount,
    /// Blocks and nodes in the index, counted once per segment.
    pub blocks: u64,
}

/// A repository, open. Cheap to clone; clones share caches.
#[derive(Clone)]
pub struct Repository {}

impl Repository {
    /// Makes a repository in an empty folder and opens it.
    ///
    /// # Errors
    /// `Exists` with `store.repository.exists` where there is one already, `Conflict` with
    /// `store.repository.folder-not-empty` where other files are there.
    pub fn create(
        files: Arc<dyn Files>,
        environment: Environment,
        options: &CreateOptions,
    ) -> Result<Self> {
        let _ = (files, environment, options);
        Err(not_yet())
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// `NotFound` `store.repository.not-found`; `Unsupported` `store.repository.version`;
    /// `Denied` `store.password.missing` or `store.password.wrong`; `Corrupt`.
    pub fn open(
        files: Arc<dyn Files>,
        environment: Environment,
        password: Option<&Password>,
    ) -> Result<Self> {
        let _ = (files, environment, password);
        Err(not_yet())
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        RepositoryId::from_bytes([0; 16])
    }

    /// What it says of itself, with sizes counted now.
    pub fn info(&self) -> Result<Info> {
        Err(not_yet())
    }

    /// What cuts and names blocks as this repository does.
    pub fn cutter(&self) -> Cutter {
        unreachable!()
    }

    /// All points, oldest first, and those that cannot be read.
    pub fn points(&self) -> Result<PointList> {
        Err(not_yet())
    }

    /// One point.
    ///
    /// # Errors
    /// `NotFound` `store.point.not-found`; `Corrupt` where its record is damaged.
    pub fn point(&self, id: PointId) -> Result<Point> {
        let _ = id;
        Err(not_yet())
    }

    /// Opens a disk of a point for reading. While the reader lives the disk's blocks are pinned,
    /// even if the point is deleted.
    pub fn open_disk(&self, point: &Point, name: &str) -> Result<DiskReader> {
        let _ = (point, name);
        Err(not_yet())
    }

    /// Reads a file of a point.
    pub fn read_file(&self, point: &Point, path: &str) -> Result<Vec<u8>> {
        let _ = (point, path);
        Err(not_yet())
    }

    /// The segments of one window of a tree; empty where the window is zero.
    pub fn window(&self, root: &Root, index: u64) -> Result<Vec<Segment>> {
        let _ = (root, index);
        Err(not_yet())
    }

    /// Reads a block of data into a buffer of exactly its length, and checks its id.
    pub fn read_block(&self, id: &BlockId, buffer: &mut [u8]) -> Result<()> {
        let _ = (id, buffer);
        Err(not_yet())
    }

    /// The ranges in which two contents differ (whole segments; the longer tail differs), in order.
    /// Visits only what differs.
    pub fn diff(&self, a: &Root, b: &Root) -> Result<Vec<ByteRange>> {
        let _ = (a, b);
        Err(not_yet())
    }

    /// Joins the repository as a writer. Any number may write at once.
    pub fn writer(&self, options: WriterOptions) -> Result<Writer> {
        let _ = options;
        Err(not_yet())
    }

    /// Deletes a point. Its bytes come free with the next [`Self::collect`].
    ///
    /// # Errors
    /// `NotFound` `store.point.not-found`.
    pub fn delete_point(&self, id: PointId) -> Result<()> {
        let _ = id;
        Err(not_yet())
    }

    /// Frees what no point needs. Safe beside any number of readers and writers.
    ///
    /// # Errors
    /// `Conflict` `store.collect.busy` where another collect runs; `Corrupt` where something is
    /// damaged so that what is needed cannot be told: then nothing is deleted.
    pub fn collect(
        &self,
        options: &CollectOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<CollectReport> {
        let _ = (options, progress);
        Err(not_yet())
    }

    /// Checks that all points can be restored. Damage is in the report, not an error.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<VerifyReport> {
        let _ = (options, progress);
        Err(not_yet())
    }

    /// Makes the index anew from the packs alone. Returns how many packs it lists.
    pub fn rebuild_index(&self, progress: &dyn Fn(Progress)) -> Result<u64> {
        let _ = progress;
        Err(not_yet())
    }
}

/// A disk of a point, read like any disk, from any thread. Its extents say which ranges are zero.
pub struct DiskReader {}

impl BlockRead for DiskReader {
    fn size(&self) -> ByteCount {
        ByteCount(0)
    }
    fn read_at(&self, _offset: ByteOffset, _buffer: &mut [u8]) -> Result<()> {
        Err(not_yet())
    }
    fn extents(&self, _range: ByteRange) -> Result<Vec<Extent>> {
        Err(not_yet())
    }
}
