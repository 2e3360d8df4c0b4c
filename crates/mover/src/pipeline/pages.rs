//! Which pages of one window must be read.
//!
//! Knows: extents of a source become whole pages, each clean, zero or to be read. Refuses to know:
//! how they are read.

use base::block::{Extent, ExtentKind};
use base::limit::PAGE_SIZE;
use base::size::ByteRange;

/// What a page needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    /// Nothing: it is as it was in the base.
    Clean,
    /// Nothing: it is zero now.
    Zero,
    /// It must be read.
    Read,
}

/// The pages of one window of a disk.
pub struct WindowPages {
    start: u64,
    length: u64,
    pages: Vec<Page>,
}

impl WindowPages {
    /// A window whose pages are as in the base unless an extent says otherwise.
    pub fn clean(window: ByteRange) -> Self {
        Self::filled(window, Page::Clean)
    }

    /// A window whose pages are zero unless an extent says otherwise.
    pub fn zero(window: ByteRange) -> Self {
        Self::filled(window, Page::Zero)
    }

    fn filled(window: ByteRange, page: Page) -> Self {
        let count = usize::try_from(window.length.0.div_ceil(PAGE_SIZE)).unwrap_or(usize::MAX);
        Self {
            start: window.offset.0,
            length: window.length.0,
            pages: vec![page; count],
        }
    }

    /// Notes what an extent of the disk says about the pages that it touches. A page that is zero
    /// only in parts is read.
    pub fn note(&mut self, extent: &Extent) {
        let window = ByteRange::new(self.start, self.length);
        let Some(part) = extent.range.intersection(&window) else {
            return;
        };
        let (from, to) = (part.offset.0 - self.start, part.end().0 - self.start);
        let first = from / PAGE_SIZE;
        for index in first..to.div_ceil(PAGE_SIZE) {
            let page_end = ((index + 1) * PAGE_SIZE).min(self.length);
            let whole = from <= index * PAGE_SIZE && page_end <= to;
            let Some(page) = usize::try_from(index)
                .ok()
                .and_then(|i| self.pages.get_mut(i))
            else {
                return;
            };
            *page = match (extent.kind, whole, *page) {
                (ExtentKind::Zero, true, Page::Clean | Page::Zero) => Page::Zero,
                _ => Page::Read,
            };
        }
    }

    /// The runs of pages that must be read, within the window.
    pub fn to_read(&self) -> Vec<ByteRange> {
        self.runs(|page| page == Page::Read)
    }

    /// The runs of pages that are not as in the base, within the window.
    pub fn dirty(&self) -> Vec<ByteRange> {
        self.runs(|page| page != Page::Clean)
    }

    fn runs(&self, wanted: impl Fn(Page) -> bool) -> Vec<ByteRange> {
        let mut runs: Vec<ByteRange> = Vec::new();
        let mut at = 0;
        for page in &self.pages {
            let length = PAGE_SIZE.min(self.length - at);
            if wanted(*page) {
                match runs.last_mut() {
                    Some(last) if last.end().0 == at => last.length.0 += length,
                    _ => runs.push(ByteRange::new(at, length)),
                }
            }
            at += length;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_SIZE;

    #[test]
    fn extents_grow_to_pages_and_partly_zero_pages_are_read() {
        let mut pages = WindowPages::clean(ByteRange::new(10 * P, 8 * P));
        // Before the window, over its start, a piece of page 2, and zeros over pages 3.5 to 6.
        pages.note(&Extent::data(0, 9 * P));
        pages.note(&Extent::data(9 * P, P + 1));
        pages.note(&Extent::data(12 * P + 5, 1));
        pages.note(&Extent::zero(13 * P + P / 2, 3 * P));
        assert_eq!(
            pages.to_read(),
            [
                ByteRange::new(0, P),
                ByteRange::new(2 * P, 2 * P),
                ByteRange::new(6 * P, P)
            ]
        );
        assert_eq!(
            pages.dirty(),
            [ByteRange::new(0, P), ByteRange::new(2 * P, 5 * P)]
        );
    }

    #[test]
    fn the_last_page_of_a_disk_may_be_short() {
        let mut pages = WindowPages::zero(ByteRange::new(0, P + 100));
        assert_eq!(pages.to_read(), []);
        pages.note(&Extent::zero(P, 100));
        assert_eq!(pages.to_read(), []);
        pages.note(&Extent::data(P + 99, 1));
        assert_eq!(pages.to_read(), [ByteRange::new(P, 100)]);
        assert_eq!(pages.dirty(), [ByteRange::new(0, P + 100)]);
    }
}
