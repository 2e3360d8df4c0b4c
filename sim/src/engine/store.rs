//! The real store, behind the deeds of the simulator.
//!
//! Knows: how a mover drives the store: full reads, and reads of changed pages on top of the newest
//! point. Refuses to know: formats; what it knows of the store is its public face.

mod pipeline;

pub use pipeline::{all_windows, changed_windows};

use super::{Engine, Listed, Listing, Process};
use crate::workload::PAGE;
use base::block::BlockRead;
use base::files::Files;
use base::id::{MachineId, PointId};
use base::memory::MemoryDisk;
use base::size::{ByteCount, ByteOffset, ByteRange, KIB};
use base::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{
    CollectOptions, Consistency, CreateOptions, CutParameters, Environment, Password, Point,
    PointDisk, PointDraft, PointFile, PointMachine, Repository, Root, VerifyOptions, Writer,
    WriterOptions,
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

    /// Opens the repository as this process.
    ///
    /// # Errors
    /// Those of the store.
    pub fn repository(self, process: &Process) -> Result<Repository> {
        let password = self.password();
        Repository::open(files(process), environment(process), password.as_ref())
    }
}

/// Options that make small frames, so that a few pages make several.
pub fn writer_options() -> WriterOptions {
    WriterOptions {
        frame_size: ByteCount(16 * KIB),
        ..WriterOptions::default()
    }
}

/// A point's draft as the simulator makes it: the label is the machine's name.
pub fn draft(
    process: &Process,
    label: &str,
    disks: Vec<PointDisk>,
    files: Vec<PointFile>,
    parent: Option<PointId>,
) -> PointDraft {
    PointDraft {
        id: PointId::generate(&*process.clock, &*process.random),
        machine: PointMachine {
            id: MachineId::new(0, [7; 10]),
            name: label.to_owned(),
            platform: "simulated".to_owned(),
            more: BTreeMap::new(),
        },
        job: None,
        session: None,
        disks,
        files,
        parent,
        consistency: Consistency::Crash,
        counters: Default::default(),
        notes: Vec::new(),
    }
}

/// One disk of a point.
pub fn point_disk(name: &str, size: ByteCount, root: Root, changed_blocks: bool) -> PointDisk {
    PointDisk {
        name: name.to_owned(),
        size,
        root,
        changed_blocks,
        attributes: BTreeMap::new(),
        tracker: BTreeMap::new(),
        more: BTreeMap::new(),
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

    /// The index is in the packs too, and the repository's description and keys have copies.
    fn can_do_without(&self, path: &str) -> bool {
        path.starts_with("index/") || path.starts_with("keys/") || path.starts_with("repository")
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
        let writer = repository.writer(writer_options())?;
        let base = if self.changed_pages {
            newest(&repository, &writer)?
        } else {
            None
        };
        let source = MemoryDisk::from(disk.to_vec());
        let (root, base) = match base {
            Some(base) => match pages_that_differ(&repository, &base, disk) {
                Ok(changed) => {
                    let on = base.disk(DISK)?.root;
                    let root = changed_windows(&repository, &writer, on, &source, &changed)?;
                    (root, Some(base))
                }
                // Deleted since it was pinned: its blocks are safe, but it cannot be opened.
                Err(error) if error.code() == "store.point.not-found" => {
                    (all_windows(&writer, &source)?, None)
                }
                Err(error) => return Err(error),
            },
            None => (all_windows(&writer, &source)?, None),
        };
        let file = writer.put_file(CONFIGURATION, label.as_bytes())?;
        let disks = vec![point_disk(DISK, source.size(), root, base.is_some())];
        let parent = base.map(|base| base.id);
        writer
            .commit(draft(process, label, disks, vec![file], parent))
            .map(|_| ())
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

/// The pages that differ from a base of the same size, as a right tracker would tell them.
fn pages_that_differ(repository: &Repository, base: &Point, disk: &[u8]) -> Result<Vec<ByteRange>> {
    let reader = repository.open_disk(base, DISK)?;
    let mut old = vec![0; reader.size().as_usize()?];
    reader.read_at(ByteOffset::ZERO, &mut old)?;
    let pages = old.chunks(PAGE).zip(disk.chunks(PAGE)).enumerate();
    Ok(pages
        .filter(|(_, (old, new))| old != new)
        .map(|(page, (_, new))| ByteRange::new((page * PAGE) as u64, new.len() as u64))
        .collect())
}
