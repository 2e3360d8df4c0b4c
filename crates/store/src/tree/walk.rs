//! Walking a tree.
//!
//! Knows: how to get to one window, and how to visit all that a tree holds. Every node is checked
//! against the place it was found in, so that a wrong tree ends in an error, not in a wrong disk.
//! Refuses to know: what is done with what is found.

use super::Nodes;
use super::node::{FAN_OUT, Node, RootRecord, check_leaf};
use crate::cut::Segment;
use crate::fields::malformed;
use crate::id::BlockId;
use base::{Kind, Result};

/// The child at `place` of the inner node `id`, which must be of `level`.
pub(crate) fn child_of(
    nodes: &dyn Nodes,
    id: &BlockId,
    level: u8,
    place: u8,
) -> Result<Option<BlockId>> {
    match &*nodes.node(id)? {
        Node::Inner {
            level: found,
            children,
        } if *found == level => Ok(children
            .binary_search_by_key(&place, |(place, _)| *place)
            .ok()
            .map(|at| children[at].1)),
        _ => Err(malformed("a tree", "a node is not what its place asks for")),
    }
}

/// The segments of one window; empty where it is all zero.
pub(crate) fn leaf_of(nodes: &dyn Nodes, root: &RootRecord, index: u64) -> Result<Vec<Segment>> {
    let mut next = root.top;
    for level in (1..=root.levels).rev() {
        let Some(id) = next else {
            return Ok(Vec::new());
        };
        let place = (index / FAN_OUT.pow(u32::from(level) - 1) % FAN_OUT) as u8;
        next = child_of(nodes, &id, level, place)?;
    }
    match next {
        None => Ok(Vec::new()),
        Some(id) => leaf(nodes, &id, root.window_length(index)),
    }
}

/// The segments of a leaf that covers `length` bytes.
pub(super) fn leaf(nodes: &dyn Nodes, id: &BlockId, length: u32) -> Result<Vec<Segment>> {
    match &*nodes.node(id)? {
        Node::Leaf(segments) => {
            // What is not canonical here was not written by us: bytes on disk are at fault.
            check_leaf(segments, length).map_err(|error| malformed("a tree", error.message()))?;
            Ok(segments.clone())
        }
        _ => Err(malformed("a tree", "a node is not what its place asks for")),
    }
}

/// What a walk asks and tells.
pub(crate) trait Visit {
    /// Whether to go into a node; false where it was seen before.
    fn enter(&mut self, id: &BlockId) -> Result<bool>;
    /// The segments of window `index`, in order of windows.
    fn leaf(&mut self, index: u64, segments: &[Segment]) -> Result<()>;
    /// A node that cannot be read covers the windows `first..first + count`. Return the error to
    /// end the walk.
    fn broken(&mut self, first: u64, count: u64, error: base::Error) -> Result<()>;
}

/// Visits all nodes and leaves below a root, in order.
pub(crate) fn walk(nodes: &dyn Nodes, root: &RootRecord, visit: &mut dyn Visit) -> Result<()> {
    match root.top {
        Some(top) => below(nodes, root, &top, root.levels, 0, visit),
        None => Ok(()),
    }
}

/// The recursion is at most seven deep: a root has at most six levels.
fn below(
    nodes: &dyn Nodes,
    root: &RootRecord,
    id: &BlockId,
    level: u8,
    first: u64,
    visit: &mut dyn Visit,
) -> Result<()> {
    let span = FAN_OUT.saturating_pow(u32::from(level));
    let outside = first >= root.windows();
    if outside {
        let error = malformed("a tree", "a node lies past the disk's end");
        return visit.broken(first, span, error);
    }
    if !visit.enter(id)? {
        return Ok(());
    }
    if level == 0 {
        return match leaf(nodes, id, root.window_length(first)) {
            Ok(segments) => visit.leaf(first, &segments),
            Err(error) if stops_all(&error) => Err(error),
            Err(error) => visit.broken(first, 1, error),
        };
    }
    let children = match nodes.node(id) {
        Ok(node) => match &*node {
            Node::Inner {
                level: found,
                children,
            } if *found == level => children.clone(),
            _ => {
                let error = malformed("a tree", "a node is not what its place asks for");
                return visit.broken(first, span, error);
            }
        },
        Err(error) if stops_all(&error) => return Err(error),
        Err(error) => return visit.broken(first, span, error),
    };
    let step = FAN_OUT.pow(u32::from(level) - 1);
    for (place, child) in children {
        below(
            nodes,
            root,
            &child,
            level - 1,
            first + u64::from(place) * step,
            visit,
        )?;
    }
    Ok(())
}

fn stops_all(error: &base::Error) -> bool {
    error.kind() == Kind::Cancelled
}
