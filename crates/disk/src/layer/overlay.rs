//! Copy-on-write: a disk that can be written while the one below it never changes.
//!
//! Knows: which pages were written since it was made; they are in the upper disk, all others in
//! the lower one.
//! Refuses to know: how to find the pages again after a restart; the map is in memory. Whoever
//! keeps an overlay for longer uses an image format that keeps the map.

use base::block::{BlockRead, BlockWrite, Extent, check_range, push_extent};
use base::limit::PAGE_SIZE;
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Result};
use std::sync::{PoisonError, RwLock};

/// A disk over another one.
pub struct Overlay<L, U> {
    lower: L,
    upper: U,
    /// One bit a page: written. Locked for the time of a write, so that two writers of one page do
    /// not both fetch it from below.
    written: RwLock<Vec<u64>>,
}

impl<L: BlockRead, U: BlockWrite> Overlay<L, U> {
    /// `upper` over `lower`: what is in `upper` now is never read.
    ///
    /// # Errors
    /// `Invalid` where the upper disk is smaller than the lower one.
    pub fn new(lower: L, upper: U) -> Result<Self> {
        if upper.size() < lower.size() {
            return Err(Error::invalid(
                "disk.overlay.too-small",
                format!(
                    "{} cannot hold the changes of {}",
                    upper.size(),
                    lower.size()
                ),
            ));
        }
        let pages = lower.size().0.div_ceil(PAGE_SIZE);
        let words = ByteCount(pages.div_ceil(64)).as_usize()?;
        Ok(Self {
            lower,
            upper,
            written: RwLock::new(vec![0; words]),
        })
    }

    /// How many bytes were written over the lower disk, in whole pages.
    pub fn written(&self) -> ByteCount {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        ByteCount(
            written
                .iter()
                .map(|word| u64::from(word.count_ones()) * PAGE_SIZE)
                .sum(),
        )
    }

    /// The page that `offset` is in, and how much of `length` lies in the run of pages from there
    /// on that were all written or all not.
    fn run(written: &[u64], offset: u64, length: u64) -> (bool, u64) {
        let first = offset / PAGE_SIZE;
        let upper = is_set(written, first);
        let last = (offset + length - 1) / PAGE_SIZE;
        let end = (first + 1..=last).find(|page| is_set(written, *page) != upper);
        (upper, end.map_or(length, |end| end * PAGE_SIZE - offset))
    }

    /// Brings the page of `offset` up where only a part of it will be written.
    fn fetch(&self, written: &mut [u64], offset: u64) -> Result<()> {
        let page = offset / PAGE_SIZE;
        if is_set(written, page) {
            return Ok(());
        }
        let start = page * PAGE_SIZE;
        let length = PAGE_SIZE.min(self.lower.size().0 - start);
        let mut bytes = vec![0; length as usize];
        self.lower.read_at(ByteOffset(start), &mut bytes)?;
        self.upper.write_at(ByteOffset(start), &bytes)?;
        set(written, page);
        Ok(())
    }

    /// Prepares a range for being written wholly: its first and last page may be cut.
    fn prepare(&self, written: &mut [u64], range: ByteRange) -> Result<()> {
        let (start, end) = (range.offset.0, range.end().0);
        if !start.is_multiple_of(PAGE_SIZE) {
            self.fetch(written, start)?;
        }
        if !end.is_multiple_of(PAGE_SIZE) && end != self.lower.size().0 {
            self.fetch(written, end - 1)?;
        }
        Ok(())
    }

    fn change(&self, range: ByteRange, write: impl FnOnce() -> Result<()>) -> Result<()> {
        check_range(range, self.lower.size())?;
        if range.is_empty() {
            return Ok(());
        }
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        self.prepare(&mut written, range)?;
        write()?;
        for page in range.offset.0 / PAGE_SIZE..range.end().0.div_ceil(PAGE_SIZE) {
            set(&mut written, page);
        }
        Ok(())
    }
}

fn is_set(written: &[u64], page: u64) -> bool {
    written
        .get((page / 64) as usize)
        .is_some_and(|word| word >> (page % 64) & 1 != 0)
}

fn set(written: &mut [u64], page: u64) {
    if let Some(word) = written.get_mut((page / 64) as usize) {
        *word |= 1 << (page % 64);
    }
}

impl<L: BlockRead, U: BlockWrite> BlockRead for Overlay<L, U> {
    fn size(&self) -> ByteCount {
        self.lower.size()
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset.0;
        while !buffer.is_empty() {
            let (upper, length) = Self::run(&written, at, buffer.len() as u64);
            let (piece, rest) = buffer.split_at_mut(length as usize);
            if upper {
                self.upper.read_at(ByteOffset(at), piece)?;
            } else {
                self.lower.read_at(ByteOffset(at), piece)?;
            }
            at += length;
            buffer = rest;
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        let (upper, length) = Self::run(&written, range.offset.0, range.length.0);
        let piece = ByteRange::new(range.offset.0, length);
        let mut extents = Vec::new();
        let below = if upper {
            self.upper.extents(piece)?
        } else {
            self.lower.extents(piece)?
        };
        for extent in below {
            push_extent(&mut extents, extent);
        }
        Ok(extents)
    }
}

impl<L: BlockRead, U: BlockWrite> BlockWrite for Overlay<L, U> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, bytes.len() as u64);
        self.change(range, || self.upper.write_at(offset, bytes))
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        self.change(range, || self.upper.write_zeroes(range))
    }

    fn flush(&self) -> Result<()> {
        self.upper.flush()
    }
}
