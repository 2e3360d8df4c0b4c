//! The bytes of tree nodes.
//!
//! Knows: leaves, inner nodes and root records, one canonical encoding each.
//! Refuses to know: how nodes are stored.

use crate::cut::{PAGE, Segment};
use crate::fields::{Fields, malformed};
use crate::id::BlockId;
use crate::limit::NODE_SIZE_MAX;
use base::limit::DISK_SIZE_MAX;
use base::{Error, Result};

/// Children of an inner node.
pub(crate) const FAN_OUT: u64 = 128;
const VERSION: u8 = 1;
const LEAF: u8 = 0;
const INNER: u8 = 1;
const ROOT: u8 = 2;
/// The bit of a segment's length that marks a run of zeros.
const ZERO_BIT: u32 = 1 << 31;
/// The most inner levels: a disk of 2^56 bytes in windows of 64 KiB.
const LEVELS_MAX: u8 = 6;

/// A tree node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    /// The segments of a window that is not all zero.
    Leaf(Vec<Segment>),
    /// Children by their place, those that are not all zero.
    Inner {
        /// 1 where the children are leaves.
        level: u8,
        /// Place (0..128) and id, in order.
        children: Vec<(u8, BlockId)>,
    },
    /// What a tree's id names.
    Root(RootRecord),
}

/// The record at the root of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RootRecord {
    /// Inner levels below; 0: the top is a leaf.
    pub(crate) levels: u8,
    /// Bytes of a window.
    pub(crate) window: u32,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// The top node; `None` where all is zero.
    pub(crate) top: Option<BlockId>,
}

impl RootRecord {
    /// How many windows the disk has.
    pub(crate) const fn windows(&self) -> u64 {
        self.size.div_ceil(self.window as u64)
    }

    /// Bytes of window `index`.
    pub(crate) fn window_length(&self, index: u64) -> u32 {
        let start = index.saturating_mul(u64::from(self.window));
        self.size.saturating_sub(start).min(u64::from(self.window)) as u32
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, ROOT, self.levels, u8::from(self.top.is_some())];
        bytes.extend_from_slice(&self.window.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        if let Some(top) = &self.top {
            bytes.extend_from_slice(top.bytes());
        }
        bytes
    }
}

/// How many inner levels a disk of so many windows has.
pub(crate) const fn levels_for(windows: u64) -> u8 {
    let mut levels = 0;
    let mut reach: u64 = 1;
    while reach < windows {
        reach = reach.saturating_mul(FAN_OUT);
        levels += 1;
    }
    levels
}

/// The bytes of a leaf.
pub(crate) fn leaf_bytes(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = vec![VERSION, LEAF];
    bytes.extend_from_slice(&(segments.len() as u16).to_le_bytes());
    for segment in segments {
        match &segment.block {
            None => bytes.extend_from_slice(&(segment.length | ZERO_BIT).to_le_bytes()),
            Some(id) => {
                bytes.extend_from_slice(&segment.length.to_le_bytes());
                bytes.extend_from_slice(id.bytes());
            }
        }
    }
    bytes
}

/// The bytes of an inner node.
pub(crate) fn inner_bytes(level: u8, children: &[(u8, BlockId)]) -> Vec<u8> {
    let bitmap = children
        .iter()
        .fold(0u128, |bits, (place, _)| bits | (1 << place));
    let mut bytes = vec![VERSION, INNER, level, 0];
    bytes.extend_from_slice(&bitmap.to_le_bytes());
    for (_, id) in children {
        bytes.extend_from_slice(id.bytes());
    }
    bytes
}

/// An error unless segments cover a window of `length` bytes in the canonical way.
pub(crate) fn check_leaf(segments: &[Segment], length: u32) -> Result<()> {
    let wrong = |reason: &str| {
        Err(Error::invalid(
            "store.leaf.malformed",
            format!("segments of a window: {reason}"),
        ))
    };
    let mut at: u64 = 0;
    let mut before_zero = false;
    for segment in segments {
        let zero = segment.block.is_none();
        if segment.length == 0 || segment.length >= ZERO_BIT {
            return wrong("one has no length");
        }
        if zero && before_zero {
            return wrong("two runs of zeros lie side by side");
        }
        if !at.is_multiple_of(PAGE as u64) {
            return wrong("one does not begin at a page");
        }
        before_zero = zero;
        at += u64::from(segment.length);
    }
    if at != u64::from(length) {
        return wrong(&format!("they cover {at} of {length} bytes"));
    }
    if segments.len() > usize::from(u16::MAX) {
        return wrong("there are too many");
    }
    Ok(())
}

impl Node {
    /// Reads a node from foreign bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "a tree node";
        if bytes.len() > NODE_SIZE_MAX {
            return Err(malformed(what, "it is too long"));
        }
        let mut fields = Fields::new(bytes, what);
        if fields.u8()? != VERSION {
            return Err(Error::new(
                base::Kind::Unsupported,
                "store.object.version",
                "a tree node has a version this program does not know",
            )
            .hint("use a newer Backstay; nothing was changed"));
        }
        let node = match fields.u8()? {
            LEAF => Self::Leaf(parse_leaf(&mut fields)?),
            INNER => parse_inner(&mut fields)?,
            ROOT => Self::Root(parse_root(&mut fields)?),
            _ => return Err(fields.wrong("its kind is unknown")),
        };
        fields.end()?;
        Ok(node)
    }
}

fn parse_leaf(fields: &mut Fields<'_>) -> Result<Vec<Segment>> {
    let count = fields.u16()?;
    let mut segments = Vec::with_capacity(usize::from(count).min(fields.left() / 4));
    for _ in 0..count {
        let word = fields.u32()?;
        let block = match word & ZERO_BIT {
            0 => Some(BlockId::from_bytes(fields.array()?)),
            _ => None,
        };
        segments.push(Segment {
            length: word & !ZERO_BIT,
            block,
        });
    }
    Ok(segments)
}

fn parse_inner(fields: &mut Fields<'_>) -> Result<Node> {
    let level = fields.u8()?;
    fields.u8()?;
    let bitmap = fields.u128()?;
    if level == 0 || level > LEVELS_MAX || bitmap == 0 {
        return Err(fields.wrong("its level or its children"));
    }
    let mut children = Vec::with_capacity(bitmap.count_ones() as usize);
    for place in 0..FAN_OUT as u8 {
        if bitmap >> place & 1 == 1 {
            children.push((place, BlockId::from_bytes(fields.array()?)));
        }
    }
    Ok(Node::Inner { level, children })
}

fn parse_root(fields: &mut Fields<'_>) -> Result<RootRecord> {
    let (levels, has_top) = (fields.u8()?, fields.u8()?);
    let (window, size) = (fields.u32()?, fields.u64()?);
    if !window.is_power_of_two() || window < 64 << 10 || size > DISK_SIZE_MAX || has_top > 1 {
        return Err(fields.wrong("its size or its window"));
    }
    let top = match has_top {
        1 => Some(BlockId::from_bytes(fields.array()?)),
        _ => None,
    };
    let record = RootRecord {
        levels,
        window,
        size,
        top,
    };
    if levels != levels_for(record.windows()) || (size == 0 && top.is_some()) {
        return Err(fields.wrong("its shape does not follow from its size"));
    }
    Ok(record)
}
