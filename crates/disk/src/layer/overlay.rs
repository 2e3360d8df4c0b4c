//! Copy-on-write: a disk that can be written while the one below it never changes.
//!
//! Knows: which pages were written since it was made; they are in the upper disk, all others in
//! the lower one.
//! Refuses to know: how to find the pages again after a restart; the map is in memory. Whoever
//! keeps an overlay for longer uses an image format that keeps the map.

use super::pages::PageSet;
use base::block::{BlockRead, BlockWrite, Extent, check_range, push_extent};
use base::limit::PAGE_SIZE;
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Result};
use std::sync::{PoisonError, RwLock};

/// A disk over another one.
pub struct Overlay<L, U> {
    lower: L,
    upper: U,
    /// The pages that were written. Locked for the time of a write, so that two writers of one page do
    /// not both fetch it from below.
    written: RwLock<PageSet>,
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
        Ok(Self {
            lower,
            upper,
            written: RwLock::default(),
        })
    }

    /// How many bytes were written over the lower disk, in whole pages.
    pub fn written(&self) -> ByteCount {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        ByteCount(written.len() * PAGE_SIZE)
    }

    /// Whether the page of `offset` was written, and for how many bytes (at most `length`) that
    /// holds.
    fn run(written: &PageSet, offset: u64, length: u64) -> (bool, u64) {
        let page = offset / PAGE_SIZE;
        let end = written
            .next_change(page)
            .map(|page| page.saturating_mul(PAGE_SIZE));
        (
            written.contains(page),
            end.map_or(length, |end| length.min(end - offset)),
        )
    }

    /// Brings the page of `offset` up where only a part of it will be written.
    fn fetch(&self, written: &mut PageSet, offset: u64) -> Result<()> {
        let page = offset / PAGE_SIZE;
        if written.contains(page) {
            return Ok(());
        }
        let start = page * PAGE_SIZE;
        let length = PAGE_SIZE.min(self.lower.size().0 - start);
        let mut bytes = vec![0; length as usize];
        self.lower.read_at(ByteOffset(start), &mut bytes)?;
        self.upper.write_at(ByteOffset(start), &bytes)?;
        written.insert(page);
        Ok(())
    }

    /// Prepares a range for being written wholly: its first and last page may be cut.
    fn prepare(&self, written: &mut PageSet, range: ByteRange) -> Result<()> {
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
            written.insert(page);
        }
        Ok(())
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
