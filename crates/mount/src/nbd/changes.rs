//! What changed since a checkpoint: a dirty bitmap and the map of zeros laid over each other.
//!
//! Knows: both contexts are asked in one question and their answers may end at different places.
//! Refuses to know: which checkpoint the bitmap belongs to, and whether it can be trusted.

use super::client::{BASE_ALLOCATION, StatusRun};
use super::{NbdClient, wire};
use base::block::{Extent, ExtentKind};
use base::size::{ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::collections::VecDeque;

/// The flag of a QEMU dirty bitmap for changed bytes.
const STATE_DIRTY: u64 = 1;

/// The dirty parts of a range, in order, asked from the server piece by piece, so that memory does
/// not grow with the disk. Neighbours of one kind come as one; what is not told of is clean.
pub struct ChangedExtents<'a> {
    client: &'a NbdClient,
    context: String,
    range: ByteRange,
    at: ByteOffset,
    /// Found and not yet given out. The last one may still grow.
    ready: VecDeque<Extent>,
}

impl<'a> ChangedExtents<'a> {
    pub(super) fn new(client: &'a NbdClient, context: String, range: ByteRange) -> Self {
        Self {
            client,
            context,
            range,
            at: range.offset,
            ready: VecDeque::new(),
        }
    }

    /// Asks for the next part of the range.
    fn ask(&mut self) -> Result<()> {
        let dirty = self.client.context_index(&self.context).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "mount.nbd.context-missing",
                format!(
                    "this connection did not ask for \u{201c}{}\u{201d}",
                    self.context
                ),
            )
            .hint("name the bitmap when connecting")
        })?;
        let zeros = self.client.context_index(BASE_ALLOCATION);
        let rest = ByteRange {
            offset: self.at,
            length: self.range.end() - self.at,
        };
        let lists = self.client.status_of_all(rest)?;
        let zeros = zeros.map(|index| lists[index].as_slice());
        let before = self.at;
        self.at = overlay(&lists[dirty], zeros, before, |extent| {
            push(&mut self.ready, extent)
        });
        if self.at == before {
            return Err(wire::violation("the server's map does not go on"));
        }
        Ok(())
    }
}

impl Iterator for ChangedExtents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.len() < 2 && self.at < self.range.end() {
            if let Err(error) = self.ask() {
                // Nothing more after an error: what follows would look like clean ranges.
                self.ready.clear();
                self.at = self.range.end();
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

fn push(ready: &mut VecDeque<Extent>, extent: Extent) {
    match ready.back_mut() {
        Some(last) if last.kind == extent.kind && last.range.end() == extent.range.offset => {
            last.range.length += extent.range.length;
        }
        _ => ready.push_back(extent),
    }
}

/// Walks both lists from `start` to the end of the shorter one, which is returned. Without a list
/// of zeros everything dirty is data.
fn overlay(
    dirty: &[StatusRun],
    zeros: Option<&[StatusRun]>,
    start: ByteOffset,
    mut found: impl FnMut(Extent),
) -> ByteOffset {
    let mut zeros = zeros.map(|runs| runs.iter().peekable());
    let mut at = start;
    for run in dirty {
        while at < run.range.end() {
            let (end, zero) = match &mut zeros {
                None => (run.range.end(), false),
                Some(zeros) => {
                    while zeros.next_if(|zero| zero.range.end() <= at).is_some() {}
                    match zeros.peek() {
                        Some(zero) => (run.range.end().min(zero.range.end()), zero.is_zero()),
                        None => return at,
                    }
                }
            };
            if run.flags & STATE_DIRTY != 0 {
                let kind = if zero {
                    ExtentKind::Zero
                } else {
                    ExtentKind::Data
                };
                found(Extent {
                    range: ByteRange::new(at.0, (end - at).0),
                    kind,
                });
            }
            at = end;
        }
    }
    at
}

#[cfg(test)]
mod tests;
