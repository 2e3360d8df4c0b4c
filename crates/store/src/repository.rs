//! A repository, open.
//!
//! Knows: how to make one, open one, list its points and read from them.
//! Refuses to know: which file system holds it; how points are made ([`crate::writer`]) and how
//! room is freed ([`crate::collect`]).

use crate::blocks::{self, Blocks};
use crate::collect_state;
use crate::config::{self, Config};
use crate::cut::{CutParameters, Cutter, Segment};
use crate::fields::malformed;
use crate::id::{BlockId, Root};
use crate::index::{self, Index};
use crate::key::KeySet;
use crate::key::slot::{Cost, Password, Slot};
use crate::layout::{self, Content};
use crate::membership::Membership;
use crate::point::{self, Point};
use crate::publish::remove_if_there;
use crate::reader::DiskReader;
use crate::report::PointList;
use crate::reserve;
use crate::seal::Cipher;
use crate::tree::{self, Node, Nodes, RootRecord};
use crate::writer::{Writer, WriterOptions};
use base::clock::{Clock, Timestamp};
use base::files::{Files, Path};
use base::id::{PointId, RepositoryId};
use base::random::Random;
use base::size::{ByteCount, ByteRange, MIB};
use base::{Error, Kind, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// The doors a repository uses besides its files.
#[derive(Clone)]
pub struct Environment {
    /// The clock: labels points, decides nothing.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys, salts and ids.
    pub random: Arc<dyn Random>,
}

/// How to make a repository.
#[derive(Clone)]
pub struct CreateOptions {
    /// Encrypt with keys behind this password; without one nothing is hidden.
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

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            password: None,
            cut: CutParameters::default(),
            pack_size: ByteCount(32 * MIB),
            reserve: None,
            argon_memory_kib: 64 * 1024,
            argon_passes: 3,
        }
    }
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

/// What all parts of an open repository share.
pub(crate) struct Inner {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    pub(crate) keys: KeySet,
    encrypted: bool,
    pub(crate) blocks: Blocks,
    /// Our folder among the readers, made when something is first read.
    reader: Mutex<Option<Arc<Membership>>>,
}

/// A repository, open. Cheap to clone; clones share caches.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.id())
    }
}

impl Repository {
    /// Makes a repository in an empty folder and opens it.
    ///
    /// # Errors
    /// `Exists` `store.repository.exists` where there is one already; `Conflict`
    /// `store.repository.folder-not-empty` where other files are there; `Invalid` for options that
    /// make no sense.
    pub fn create(
        files: Arc<dyn Files>,
        environment: Environment,
        options: &CreateOptions,
    ) -> Result<Self> {
        options.cut.check()?;
        prepare_folder(&*files)?;
        let random = &*environment.random;
        let id = RepositoryId::generate(&*environment.clock, random);
        let keys = KeySet::generate(random);
        let (cipher, slot) = match &options.password {
            None => (Cipher::None, Slot::Open { keys: keys.clone() }),
            Some(password) => {
                let cost = Cost {
                    memory_kib: options.argon_memory_kib,
                    passes: options.argon_passes,
                };
                (
                    Cipher::Aes256Gcm,
                    Slot::wrap(&keys, password, cost, id, random)?,
                )
            }
        };
        let reserve = match options.reserve {
            Some(bytes) => bytes,
            None => ByteCount((files.space()?.total.0 / 100).min(256 * MIB)),
        };
        let created = environment.clock.now();
        let config = Config::new(id, created, cipher, options.cut, options.pack_size, reserve);
        layout::make_folders(&*files)?;
        files.sync_folder(&Path::root())?;
        files.sync_folder(&layout::folder("packs")?)?;
        reserve::fill(&*files, random, reserve)?;
        config::publish(&*files, &config, &keys, &slot)?;
        Self::assemble(files, environment, config, keys, options.password.is_some())
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
        let (config, keys, open) = config::open(&*files, password)?;
        Self::assemble(files, environment, config, keys, !open)
    }

    fn assemble(
        files: Arc<dyn Files>,
        environment: Environment,
        config: Config,
        keys: KeySet,
        encrypted: bool,
    ) -> Result<Self> {
        let cutter = keys.cutter(config.cut)?;
        let index = load_index(&*files, &config, &keys)?;
        let blocks = Blocks::new(
            Arc::clone(&files),
            config.id,
            config.cipher,
            keys.clone(),
            cutter,
            index,
        );
        let reader = Mutex::new(None);
        let inner = Inner {
            files,
            environment,
            config,
            keys,
            encrypted,
            blocks,
            reader,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.inner.config.id
    }

    /// What it says of itself, with sizes counted now.
    pub fn info(&self) -> Result<Info> {
        let inner = &self.inner;
        let (mut bytes, mut count) = (0, 0);
        for content in Content::ALL {
            for (_, length) in blocks::packs_of(&*inner.files, content)? {
                bytes += length;
                count += 1;
            }
        }
        let seen = inner.blocks.index();
        let index = load_index(&*inner.files, &inner.config, &inner.keys)
            .unwrap_or_else(|_| (*seen).clone());
        Ok(Info {
            id: self.id(),
            created: inner.config.created,
            format: format!("{}.{}", inner.config.major, inner.config.minor),
            encrypted: inner.encrypted,
            cut: inner.config.cut,
            packs: ByteCount(bytes),
            pack_count: count,
            index: index
                .segments
                .iter()
                .map(|segment| ByteCount(segment.length))
                .sum(),
            blocks: index.entries(),
        })
    }

    /// What cuts and names blocks as this repository does.
    pub fn cutter(&self) -> Cutter {
        self.inner.blocks.cutter().clone()
    }

    /// All points, oldest first, and those that cannot be read.
    pub fn points(&self) -> Result<PointList> {
        point::list(&self.inner)
    }

    /// The ids of all points in their order, without a look into them: some may be damaged, or gone
    /// when they are opened.
    ///
    /// # Errors
    /// `Io`.
    pub fn point_ids(&self) -> Result<Vec<PointId>> {
        point::ids(&self.inner)
    }

    /// One point.
    ///
    /// # Errors
    /// `NotFound` `store.point.not-found`; `Corrupt` where its record is damaged.
    pub fn point(&self, id: PointId) -> Result<Point> {
        point::read(&self.inner, id)
    }

    /// Opens a disk of a point for reading. While the reader lives the disk's blocks are pinned,
    /// even if the point is deleted.
    ///
    /// # Errors
    /// `NotFound` where the point or the disk is not there (any more).
    pub fn open_disk(&self, point: &Point, name: &str) -> Result<DiskReader> {
        let disk = point.disk(name)?;
        DiskReader::open(&self.inner, point.id, disk.root, disk.size)
    }

    /// Reads a file of a point.
    ///
    /// # Errors
    /// `NotFound` where the point or the file is not there (any more); `Limit` where it is larger
    /// than files of points may be.
    pub fn read_file(&self, point: &Point, path: &str) -> Result<Vec<u8>> {
        let reader = self.open_file(point, path)?;
        let mut bytes = vec![0; base::block::BlockRead::size(&reader).as_usize()?];
        base::block::BlockRead::read_at(&reader, base::size::ByteOffset::ZERO, &mut bytes)?;
        Ok(bytes)
    }

    /// Opens a small file of a point for reading in pieces.
    ///
    /// # Errors
    /// `NotFound`; `Limit` (`store.file.too-large`); `Corrupt`.
    pub fn open_file(&self, point: &Point, path: &str) -> Result<DiskReader> {
        let file = point.file(path)?;
        if file.size.0 > base::limit::POINT_FILE_SIZE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "store.file.too-large",
                format!("the file \u{201c}{path}\u{201d} has {}", file.size),
            ));
        }
        DiskReader::open(&self.inner, point.id, file.root, file.size)
    }

    /// The segments of one window of a tree; empty where the window is zero.
    pub fn window(&self, root: &Root, index: u64) -> Result<Vec<Segment>> {
        let record = self.inner.root_record(root)?;
        tree::leaf_of(&self.inner.blocks, &record, index)
    }

    /// Reads a block of data into a buffer of exactly its length. Its id was checked.
    ///
    /// # Errors
    /// `Corrupt` where it is missing or damaged; `Invalid` where the buffer has another length.
    pub fn read_block(&self, id: &BlockId, buffer: &mut [u8]) -> Result<()> {
        let block = self.inner.blocks.read(Content::Data, id)?;
        if block.len() != buffer.len() {
            return Err(Error::invalid(
                "store.block.length",
                format!(
                    "a block of {} bytes was read as one of {}",
                    block.len(),
                    buffer.len()
                ),
            ));
        }
        buffer.copy_from_slice(&block);
        Ok(())
    }

    /// The ranges in which two contents differ (whole segments; the longer tail differs), in order.
    /// Visits only what differs.
    pub fn diff(&self, a: &Root, b: &Root) -> Result<Vec<ByteRange>> {
        if a == b {
            return Ok(Vec::new());
        }
        let (a, b) = (self.inner.root_record(a)?, self.inner.root_record(b)?);
        tree::diff(&self.inner.blocks, &a, &b)
    }

    /// Joins the repository as a writer. Any number may write at once.
    pub fn writer(&self, options: WriterOptions) -> Result<Writer> {
        Writer::join(&self.inner, options)
    }

    /// Deletes a point. Its bytes come free with the next collect.
    ///
    /// Works on a full disk too: the reserve is given up for it.
    ///
    /// # Errors
    /// `NotFound` `store.point.not-found`.
    pub fn delete_point(&self, id: PointId) -> Result<()> {
        let files = &*self.inner.files;
        self.inner.config.check_writable()?;
        let (from, to) = (layout::point(id)?, layout::deleted(id)?);
        reserve::with(files, || {
            match files.publish(&from, &to) {
                Ok(()) => {}
                // Deleted before and somehow published again: the older record has no meaning.
                Err(error) if error.kind() == Kind::Exists => {
                    remove_if_there(files, &from)?;
                }
                Err(error) if error.kind() == Kind::NotFound => return Err(point::not_found(id)),
                Err(error) => return Err(error),
            }
            files.sync_folder(&layout::folder("deleted")?)?;
            files.sync_folder(&layout::folder("points")?)
        })
    }
}

/// An error unless a repository can be made here. What a creation that was cut off left behind is
/// taken over.
fn prepare_folder(files: &dyn Files) -> Result<()> {
    for entry in files.list(&Path::root())? {
        let name = entry.name.as_str();
        if layout::CONFIG.contains(&name) {
            return Err(Error::new(
                Kind::Exists,
                "store.repository.exists",
                "there is a repository in this folder already",
            )
            .hint("open it, or choose an empty folder"));
        }
        let ours = layout::FOLDERS.contains(&name)
            || name == layout::RESERVE
            || layout::CONFIG
                .iter()
                .any(|config| name == format!("{config}.new"));
        if !ours {
            return Err(Error::new(
                Kind::Conflict,
                "store.repository.folder-not-empty",
                format!("the folder holds \u{201c}{name}\u{201d}, which is not of a repository"),
            )
            .hint("choose an empty folder"));
        }
        if !entry.is_folder {
            files.remove(&Path::new(name)?)?;
        }
    }
    let keys = Path::new("keys")?;
    match files.list(&keys) {
        Ok(entries) => {
            for entry in entries {
                files.remove(&keys.join(&entry.name)?)?;
            }
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The index as it is now. First the state of collection, then the segments: see
/// [`crate::collect`] for why this order.
pub(crate) fn load_index(files: &dyn Files, config: &Config, keys: &KeySet) -> Result<Index> {
    let retired = match collect_state::read(files, config.id, keys, config.cipher) {
        Ok(state) => state.packs(),
        // Reading needs no state; writers ask for it themselves and refuse without.
        Err(error) if error.kind() == Kind::Corrupt => Default::default(),
        Err(error) => return Err(error),
    };
    let loaded = index::load(files, config.id, &[])?;
    Ok(Index::new(loaded.segments, retired))
}

impl Inner {
    /// The record of a root.
    pub(crate) fn root_record(&self, root: &Root) -> Result<RootRecord> {
        match &*self.blocks.node(&root.block())? {
            Node::Root(record) if record.window == self.config.cut.window => Ok(*record),
            _ => Err(malformed(
                "a tree",
                "its root is not a root of this repository",
            )),
        }
    }

    /// Our folder among the readers. `None` where we cannot have one: on a read-only medium nobody
    /// collects, and on a full disk reading must go on; there a collect at the same time may end
    /// the reading with an error, never with wrong bytes.
    pub(crate) fn reader(self: &Arc<Self>) -> Result<Option<Arc<Membership>>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = &*reader {
            return Ok(Some(Arc::clone(member)));
        }
        match Membership::join(&self.files, "readers", &self.environment) {
            Ok(member) => {
                let member = Arc::new(member);
                *reader = Some(Arc::clone(&member));
                Ok(Some(member))
            }
            Err(error) if may_read_unpinned(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether failing to pin for this reason does not hinder reading.
pub(crate) fn may_read_unpinned(error: &Error) -> bool {
    matches!(error.kind(), Kind::Denied | Kind::Full | Kind::Io)
}
