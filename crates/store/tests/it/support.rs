//! What the tests share: a repository in a folder, machines, and the simple backup.

use base::block::BlockRead;
use base::clock::{Clock, Timestamp};
use base::files::Files;
use base::id::{MachineId, PointId};
use base::os::OsFiles;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::*;

/// A clock that goes on by a second whenever it is asked.
#[derive(Default)]
pub struct StepClock(AtomicI64);

impl Clock for StepClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1_000_000, Ordering::Relaxed) + 1_700_000_000_000_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) {}
}

pub fn environment(seed: u64) -> Environment {
    Environment {
        clock: Arc::new(StepClock::default()),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

/// Small windows and packs, so that small disks have many of them.
pub fn options(password: Option<&str>) -> CreateOptions {
    CreateOptions {
        password: password.map(Password::new),
        cut: CutParameters {
            window: (64 * KIB) as u32,
            min: (4 * KIB) as u32,
            avg: (8 * KIB) as u32,
            max: (16 * KIB) as u32,
            zero_run: 4,
        },
        pack_size: ByteCount(128 * KIB),
        reserve: Some(ByteCount(64 * KIB)),
        argon_memory_kib: 64,
        argon_passes: 1,
    }
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub files: Arc<dyn Files>,
}

pub fn place() -> Place {
    // In memory where the machine has such a folder: thousands of syncs are not what is tested here.
    let memory = std::path::Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let files: Arc<dyn Files> = Arc::new(OsFiles::open(folder.path()).unwrap());
    Place { folder, files }
}

pub fn create(place: &Place) -> Repository {
    Repository::create(Arc::clone(&place.files), environment(1), &options(None)).unwrap()
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// A disk with noise, text and holes.
pub fn sample(seed: u64, length: usize) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let pages = 1 + random.below(24) as usize;
        match random.below(4) {
            0 => bytes.resize(bytes.len() + pages * 4096, 0),
            1 => bytes.extend(noise(random.next_u64(), pages * 4096)),
            2 => bytes.extend(noise(random.below(8), pages * 4096)),
            _ => {
                let line = format!("line {} of a log that compresses well\n", random.below(99));
                let text: Vec<u8> = line.bytes().cycle().take(pages * 4096).collect();
                bytes.extend(text);
            }
        }
    }
    bytes.truncate(length);
    bytes
}

pub fn draft(name: &str, disks: Vec<PointDisk>, files: Vec<PointFile>) -> PointDraft {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    PointDraft {
        id: PointId::from_bytes(id),
        machine: PointMachine {
            id: MachineId::from_bytes([7; 16]),
            name: name.to_owned(),
            platform: "image".to_owned(),
            more: Default::default(),
        },
        job: None,
        session: None,
        disks,
        files,
        parent: None,
        consistency: Consistency::Crash,
        counters: PointCounters::default(),
        notes: Vec::new(),
    }
}

pub fn disk(name: &str, size: usize, root: Root) -> PointDisk {
    PointDisk {
        name: name.to_owned(),
        size: ByteCount(size as u64),
        root,
        changed_blocks: false,
        attributes: Default::default(),
        tracker: Default::default(),
        more: Default::default(),
    }
}

/// Puts a whole disk.
pub fn write_disk(writer: &Writer, bytes: &[u8]) -> base::Result<Root> {
    let tree = writer.tree(ByteCount(bytes.len() as u64), None)?;
    let window = writer.cutter().window_size().0 as usize;
    for (index, bytes) in bytes.chunks(window).enumerate() {
        tree.set_window(index as u64, &writer.put_window(bytes)?)?;
    }
    tree.finish()
}

/// Backs a whole disk up.
pub fn backup(repository: &Repository, name: &str, bytes: &[u8]) -> base::Result<Point> {
    let writer = repository.writer(WriterOptions::default())?;
    let root = write_disk(&writer, bytes)?;
    let file = writer.put_file("machine.xml", format!("<domain>{name}</domain>").as_bytes())?;
    writer.commit(draft(
        name,
        vec![disk("vda", bytes.len(), root)],
        vec![file],
    ))
}

/// Backs up what changed since a point.
pub fn backup_changes(
    repository: &Repository,
    base: &Point,
    bytes: &[u8],
    dirty: &[ByteRange],
) -> base::Result<Point> {
    let writer = repository.writer(WriterOptions::default())?;
    let point = writer.base(base.id)?;
    let old = point.disk("vda")?;
    let tree = writer.tree(ByteCount(bytes.len() as u64), Some(old.root))?;
    let window = writer.cutter().window_size().0;
    for index in 0..tree.window_count() {
        let start = index * window;
        let whole = ByteRange::new(start, u64::from(tree.window_length(index)));
        let local: Vec<ByteRange> = dirty
            .iter()
            .filter_map(|range| range.intersection(&whole))
            .map(|range| ByteRange::new(range.offset.0 - start, range.length.0))
            .collect();
        let resized = old.size.0 != bytes.len() as u64
            && (start + window > old.size.0.min(bytes.len() as u64));
        if local.is_empty() && !resized {
            continue;
        }
        let pieces = writer.cutter().recut(
            &tree.base_window(index)?,
            tree.window_length(index),
            &local,
            &mut |range, buffer| {
                let from = (start + range.offset.0) as usize;
                buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
                Ok(())
            },
            &mut |id, buffer| repository.read_block(id, buffer),
        )?;
        let mut segments = Vec::new();
        let mut fresh = Vec::new();
        for piece in &pieces {
            segments.push(match piece {
                RecutPiece::Kept(segment) => *segment,
                RecutPiece::Zero(length) => Segment {
                    length: *length,
                    block: None,
                },
                RecutPiece::New(bytes) => {
                    let id = writer.cutter().block_id(bytes);
                    fresh.push(NewBlock { id, bytes });
                    Segment {
                        length: bytes.len() as u32,
                        block: Some(id),
                    }
                }
            });
        }
        writer.put(&fresh)?;
        tree.set_window(index, &segments)?;
    }
    let root = tree.finish()?;
    writer.commit(draft(
        "changed",
        vec![disk("vda", bytes.len(), root)],
        vec![],
    ))
}

pub fn read_disk(repository: &Repository, point: &Point) -> base::Result<Vec<u8>> {
    let reader = repository.open_disk(point, "vda")?;
    let mut bytes = vec![0xaa; reader.size().as_usize()?];
    for (index, part) in bytes.chunks_mut(100_000).enumerate() {
        reader.read_at(ByteOffset(index as u64 * 100_000), part)?;
    }
    Ok(bytes)
}
