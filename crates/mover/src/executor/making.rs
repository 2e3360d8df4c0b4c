//! Making a point.
//!
//! Knows: one writer, the disks and files that are in it so far, and what making them took.
//! Refuses to know: how a disk is read and stored; the pipeline does that.

use super::{Executor, translate};
use crate::pipeline::backup::{Backup, ChangedSince, back_up};
use crate::pipeline::stored::StoredBase;
use crate::source::Source;
use crate::task::Task;
use base::id::PointId;
use base::limit::{DISKS_PER_MACHINE_MAX, NAME_LENGTH_MAX, POINT_FILE_SIZE_MAX};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::agent::{AgentResponse, DiskOrder, ReadMode, TaskEnd, TaskNumber};
use protocol::words::counters::Counters;
use protocol::words::point::{PointDisk, PointDraft, PointKind};
use protocol::words::repository::Compression;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Repository, Root, Writer, WriterOptions};

/// Files that may lack pieces at one time: nobody has a use for more.
const UNFINISHED_MAX: usize = 16;

/// A point in the making.
pub(super) struct Making {
    id: PointId,
    pub(super) repository: Repository,
    pub(super) writer: Writer,
    parts: Mutex<Parts>,
}

/// What is in it so far.
#[derive(Default)]
struct Parts {
    /// Disks by name; a disk that is still being written has no entry but its name is taken.
    disks: BTreeMap<String, Option<PointDisk>>,
    files: Vec<store::PointFile>,
    /// Files that lack pieces, by name.
    unfinished: BTreeMap<String, Vec<u8>>,
    counters: Counters,
    tasks: Vec<TaskNumber>,
    /// No more tasks may begin on it.
    aborted: bool,
}

impl Parts {
    /// Takes a piece of a file: all of the file, once nothing lacks any more. What fails is
    /// forgotten.
    fn piece(
        &mut self,
        path: &str,
        from: ByteCount,
        bytes: &[u8],
        more: bool,
    ) -> Result<Option<Vec<u8>>> {
        if self.files.iter().any(|file| file.path == path) {
            return Err(Error::new(
                Kind::Exists,
                "mover.point.file-exists",
                format!("the file \u{201c}{path}\u{201d} is in this point already"),
            ));
        }
        let begun = self.unfinished.remove(path);
        let mut file = if from == ByteCount::ZERO {
            Vec::new()
        } else {
            begun
                .filter(|begun| begun.len() as u64 == from.0)
                .ok_or_else(|| out_of_order(path))?
        };
        file.extend_from_slice(bytes);
        // All together, since memory holds them all.
        let held: usize = self.unfinished.values().map(Vec::len).sum();
        let too_many = more && self.unfinished.len() >= UNFINISHED_MAX;
        if (held + file.len()) as u64 > POINT_FILE_SIZE_MAX || too_many {
            return Err(Error::new(
                Kind::Limit,
                "mover.file.too-large",
                format!("{path} is too large to be kept beside a point's disks"),
            ));
        }
        if more {
            self.unfinished.insert(path.to_owned(), file);
            return Ok(None);
        }
        Ok(Some(file))
    }
}

impl Making {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the name of a disk that is about to be written.
    fn reserve(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let mut parts = self.parts();
        if parts.disks.len() >= DISKS_PER_MACHINE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "mover.point.disks",
                format!("a point has at most {DISKS_PER_MACHINE_MAX} disks"),
            ));
        }
        if parts.disks.contains_key(name) {
            return Err(Error::new(
                Kind::Exists,
                "mover.point.disk-exists",
                format!("the disk \u{201c}{name}\u{201d} is in this point already"),
            ));
        }
        parts.disks.insert(name.to_owned(), None);
        Ok(())
    }

    /// The base of a disk, pinned while this point is in the making. With [`ReadMode::All`] a base
    /// only keeps its blocks from being collected meanwhile, and one that is gone is no loss.
    pub(super) fn base(&self, order: &DiskOrder) -> Result<Option<StoredBase>> {
        let changed = order.mode == ReadMode::Changed;
        let Some(point) = order.base else {
            return if changed {
                Err(no_base(&order.name))
            } else {
                Ok(None)
            };
        };
        let point = match self.writer.base(point) {
            Err(error) if !changed && error.kind() == Kind::NotFound => return Ok(None),
            other => other?,
        };
        match point.disk(&order.name) {
            Ok(disk) => Ok(Some(StoredBase {
                root: disk.root,
                size: disk.size,
                repository: self.repository.clone(),
            })),
            Err(_) if !changed => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes the end of a disk: in the point where it went well, its name free again otherwise.
    pub(super) fn settle(
        &self,
        order: &DiskOrder,
        task: &Task,
        root: Result<Root>,
    ) -> Result<TaskEnd> {
        let mut parts = self.parts();
        let root = root.inspect_err(|_| drop(parts.disks.remove(&order.name)))?;
        let disk = PointDisk {
            name: order.name.clone(),
            size: order.size,
            root: root.0,
            kind: match order.mode {
                ReadMode::All => PointKind::Full,
                ReadMode::Changed => PointKind::Incremental,
            },
            attributes: order.attributes.clone(),
            tracker: BTreeMap::new(),
        };
        parts.counters += task.gauge.counters();
        parts.disks.insert(order.name.clone(), Some(disk.clone()));
        Ok(TaskEnd::Disk(disk))
    }
}

impl Executor {
    pub(super) fn begin_point(
        &self,
        point: PointId,
        compression: Compression,
    ) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let options = WriterOptions {
            level: level(compression),
            // Ids are made from the very bytes that are put, here or where a stream arrives.
            check_ids: false,
            ..WriterOptions::default()
        };
        let mut state = self.state();
        if state.making.is_some() {
            return Err(Error::new(
                Kind::Conflict,
                "mover.point.in-making",
                "a point is in the making here already",
            )
            .hint("commit or abort it first"));
        }
        let writer = repository.writer(options)?;
        let making = Making {
            id: point,
            repository,
            writer,
            parts: Mutex::default(),
        };
        state.making = Some(Arc::new(making));
        Ok(AgentResponse::Done)
    }

    /// The point in the making.
    pub(super) fn making(&self) -> Result<Arc<Making>> {
        self.state().making.clone().ok_or_else(none_in_making)
    }

    /// Starts a task that writes a disk into the point in the making.
    pub(super) fn start_disk(
        &self,
        order: DiskOrder,
        deed: impl FnOnce(&Making, &DiskOrder, &Task) -> Result<Root> + Send + 'static,
    ) -> Result<TaskNumber> {
        let making = self.making()?;
        making.reserve(&order.name)?;
        let inside = Arc::clone(&making);
        let name = order.name.clone();
        // Held until the task is noted, so that an abort at this moment either prevents the task
        // or knows of it.
        let mut parts = making.parts();
        if parts.aborted {
            return Err(none_in_making());
        }
        let started = self.tasks.start(&format!("disk {name}"), move |task| {
            let root = deed(&inside, &order, task);
            inside.settle(&order, task, root)
        });
        match started {
            Ok(number) => parts.tasks.push(number),
            Err(_) => drop(parts.disks.remove(&name)),
        }
        started
    }

    pub(super) fn copy_disk(&self, order: DiskOrder) -> Result<AgentResponse> {
        Ok(AgentResponse::Started(self.start_disk(order, copy)?))
    }

    pub(super) fn put_file(
        &self,
        path: &str,
        from: ByteCount,
        bytes: &[u8],
        more: bool,
    ) -> Result<AgentResponse> {
        let making = self.making()?;
        let whole = making.parts().piece(path, from, bytes, more)?;
        let Some(whole) = whole else {
            return Ok(AgentResponse::Done);
        };
        let file = making.writer.put_file(path, &whole)?;
        let answer = translate::file(&file);
        making.parts().files.push(file);
        Ok(AgentResponse::File(answer))
    }

    pub(super) fn commit_point(
        &self,
        draft: PointDraft,
        mut trackers: BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<AgentResponse> {
        let making = self.take_finished()?;
        let parts = making
            .parts
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut disks: Vec<store::PointDisk> = parts
            .disks
            .values()
            .flatten()
            .map(translate::stored_disk)
            .collect();
        for disk in &mut disks {
            disk.tracker = trackers.remove(&disk.name).unwrap_or_default();
        }
        if let Some(name) = trackers.keys().next() {
            return Err(Error::new(
                Kind::NotFound,
                "mover.point.no-such-disk",
                format!(
                    "a tracker was given for \u{201c}{name}\u{201d}, which is not in the point"
                ),
            ));
        }
        let point = making.writer.commit(store::PointDraft {
            id: making.id,
            machine: translate::stored_machine(draft.machine),
            job: draft.job.map(|(id, name)| store::PointJob { id, name }),
            session: Some(draft.session),
            disks,
            files: parts.files,
            parent: draft.parent,
            consistency: translate::stored_consistency(draft.consistency),
            counters: translate::stored_counters(&parts.counters),
            notes: Vec::new(),
        })?;
        tracing::info!("published the point {}", point.id);
        let mut answer = translate::point(&point);
        answer.counters.changed = parts.counters.changed;
        answer.counters.busy = parts.counters.busy;
        answer.counters.stored_metadata = answer.counters.stored - parts.counters.stored;
        Ok(AgentResponse::Point(Box::new(answer)))
    }

    /// Takes the point out of the making, once nothing works on it any more.
    fn take_finished(&self) -> Result<Making> {
        let mut state = self.state();
        let Some(making) = state.making.take() else {
            return Err(none_in_making());
        };
        if let Some(path) = making.parts().unfinished.keys().next() {
            let error = unfinished(path);
            state.making = Some(Arc::clone(&making));
            return Err(error);
        }
        Arc::try_unwrap(making).map_err(|making| {
            state.making = Some(making);
            still_busy()
        })
    }

    pub(super) fn abort_point(&self) -> Result<AgentResponse> {
        let Some(making) = self.state().making.take() else {
            return Ok(AgentResponse::Done);
        };
        let tasks = {
            let mut parts = making.parts();
            parts.aborted = true;
            parts.tasks.clone()
        };
        self.tasks.stop_these(&tasks);
        match Arc::try_unwrap(making) {
            Ok(making) => making.writer.abort()?,
            // A command on another thread still looks at it; it goes with the last of them.
            Err(shared) => drop(shared),
        }
        Ok(AgentResponse::Done)
    }
}

/// Opens the disk that an order wants read.
pub(super) fn open_source(order: &DiskOrder, task: &Task) -> Result<Source> {
    let Some(source) = &order.source else {
        return Err(Error::invalid(
            "mover.disk.no-source",
            format!(
                "the order for \u{201c}{}\u{201d} does not say where to read",
                order.name
            ),
        ));
    };
    let source = Source::open(source, order.attributes.get("format").map(String::as_str))?;
    source.check_size(order.size)?;
    for note in &source.notes {
        task.warn("mover.source.note", format!("{}: {note}", order.name));
    }
    Ok(source)
}

/// Both parts in one process.
fn copy(making: &Making, order: &DiskOrder, task: &Task) -> Result<Root> {
    let source = open_source(order, task)?;
    let base = making.base(order)?;
    let changes = match (order.mode, &base) {
        (ReadMode::Changed, Some(base)) => Some(ChangedSince {
            map: source.changes()?,
            base,
        }),
        _ => None,
    };
    back_up(&Backup {
        disk: source.disk(),
        writer: &making.writer,
        changes,
        gauge: &task.gauge,
        cancel: &task.cancel,
    })
}

/// zstd's level.
const fn level(compression: Compression) -> i32 {
    match compression {
        Compression::None => 0,
        Compression::Fast => 1,
        Compression::Balanced => 3,
        Compression::High => 9,
    }
}

fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && !name.contains(|c: char| c == '/' || c.is_control())
        && name != "."
        && name != "..";
    if fine {
        return Ok(());
    }
    Err(Error::invalid(
        "mover.disk.name",
        format!(
            "\u{201c}{}\u{201d} cannot be the name of a disk",
            name.escape_debug()
        ),
    ))
}

fn no_base(name: &str) -> Error {
    Error::invalid(
        "mover.disk.no-base",
        format!("only changes of \u{201c}{name}\u{201d} are to be read, but since which point?"),
    )
    .hint("name the base point, or read all of the disk")
}

fn none_in_making() -> Error {
    Error::new(
        Kind::Conflict,
        "mover.point.none",
        "no point is in the making here",
    )
    .hint("begin one first")
}

/// Pieces have to follow each other.
fn out_of_order(path: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "mover.file.out-of-order",
        format!("a piece of {path} does not follow the one before"),
    )
    .hint("send the file anew from its beginning")
}

fn unfinished(path: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "mover.point.file-unfinished",
        format!("pieces of the file \u{201c}{path}\u{201d} are still to come"),
    )
    .hint("send them, or abort the point")
}

fn still_busy() -> Error {
    Error::new(
        Kind::Conflict,
        "mover.point.busy",
        "disks are still being written to the point in the making",
    )
    .hint("wait for their tasks to end")
}
