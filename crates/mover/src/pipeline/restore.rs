//! Writing a disk of a point to a disk.
//!
//! Knows: windows are read, checked and written by several threads, zeros are not stored, and
//! nothing has succeeded before the target was flushed. Refuses to know: what the target is.

use super::backup::processors;
use super::buffer::BufferPool;
use super::crew::Crew;
use super::gauge::Gauge;
use base::block::{BlockRead, BlockWrite, Extent, ExtentKind, push_extent};
use base::cancel::Cancel;
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use protocol::words::counters::Stage;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Cutter, DiskReader, Repository, Root, Segment};

/// A disk of a point, open for reading as a whole.
pub struct StoredDisk<'a> {
    /// Where it is stored.
    pub repository: &'a Repository,
    /// The root of its tree.
    pub root: Root,
    /// Its bytes.
    pub reader: &'a DiskReader,
}

/// A disk to write.
pub struct Target<'a> {
    /// The disk; at least as large as what is written.
    pub disk: &'a dyn BlockWrite,
    /// Whether all of it is zero before: zeros need not be written then.
    pub blank: bool,
}

/// Restores a disk. Returns the root of what was written: every block was named anew from the bytes
/// that were handed to the target and compared with the tree.
///
/// # Errors
/// The first error of any thread, after all are gone; `Corrupt` (`mover.restore.differs`) where
/// what would be written is not what the point holds; `Cancelled` on request.
pub fn restore(
    stored: &StoredDisk<'_>,
    target: &Target<'_>,
    gauge: &Gauge,
    cancel: &Cancel,
) -> Result<Root> {
    let size = stored.reader.size();
    if target.disk.size() < size {
        return Err(too_small(target.disk.size(), size));
    }
    gauge.processed.add(size.0);
    let crew = Crew::new(cancel);
    let cutter = stored.repository.cutter();
    read_windows(&crew, stored, &cutter, gauge, &|window| {
        gauge.busy(Stage::Target, || window.write(target))?;
        gauge.transferred.add(window.data_length());
        gauge.done.add(window.range.length.0);
        Ok(())
    });
    crew.finish()?;
    cancel.check()?;
    gauge.busy(Stage::Target, || target.disk.flush())?;
    Ok(stored.root)
}

/// A target that cannot hold the disk.
pub fn too_small(target: ByteCount, size: ByteCount) -> Error {
    Error::invalid(
        "mover.restore.target-small",
        format!("the target holds {target}, the disk has {size}"),
    )
    .hint("choose a larger target")
}

/// One window of a stored disk, read and checked.
pub struct StoredWindow<'a> {
    /// Its number.
    pub index: u64,
    /// Its bytes within the disk.
    pub range: ByteRange,
    /// The parts that hold data and those that are zero, in order, within the window.
    pub extents: &'a [Extent],
    /// The blocks it consists of; empty where all is zero.
    pub segments: &'a [Segment],
    /// Its bytes. Only those of data extents mean anything.
    pub bytes: &'a [u8],
}

impl StoredWindow<'_> {
    /// Bytes that are data.
    pub fn data_length(&self) -> u64 {
        let data = self
            .extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Data);
        data.map(|extent| extent.range.length.0).sum()
    }

    /// The bytes of a range within the window.
    ///
    /// # Errors
    /// `Bug` where the range lies outside.
    pub fn part(&self, range: ByteRange) -> Result<&[u8]> {
        part(self.bytes, range)
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the target.
    pub fn write(&self, target: &Target<'_>) -> Result<()> {
        for extent in self.extents {
            let place = ByteOffset(self.range.offset.0 + extent.range.offset.0);
            match extent.kind {
                ExtentKind::Data => {
                    target.disk.write_at(place, self.part(extent.range)?)?;
                }
                ExtentKind::Zero if target.blank => {}
                ExtentKind::Zero => {
                    let range = ByteRange {
                        offset: place,
                        length: extent.range.length,
                    };
                    target.disk.write_zeroes(range)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads and checks all windows of a stored disk with several threads, and hands each on in the
/// thread that read it. Returns when all threads are gone; errors are in the crew.
pub fn read_windows(
    crew: &Crew,
    stored: &StoredDisk<'_>,
    cutter: &Cutter,
    gauge: &Gauge,
    consume: &(dyn Fn(&StoredWindow<'_>) -> Result<()> + Sync),
) {
    let size = stored.reader.size().0;
    let window = cutter.window_size();
    // Twice the processors, so that some compute while others wait for a disk.
    let length = usize::try_from(window.0).unwrap_or(usize::MAX);
    let room = usize::try_from(base::limit::TARGET_MEMORY_MAX / 4).unwrap_or(usize::MAX) / length;
    let threads = (2 * processors()).clamp(1, room.max(1));
    for stage in [Stage::Source, Stage::Proxy, Stage::Target] {
        gauge.set_threads(stage, threads);
    }
    let pool = BufferPool::new(length, threads);
    let next = AtomicU64::new(0);
    let count = size.div_ceil(window.0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                crew.work(|| {
                    let mut buffer = pool.take(crew)?;
                    loop {
                        crew.check()?;
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return Ok(());
                        }
                        let offset = index * window.0;
                        let range = ByteRange::new(offset, window.0.min(size - offset));
                        read_window(stored, cutter, gauge, (index, range), &mut buffer, consume)?;
                    }
                });
            });
        }
    });
}

fn read_window(
    stored: &StoredDisk<'_>,
    cutter: &Cutter,
    gauge: &Gauge,
    (index, range): (u64, ByteRange),
    buffer: &mut [u8],
    consume: &(dyn Fn(&StoredWindow<'_>) -> Result<()> + Sync),
) -> Result<()> {
    let (segments, extents) = gauge.busy(Stage::Source, || {
        let segments = stored.repository.window(&stored.root, index)?;
        let extents = extents_of(index, range.length, &segments)?;
        for extent in extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Data)
        {
            let place = ByteOffset(range.offset.0 + extent.range.offset.0);
            stored
                .reader
                .read_at(place, part_mut(buffer, extent.range)?)?;
            gauge.read.add(extent.range.length.0);
        }
        Ok::<_, Error>((segments, extents))
    })?;
    gauge.busy(Stage::Proxy, || check(cutter, index, &segments, buffer))?;
    consume(&StoredWindow {
        index,
        range,
        extents: &extents,
        segments: &segments,
        bytes: buffer,
    })
}

/// The parts of a window that hold data and those that are zero, as its segments say.
///
/// # Errors
/// `Corrupt` (`mover.restore.differs`) where the segments do not cover the window.
pub fn extents_of(index: u64, length: ByteCount, segments: &[Segment]) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = 0;
    for segment in segments {
        let long = u64::from(segment.length);
        let zero = segment.block.is_none();
        push_extent(
            &mut extents,
            if zero {
                Extent::zero(at, long)
            } else {
                Extent::data(at, long)
            },
        );
        at += long;
    }
    if segments.is_empty() {
        push_extent(&mut extents, Extent::zero(0, length.0));
    } else if at != length.0 {
        return Err(differs(index));
    }
    Ok(extents)
}

/// Names every block of a window anew and compares it with the tree.
///
/// # Errors
/// `Corrupt` (`mover.restore.differs`).
pub fn check(cutter: &Cutter, index: u64, segments: &[Segment], bytes: &[u8]) -> Result<()> {
    let mut at = 0;
    for segment in segments {
        let range = ByteRange::new(at, u64::from(segment.length));
        if let Some(id) = segment.block
            && cutter.block_id(part(bytes, range)?) != id
        {
            return Err(differs(index));
        }
        at = range.end().0;
    }
    Ok(())
}

fn differs(index: u64) -> Error {
    Error::corrupt(
        "mover.restore.differs",
        format!("window {index} is not what the restore point says"),
    )
    .hint("verify the repository with its data; if that finds nothing, test the memory")
}

fn outside() -> Error {
    Error::new(
        Kind::Bug,
        "mover.restore.window",
        "a range lies outside its window",
    )
}

fn part(bytes: &[u8], range: ByteRange) -> Result<&[u8]> {
    let place = ByteCount(range.offset.0).as_usize()?..ByteCount(range.end().0).as_usize()?;
    bytes.get(place).ok_or_else(outside)
}

fn part_mut(bytes: &mut [u8], range: ByteRange) -> Result<&mut [u8]> {
    let place = ByteCount(range.offset.0).as_usize()?..ByteCount(range.end().0).as_usize()?;
    bytes.get_mut(place).ok_or_else(outside)
}
