//! Making a point (format page, section "Publishing").
//!
//! Knows: blocks in, one published point out, and the order that makes it crash-proof.
//! Refuses to know: threads, pipelines and where blocks come from; any thread may call.
//!
//! # The order, and why no crash loses anything
//! 1. Data packs are synced and named, then the index segment that lists them.
//! 2. Tree packs are synced and named, then their index segment. Until here they lay in the
//!    writer's own folder.
//! 3. The point's record is synced in the writer's folder and moved to its name.
//!
//! Each step ends with the sync of the folder it named something in, before the next begins. So
//! whoever sees an index entry sees its pack; whoever finds a tree node finds the blocks below it;
//! whoever sees a point sees all of it, after any crash. A crash before step 3 leaves packs that no
//! point needs, which collect removes.

mod files;
mod put;
mod tree;

pub use tree::TreeWriter;

use crate::blocks::packs_of;
use crate::collect_state;
use crate::cut::{Cutter, Segment};
use crate::frame::Maker;
use crate::id::{BlockId, PackId, Root};
use crate::index::{self, Index};
use crate::layout::{self, Content};
use crate::limit::FRAME_PLAIN_MAX;
use crate::membership::Membership;
use crate::point::{self, Point, PointDraft, PointFile};
use crate::publish::write_synced;
use crate::record;
use crate::repository::Inner;
use crate::tree::RootRecord;
use base::files::Files;
use base::id::{PointId, WriterId};
use base::size::{ByteCount, KIB};
use base::{Error, Kind, Result};
use files::{DataPacks, TreePacks};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// zstd's level, -7 to 19; 0 stores without compression.
    pub level: i32,
    /// Compute each block's id again before it is stored. Needed where blocks come over a network.
    pub check_ids: bool,
    /// Open each sealed frame again and compare it with the plain bytes before it is written: bad
    /// memory and a bad compressor show up now and not in five years.
    pub check_frames: bool,
    /// Plain bytes after which a frame is closed: larger compresses better, smaller reads faster
    /// at random.
    pub frame_size: ByteCount,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            level: 1,
            check_ids: true,
            check_frames: true,
            frame_size: ByteCount(256 * KIB),
        }
    }
}

/// A block to store.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// Its id, from [`Cutter::block_id`].
    pub id: BlockId,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What a put did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PutCount {
    /// Blocks that were new.
    pub blocks: u64,
    /// Their plain bytes.
    pub plain: ByteCount,
    /// Bytes they take in packs.
    pub stored: ByteCount,
}

/// What all threads of a writer share.
pub(crate) struct Shared {
    pub(crate) inner: Arc<Inner>,
    pub(crate) member: Membership,
    maker: Maker,
    options: WriterOptions,
    /// The index as it was when the writer joined, and what it has published since.
    index: RwLock<Arc<Index>>,
    /// Blocks that this writer put and whose index segment is not out yet.
    known: Mutex<HashSet<BlockId>>,
    data: Mutex<DataPacks>,
    nodes: Mutex<TreePacks>,
    /// Folders that are there for certain.
    folders: Mutex<HashSet<base::files::Path>>,
    sequence: AtomicU64,
    /// Puts under way.
    busy: AtomicUsize,
    /// Why this writer must not commit any more.
    failed: Mutex<Option<String>>,
    /// Trees finished by this writer.
    roots: Mutex<HashMap<Root, u64>>,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

/// One writer: a folder and a lock in the repository while it lives. Share it by reference or
/// clone it; all methods may be called from many threads. Dropped without commit it leaves nothing
/// visible.
#[derive(Clone)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.id())
    }
}

impl Writer {
    /// Joins as a writer. First the folder with the lock, then the state of collection, then the
    /// index: in this order a collector either waits for us or we know what it retired.
    pub(crate) fn join(inner: &Arc<Inner>, options: WriterOptions) -> Result<Self> {
        let frame = options.frame_size.0;
        if frame == 0 || frame > FRAME_PLAIN_MAX as u64 / 2 || !(-7..=19).contains(&options.level) {
            return Err(Error::invalid(
                "store.writer.options",
                format!(
                    "frames of {} at level {}",
                    options.frame_size, options.level
                ),
            )
            .hint("frames have at most 1 MiB, levels go from -7 to 19"));
        }
        let (files, config) = (&*inner.files, &inner.config);
        config.check_writable()?;
        layout::make_folders(files)?;
        let member = Membership::join(&inner.files, "writers", &inner.environment)?;
        let state = collect_state::read(files, config.id, &inner.keys, config.cipher)?;
        member.note_generation(state.generation)?;
        // A segment whose writer died before its name was durable must not vanish under us.
        files.sync_folder(&layout::folder("index")?)?;
        let loaded = index::load(files, config.id, &inner.blocks.index().segments)?;
        let index = Index::new(loaded.segments, state.packs());
        let unusable = unusable_packs(files, &index)?;
        let index = index.without(unusable);
        let mut salt = [0; 32];
        inner.environment.random.fill(&mut salt);
        let (level, check) = (options.level, options.check_frames);
        let maker = Maker::new(config.id, &inner.keys, config.cipher, salt, level, check)?;
        let shared = Shared {
            inner: Arc::clone(inner),
            member,
            maker,
            options,
            index: RwLock::new(Arc::new(index)),
            known: Mutex::default(),
            data: Mutex::default(),
            nodes: Mutex::default(),
            folders: Mutex::default(),
            sequence: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            failed: Mutex::new(None),
            roots: Mutex::default(),
            new_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Its id.
    pub fn id(&self) -> WriterId {
        self.shared.member.id
    }

    /// What cuts and names blocks as this repository does.
    pub fn cutter(&self) -> &Cutter {
        self.shared.inner.blocks.cutter()
    }

    /// Which of these blocks need not be put: the repository has them or this writer got them.
    pub fn have(&self, ids: &[BlockId]) -> Result<Vec<bool>> {
        ids.iter().map(|id| self.shared.has_block(id)).collect()
    }

    /// Stores blocks, skipping those that are there. Neighbours are compressed together, so hand
    /// in the new blocks of one window at once and in order. Compresses and seals in the calling
    /// thread. After any error the writer refuses to commit.
    ///
    /// # Errors
    /// `Corrupt` `store.block.id-mismatch` where bytes and id do not fit (with `check_ids`);
    /// `Invalid` `store.block.length` for blocks that are empty or larger than blocks may be.
    pub fn put(&self, blocks: &[NewBlock<'_>]) -> Result<PutCount> {
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
        let done = self.shared.put(blocks);
        if let Err(error) = &done {
            self.shared.fail(error);
        }
        self.shared.busy.fetch_sub(1, Ordering::AcqRel);
        done
    }

    /// Takes a point as base of new trees and pins it, so that what it holds cannot be collected
    /// while this writer lives.
    ///
    /// # Errors
    /// `NotFound` `store.point.not-found` where it is not there (any more); `Corrupt`.
    pub fn base(&self, point: PointId) -> Result<Point> {
        let inner = &self.shared.inner;
        let found = point::read(inner, point)?;
        for root in found.roots() {
            self.shared.member.pin(root)?;
        }
        // Looked for again after pinning: had it been deleted in between, a collector might have
        // seen neither the point nor the pin.
        point::read(inner, point)
    }

    /// Begins a tree of a disk of `size` bytes. Windows that are not set are taken from `base` (a
    /// root of a point given to [`Self::base`]), or are zero. Where the size changed, a last window
    /// whose length changed with it must be set.
    ///
    /// # Errors
    /// `Conflict` `store.tree.base-not-pinned`; `Limit` for sizes no disk has.
    pub fn tree(&self, size: ByteCount, base: Option<Root>) -> Result<TreeWriter> {
        if size.0 > base::limit::DISK_SIZE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "store.tree.size",
                format!("a disk of {size} is larger than any may be"),
            ));
        }
        let base = match base {
            None => None,
            Some(root) if self.shared.member.has_pin(&root) => {
                Some(self.shared.inner.root_record(&root)?)
            }
            Some(root) => {
                return Err(Error::new(
                    Kind::Conflict,
                    "store.tree.base-not-pinned",
                    format!("the tree {root} is of no point that this writer took as base"),
                ));
            }
        };
        Ok(TreeWriter::new(Arc::clone(&self.shared), size.0, base))
    }

    /// Cuts, names and stores a small file of the point.
    ///
    /// # Errors
    /// `Limit` `store.file.too-large`; those of [`Self::put`].
    pub fn put_file(&self, path: &str, bytes: &[u8]) -> Result<PointFile> {
        let size = ByteCount(bytes.len() as u64);
        if size.0 > base::limit::POINT_FILE_SIZE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "store.file.too-large",
                format!("the file \u{201c}{path}\u{201d} has {size}"),
            ));
        }
        let tree = self.tree(size, None)?;
        let window = self.cutter().parameters().window as usize;
        for (index, bytes) in bytes.chunks(window).enumerate() {
            tree.set_window(index as u64, &self.put_window(bytes)?)?;
        }
        Ok(PointFile {
            path: path.to_owned(),
            size,
            root: tree.finish()?,
            more: Default::default(),
        })
    }

    /// Cuts, names and stores the bytes of one window; its segments, for
    /// [`TreeWriter::set_window`]. The simple way, for those without a pipeline.
    pub fn put_window(&self, bytes: &[u8]) -> Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let mut blocks = Vec::new();
        for piece in self.cutter().cut(bytes) {
            let length = piece.range.len() as u32;
            let block = (!piece.zero).then(|| {
                let bytes = &bytes[piece.range];
                let id = self.cutter().block_id(bytes);
                blocks.push(NewBlock { id, bytes });
                id
            });
            segments.push(Segment { length, block });
        }
        self.put(&blocks)?;
        Ok(segments)
    }

    /// Makes all durable, then publishes the point; see the head of this file for the order.
    /// Before the last step nothing is visible. The writer can go on with another point.
    ///
    /// # Errors
    /// `Conflict` `store.writer.failed` after any failed put, `store.writer.busy` while puts are
    /// under way, `store.writer.fenced` where a collector took this writer for dead; `Invalid`
    /// `store.point.draft`; `Exists` `store.point.exists` where the id is taken; `Full`; `Io`.
    pub fn commit(&self, draft: PointDraft) -> Result<Point> {
        let shared = &*self.shared;
        shared.check_ready()?;
        shared.check_trees(&draft)?;
        point::check_draft(&draft)?;
        let done = shared.publish_point(draft);
        match done {
            Ok(point) => {
                shared.inner.blocks.reload()?;
                Ok(point)
            }
            Err(error) => {
                shared.fail(&error);
                Err(shared.explain(error))
            }
        }
    }

    /// Leaves without a point. What was put is removed by the next collect.
    pub fn abort(self) -> Result<()> {
        self.shared.member.leave()
    }
}

impl Shared {
    fn fail(&self, error: &Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| error.to_string());
    }

    fn check_ready(&self) -> Result<()> {
        if let Some(reason) = &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::new(
                Kind::Conflict,
                "store.writer.failed",
                format!("a part of this point could not be written: {reason}"),
            )
            .hint("begin with a new writer"));
        }
        if self.busy.load(Ordering::Acquire) > 0 {
            return Err(Error::new(
                Kind::Conflict,
                "store.writer.busy",
                "blocks are still being put while the point is to be published",
            ));
        }
        Ok(())
    }

    /// An error unless every tree of the draft was finished by this writer, with that size.
    fn check_trees(&self, draft: &PointDraft) -> Result<()> {
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let disks = draft
            .disks
            .iter()
            .map(|disk| (&disk.name, disk.root, disk.size));
        let files = draft
            .files
            .iter()
            .map(|file| (&file.path, file.root, file.size));
        for (name, root, size) in disks.chain(files) {
            if roots.get(&root) != Some(&size.0) {
                return Err(Error::invalid(
                    "store.point.draft",
                    format!("the tree of \u{201c}{name}\u{201d} was not written by this writer"),
                ));
            }
        }
        Ok(())
    }

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_segment(&self, segment: Arc<index::Segment>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        *index = Arc::new(index.with(segment));
    }

    /// Whether a block is in the repository or was put by this writer.
    fn has_block(&self, id: &BlockId) -> Result<bool> {
        if self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
        {
            return Ok(true);
        }
        self.index().has(Content::Data, id)
    }

    fn publish_point(&self, draft: PointDraft) -> Result<Point> {
        // 1. Data, then what finds it.
        self.finish_data()?;
        // 2. Trees, then what finds them.
        self.finish_trees()?;
        // 3. The point.
        let inner = &*self.inner;
        let files = &*inner.files;
        let point = self.point_of(draft);
        let bytes = record::write(
            &point,
            point::binding(inner.config.id, point.id),
            &inner.keys,
            inner.config.cipher,
            &*inner.environment.random,
        )?;
        let working = self.member.path(&format!("point-{}", point.id))?;
        write_synced(files, &working, &bytes)?;
        // The move out of our folder fails if a collector has fenced us: then nothing is visible.
        files
            .publish(&working, &layout::point(point.id)?)
            .map_err(|error| taken(point.id, error))?;
        files.sync_folder(&layout::folder("points")?)?;
        Ok(point)
    }

    fn point_of(&self, draft: PointDraft) -> Point {
        let environment = &self.inner.environment;
        let mut point = Point {
            id: draft.id,
            repository: self.inner.config.id,
            time: environment.clock.now(),
            machine: draft.machine,
            job: draft.job,
            session: draft.session,
            disks: draft.disks,
            files: draft.files,
            parent: draft.parent,
            consistency: draft.consistency,
            counters: draft.counters,
            notes: draft.notes,
            content: base::digest::Digest::default(),
            more: Default::default(),
        };
        point.counters.new = ByteCount(self.new_bytes.swap(0, Ordering::AcqRel));
        point.counters.stored = ByteCount(self.stored_bytes.swap(0, Ordering::AcqRel));
        point.content = point::content_digest(&self.inner.keys, &point);
        point
    }

    /// Says that the writer was fenced, where that is why its files are gone.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != Kind::NotFound {
            return error;
        }
        match self.inner.files.list(&self.member.folder) {
            Err(gone) if gone.kind() == Kind::NotFound => Error::new(
                Kind::Conflict,
                "store.writer.fenced",
                "a collector took this writer for dead, so its point was not published",
            )
            .hint("run the job again; does the file system keep locks of other hosts?")
            .caused_by(error),
            _ => error,
        }
    }

    /// Notes a finished tree.
    fn note_root(&self, root: Root, record: &RootRecord) {
        self.roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(root, record.size);
    }
}

/// Packs that the index lists and that are not there with their length: new trees must not rely on
/// them, whatever took them away. Their blocks are simply stored again.
fn unusable_packs(files: &dyn Files, index: &Index) -> Result<HashSet<PackId>> {
    let mut there: HashMap<PackId, u64> = HashMap::new();
    for content in Content::ALL {
        there.extend(packs_of(files, content)?);
    }
    let rows = index.segments.iter().flat_map(|segment| &segment.packs);
    Ok(rows
        .filter(|row| there.get(&row.id) != Some(&row.length))
        .map(|row| row.id)
        .collect())
}

/// Says that a point's id is taken, where that is why it was not published.
fn taken(id: PointId, error: Error) -> Error {
    if error.kind() != Kind::Exists {
        return error;
    }
    Error::new(
        Kind::Exists,
        "store.point.exists",
        format!("there is a point {id} already"),
    )
    .caused_by(error)
}
