//! Writing a tree.
//!
//! Knows: windows in any order, inner nodes as soon as all below them is known, and what to take
//! from the base. Memory grows with the groups of windows that are begun and not complete.
//! Refuses to know: how nodes are stored.

use super::Shared;
use crate::cut::Segment;
use crate::id::{BlockId, Root};
use crate::tree::{
    FAN_OUT, Node, Nodes, RootRecord, check_leaf, inner_bytes, leaf_bytes, leaf_of, levels_for,
};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A tree being written. Windows may be set in any order from many threads, each once.
pub struct TreeWriter {
    shared: Arc<Shared>,
    record: RootRecord,
    base: Option<RootRecord>,
    state: Mutex<State>,
}

impl std::fmt::Debug for TreeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TreeWriter({})", self.size())
    }
}

/// A child of a node being written: not known yet, or zero, or a node.
type Child = Option<Option<BlockId>>;

#[derive(Default)]
struct State {
    /// By level and place: nodes some of whose children are known.
    begun: BTreeMap<(u8, u64), Vec<Child>>,
    /// Groups of windows (places on level 1) that are complete.
    complete: HashSet<u64>,
    /// The top node, once known.
    top: Child,
}

impl TreeWriter {
    pub(super) fn new(shared: Arc<Shared>, size: u64, base: Option<RootRecord>) -> Self {
        let window = shared.inner.config.cut.window;
        let mut record = RootRecord {
            levels: 0,
            window,
            size,
            top: None,
        };
        record.levels = levels_for(record.windows());
        Self {
            shared,
            record,
            base,
            state: Mutex::default(),
        }
    }

    /// Bytes of the disk.
    pub const fn size(&self) -> ByteCount {
        ByteCount(self.record.size)
    }

    /// How many windows the disk has.
    pub const fn window_count(&self) -> u64 {
        self.record.windows()
    }

    /// Bytes of window `index`.
    pub fn window_length(&self, index: u64) -> u32 {
        self.record.window_length(index)
    }

    /// The segments of a window in the base; empty where it is zero there or there is no base.
    pub fn base_window(&self, index: u64) -> Result<Vec<Segment>> {
        match &self.base {
            Some(base) if index < base.windows() => leaf_of(&self.shared.inner.blocks, base, index),
            _ => Ok(Vec::new()),
        }
    }

    /// Sets a window: segments that cover it, in order; every block must be there already.
    ///
    /// # Errors
    /// `Invalid` `store.leaf.malformed` where lengths do not fit; `NotFound` `store.block.unknown`
    /// where a block is neither in the repository nor was put; `Conflict` `store.tree.window-twice`.
    pub fn set_window(&self, index: u64, segments: &[Segment]) -> Result<()> {
        if index >= self.window_count() {
            return Err(Error::invalid(
                "store.tree.window-outside",
                format!(
                    "window {index} of a disk of {} windows",
                    self.window_count()
                ),
            ));
        }
        let zero = segments.iter().all(|segment| segment.block.is_none());
        let id = if zero {
            None
        } else {
            check_leaf(segments, self.window_length(index))?;
            self.check_blocks(index, segments)?;
            Some(self.shared.put_node(&leaf_bytes(segments))?)
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.complete.contains(&(index / FAN_OUT)) {
            return Err(window_twice(index));
        }
        self.set_child(&mut state, 1, index, id)
    }

    /// An error unless all blocks are there. Those of the base's window are: they are pinned.
    fn check_blocks(&self, index: u64, segments: &[Segment]) -> Result<()> {
        let mut base: Option<HashSet<BlockId>> = None;
        for id in segments.iter().filter_map(|segment| segment.block.as_ref()) {
            if self.shared.has_block(id)? {
                continue;
            }
            if base.is_none() {
                let segments = self.base_window(index)?;
                base = Some(
                    segments
                        .iter()
                        .filter_map(|segment| segment.block)
                        .collect(),
                );
            }
            if !base.as_ref().is_some_and(|base| base.contains(id)) {
                return Err(Error::new(
                    Kind::NotFound,
                    "store.block.unknown",
                    format!("window {index} needs the block {id}, which nobody stored"),
                ));
            }
        }
        Ok(())
    }

    /// Notes the child at `place` of the level below `level`; writes the node above it where that
    /// is complete.
    fn set_child(
        &self,
        state: &mut State,
        level: u8,
        place: u64,
        child: Option<BlockId>,
    ) -> Result<()> {
        if level > self.record.levels {
            if state.top.is_some() {
                return Err(window_twice(place));
            }
            state.top = Some(child);
            return Ok(());
        }
        let parent = place / FAN_OUT;
        let expected = self.children_of(level, parent);
        let children = state
            .begun
            .entry((level, parent))
            .or_insert_with(|| vec![None; expected]);
        match children.get_mut((place % FAN_OUT) as usize) {
            Some(slot @ None) => *slot = Some(child),
            _ => return Err(window_twice(place)),
        }
        if children.iter().any(Option::is_none) {
            return Ok(());
        }
        let children = state.begun.remove(&(level, parent)).unwrap_or_default();
        if level == 1 {
            state.complete.insert(parent);
        }
        let node = self.write_inner(level, &children)?;
        self.set_child(state, level + 1, parent, node)
    }

    /// How many children the node at a place has, if all were there.
    fn children_of(&self, level: u8, place: u64) -> usize {
        let below = self
            .window_count()
            .div_ceil(FAN_OUT.saturating_pow(u32::from(level) - 1));
        below.saturating_sub(place * FAN_OUT).min(FAN_OUT) as usize
    }

    fn write_inner(&self, level: u8, children: &[Child]) -> Result<Option<BlockId>> {
        let there: Vec<(u8, BlockId)> = children
            .iter()
            .enumerate()
            .filter_map(|(place, child)| child.flatten().map(|id| (place as u8, id)))
            .collect();
        if there.is_empty() {
            return Ok(None);
        }
        self.shared.put_node(&inner_bytes(level, &there)).map(Some)
    }

    /// Writes the inner nodes; the root.
    ///
    /// # Errors
    /// `Conflict` `store.tree.window-unset` where the size changed, and with it the length of a
    /// window that was not set.
    pub fn finish(self) -> Result<Root> {
        let mut state =
            std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(base) = self.base {
            self.settle_border(&mut state, &base)?;
        }
        for level in 1..=self.record.levels {
            while let Some((place, mut children)) = take_first(&mut state, level) {
                let base = self.base_children(level, place)?;
                for (at, child) in children.iter_mut().enumerate() {
                    if child.is_none() {
                        let known = base.binary_search_by_key(&(at as u8), |(place, _)| *place);
                        *child = Some(known.ok().map(|at| base[at].1));
                    }
                }
                let node = self.write_inner(level, &children)?;
                self.set_child(&mut state, level + 1, place, node)?;
            }
        }
        let mut record = self.record;
        record.top = match state.top {
            Some(top) => top,
            None => self.base.as_ref().and_then(|base| base.top),
        };
        let root = Root(self.shared.put_node(&record.bytes())?.0);
        self.shared.note_root(root, &record);
        Ok(root)
    }

    /// Where the base has another size: makes sure that the nodes on the border are written anew,
    /// and that a window whose length changed was set.
    fn settle_border(&self, state: &mut State, base: &RootRecord) -> Result<()> {
        if base.size == self.record.size {
            return Ok(());
        }
        let (windows, base_windows) = (self.window_count(), base.windows());
        if windows == 0 || base_windows == 0 {
            // Nothing of the base is left, or nothing was in it.
            state.top.get_or_insert(None);
            return Ok(());
        }
        let border = windows.min(base_windows) - 1;
        let changed = base.window_length(border) != self.record.window_length(border);
        if changed && !self.is_set(state, border) && !self.base_window(border)?.is_empty() {
            return Err(Error::new(
                Kind::Conflict,
                "store.tree.window-unset",
                format!("the disk's size changed inside window {border}, which was not set"),
            ));
        }
        if self.record.levels == 0 {
            if state.top.is_none() {
                let top = super::tree::window_id(self, base, border)?;
                state.top = Some(top);
            }
            return Ok(());
        }
        // The border's ancestors differ from the base's in their number of children or their level.
        for level in 1..=self.record.levels {
            let parent = border / FAN_OUT.pow(u32::from(level));
            let done = level == 1 && state.complete.contains(&parent);
            if !done && !state.above_complete(self, level, parent) {
                let expected = self.children_of(level, parent);
                state
                    .begun
                    .entry((level, parent))
                    .or_insert_with(|| vec![None; expected]);
            }
        }
        Ok(())
    }

    fn is_set(&self, state: &State, index: u64) -> bool {
        if self.record.levels == 0 {
            return state.top.is_some();
        }
        let (group, place) = (index / FAN_OUT, (index % FAN_OUT) as usize);
        state.complete.contains(&group)
            || state
                .begun
                .get(&(1, group))
                .is_some_and(|children| children.get(place).is_some_and(Option::is_some))
    }

    /// The children that the base has below a place of our tree.
    fn base_children(&self, level: u8, place: u64) -> Result<Vec<(u8, BlockId)>> {
        let Some(base) = &self.base else {
            return Ok(Vec::new());
        };
        let Some(top) = base.top else {
            return Ok(Vec::new());
        };
        if level > base.levels {
            // Our tree is higher: the base's top is the first child of a node it does not have.
            let first = level == base.levels + 1 && place == 0;
            return Ok(if first { vec![(0, top)] } else { Vec::new() });
        }
        match base_node(&self.shared.inner.blocks, base, level, place)? {
            None => Ok(Vec::new()),
            Some(id) => match &*self.shared.inner.blocks.node(&id)? {
                Node::Inner { children, .. } => Ok(children.clone()),
                _ => Err(crate::fields::malformed(
                    "a tree",
                    "a leaf lies where a node should",
                )),
            },
        }
    }
}

impl State {
    /// Whether the node at a place was written already: some node above it holds it.
    fn above_complete(&self, tree: &TreeWriter, level: u8, place: u64) -> bool {
        if self.begun.contains_key(&(level, place)) {
            return false;
        }
        let (parent, slot) = (place / FAN_OUT, (place % FAN_OUT) as usize);
        if level == tree.record.levels {
            return self.top.is_some();
        }
        match self.begun.get(&(level + 1, parent)) {
            Some(children) => children.get(slot).is_some_and(Option::is_some),
            None => self.above_complete(tree, level + 1, parent),
        }
    }
}

/// The base's leaf of one window, where both trees are no higher than a leaf or ours is not.
fn window_id(tree: &TreeWriter, base: &RootRecord, index: u64) -> Result<Option<BlockId>> {
    base_node(&tree.shared.inner.blocks, base, 0, index)
}

/// The base's node on a level at a place.
fn base_node(
    nodes: &dyn Nodes,
    base: &RootRecord,
    level: u8,
    place: u64,
) -> Result<Option<BlockId>> {
    let mut next = base.top;
    for above in (level + 1..=base.levels).rev() {
        let Some(id) = next else { return Ok(None) };
        let slot = place / FAN_OUT.pow(u32::from(above - level - 1)) % FAN_OUT;
        next = crate::tree::child_of(nodes, &id, above, slot as u8)?;
    }
    let reach = FAN_OUT.saturating_pow(u32::from(base.levels - level));
    Ok(if place < reach { next } else { None })
}

/// The first node of a level that is begun.
fn take_first(state: &mut State, level: u8) -> Option<(u64, Vec<Child>)> {
    let key = *state.begun.range((level, 0)..=(level, u64::MAX)).next()?.0;
    state.begun.remove(&key).map(|children| (key.1, children))
}

fn window_twice(index: u64) -> Error {
    Error::new(
        Kind::Conflict,
        "store.tree.window-twice",
        format!("window {index} of a tree was set twice"),
    )
}
