//! Comparing two trees.
//!
//! Knows: that equal ids mean equal content, so that only what differs is visited.
//! Refuses to know: what differs inside a block.

use super::node::{FAN_OUT, Node, RootRecord};
use super::{Nodes, leaf_of};
use crate::cut::Segment;
use crate::fields::malformed;
use crate::id::BlockId;
use base::Result;
use base::size::ByteRange;

/// The ranges in which two contents differ, in order, neighbours merged. The part that only the
/// longer one has differs as a whole.
pub(crate) fn diff(nodes: &dyn Nodes, a: &RootRecord, b: &RootRecord) -> Result<Vec<ByteRange>> {
    if a.window != b.window {
        return Err(malformed(
            "a tree",
            "two trees of one repository have different windows",
        ));
    }
    let mut ranges = Ranges::default();
    let common = a.size.min(b.size);
    let last = common.div_ceil(u64::from(a.window));
    // Where the shapes differ, the smaller tree's windows are asked for one by one.
    if a.levels == b.levels {
        let mut pair = Pair {
            nodes,
            a,
            b,
            common,
            ranges: &mut ranges,
        };
        pair.compare(a.top.as_ref(), b.top.as_ref(), a.levels, 0)?;
    } else {
        let mut pair = Pair {
            nodes,
            a,
            b,
            common,
            ranges: &mut ranges,
        };
        for index in 0..last {
            pair.windows(index)?;
        }
    }
    let longest = a.size.max(b.size);
    if common < longest {
        ranges.push(common, longest);
    }
    Ok(ranges.0)
}

#[derive(Default)]
struct Ranges(Vec<ByteRange>);

impl Ranges {
    fn push(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end().0 == start => last.length.0 += end - start,
            _ => self.0.push(ByteRange::new(start, end - start)),
        }
    }
}

struct Pair<'a> {
    nodes: &'a dyn Nodes,
    a: &'a RootRecord,
    b: &'a RootRecord,
    /// Bytes both have.
    common: u64,
    ranges: &'a mut Ranges,
}

impl Pair<'_> {
    fn compare(
        &mut self,
        a: Option<&BlockId>,
        b: Option<&BlockId>,
        level: u8,
        first: u64,
    ) -> Result<()> {
        if a == b || first * u64::from(self.a.window) >= self.common {
            return Ok(());
        }
        if level == 0 {
            return self.windows(first);
        }
        let (a, b) = (self.children(a, level)?, self.children(b, level)?);
        let step = FAN_OUT.pow(u32::from(level) - 1);
        for place in 0..FAN_OUT as u8 {
            let at = |children: &[(u8, BlockId)]| {
                let found = children.binary_search_by_key(&place, |(place, _)| *place);
                found.ok().map(|at| children[at].1)
            };
            let first = first + u64::from(place) * step;
            self.compare(at(&a).as_ref(), at(&b).as_ref(), level - 1, first)?;
        }
        Ok(())
    }

    fn children(&self, id: Option<&BlockId>, level: u8) -> Result<Vec<(u8, BlockId)>> {
        let Some(id) = id else { return Ok(Vec::new()) };
        match &*self.nodes.node(id)? {
            Node::Inner {
                level: found,
                children,
            } if *found == level => Ok(children.clone()),
            _ => Err(malformed("a tree", "a node is not what its place asks for")),
        }
    }

    /// Compares two windows segment by segment.
    fn windows(&mut self, index: u64) -> Result<()> {
        let start = index * u64::from(self.a.window);
        let a = leaf_of(self.nodes, self.a, index)?;
        let b = leaf_of(self.nodes, self.b, index)?;
        let length = (self.common - start).min(u64::from(self.a.window));
        let (mut a, mut b) = (Cursor::new(&a), Cursor::new(&b));
        let mut at = 0;
        while at < length {
            let (one, two) = (a.at(at), b.at(at));
            let end = one.1.min(two.1).min(length);
            let same = one.0 == two.0 && (one.0.is_none() || one.2 == two.2);
            if !same {
                self.ranges.push(start + at, start + end);
            }
            at = end;
        }
        Ok(())
    }
}

/// The segment at rising places of a window.
struct Cursor<'a> {
    segments: &'a [Segment],
    start: u64,
}

impl<'a> Cursor<'a> {
    const fn new(segments: &'a [Segment]) -> Self {
        Self { segments, start: 0 }
    }

    /// The block at a place, where its segment ends, and how far into the segment the place is.
    fn at(&mut self, place: u64) -> (Option<BlockId>, u64, u64) {
        while let Some((first, rest)) = self.segments.split_first() {
            let end = self.start + u64::from(first.length);
            if place < end {
                return (first.block, end, place - self.start);
            }
            self.start = end;
            self.segments = rest;
        }
        (None, u64::MAX, 0)
    }
}
