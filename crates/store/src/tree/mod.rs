//! Trees: a disk as a radix tree over its windows (format page, section "Trees").
//!
//! Knows: the shape, which follows from the disk's size alone, so that equal content has an equal
//! root; how to walk to a window and how to compare two trees.
//! Refuses to know: where nodes are stored and what the blocks hold.

mod diff;
mod node;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use diff::diff;
pub(crate) use node::{FAN_OUT, Node, RootRecord, check_leaf, inner_bytes, leaf_bytes, levels_for};
pub(crate) use walk::{Visit, child_of, leaf_of, walk};

use crate::id::BlockId;
use base::Result;
use std::sync::Arc;

/// Where nodes come from.
pub(crate) trait Nodes {
    /// The node of an id, checked.
    fn node(&self, id: &BlockId) -> Result<Arc<Node>>;
}
