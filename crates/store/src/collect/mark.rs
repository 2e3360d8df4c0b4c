//! Marking what is in use.
//!
//! Knows: a walk over all trees, each node once; which copy of a block counts where there are
//! several: one in a pack that is there and not retired, of those the one with the smallest id.
//! Refuses to know: what becomes of the rest.

use super::incomplete;
use crate::cut::Segment;
use crate::fields::malformed;
use crate::id::{BlockId, PackId, Root, SegmentId};
use crate::index::{Entry, Index, Marks};
use crate::layout::Content;
use crate::repository::Inner;
use crate::tree::{self, Node, Nodes, Visit};
use base::{Error, Result};
use std::collections::{HashMap, HashSet};

/// Marks what roots hold.
pub(super) struct Marker<'a> {
    inner: &'a Inner,
    index: Index,
    present: HashSet<PackId>,
    marks: Marks,
    /// Frames in use, by pack: where each begins, and its bytes.
    live: HashMap<PackId, HashMap<u32, u32>>,
}

impl<'a> Marker<'a> {
    pub(super) fn new(inner: &'a Inner, index: Index, present: HashSet<PackId>) -> Result<Self> {
        inner.blocks.set_index(index.clone());
        let (marks, live) = (Marks::default(), HashMap::new());
        Ok(Self {
            inner,
            index,
            present,
            marks,
            live,
        })
    }

    /// Goes on with a newer index, and forgets which packs were needed, not what was visited.
    pub(super) fn renew(&mut self, index: Index, present: HashSet<PackId>) {
        self.inner.blocks.set_index(index.clone());
        self.index = index;
        self.present = present;
        self.live.clear();
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    /// Blocks and nodes marked.
    pub(super) fn count(&self) -> u64 {
        self.marks.count()
    }

    /// Bytes of a pack's frames in use.
    pub(super) fn live_bytes(&self, pack: &PackId) -> u64 {
        let frames = self.live.get(pack);
        frames.map_or(0, |frames| {
            frames.values().map(|length| u64::from(*length)).sum()
        })
    }

    /// Where the frames in use of a pack begin, and their bytes, in order.
    pub(super) fn live_frames(&self, pack: &PackId) -> Vec<(u32, u32)> {
        let frames = self.live.get(pack);
        let mut frames: Vec<(u32, u32)> = frames.map_or_else(Vec::new, |frames| {
            frames.iter().map(|(a, b)| (*a, *b)).collect()
        });
        frames.sort_unstable();
        frames
    }

    /// Marks all that a root holds.
    pub(super) fn root(&mut self, root: &Root) -> Result<()> {
        if !self.mark(Content::Tree, &root.block())? {
            return Ok(());
        }
        let node = self.inner.blocks.node(&root.block());
        let record = match node.as_deref() {
            Ok(Node::Root(record)) => *record,
            Ok(_) => {
                let error = malformed("a tree", "its root is not a root");
                return Err(incomplete(format!("the tree {root}"), &error));
            }
            Err(error) => return Err(incomplete(format!("the tree {root}"), error)),
        };
        let inner = self.inner;
        tree::walk(&inner.blocks, &record, self)
    }

    /// Marks a block; false where it was marked before.
    fn mark(&mut self, content: Content, id: &BlockId) -> Result<bool> {
        let Some(best) = self.best_copy(content, id)? else {
            return self.mark_orphan(content, id);
        };
        let fresh = self.marks.set(best.segment, best.count, best.number);
        if fresh {
            let frames = self.live.entry(best.pack).or_default();
            frames.insert(best.entry.offset, best.entry.length);
        }
        Ok(fresh)
    }

    fn best_copy(&self, content: Content, id: &BlockId) -> Result<Option<Copy>> {
        let mut best: Option<Copy> = None;
        for segment in self
            .index
            .segments
            .iter()
            .filter(|segment| segment.content == content)
        {
            let located = segment
                .locate(id)
                .map_err(|error| incomplete(format!("index segment {}", segment.id), &error))?;
            let Some((number, entry)) = located else {
                continue;
            };
            let pack = segment.pack(&entry)?.id;
            if !self.present.contains(&pack) {
                continue;
            }
            let retired = self.index.retired.contains(&pack);
            let copy = Copy {
                retired,
                pack,
                segment: segment.id,
                count: segment.count,
                number,
                entry,
            };
            let better = best
                .as_ref()
                .is_none_or(|best| (copy.retired, copy.pack) < (best.retired, best.pack));
            if better {
                best = Some(copy);
            }
        }
        Ok(best)
    }

    /// A block that only a pack without a segment has (on a dry run; otherwise there are none).
    fn mark_orphan(&mut self, content: Content, id: &BlockId) -> Result<bool> {
        match self.index.find(content, id)? {
            Some(place) if self.present.contains(&place.pack) => {
                let frames = self.live.entry(place.pack).or_default();
                Ok(frames.insert(place.offset, place.length).is_none())
            }
            _ => {
                let error = malformed("the repository", "no pack has it");
                Err(incomplete(format!("the block {id}"), &error))
            }
        }
    }
}

/// One of the places a block lies in.
struct Copy {
    retired: bool,
    pack: PackId,
    segment: SegmentId,
    count: u64,
    number: u64,
    entry: Entry,
}

impl Visit for Marker<'_> {
    fn enter(&mut self, id: &BlockId) -> Result<bool> {
        self.mark(Content::Tree, id)
    }

    fn leaf(&mut self, _: u64, segments: &[Segment]) -> Result<()> {
        for id in segments.iter().filter_map(|segment| segment.block.as_ref()) {
            self.mark(Content::Data, id)?;
        }
        Ok(())
    }

    fn broken(&mut self, first: u64, _: u64, error: Error) -> Result<()> {
        Err(incomplete(format!("a tree at window {first}"), &error))
    }
}
