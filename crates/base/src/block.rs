//! What it means to read and write the bytes of a disk.
//!
//! Knows: random access, and which ranges hold data, zeros or nothing at all.
//! Refuses to know: where the bytes lie and in which format.

use crate::error::{Error, Result};
use crate::size::{ByteCount, ByteOffset, ByteRange};
use serde::{Deserialize, Serialize};

/// What a range of a disk holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// Reads as zeros, without reading.
    Zero,
}

/// A range of a disk and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Extent {
    /// Where.
    pub range: ByteRange,
    /// What.
    pub kind: ExtentKind,
}

impl Extent {
    /// A range of data.
    pub const fn data(offset: u64, length: u64) -> Self {
        Self {
            range: ByteRange::new(offset, length),
            kind: ExtentKind::Data,
        }
    }

    /// A range of zeros.
    pub const fn zero(offset: u64, length: u64) -> Self {
        Self {
            range: ByteRange::new(offset, length),
            kind: ExtentKind::Zero,
        }
    }
}

/// A disk, or anything like one, that can be read at any place from any thread.
pub trait BlockRead: Send + Sync {
    /// The size in bytes. Fixed while the disk is open.
    fn size(&self) -> ByteCount;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `Invalid` where the range reaches past the end; never a short read.
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()>;

    /// What `range` holds: extents in order, without gaps or overlaps, from the start of `range`.
    /// The answer may stop early (a bound on its size) but covers at least one byte; ask again for
    /// the rest. Saying `Data` is always right; saying `Zero` is a promise.
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        Ok(vec![Extent {
            range,
            kind: ExtentKind::Data,
        }])
    }
}

/// A disk that can be written.
pub trait BlockWrite: BlockRead {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()>;

    /// Makes `range` read as zeros, without storing them where the format can.
    fn write_zeroes(&self, range: ByteRange) -> Result<()>;

    /// Returns when all that was written before is on stable storage.
    fn flush(&self) -> Result<()>;
}

impl<T: BlockRead + ?Sized> BlockRead for std::sync::Arc<T> {
    fn size(&self) -> ByteCount {
        (**self).size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        (**self).extents(range)
    }
}

impl<T: BlockRead + ?Sized> BlockRead for Box<T> {
    fn size(&self) -> ByteCount {
        (**self).size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        (**self).extents(range)
    }
}

impl<T: BlockWrite + ?Sized> BlockWrite for std::sync::Arc<T> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        (**self).write_at(offset, bytes)
    }
    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        (**self).write_zeroes(range)
    }
    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
}

impl<T: BlockWrite + ?Sized> BlockWrite for Box<T> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        (**self).write_at(offset, bytes)
    }
    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        (**self).write_zeroes(range)
    }
    fn flush(&self) -> Result<()> {
        (**self).flush()
    }
}

/// An error unless `range` lies inside a disk of `size`.
pub fn check_range(range: ByteRange, size: ByteCount) -> Result<()> {
    let end = range.offset.0.checked_add(range.length.0);
    match end {
        Some(end) if end <= size.0 => Ok(()),
        _ => Err(Error::invalid(
            "base.block.past-end",
            format!("the range {range} reaches past the end of a disk of {size}"),
        )),
    }
}

/// All extents of `range`, asking as often as it takes, neighbours of one kind merged.
pub fn all_extents(disk: &dyn BlockRead, range: ByteRange) -> Result<Vec<Extent>> {
    let mut all: Vec<Extent> = Vec::new();
    let mut at = range.offset;
    while at < range.end() {
        let rest = ByteRange {
            offset: at,
            length: range.end() - at,
        };
        let before = at;
        for extent in disk.extents(rest)? {
            if extent.range.offset != at || extent.range.is_empty() {
                return Err(extents_malformed(at));
            }
            at = extent.range.end();
            push_extent(&mut all, extent);
        }
        if at == before || at > range.end() {
            return Err(extents_malformed(at));
        }
    }
    Ok(all)
}

/// Appends an extent, growing the last one where both are neighbours of one kind.
pub fn push_extent(extents: &mut Vec<Extent>, extent: Extent) {
    if extent.range.is_empty() {
        return;
    }
    match extents.last_mut() {
        Some(last) if last.kind == extent.kind && last.range.end() == extent.range.offset => {
            last.range.length += extent.range.length;
        }
        _ => extents.push(extent),
    }
}

fn extents_malformed(at: ByteOffset) -> Error {
    Error::new(
        crate::Kind::Bug,
        "base.block.extents-malformed",
        format!("a disk's list of extents has a gap, an overlap or no end at {at}"),
    )
}

/// Whether all bytes are zero. Fast: the compiler turns the inner loop into vector code.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks
        .by_ref()
        .all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}
