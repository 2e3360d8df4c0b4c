//! The repository: where restore points live.
//!
//! Knows: blocks, how a disk is cut into them, frames, packs, the index, trees, points, keys, who
//! writes and who reads at the moment, what may be deleted and whether all is well. The format is
//! written down byte by byte in `docs/formats/store.md`; that page comes first and this code
//! follows it.
//! Refuses to know: what a disk image is, where the bytes come from, networks, jobs.
//!
//! # From disk to pack in five files
//! 1. `cut` divides a window of a disk into pieces and names each by its content.
//! 2. `writer` asks the `index` which blocks are new and compresses and seals them into
//! 3. a `frame`, which is appended to
//! 4. a `pack`; the list of the window's blocks becomes a leaf of
//! 5. a `tree`, whose root goes into a `point`.
//!
//! # Entry
//! [`Repository::create`], [`Repository::open`], then [`Repository::writer`] to make points,
//! [`Repository::points`] and [`Repository::open_disk`] to read them.

mod blocks;
mod collect;
mod collect_state;
mod config;
mod cut;
mod digest;
mod fields;
mod frame;
mod id;
mod index;
mod key;
mod layout;
mod limit;
mod membership;
mod pack;
mod point;
mod publish;
mod reader;
mod rebuild;
mod record;
mod report;
mod repository;
mod reserve;
mod seal;
mod tree;
mod verify;
mod writer;

pub use cut::{CutParameters, Cutter, Piece, RecutPiece, Segment};
pub use id::{BlockId, PackId, Root, SegmentId};
pub use key::slot::Password;
pub use point::{
    Consistency, Point, PointCounters, PointDisk, PointDraft, PointFile, PointJob, PointMachine,
};
pub use reader::DiskReader;
pub use report::{
    CollectOptions, CollectReport, Damage, DamagedPoint, PointList, Progress, VerifyOptions,
    VerifyReport,
};
pub use repository::{CreateOptions, Environment, Info, Repository};
pub use verify::verify_sealed;
pub use writer::{NewBlock, PutCount, TreeWriter, Writer, WriterOptions};
