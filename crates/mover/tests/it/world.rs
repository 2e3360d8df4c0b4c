//! What the tests share: repositories in temporary folders, disks with a memory of what changed,
//! folders that fail, identities.

use base::block::{BlockRead, BlockWrite, Extent, is_zero, push_extent};
use base::cancel::Cancel;
use base::files::{Entry, FileLock, FileRead, FileWrite, Files, Path, Space};
use base::id::{HostId, MachineId, PointId, SessionId, SiteId};
use base::memory::MemoryDisk;
use base::os::{OsClock, OsFiles, OsRandom};
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB};
use base::{Error, Kind, Result};
use mover::pipeline::backup::{Backup, ChangedSince, back_up};
use mover::pipeline::gauge::Gauge;
use mover::pipeline::restore::{StoredDisk, Target, restore};
use mover::pipeline::stored::StoredBase;
use protocol::{Authority, Identity, Role};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::{
    CreateOptions, CutParameters, Environment, Point, PointDisk, PointDraft, PointMachine,
    Repository, Root, Writer, WriterOptions,
};

/// The granule of the tests' change maps, as QEMU's.
pub const GRANULE: u64 = 64 * KIB;

/// Clock and randomness of this machine.
pub fn environment() -> Environment {
    Environment {
        clock: Arc::new(OsClock),
        random: Arc::new(OsRandom),
    }
}

/// Small windows, so that small disks have many.
pub fn small_windows() -> CreateOptions {
    let cut = CutParameters {
        window: (256 * KIB) as u32,
        ..CutParameters::default()
    };
    CreateOptions {
        cut,
        reserve: Some(ByteCount(64 * KIB)),
        ..CreateOptions::default()
    }
}

/// A repository with small windows in files.
pub fn repository(files: Arc<dyn Files>) -> Repository {
    Repository::create(files, environment(), &small_windows()).unwrap()
}

/// A repository in a temporary folder.
pub fn repository_in(folder: &tempfile::TempDir) -> Repository {
    repository(Arc::new(OsFiles::open(folder.path()).unwrap()))
}

/// A writer as the executor makes it.
pub fn writer(repository: &Repository) -> Writer {
    let options = WriterOptions {
        check_ids: false,
        ..WriterOptions::default()
    };
    repository.writer(options).unwrap()
}

/// A new id of a point.
pub fn point_id() -> PointId {
    PointId::generate(&OsClock, &OsRandom)
}

/// Publishes a point with one disk.
pub fn publish(writer: &Writer, size: ByteCount, root: Root) -> Point {
    writer
        .commit(PointDraft {
            id: point_id(),
            machine: PointMachine {
                id: MachineId::of_platform("simulated", "m"),
                name: "m".to_owned(),
                platform: "simulated".to_owned(),
                more: BTreeMap::new(),
            },
            job: None,
            session: Some(SessionId::generate(&OsClock, &OsRandom)),
            disks: vec![PointDisk {
                name: "vda".to_owned(),
                size,
                root,
                changed_blocks: false,
                attributes: BTreeMap::new(),
                tracker: BTreeMap::new(),
                more: BTreeMap::new(),
            }],
            files: Vec::new(),
            parent: None,
            consistency: store::Consistency::Crash,
            counters: store::PointCounters::default(),
            notes: Vec::new(),
        })
        .unwrap()
}

/// A disk in memory that remembers which granules were written since it was last asked.
pub struct TrackedDisk {
    /// Its bytes.
    pub bytes: Vec<u8>,
    dirty: Vec<bool>,
}

impl TrackedDisk {
    /// Zeros.
    pub fn new(size: u64) -> Self {
        let mut disk = Self {
            bytes: Vec::new(),
            dirty: Vec::new(),
        };
        disk.resize(size);
        disk.dirty.fill(false);
        disk
    }

    /// Makes it larger or smaller. A tracker knows nothing of what is beyond the old end.
    pub fn resize(&mut self, size: u64) {
        self.bytes.resize(size as usize, 0);
        self.dirty.resize(size.div_ceil(GRANULE) as usize, false);
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let place = offset as usize..offset as usize + bytes.len();
        self.bytes[place].copy_from_slice(bytes);
        for granule in offset / GRANULE..(offset + bytes.len() as u64).div_ceil(GRANULE) {
            self.dirty[granule as usize] = true;
        }
    }

    /// Some random changes: new bytes, copies from elsewhere, zeros.
    pub fn scribble(&mut self, random: &SeededRandom, times: u64) {
        for _ in 0..times {
            let size = self.bytes.len() as u64;
            let length = (1 + random.below(200 * KIB)).min(size);
            let offset = random.below(size - length + 1);
            let mut bytes = vec![0; length as usize];
            match random.below(4) {
                0 => {}
                1 => {
                    let from = random.below(size - length + 1) as usize;
                    bytes.copy_from_slice(&self.bytes[from..from + length as usize]);
                }
                _ => random.fill(&mut bytes),
            }
            self.write(offset, &bytes);
        }
    }

    /// What was written since the last time, zeros marked so; then forgets it.
    pub fn take_changes(&mut self) -> Vec<Extent> {
        let mut changes = Vec::new();
        for (index, dirty) in self.dirty.iter_mut().enumerate() {
            let start = index as u64 * GRANULE;
            let length = GRANULE.min(self.bytes.len() as u64 - start);
            if std::mem::take(dirty) {
                let zero = is_zero(&self.bytes[start as usize..(start + length) as usize]);
                let extent = if zero {
                    Extent::zero(start, length)
                } else {
                    Extent::data(start, length)
                };
                push_extent(&mut changes, extent);
            }
        }
        changes
    }

    /// The disk as it is now.
    pub fn snapshot(&self) -> MemoryDisk {
        MemoryDisk::from(self.bytes.clone())
    }
}

/// Backs up all of a disk; its root.
pub fn back_up_all(disk: &dyn BlockRead, writer: &Writer, gauge: &Gauge) -> Result<Root> {
    back_up(&Backup {
        disk,
        writer,
        changes: None,
        gauge,
        cancel: &Cancel::new(),
    })
}

/// Backs up what changed since a point; its root.
pub fn back_up_changes(
    disk: &dyn BlockRead,
    repository: &Repository,
    writer: &Writer,
    base: &Point,
    map: &Vec<Extent>,
    gauge: &Gauge,
) -> Result<Root> {
    let base = writer.base(base.id)?;
    let old = base.disk("vda")?;
    let base = StoredBase {
        root: old.root,
        size: old.size,
        repository: repository.clone(),
    };
    let changes = Some(ChangedSince { map, base: &base });
    back_up(&Backup {
        disk,
        writer,
        changes,
        gauge,
        cancel: &Cancel::new(),
    })
}

/// The bytes of a disk of a point, restored to a disk that was full of something else.
pub fn restored(repository: &Repository, point: &Point) -> Vec<u8> {
    let reader = repository.open_disk(point, "vda").unwrap();
    let root = point.disk("vda").unwrap().root;
    let stored = StoredDisk {
        repository,
        root,
        reader: &reader,
    };
    let disk = MemoryDisk::from(vec![0xaa; reader.size().0 as usize]);
    let target = Target {
        disk: &disk,
        blank: false,
    };
    let written = restore(&stored, &target, &Gauge::default(), &Cancel::new()).unwrap();
    assert_eq!(written, root);
    disk.to_vec()
}

/// A folder of files whose writes fail from a certain one on.
pub struct FailingFiles {
    files: OsFiles,
    left: Arc<AtomicI64>,
}

impl FailingFiles {
    /// All is well until [`FailingFiles::fail_after`].
    pub fn new(folder: &std::path::Path) -> Self {
        let files = OsFiles::open(folder).unwrap();
        Self {
            files,
            left: Arc::new(AtomicI64::new(i64::MAX)),
        }
    }

    /// So many writes still work.
    pub fn fail_after(&self, writes: i64) {
        self.left.store(writes, Ordering::SeqCst);
    }

    fn spend(left: &AtomicI64) -> Result<()> {
        if left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(Error::new(
            Kind::Full,
            "base.io.full",
            "the disk is full (a test says so)",
        ))
    }
}

struct FailingWrite(Box<dyn FileWrite>, Arc<AtomicI64>);

impl FileWrite for FailingWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        FailingFiles::spend(&self.1)?;
        self.0.append(bytes)
    }
    fn sync(&mut self) -> Result<()> {
        FailingFiles::spend(&self.1)?;
        self.0.sync()
    }
}

impl Files for FailingFiles {
    fn create(&self, path: &Path) -> Result<Box<dyn FileWrite>> {
        Self::spend(&self.left)?;
        Ok(Box::new(FailingWrite(
            self.files.create(path)?,
            Arc::clone(&self.left),
        )))
    }
    fn open(&self, path: &Path) -> Result<Arc<dyn FileRead>> {
        self.files.open(path)
    }
    fn publish(&self, from: &Path, to: &Path) -> Result<()> {
        Self::spend(&self.left)?;
        self.files.publish(from, to)
    }
    fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        Self::spend(&self.left)?;
        self.files.replace(from, to)
    }
    fn rename_folder(&self, from: &Path, to: &Path) -> Result<()> {
        self.files.rename_folder(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.files.remove(path)
    }
    fn make_folder(&self, path: &Path) -> Result<()> {
        self.files.make_folder(path)
    }
    fn remove_folder(&self, path: &Path) -> Result<()> {
        self.files.remove_folder(path)
    }
    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        self.files.list(folder)
    }
    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.files.sync_folder(folder)
    }
    fn space(&self) -> Result<Space> {
        self.files.space()
    }
    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
        self.files.try_lock(path)
    }
}

/// A large disk that is computed, not stored: runs of data that differ everywhere, and zeros.
pub struct ComputedDisk {
    /// Its size.
    pub size: u64,
    /// One window in so many holds data.
    pub data_in: u64,
}

impl ComputedDisk {
    const RUN: u64 = 4 << 20;

    fn is_data(&self, offset: u64) -> bool {
        (offset / Self::RUN).is_multiple_of(self.data_in)
    }
}

impl BlockRead for ComputedDisk {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset.0..).zip(buffer.iter_mut()) {
            let word = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            // Half of each page is text-like, so that compressing has something to do.
            let mixed = (word ^ (word >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let byte_of = mixed.to_le_bytes()[(at % 8) as usize];
            *byte = if !self.is_data(at) {
                0
            } else if at % 4096 < 2048 {
                byte_of & 0x0f | 0x40
            } else {
                byte_of
            };
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        let mut at = range.offset.0;
        while at < range.end().0 {
            let end = ((at / Self::RUN + 1) * Self::RUN).min(range.end().0);
            let extent = if self.is_data(at) {
                Extent::data
            } else {
                Extent::zero
            };
            push_extent(&mut extents, extent(at, end - at));
            at = end;
        }
        Ok(extents)
    }
}

/// Something that is written and forgotten.
pub struct Nowhere(pub u64);

impl BlockRead for Nowhere {
    fn size(&self) -> ByteCount {
        ByteCount(self.0)
    }
    fn read_at(&self, _: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(0);
        Ok(())
    }
}

impl BlockWrite for Nowhere {
    fn write_at(&self, _: ByteOffset, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: ByteRange) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A site with its authority.
pub struct Site {
    authority: Authority,
}

impl Site {
    /// A new one.
    pub fn new() -> Self {
        let id = SiteId::generate(&OsClock, &OsRandom);
        Self {
            authority: Authority::create(id, &OsClock, &OsRandom).unwrap(),
        }
    }

    /// An identity on some host.
    pub fn identity(&self, role: Role) -> Identity {
        let host = HostId::generate(&OsClock, &OsRandom);
        let validity = Duration::from_secs(86_400);
        self.authority
            .issue(role, host, validity, &OsClock, &OsRandom)
            .unwrap()
    }

    /// The same, saved in a folder.
    pub fn save(&self, role: Role, folder: &std::path::Path) -> Identity {
        let identity = self.identity(role);
        identity.save(folder).unwrap();
        identity
    }
}
