//! Backing a disk up into a repository of the same process.
//!
//! Knows: a window is cut, its blocks are named, asked for, put where new, and its leaf is set.
//! Refuses to know: where the disk comes from and which point it will be in.

use super::crew::Crew;
use super::gauge::Gauge;
use super::load::{ChangeMap, Changes, Loaded, Reading, load};
use super::stored::StoredBase;
use base::block::BlockRead;
use base::cancel::Cancel;
use base::size::{ByteCount, ByteRange};
use base::{Kind, Result};
use protocol::words::counters::Stage;
use store::{BlockId, Cutter, NewBlock, RecutPiece, Root, Segment, TreeWriter, Writer};

/// A disk to back up.
pub struct Backup<'a> {
    /// Where it is read.
    pub disk: &'a dyn BlockRead,
    /// Where it is written.
    pub writer: &'a Writer,
    /// With this, only what the map marks is read and the rest is as in the base.
    pub changes: Option<ChangedSince<'a>>,
    /// Live numbers.
    pub gauge: &'a Gauge,
    /// Asks to stop.
    pub cancel: &'a Cancel,
}

/// What has changed, and since when.
#[derive(Clone, Copy)]
pub struct ChangedSince<'a> {
    /// What is marked.
    pub map: &'a dyn ChangeMap,
    /// The disk as it was.
    pub base: &'a StoredBase,
}

/// Backs a disk up; the root of its tree. Nothing is visible before the writer commits.
///
/// # Errors
/// The first error of any stage, after all threads are gone; `Cancelled` on request.
pub fn back_up(order: &Backup<'_>) -> Result<Root> {
    let size = order.disk.size();
    order.gauge.processed.add(size.0);
    let workers = processors();
    order.gauge.set_threads(Stage::Proxy, workers);
    order.gauge.set_threads(Stage::Target, workers);
    let tree = order
        .writer
        .tree(size, order.changes.map(|changes| changes.base.root))?;
    let reading = Reading {
        disk: order.disk,
        window: order.writer.cutter().window_size(),
        changes: order.changes.map(|c| Changes {
            map: c.map,
            old_size: c.base.size,
        }),
        gauge: order.gauge,
    };
    let intake = Intake {
        writer: order.writer,
        tree: &tree,
        base: order.changes.map(|changes| changes.base),
        gauge: order.gauge,
        compute: Stage::Proxy,
    };
    let crew = Crew::new(order.cancel);
    load(&crew, reading, workers, &|window| intake.take(&window));
    crew.finish()?;
    order.cancel.check()?;
    order.gauge.busy(Stage::Target, || tree.finish())
}

/// How many threads cut, hash and compress.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get)
}

/// The repository's half: takes windows in any order from any thread.
pub struct Intake<'a> {
    /// Where blocks go.
    pub writer: &'a Writer,
    /// Where leaves go.
    pub tree: &'a TreeWriter,
    /// What clean parts of a window are as in.
    pub base: Option<&'a StoredBase>,
    /// Live numbers.
    pub gauge: &'a Gauge,
    /// The stage that cutting, naming and compressing are booked on: they are the proxy's work
    /// where the proxy does them.
    pub compute: Stage,
}

impl Intake<'_> {
    /// Takes a window as it was read.
    fn take(&self, window: &Loaded) -> Result<()> {
        let new = self.store(
            window.index,
            window.range.length,
            &window.dirty,
            window.bytes(),
        )?;
        // A block around a change also holds what did not change: a stream would not carry that.
        let dirty: u64 = window.dirty.iter().map(|range| range.length.0).sum();
        self.gauge.transferred.add(new.0.min(dirty));
        self.gauge.done.add(window.range.length.0);
        Ok(())
    }

    /// Stores one window of `length` bytes of which `dirty` are new and stand in `bytes`; the plain
    /// bytes of the blocks that the repository lacked.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn store(
        &self,
        index: u64,
        length: ByteCount,
        dirty: &[ByteRange],
        bytes: &[u8],
    ) -> Result<ByteCount> {
        let whole = matches!(dirty, [all] if all.length == length);
        let pieces = match (self.base, whole) {
            (Some(base), false) => self.recut(base, index, length, dirty, bytes)?,
            _ => self
                .gauge
                .busy(self.compute, || cut(self.writer.cutter(), bytes)),
        };
        let new: Vec<NewBlock<'_>> = pieces.iter().filter_map(Named::new_block).collect();
        let lacked = self.put(&new)?;
        let segments: Vec<Segment> = pieces.iter().map(|piece| piece.segment).collect();
        self.gauge
            .busy(Stage::Target, || self.tree.set_window(index, &segments))?;
        Ok(lacked)
    }

    /// Puts those blocks of one window that the repository lacks, in their order.
    fn put(&self, blocks: &[NewBlock<'_>]) -> Result<ByteCount> {
        if blocks.is_empty() {
            return Ok(ByteCount::ZERO);
        }
        let ids: Vec<BlockId> = blocks.iter().map(|block| block.id).collect();
        let have = self.gauge.busy(Stage::Target, || self.writer.have(&ids))?;
        let lacking: Vec<NewBlock<'_>> = blocks
            .iter()
            .zip(have)
            .filter(|(_, have)| !have)
            .map(|(block, _)| *block)
            .collect();
        self.put_lacking(&lacking)
    }

    /// Puts blocks of one window that the repository is known to lack, in their order; the plain
    /// bytes of those that nobody else put meanwhile.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn put_lacking(&self, blocks: &[NewBlock<'_>]) -> Result<ByteCount> {
        if blocks.is_empty() {
            return Ok(ByteCount::ZERO);
        }
        let count = put_timed(self.gauge, self.compute, || self.writer.put(blocks))?;
        self.gauge.stored.add(count.stored.0);
        Ok(count.plain)
    }

    fn recut<'b>(
        &self,
        base: &StoredBase,
        index: u64,
        length: ByteCount,
        dirty: &[ByteRange],
        bytes: &'b [u8],
    ) -> Result<Vec<Named<'b>>> {
        let old = self.tree.base_window(index)?;
        let length = u32::try_from(length.0).map_err(|_| outside())?;
        let cutter = self.writer.cutter();
        self.gauge.busy(self.compute, || {
            let mut source = |range: ByteRange, buffer: &mut [u8]| {
                let start = ByteCount(range.offset.0).as_usize()?;
                let end = ByteCount(range.end().0).as_usize()?;
                let inside = dirty.iter().any(|d| d.intersection(&range) == Some(range));
                let piece = bytes
                    .get(start..end)
                    .filter(|_| inside)
                    .ok_or_else(outside)?;
                buffer.copy_from_slice(piece);
                Ok(())
            };
            let mut stored = |id: &BlockId, buffer: &mut [u8]| base.read_block(id, buffer);
            let pieces = cutter.recut(&old, length, dirty, &mut source, &mut stored)?;
            Ok(pieces
                .into_iter()
                .map(|piece| Named::from_recut(cutter, piece))
                .collect())
        })
    }
}

/// Compressing and sealing keep the processor busy, appending waits for the disk: the time that the
/// thread did not compute is booked on the target.
fn put_timed<T>(gauge: &Gauge, compute: Stage, deed: impl FnOnce() -> T) -> T {
    use rustix::time::{ClockId, clock_gettime};
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let (start, computed) = (std::time::Instant::now(), now());
    let result = deed();
    let computing = now().saturating_sub(computed);
    gauge.book(compute, computing);
    gauge.book(Stage::Target, start.elapsed().saturating_sub(computing));
    result
}

fn outside() -> base::Error {
    base::Error::new(
        Kind::Bug,
        "mover.backup.not-read",
        "bytes were asked for that were not read from the source",
    )
}

/// A segment and, where it is new, its bytes.
pub struct Named<'a> {
    /// The segment.
    pub segment: Segment,
    bytes: Option<std::borrow::Cow<'a, [u8]>>,
}

impl Named<'_> {
    fn from_recut(cutter: &Cutter, piece: RecutPiece) -> Self {
        match piece {
            RecutPiece::Kept(segment) => Self {
                segment,
                bytes: None,
            },
            RecutPiece::Zero(length) => Self {
                segment: Segment {
                    length,
                    block: None,
                },
                bytes: None,
            },
            RecutPiece::New(bytes) => {
                let block = Some(cutter.block_id(&bytes));
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Self {
                    segment: Segment { length, block },
                    bytes: Some(bytes.into()),
                }
            }
        }
    }

    /// The block to put, if it is not known to be there.
    pub fn new_block(&self) -> Option<NewBlock<'_>> {
        Some(NewBlock {
            id: self.segment.block?,
            bytes: self.bytes.as_deref()?,
        })
    }
}

/// Cuts a window and names its pieces.
pub fn cut<'a>(cutter: &Cutter, window: &'a [u8]) -> Vec<Named<'a>> {
    let name = |piece: store::Piece| {
        let bytes = &window[piece.range];
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if piece.zero {
            Named {
                segment: Segment {
                    length,
                    block: None,
                },
                bytes: None,
            }
        } else {
            let block = Some(cutter.block_id(bytes));
            Named {
                segment: Segment { length, block },
                bytes: Some(bytes.into()),
            }
        }
    };
    cutter.cut(window).into_iter().map(name).collect()
}
