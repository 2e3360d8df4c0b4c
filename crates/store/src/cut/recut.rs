//! Cutting a window again of which only some pages changed.
//!
//! Knows: which of the old cuts still hold. Gives exactly what a full cut of the new bytes gives,
//! but asks the source only for changed pages and the repository only for the few blocks around
//! them.
//! Refuses to know: what the old blocks are called by and who changed the pages.
//!
//! # Why the old cuts hold
//! Whether a page begins a piece depends on the pages from the piece's start up to it, and on zero
//! pages up to `zero_run - 1` further on. So an old border that lies `zero_run` pages or more before
//! the first changed page is a border still: a run of zeros that reaches from it to the change is
//! long without the change. And once a new border past a change coincides with an old one,
//! `zero_run` pages or more behind the change, all that follows is as it was until the next change.

use super::rule::{self, Pages};
use super::{Cutter, PAGE, Segment};
use crate::id::BlockId;
use base::block::is_zero;
use base::size::ByteRange;
use base::{Error, Result};
use std::ops::Range;

/// One piece of a window that was cut again after a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecutPiece {
    /// A block of the old leaf that did not change.
    Kept(Segment),
    /// New bytes, to be named and put.
    New(Vec<u8>),
    /// A run of zeros of this many bytes.
    Zero(u32),
}

/// Reads a range of the window, as it is now, from the source.
type Source<'a> = &'a mut dyn FnMut(ByteRange, &mut [u8]) -> Result<()>;
/// Reads a block that the repository has.
type Stored<'a> = &'a mut dyn FnMut(&BlockId, &mut [u8]) -> Result<()>;

impl Cutter {
    /// Cuts a window again of which only `dirty` changed (ranges within the window, in any order;
    /// widened to pages). Gives exactly what [`Self::cut`] of the new bytes gives, but reads only
    /// dirty ranges through `source` and, where clean neighbours are needed, old blocks through
    /// `stored`.
    ///
    /// `old` are the window's segments before, empty for a window of zeros. Where the window's
    /// length changed, all bytes that were not there before count as dirty.
    ///
    /// # Errors
    /// Those of the two readers; `Invalid` where ranges or segments do not fit the window.
    pub fn recut(
        &self,
        old: &[Segment],
        length: u32,
        dirty: &[ByteRange],
        source: &mut dyn FnMut(ByteRange, &mut [u8]) -> Result<()>,
        stored: &mut dyn FnMut(&BlockId, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<RecutPiece>> {
        let length = length as usize;
        if length == 0 || length > self.parameters.window as usize {
            return Err(unfit(format!("a window of {length} bytes")));
        }
        let old = OldWindow::new(old, length)?;
        let changed = changed_pages(&old, length, dirty)?;
        let mut view = View {
            cutter: self,
            length,
            old: &old,
            changed: &changed,
            source,
            stored,
            pages: None,
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        let margin = self.parameters.zero_run as usize;
        let mut left = changed.doubtful.as_slice();
        while at < view.count() {
            at = copy_untouched(&old, &mut pieces, at, left, margin, length);
            if at >= view.count() {
                break;
            }
            at = recut_one(&mut view, &mut pieces, at)?;
            while left.first().is_some_and(|range| range.end + margin <= at) {
                left = &left[1..];
            }
        }
        Ok(pieces)
    }
}

/// Copies old segments from `at` on as long as no change is near; where it stopped.
fn copy_untouched(
    old: &OldWindow,
    pieces: &mut Vec<RecutPiece>,
    mut at: usize,
    left: &[Range<usize>],
    margin: usize,
    length: usize,
) -> usize {
    // A change behind us that is not far enough behind keeps us cutting.
    let safe_until = match left.first() {
        Some(range) => range.start.saturating_sub(margin),
        None => length.div_ceil(PAGE),
    };
    if at > safe_until {
        return at;
    }
    let Ok(mut index) = old.spans.binary_search_by_key(&at, |span| span.pages.start) else {
        return at;
    };
    while let Some(span) = old
        .spans
        .get(index)
        .filter(|span| span.pages.end <= safe_until)
    {
        pieces.push(match span.segment.block {
            Some(_) => RecutPiece::Kept(span.segment),
            None => RecutPiece::Zero(span.segment.length),
        });
        at = span.pages.end;
        index += 1;
    }
    at
}

/// Cuts one piece by the rule; where it ends.
fn recut_one(view: &mut View<'_>, pieces: &mut Vec<RecutPiece>, at: usize) -> Result<usize> {
    let found = rule::next(view, &view.cutter.parameters, at)?;
    let bytes = at * PAGE..(found.end * PAGE).min(view.length);
    if found.zero {
        pieces.push(RecutPiece::Zero(bytes.len() as u32));
    } else if let Some(segment) = view.unchanged(at..found.end, bytes.len()) {
        pieces.push(RecutPiece::Kept(segment));
    } else {
        pieces.push(RecutPiece::New(view.bytes(at..found.end, bytes)?));
    }
    Ok(found.end)
}

/// One old segment and the pages it covers.
struct Span {
    pages: Range<usize>,
    segment: Segment,
}

/// The window as it was.
struct OldWindow {
    spans: Vec<Span>,
    /// Its length in bytes.
    length: usize,
}

impl OldWindow {
    fn new(segments: &[Segment], length: usize) -> Result<Self> {
        let zeros = [Segment {
            length: length as u32,
            block: None,
        }];
        let segments = if segments.is_empty() {
            &zeros
        } else {
            segments
        };
        let mut spans = Vec::with_capacity(segments.len());
        let mut at = 0;
        for segment in segments {
            if at % PAGE != 0 || segment.length == 0 {
                return Err(unfit("segments that do not begin at pages".to_owned()));
            }
            let end = at + segment.length as usize;
            spans.push(Span {
                pages: at / PAGE..end.div_ceil(PAGE),
                segment: *segment,
            });
            at = end;
        }
        Ok(Self { spans, length: at })
    }

    /// The old segment that covers a page.
    fn span(&self, page: usize) -> Option<&Span> {
        let index = self.spans.partition_point(|span| span.pages.end <= page);
        self.spans.get(index)
    }
}

/// Which pages changed.
struct Changed {
    /// Pages whose bytes must come from the source: disjoint, in order, none adjacent.
    dirty: Vec<Range<usize>>,
    /// Pages around which old cuts cannot be trusted: the dirty ones, and the window's end where
    /// its length changed.
    doubtful: Vec<Range<usize>>,
}

fn changed_pages(old: &OldWindow, length: usize, dirty: &[ByteRange]) -> Result<Changed> {
    let count = length.div_ceil(PAGE);
    let mut ranges = Vec::with_capacity(dirty.len() + 1);
    for range in dirty.iter().filter(|range| !range.is_empty()) {
        let start = range.offset.0 as usize;
        let end = start.saturating_add(range.length.0 as usize);
        if end > length {
            return Err(unfit(format!(
                "the changed range {range} outside the window"
            )));
        }
        ranges.push(start / PAGE..end.div_ceil(PAGE));
    }
    if old.length < length {
        ranges.push(old.length / PAGE..count);
    }
    let mut doubtful = ranges.clone();
    if old.length > length {
        // A page that is cut off now has fewer bytes than in its block, but the same ones: the old
        // block serves them. Only what follows the new end is gone.
        doubtful.push(count - usize::from(!length.is_multiple_of(PAGE))..count);
    }
    Ok(Changed {
        dirty: merged(ranges),
        doubtful: merged(doubtful),
    })
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut all: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

/// The window as it is now, loaded where somebody looks.
struct View<'a> {
    cutter: &'a Cutter,
    length: usize,
    old: &'a OldWindow,
    changed: &'a Changed,
    source: Source<'a>,
    stored: Stored<'a>,
    /// Made when the first byte is needed.
    pages: Option<Loaded>,
}

struct Loaded {
    bytes: Vec<u8>,
    there: Vec<bool>,
}

impl View<'_> {
    fn dirty_range(&self, page: usize) -> Option<Range<usize>> {
        let dirty = &self.changed.dirty;
        let index = dirty.partition_point(|range| range.end <= page);
        dirty
            .get(index)
            .filter(|range| range.contains(&page))
            .cloned()
    }

    /// The old segment, if it covers exactly these pages and none of them changed.
    fn unchanged(&self, pages: Range<usize>, bytes: usize) -> Option<Segment> {
        let span = self.old.span(pages.start)?;
        let index = self
            .changed
            .dirty
            .partition_point(|range| range.end <= pages.start);
        let touched = self
            .changed
            .dirty
            .get(index)
            .is_some_and(|range| range.start < pages.end);
        (span.pages == pages
            && span.segment.length as usize == bytes
            && span.segment.block.is_some()
            && !touched)
            .then_some(span.segment)
    }

    fn bytes(&mut self, pages: Range<usize>, bytes: Range<usize>) -> Result<Vec<u8>> {
        for page in pages {
            self.load(page)?;
        }
        Ok(self
            .pages
            .as_ref()
            .map_or_else(Vec::new, |loaded| loaded.bytes[bytes].to_vec()))
    }

    /// Makes the bytes of a page present, with those of its neighbours that come along.
    fn load(&mut self, page: usize) -> Result<()> {
        let loaded = self.pages.get_or_insert_with(|| Loaded {
            bytes: vec![0; self.length],
            there: vec![false; self.length.div_ceil(PAGE)],
        });
        if loaded.there[page] {
            return Ok(());
        }
        if let Some(range) = self.dirty_range(page) {
            let bytes = range.start * PAGE..(range.end * PAGE).min(self.length);
            let place = ByteRange::new(bytes.start as u64, bytes.len() as u64);
            if let Some(loaded) = &mut self.pages {
                (self.source)(place, &mut loaded.bytes[bytes])?;
                loaded.there[range].fill(true);
            }
            return Ok(());
        }
        self.load_old(page)
    }

    fn load_old(&mut self, page: usize) -> Result<()> {
        let span = self
            .old
            .span(page)
            .ok_or_else(|| unfit("pages that are neither old nor changed".to_owned()))?;
        let mut block = Vec::new();
        if let Some(id) = &span.segment.block {
            block.resize(span.segment.length as usize, 0);
            (self.stored)(id, &mut block)?;
        }
        let pages = span.pages.start..span.pages.end.min(self.length.div_ceil(PAGE));
        for at in pages.clone() {
            if self.dirty_range(at).is_some() {
                continue;
            }
            let from = (at - pages.start) * PAGE;
            let to = at * PAGE..((at + 1) * PAGE).min(self.length);
            if let Some(loaded) = &mut self.pages {
                if !block.is_empty() {
                    let bytes = block
                        .get(from..from + to.len())
                        .ok_or_else(|| unfit("an old block shorter than its pages".to_owned()))?;
                    loaded.bytes[to].copy_from_slice(bytes);
                }
                loaded.there[at] = true;
            }
        }
        Ok(())
    }

    /// The bytes of a page.
    fn page(&mut self, at: usize) -> Result<&[u8]> {
        self.load(at)?;
        let end = ((at + 1) * PAGE).min(self.length);
        Ok(self
            .pages
            .as_ref()
            .map_or(&[], |loaded| &loaded.bytes[at * PAGE..end]))
    }
}

impl Pages for View<'_> {
    type Error = Error;

    fn count(&self) -> usize {
        self.length.div_ceil(PAGE)
    }

    fn zero(&mut self, at: usize) -> Result<bool> {
        if self.dirty_range(at).is_none()
            && self
                .old
                .span(at)
                .is_some_and(|span| span.segment.block.is_none())
        {
            return Ok(true);
        }
        Ok(is_zero(self.page(at)?))
    }

    fn hash(&mut self, at: usize) -> Result<u64> {
        let key = self.cutter.page_key;
        Ok(key.hash_padded(self.page(at)?))
    }
}

fn unfit(what: String) -> Error {
    Error::invalid(
        "store.recut.unfit",
        format!("a window cannot be cut again: {what}"),
    )
}
