//! Reading blocks: from an id to checked plain bytes.
//!
//! Knows: the way over index, pack and frame, a bounded cache, and what to try before something is
//! called lost: read again, look at the index again, look into packs that no index lists.
//! Refuses to know: what the blocks mean.

mod cache;

use crate::cut::Cutter;
use crate::fields::malformed;
use crate::frame::{self, Codecs, Header};
use crate::id::{BlockId, PackId};
use crate::index::{self, Index, Place};
use crate::key::{KeySet, NODE_ID};
use crate::layout::{self, Content};
use crate::limit::{
    FRAME_CACHE_BYTES, FRAME_STORED_MAX, NODE_CACHE_BYTES, NODE_SIZE_MAX, OPEN_PACKS_MAX,
};
use crate::pack;
use crate::seal::Cipher;
use crate::tree::{Node, Nodes};
use base::files::{FileRead, Files, Path};
use base::id::RepositoryId;
use base::size::ByteOffset;
use base::{Error, Kind, Result};
use cache::Cache;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A frame's plain bytes, every block checked against its id.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    /// Where each block begins, and the end.
    starts: Vec<usize>,
    header: Header,
}

impl Frame {
    /// Its blocks, as its header lists them.
    pub(crate) fn rows(&self) -> &[frame::Row] {
        &self.header.rows
    }

    /// The block at a position.
    fn block(&self, position: usize) -> Option<&[u8]> {
        let (start, end) = (*self.starts.get(position)?, *self.starts.get(position + 1)?);
        self.bytes.get(start..end)
    }
}

/// A block's plain bytes, inside their frame.
pub(crate) struct Block {
    frame: Arc<Frame>,
    position: usize,
}

impl std::ops::Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.frame.block(self.position).unwrap_or(&[])
    }
}

/// Reads blocks of one repository. Shared by all its readers.
pub(crate) struct Blocks {
    files: Arc<dyn Files>,
    repository: RepositoryId,
    cipher: Cipher,
    keys: KeySet,
    cutter: Cutter,
    node_key: [u8; 32],
    codecs: Codecs,
    index: RwLock<Arc<Index>>,
    frames: Mutex<Cache<(PackId, u32), Arc<Frame>>>,
    nodes: Mutex<Cache<BlockId, Arc<Node>>>,
    packs: Mutex<Cache<PackId, Arc<dyn FileRead>>>,
    /// Held while the index is looked at again, so that threads do not do it at once.
    refreshing: Mutex<()>,
}

impl Blocks {
    pub(crate) fn new(
        files: Arc<dyn Files>,
        repository: RepositoryId,
        cipher: Cipher,
        keys: KeySet,
        cutter: Cutter,
        index: Index,
    ) -> Self {
        let node_key = keys.lasting(NODE_ID);
        Self {
            files,
            repository,
            cipher,
            keys,
            cutter,
            node_key,
            codecs: Codecs::default(),
            index: RwLock::new(Arc::new(index)),
            frames: Mutex::new(Cache::new(FRAME_CACHE_BYTES)),
            nodes: Mutex::new(Cache::new(NODE_CACHE_BYTES)),
            packs: Mutex::new(Cache::new(OPEN_PACKS_MAX)),
            refreshing: Mutex::new(()),
        }
    }

    pub(crate) const fn codecs(&self) -> &Codecs {
        &self.codecs
    }

    pub(crate) const fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// The index as this reader sees it now.
    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a newer view of the index in place and forgets open packs.
    pub(crate) fn set_index(&self, index: Index) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        self.packs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The id of a tree node.
    pub(crate) fn node_id(&self, bytes: &[u8]) -> BlockId {
        BlockId::from_bytes(*blake3::keyed_hash(&self.node_key, bytes).as_bytes())
    }

    fn id_of(&self, content: Content, bytes: &[u8]) -> BlockId {
        match content {
            Content::Data => self.cutter.block_id(bytes),
            Content::Tree => self.node_id(bytes),
        }
    }

    /// Reads a block.
    ///
    /// # Errors
    /// `Corrupt` `store.block.missing` where no pack has it, or why its frame cannot be read.
    pub(crate) fn read(&self, content: Content, id: &BlockId) -> Result<Block> {
        let seen = self.index();
        let first = match self.read_by(&seen, content, id) {
            Ok(Some(block)) => return Ok(block),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if first
            .as_ref()
            .is_some_and(|error| !worth_another_look(error))
        {
            return Err(first.unwrap_or_else(|| missing(content, id)));
        }
        // Collect may have moved the block since our view of the index, or a segment is lost.
        let newer = self.refresh(&seen)?;
        match self.read_by(&newer, content, id)? {
            Some(block) => Ok(block),
            None => Err(first.unwrap_or_else(|| missing(content, id))),
        }
    }

    /// Reads a block where a view of the index says that it lies; `None` where it names no place.
    /// There may be several: a writer that finds a pack damaged stores its blocks once more.
    fn read_by(&self, index: &Index, content: Content, id: &BlockId) -> Result<Option<Block>> {
        let Some(place) = index.find(content, id)? else {
            return Ok(None);
        };
        let error = match self.read_place(&place, id) {
            Ok(block) => return Ok(Some(block)),
            Err(error) => error,
        };
        if worth_another_look(&error) || error.kind() == Kind::Io {
            let others = index.places(content, id);
            for other in others.iter().filter(|other| **other != place) {
                if let Ok(block) = self.read_place(other, id) {
                    return Ok(Some(block));
                }
            }
        }
        Err(error)
    }

    fn read_place(&self, place: &Place, id: &BlockId) -> Result<Block> {
        let frame = self.frame(place)?;
        let position = usize::from(place.position);
        if frame.header.content != place.content
            || frame
                .header
                .rows
                .get(position)
                .is_none_or(|row| row.id != *id)
        {
            return Err(malformed(
                "an index entry",
                "another block lies where it points",
            ));
        }
        Ok(Block { frame, position })
    }

    fn frame(&self, place: &Place) -> Result<Arc<Frame>> {
        let key = (place.pack, place.offset);
        if let Some(frame) = self
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(frame);
        }
        let frame = match self.load_frame(place) {
            // Once more, before the medium is accused of what the way from it may have done.
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Io) => {
                self.packs
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&place.pack);
                self.load_frame(place)?
            }
            other => other?,
        };
        let frame = Arc::new(frame);
        self.frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(key, Arc::clone(&frame), frame.bytes.len());
        Ok(frame)
    }

    fn load_frame(&self, place: &Place) -> Result<Frame> {
        let length = place.length as usize;
        if length > FRAME_STORED_MAX {
            return Err(malformed("an index entry", "its frame is too long"));
        }
        let file = self.open_pack(place.content, &place.pack)?;
        let mut bytes = vec![0; length];
        let named = |error: Error| error.context(format!("reading pack {}", place.pack.0.short()));
        file.read_at(ByteOffset(u64::from(place.offset)), &mut bytes)
            .map_err(named)?;
        self.open_frame(&bytes).map_err(named)
    }

    /// Opens a frame and checks the id of every block in it.
    pub(crate) fn open_frame(&self, bytes: &[u8]) -> Result<Frame> {
        let header = Header::parse(bytes)?;
        let sealed = bytes
            .get(frame::header_length(header.rows.len())..)
            .filter(|sealed| sealed.len() == header.sealed as usize)
            .ok_or_else(|| malformed("a frame", "its length is wrong"))?;
        let bytes = frame::open(
            &header,
            sealed,
            self.repository,
            self.cipher,
            &self.keys,
            &self.codecs,
        )?;
        let mut starts = vec![0];
        let mut at = 0;
        for row in &header.rows {
            let end = at + row.length as usize;
            let block = bytes
                .get(at..end)
                .ok_or_else(|| malformed("a frame", "its lengths"))?;
            if self.id_of(header.content, block) != row.id {
                return Err(Error::corrupt(
                    "store.block.id-mismatch",
                    format!("the block {} has other bytes than its id says", row.id),
                ));
            }
            starts.push(end);
            at = end;
        }
        Ok(Frame {
            bytes,
            starts,
            header,
        })
    }

    fn open_pack(&self, content: Content, id: &PackId) -> Result<Arc<dyn FileRead>> {
        if let Some(file) = self
            .packs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
        {
            return Ok(file);
        }
        let file = self.files.open(&layout::pack(content, id)?)?;
        self.packs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(*id, Arc::clone(&file), 1);
        Ok(file)
    }

    /// Looks at the index folder again.
    pub(crate) fn reload(&self) -> Result<()> {
        let now = self.index();
        let loaded = index::load(&*self.files, self.repository, &now.segments)?;
        self.set_index(Index::new(loaded.segments, (*now.retired).clone()));
        Ok(())
    }

    /// Looks at the index folder again, and into packs that no segment lists. Does nothing where
    /// another thread has done so since `seen`.
    pub(crate) fn refresh(&self, seen: &Arc<Index>) -> Result<Arc<Index>> {
        let _one_at_a_time = self
            .refreshing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.index();
        if !Arc::ptr_eq(&now, seen) {
            return Ok(now);
        }
        let suspects = now.suspects();
        let loaded = index::load(&*self.files, self.repository, &now.segments)?;
        // What a damaged segment lists is found by its packs, as if it were not there.
        let sound = loaded
            .segments
            .into_iter()
            .filter(|segment| !suspects.contains(&segment.id));
        let index = Index::new(sound.collect(), (*now.retired).clone());
        let listed = index.listed_packs();
        let orphans = unlisted_packs(&*self.files, &listed)?;
        self.set_index(if orphans.is_empty() {
            index
        } else {
            index.with_orphans(&orphans)
        });
        Ok(self.index())
    }
}

/// Whether looking at the index again can help.
fn worth_another_look(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Corrupt)
}

fn missing(content: Content, id: &BlockId) -> Error {
    let what = match content {
        Content::Data => "block",
        Content::Tree => "tree node",
    };
    Error::corrupt(
        "store.block.missing",
        format!("the {what} {id} is in no pack"),
    )
    .hint("run verify to see what is affected; another copy of the repository may have it")
}

/// What lies in packs that no segment lists. Packs that cannot be read are left out: verify names
/// them.
pub(crate) fn unlisted_packs(
    files: &dyn Files,
    listed: &HashSet<PackId>,
) -> Result<Vec<(PackId, pack::Listed)>> {
    let mut found = Vec::new();
    for content in Content::ALL {
        for (id, _) in packs_of(files, content)? {
            if listed.contains(&id) {
                continue;
            }
            match files
                .open(&layout::pack(content, &id)?)
                .and_then(|f| pack::list_frames(&*f))
            {
                Ok(frames) if frames.header.content == content => found.push((id, frames)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// All packs of a kind, with their lengths, in the order of their ids.
pub(crate) fn packs_of(files: &dyn Files, content: Content) -> Result<Vec<(PackId, u64)>> {
    let mut packs = Vec::new();
    let folder = Path::new(content.folder())?;
    for part in files
        .list(&folder)?
        .into_iter()
        .filter(|entry| entry.is_folder)
    {
        for entry in files.list(&folder.join(&part.name)?)? {
            if let Ok(id) = entry.name.parse::<PackId>()
                && !entry.is_folder
                && entry.name.starts_with(&part.name)
            {
                packs.push((id, entry.length.0));
            }
        }
    }
    Ok(packs)
}

impl Nodes for Blocks {
    fn node(&self, id: &BlockId) -> Result<Arc<Node>> {
        if let Some(node) = self
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
        {
            return Ok(node);
        }
        let block = self.read(Content::Tree, id)?;
        if block.len() > NODE_SIZE_MAX {
            return Err(malformed("a tree node", "it is too long"));
        }
        let node = Arc::new(Node::parse(&block)?);
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(*id, Arc::clone(&node), block.len() * 2);
        Ok(node)
    }
}
