//! A file as it will be after its log was replayed.
//!
//! Knows: sectors and ranges of zeros that lie over the file. Refuses to know: where they come
//! from.

use super::corrupt;
use base::Result;
use base::block::{BlockRead, Extent, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};
use std::collections::BTreeMap;
use std::sync::Arc;

const SECTOR: u64 = 4096;

/// The file below, and what lies over it: sectors over zeros over the file.
pub(super) struct Replayed {
    file: Arc<dyn BlockRead>,
    size: u64,
    sectors: BTreeMap<u64, Vec<u8>>,
    /// Start to end; they do not touch each other.
    zeros: BTreeMap<u64, u64>,
}

impl Replayed {
    pub(super) fn new(file: Arc<dyn BlockRead>, size: u64) -> Self {
        Self {
            file,
            size,
            sectors: BTreeMap::new(),
            zeros: BTreeMap::new(),
        }
    }

    /// Whether anything differs from the file.
    pub(super) fn is_changed(&self) -> bool {
        !self.sectors.is_empty() || !self.zeros.is_empty()
    }

    /// Puts one sector over what was there.
    pub(super) fn put(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let end = offset.checked_add(SECTOR);
        if end.is_none_or(|end| end > self.size) {
            return Err(corrupt(
                "log-outside",
                "the log changes what is outside the file",
            ));
        }
        self.sectors.insert(offset, bytes);
        Ok(())
    }

    /// Puts zeros over what was there.
    pub(super) fn zero(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(corrupt(
                "log-outside",
                "the log changes what is outside the file",
            ));
        };
        if length == 0 {
            return Ok(());
        }
        let hidden: Vec<u64> = self.sectors.range(offset..end).map(|(at, _)| *at).collect();
        for at in hidden {
            self.sectors.remove(&at);
        }
        let (mut start, mut end) = (offset, end);
        // Join with those it touches, from the back.
        while let Some((first, last)) = self.zeros.range(..=end).next_back().map(|(a, b)| (*a, *b))
        {
            if last < start {
                break;
            }
            self.zeros.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.zeros.insert(start, end);
        Ok(())
    }

    fn is_covered(&self, range: ByteRange) -> bool {
        let (start, end) = (range.offset.0, range.end().0);
        self.sectors
            .range(start.saturating_sub(SECTOR - 1)..end)
            .next()
            .is_some()
            || self
                .zeros
                .range(..end)
                .next_back()
                .is_some_and(|(_, last)| *last > start)
    }
}

impl BlockRead for Replayed {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let start = offset.0;
        check_range(ByteRange::new(start, buffer.len() as u64), self.size())?;
        crate::extent::read_parent(Some(&*self.file), start, buffer)?;
        let end = start + buffer.len() as u64;
        for (first, last) in self.zeros.range(..end).rev() {
            if *last <= start {
                break;
            }
            let (first, last) = ((*first).max(start), (*last).min(end));
            buffer[(first - start) as usize..(last - start) as usize].fill(0);
        }
        for (at, bytes) in self.sectors.range(start.saturating_sub(SECTOR - 1)..end) {
            let (first, last) = ((*at).max(start), (at + SECTOR).min(end));
            buffer[(first - start) as usize..(last - start) as usize]
                .copy_from_slice(&bytes[(first - at) as usize..(last - at) as usize]);
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        if range.end().0 <= self.file.size().0 && !self.is_covered(range) {
            return self.file.extents(range);
        }
        Ok(vec![Extent::data(range.offset.0, range.length.0)])
    }
}
