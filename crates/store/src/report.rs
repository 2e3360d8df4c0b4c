//! What long work on a repository is asked and what it answers.
//!
//! Knows: options, progress and findings of collect and verify. Refuses to know: how they work.

use crate::id::{PackId, SegmentId};
use crate::point::Point;
use base::cancel::Cancel;
use base::id::PointId;
use base::size::{ByteCount, ByteRange};
use serde::Serialize;

/// How far long work has come; reported often, so the receiver must be quick.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Progress {
    /// What is being done, in words: `mark`, `sweep`, `read data`, ...
    pub step: &'static str,
    /// How much of this step is done.
    pub done: u64,
    /// How much there is; 0 where not known.
    pub total: u64,
    /// Whether these are stored bytes; otherwise they are points, packs or other things.
    pub bytes: bool,
}

/// All points of a repository, and those whose record cannot be read.
#[derive(Clone, Debug, Default)]
pub struct PointList {
    /// The points, oldest first.
    pub points: Vec<Point>,
    /// Records that are damaged. They lose nothing but themselves.
    pub damaged: Vec<DamagedPoint>,
}

/// A point whose record cannot be read.
#[derive(Clone, Debug, Serialize)]
pub struct DamagedPoint {
    /// Its id, if at least the name is right.
    pub id: Option<PointId>,
    /// The name of the record in the repository.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// How to collect.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Packs with less than this many percent of live bytes are rewritten; 0 rewrites none.
    pub rewrite_below_percent: u8,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
    /// Stops the work between steps; the next collect goes on from there.
    pub cancel: Cancel,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            rewrite_below_percent: 50,
            dry_run: false,
            cancel: Cancel::new(),
        }
    }
}

/// What a collect found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CollectReport {
    /// Points that were marked from.
    pub points: u64,
    /// Blocks and tree nodes in use.
    pub live_blocks: u64,
    /// Packs there were at the start.
    pub packs: u64,
    /// Packs retired now: no new writer uses them.
    pub retired: u64,
    /// Retired packs that turned out to be in use and were taken back.
    pub rescued: u64,
    /// Packs whose live frames were copied into new packs.
    pub rewritten: u64,
    /// Packs removed.
    pub removed: u64,
    /// Bytes removed from the repository.
    pub freed: ByteCount,
    /// Bytes of retired packs that stay until writers from before are gone.
    pub waiting: ByteCount,
    /// Dead writers that were fenced off.
    pub fenced: u64,
    /// Records of deleted points removed for good.
    pub forgotten: u64,
}

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Read every pack: its digest, every frame, every block. Without it only the structure is
    /// checked: points, trees, index, presence and length of packs.
    pub read_data: bool,
    /// Only these points; empty means all.
    pub points: Vec<PointId>,
    /// Stops the work between steps.
    pub cancel: Cancel,
}

/// One thing that is not as written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Damage {
    /// A point's record cannot be read.
    Point {
        /// The name of the record.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A range of a disk or file cannot be restored.
    Range {
        /// The point.
        point: PointId,
        /// The disk's name or the file's path.
        name: String,
        /// Which bytes.
        range: ByteRange,
        /// What is wrong.
        reason: String,
    },
    /// A pack is missing, short or altered.
    Pack {
        /// Which.
        pack: PackId,
        /// What is wrong.
        reason: String,
    },
    /// An index segment is altered. It can be rebuilt and loses nothing.
    Segment {
        /// Which.
        segment: SegmentId,
        /// What is wrong.
        reason: String,
    },
    /// Another object, by its path.
    Object {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a verify found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Points looked at.
    pub points: u64,
    /// Tree nodes walked.
    pub nodes: u64,
    /// Different blocks referenced.
    pub blocks: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read from packs.
    pub read: ByteCount,
    /// All that is wrong.
    pub damage: Vec<Damage>,
    /// Whether `damage` was cut off at the limit.
    pub truncated: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && !self.truncated
    }
}
