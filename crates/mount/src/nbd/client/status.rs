//! What the export's ranges hold, by its metadata contexts.
//!
//! Knows: asking all contexts at once, and that answers may end early or reach too far.
//! Refuses to know: what the flags of foreign contexts mean.

use super::super::wire::reply::Descriptor;
use super::{BASE_ALLOCATION, Command, NbdClient, Outcome, Purpose, context_missing, mixed_up};
use base::Result;
use base::block::{BlockRead, Extent, ExtentKind, check_range, push_extent};
use base::size::ByteRange;

/// The flag of `base:allocation` for zeros.
const STATE_ZERO: u64 = 1 << 1;
/// The longest range of one question with 32-bit headers: below 2^31, which old servers want, and
/// a multiple of the largest block.
const QUESTION_MAX: u64 = 0x7fff_0000;

/// A run of bytes with one status in one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRun {
    /// Where.
    pub range: ByteRange,
    /// The context's flags.
    pub flags: u64,
}

impl StatusRun {
    /// Whether `base:allocation` promises zeros.
    pub const fn is_zero(&self) -> bool {
        self.flags & STATE_ZERO != 0
    }
}

impl NbdClient {
    /// The status of `range` in one context: runs in order from its first byte. May end early, but
    /// never before the first byte; ask again for the rest.
    ///
    /// # Errors
    /// `NotFound` for a context that this connection does not have; what the server answers.
    pub fn block_status(&self, context: &str, range: ByteRange) -> Result<Vec<StatusRun>> {
        let index = self
            .context_index(context)
            .ok_or_else(|| context_missing(context))?;
        let mut lists = self.status_of_all(range)?;
        Ok(lists.swap_remove(index))
    }

    /// The place of a context in the lists of `status_of_all`.
    pub(in crate::nbd) fn context_index(&self, context: &str) -> Option<usize> {
        self.contexts.iter().position(|(_, name)| name == context)
    }

    /// The status of `range` in every context of the connection, in their order.
    pub(in crate::nbd) fn status_of_all(&self, range: ByteRange) -> Result<Vec<Vec<StatusRun>>> {
        check_range(range, self.size())?;
        if range.is_empty() || self.contexts.is_empty() {
            return Ok(self.contexts.iter().map(|_| Vec::new()).collect());
        }
        let block = u64::from(self.facts.sizes.minimum);
        let start = range.offset.0 / block * block;
        let end = range.end().0.next_multiple_of(block);
        let length = if self.extended {
            end - start
        } else {
            (end - start).min(QUESTION_MAX)
        };
        let request = self.request(Command::BLOCK_STATUS, start, length);
        let purpose = Purpose::Status(Vec::new());
        let ticket = self.pipeline.submit(request, &[], purpose, 0)?;
        let mut lists = match self.pipeline.wait(&ticket)? {
            Outcome::Status(lists) => lists,
            other => return Err(mixed_up(&other)),
        };
        // Every context has exactly one list: the flight made sure.
        let in_order = self.contexts.iter().map(|(id, _)| {
            let place = lists.iter().position(|(context, _)| context == id);
            place
                .map(|place| lists.swap_remove(place).1)
                .unwrap_or_default()
        });
        Ok(in_order
            .map(|list| runs_within(start, &list, range))
            .collect())
    }

    /// Extents by `base:allocation`; all data where the server does not have it.
    pub(super) fn allocation_extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let Some(index) = self.context_index(BASE_ALLOCATION) else {
            return Ok(vec![Extent {
                range,
                kind: ExtentKind::Data,
            }]);
        };
        let mut extents = Vec::new();
        for run in &self.status_of_all(range)?[index] {
            let kind = if run.is_zero() {
                ExtentKind::Zero
            } else {
                ExtentKind::Data
            };
            push_extent(
                &mut extents,
                Extent {
                    range: run.range,
                    kind,
                },
            );
        }
        Ok(extents)
    }
}

/// Descriptors that start at `start`, cut to `range`.
fn runs_within(start: u64, descriptors: &[Descriptor], range: ByteRange) -> Vec<StatusRun> {
    let mut runs = Vec::with_capacity(descriptors.len());
    let mut at = start;
    for (length, flags) in descriptors {
        let run = ByteRange::new(at, *length);
        match run.intersection(&range) {
            Some(part) => runs.push(StatusRun {
                range: part,
                flags: *flags,
            }),
            None if run.offset >= range.end() => break,
            None => {}
        }
        at = run.end().0;
    }
    runs
}
