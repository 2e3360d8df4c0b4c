//! The real store, behind the deeds of the simulator.
//!
//! Knows: how a mover drives the store: full reads, and reads of changed pages on top of the newest
//! point. Refuses to know: formats; what it knows of the store is its public face.

use super::{Engine, Listed, Listing, Process};
use crate::workload::PAGE;
use base::block::BlockRead;
use base::files::Files;
use base::id::{MachineId, PointId};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB};
use base::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{
    CollectOptions, Consistency, CreateOptions, CutParameters, Environment, NewBlock, Password,
    Point, PointDisk, PointDraft, PointMachine, RecutPiece, Repository, Segment, TreeWriter,
    VerifyOptions, Writer, WriterOptions,
};

const DISK: &str = "vda";
const CONFIGURATION: &str = "domain.xml";

/// The real store.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// Whether a backup reads only the pages that differ from the newest point.
    pub changed_pages: bool,
    /// Whether the repository has a password.
    pub encrypted: bool,
    /// Bytes that the repository keeps back for deleting when the disk is full.
    pub reserve: u64,
}

impl Store {
    /// Without a password: opening costs no Argon2.
    pub const fn open(changed_pages: bool) -> Self {
        Self {
            changed_pages,
            encrypted: false,
            reserve: 32 * KIB,
        }
    }

    fn password(self) -> Option<Password> {
        self.encrypted
            .then(|| Password::new("a stay holds the mast"))
    }

    fn repository(self, process: &Process) -> Result<Repository> {
        Repository::open(
            files(process),
            environment(process),
            self.password().as_ref(),
        )
    }
}

fn files(process: &Process) -> Arc<dyn Files> {
    Arc::new(process.files.clone())
}

fn environment(process: &Process) -> Environment {
    Environment {
        clock: process.clock.clone(),
        random: process.random.clone(),
    }
}

impl Engine for Store {
    fn name(&self) -> &'static str {
        if self.changed_pages {
            "store-changed"
        } else {
            "store"
        }
    }

    fn create(&self, process: &Process) -> Result<()> {
        let options = CreateOptions {
            password: self.password(),
            // Small, so that a disk of a few pages has several windows, blocks and packs.
            cut: CutParameters {
                window: 64 << 10,
                min: 4 << 10,
                avg: 8 << 10,
                max: 16 << 10,
                zero_run: 2,
            },
            pack_size: ByteCount(32 * KIB),
            reserve: Some(ByteCount(self.reserve)),
            argon_memory_kib: 64,
            argon_passes: 1,
        };
        Repository::create(files(process), environment(process), &options).map(|_| ())
    }

    fn backup(&self, process: &Process, label: &str, disk: &[u8]) -> Result<()> {
        let repository = self.repository(process)?;
        let writer = repository.writer(WriterOptions {
            frame_size: ByteCount(16 * KIB),
            ..WriterOptions::default()
        })?;
        let base = if self.changed_pages {
            newest(&repository, &writer)?
        } else {
            None
        };
        let root = match &base {
            Some(base) => changed_pages(&repository, &writer, base, disk)?,
            None => all_pages(&writer, disk)?,
        };
        let file = writer.put_file(CONFIGURATION, label.as_bytes())?;
        let draft = PointDraft {
            id: PointId::generate(&*process.clock, &*process.random),
            machine: PointMachine {
                id: MachineId::new(0, [7; 10]),
                name: label.to_owned(),
                platform: "simulated".to_owned(),
                more: BTreeMap::new(),
            },
            job: None,
            session: None,
            disks: vec![PointDisk {
                name: DISK.to_owned(),
                size: ByteCount(disk.len() as u64),
                root,
                changed_blocks: base.is_some(),
                attributes: BTreeMap::new(),
                tracker: BTreeMap::new(),
                more: BTreeMap::new(),
            }],
            files: vec![file],
            parent: base.map(|base| base.id),
            consistency: Consistency::Crash,
            counters: store::point::PointCounters::default(),
            notes: Vec::new(),
        };
        writer.commit(draft).map(|_| ())
    }

    fn list(&self, process: &Process) -> Result<Listing> {
        let list = self.repository(process)?.points()?;
        let points = list
            .points
            .into_iter()
            .map(|point| Listed {
                label: point.machine.name,
                id: point.id.to_string(),
            })
            .collect();
        let damaged = list
            .damaged
            .into_iter()
            .map(|point| format!("{}: {}", point.name, point.reason));
        Ok(Listing {
            points,
            damaged: damaged.collect(),
        })
    }

    fn restore(&self, process: &Process, id: &str) -> Result<Vec<u8>> {
        let repository = self.repository(process)?;
        let point = repository.point(id.parse()?)?;
        let configuration = repository.read_file(&point, CONFIGURATION)?;
        if configuration != point.machine.name.as_bytes() {
            return Err(Error::corrupt(
                "sim.configuration.wrong",
                "the file is another point's",
            ));
        }
        let reader = repository.open_disk(&point, DISK)?;
        let mut bytes = vec![0; reader.size().as_usize()?];
        reader.read_at(ByteOffset::ZERO, &mut bytes)?;
        Ok(bytes)
    }

    fn delete(&self, process: &Process, id: &str) -> Result<()> {
        self.repository(process)?.delete_point(id.parse()?)
    }

    fn collect(&self, process: &Process) -> Result<()> {
        let repository = self.repository(process)?;
        repository
            .collect(&CollectOptions::default(), &|_| {})
            .map(|_| ())
    }

    fn verify(&self, process: &Process) -> Result<Vec<String>> {
        let options = VerifyOptions {
            read_data: true,
            ..VerifyOptions::default()
        };
        let report = self.repository(process)?.verify(&options, &|_| {})?;
        Ok(report
            .damage
            .iter()
            .map(|damage| format!("{damage:?}"))
            .collect())
    }
}

/// The newest point, pinned as a base. A point that is deleted meanwhile is not taken.
fn newest(repository: &Repository, writer: &Writer) -> Result<Option<Point>> {
    for point in repository.points()?.points.iter().rev() {
        match writer.base(point.id) {
            Ok(point) => return Ok(Some(point)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Stores every window.
fn all_pages(writer: &Writer, disk: &[u8]) -> Result<store::Root> {
    let tree = writer.tree(ByteCount(disk.len() as u64), None)?;
    let window = writer.cutter().window_size().as_usize()?;
    for (index, bytes) in disk.chunks(window).enumerate() {
        set_whole_window(writer, &tree, index as u64, bytes)?;
    }
    tree.finish()
}

fn set_whole_window(writer: &Writer, tree: &TreeWriter, index: u64, bytes: &[u8]) -> Result<()> {
    let mut segments = Vec::new();
    let mut blocks = Vec::new();
    for piece in writer.cutter().cut(bytes) {
        let length = u32::try_from(piece.range.len()).unwrap_or(u32::MAX);
        let bytes = &bytes[piece.range.clone()];
        let block = (!piece.zero).then(|| writer.cutter().block_id(bytes));
        segments.push(Segment { length, block });
        blocks.extend(block.map(|id| NewBlock { id, bytes }));
    }
    put_new(writer, &blocks)?;
    tree.set_window(index, &segments)
}

/// Asks first, as a mover does over a network.
fn put_new(writer: &Writer, blocks: &[NewBlock<'_>]) -> Result<()> {
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let have = writer.have(&ids)?;
    let new: Vec<_> = blocks
        .iter()
        .zip(have)
        .filter(|(_, have)| !have)
        .map(|(b, _)| *b)
        .collect();
    if new.is_empty() {
        Ok(())
    } else {
        writer.put(&new).map(|_| ())
    }
}

/// Stores the windows that differ from the base, cutting again only around the changed pages.
fn changed_pages(
    repository: &Repository,
    writer: &Writer,
    base: &Point,
    disk: &[u8],
) -> Result<store::Root> {
    let base_disk = base.disk(DISK)?;
    let reader = repository.open_disk(base, DISK)?;
    let mut old = vec![0; reader.size().as_usize()?];
    reader.read_at(ByteOffset::ZERO, &mut old)?;
    if old.len() != disk.len() {
        return all_pages(writer, disk);
    }
    let tree = writer.tree(ByteCount(disk.len() as u64), Some(base_disk.root))?;
    let window = writer.cutter().window_size().as_usize()?;
    for (index, (old, new)) in old.chunks(window).zip(disk.chunks(window)).enumerate() {
        let dirty: Vec<ByteRange> = (0..new.len().div_ceil(PAGE))
            .map(|page| (page * PAGE, ((page + 1) * PAGE).min(new.len())))
            .filter(|(start, end)| old[*start..*end] != new[*start..*end])
            .map(|(start, end)| ByteRange::new(start as u64, (end - start) as u64))
            .collect();
        if !dirty.is_empty() {
            recut_window(repository, writer, &tree, index as u64, new, &dirty)?;
        }
    }
    tree.finish()
}

fn recut_window(
    repository: &Repository,
    writer: &Writer,
    tree: &TreeWriter,
    index: u64,
    new: &[u8],
    dirty: &[ByteRange],
) -> Result<()> {
    let old = tree.base_window(index)?;
    let length = u32::try_from(new.len()).unwrap_or(u32::MAX);
    let pieces = writer.cutter().recut(
        &old,
        length,
        dirty,
        &mut |range, buffer| {
            let start = ByteCount(range.offset.0).as_usize()?;
            buffer.copy_from_slice(&new[start..start + buffer.len()]);
            Ok(())
        },
        &mut |id, buffer| repository.read_block(id, buffer),
    )?;
    let mut segments = Vec::new();
    let mut blocks = Vec::new();
    for piece in &pieces {
        segments.push(match piece {
            RecutPiece::Kept(segment) => *segment,
            RecutPiece::Zero(length) => Segment {
                length: *length,
                block: None,
            },
            RecutPiece::New(bytes) => {
                let id = writer.cutter().block_id(bytes);
                blocks.push(NewBlock { id, bytes });
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Segment {
                    length,
                    block: Some(id),
                }
            }
        });
    }
    put_new(writer, &blocks)?;
    tree.set_window(index, &segments)
}
