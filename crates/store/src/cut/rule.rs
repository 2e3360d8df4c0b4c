//! The rule that says where the next piece of a window ends.
//!
//! Knows: the rule of the format page, section "Cutting", over any way of looking at pages.
//! Refuses to know: where pages come from. Full cuts and recuts share it, so they cannot differ.

use super::page::PageKey;
use super::{CutParameters, PAGE};
use base::block::is_zero;
use std::convert::Infallible;

/// The pages of a window as the rule sees them.
pub(super) trait Pages {
    /// What can go wrong when looking at a page.
    type Error;
    /// How many there are; the last may be short.
    fn count(&self) -> usize;
    /// Whether page `at` is zero.
    fn zero(&mut self, at: usize) -> Result<bool, Self::Error>;
    /// The hash of page `at`.
    fn hash(&mut self, at: usize) -> Result<u64, Self::Error>;
}

/// Where a piece ends and what it is.
pub(super) struct Found {
    /// The page after its last.
    pub(super) end: usize,
    /// Whether it is a run of zeros.
    pub(super) zero: bool,
}

/// The piece that begins at page `start`, which must be a border of pieces.
pub(super) fn next<P: Pages>(
    pages: &mut P,
    parameters: &CutParameters,
    start: usize,
) -> Result<Found, P::Error> {
    let count = pages.count();
    let run = parameters.zero_run as usize;
    if long_run(pages, start, run)? {
        let mut end = start;
        while end < count && pages.zero(end)? {
            end += 1;
        }
        return Ok(Found { end, zero: true });
    }
    let min = parameters.min as usize / PAGE;
    let max = parameters.max as usize / PAGE;
    let bits = (parameters.avg / PAGE as u32).trailing_zeros();
    let mut before_zero = pages.zero(start)?;
    for at in start + 1..count {
        let length = at - start;
        let zero = pages.zero(at)?;
        // Only a run's first page can tell that the run is long: the others come too late.
        if zero && !before_zero && long_run(pages, at, run)? {
            return Ok(Found {
                end: at,
                zero: false,
            });
        }
        before_zero = zero;
        if length >= max || (length >= min && matches(pages.hash(at)?, bits)) {
            return Ok(Found {
                end: at,
                zero: false,
            });
        }
    }
    Ok(Found {
        end: count,
        zero: false,
    })
}

/// Whether a hash has its highest `bits` bits clear.
const fn matches(hash: u64, bits: u32) -> bool {
    hash.leading_zeros() >= bits
}

/// Whether the zeros from `start` on are a run of their own: `run` pages, or the whole window.
fn long_run<P: Pages>(pages: &mut P, start: usize, run: usize) -> Result<bool, P::Error> {
    let count = pages.count();
    let needed = if start == 0 { run.min(count) } else { run };
    if start + needed > count {
        return Ok(false);
    }
    for at in start..start + needed {
        if !pages.zero(at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A window all of whose bytes are in memory.
pub(super) struct Whole<'a> {
    pub(super) window: &'a [u8],
    pub(super) key: &'a PageKey,
}

impl Whole<'_> {
    fn page(&self, at: usize) -> &[u8] {
        let end = ((at + 1) * PAGE).min(self.window.len());
        &self.window[at * PAGE..end]
    }
}

impl Pages for Whole<'_> {
    type Error = Infallible;

    fn count(&self) -> usize {
        self.window.len().div_ceil(PAGE)
    }

    fn zero(&mut self, at: usize) -> Result<bool, Infallible> {
        Ok(is_zero(self.page(at)))
    }

    fn hash(&mut self, at: usize) -> Result<u64, Infallible> {
        Ok(self.key.hash_padded(self.page(at)))
    }
}
