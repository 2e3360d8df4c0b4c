//! One request under way, from its sending to its last reply.
//!
//! Knows: how the parts of a reply are put together, and that no part may be missing, doubled or
//! foreign. Refuses to know: sockets; how requests are told apart.

use super::super::stream::Inbox;
use super::super::wire::reply::{Chunk, ChunkKind, Descriptor, decode_error, decode_hole};
use super::super::wire::{Errno, reply, violation};
use super::fault::{Fault, broken_stream};
use base::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most separate pieces of a read that are kept apart. Servers send pieces in order or nearly
/// so; one that does not would make us remember a piece for every byte.
const PIECES_MAX: usize = 4096;

/// What a request brings back.
#[derive(Debug)]
pub enum Outcome {
    /// The bytes of a read, in the buffer that was given.
    Bytes(Vec<u8>),
    /// Status by context id.
    Status(Vec<(u32, Vec<Descriptor>)>),
    /// It is done.
    Done,
}

/// What a request is for, and what has come so far.
pub enum Purpose {
    /// Fill the buffer.
    Read(Vec<u8>, Pieces),
    /// Collect one list for each of the connection's contexts.
    Status(Vec<(u32, Vec<Descriptor>)>),
    /// Nothing but success.
    Plain,
}

/// Where the thread that waits finds the outcome.
#[derive(Default)]
pub struct Slot {
    outcome: Mutex<Option<Result<Outcome, Fault>>>,
    arrived: Condvar,
}

impl Slot {
    fn put(&self, outcome: Result<Outcome, Fault>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.arrived.notify_all();
    }

    /// Waits at most `time` for the outcome, which is then taken away.
    pub fn take(&self, time: Duration) -> Option<Result<Outcome, Fault>> {
        let guard = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) = self
            .arrived
            .wait_timeout_while(guard, time, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        guard.take()
    }
}

/// One request under way.
pub struct Flight {
    /// First byte of its range.
    pub offset: u64,
    /// Bytes it keeps under way, for the bound on all of them.
    pub weight: u64,
    /// When it was sent.
    pub started: Instant,
    purpose: Purpose,
    refusal: Option<Fault>,
    slot: Arc<Slot>,
}

impl Flight {
    /// A request that starts now.
    pub fn new(offset: u64, weight: u64, purpose: Purpose, slot: Arc<Slot>) -> Self {
        Self {
            offset,
            weight,
            started: Instant::now(),
            purpose,
            refusal: None,
            slot,
        }
    }

    /// Gives the waiting thread a failure.
    pub fn fail(self, fault: Fault) {
        self.slot.put(Err(fault));
    }

    /// Takes a simple reply, with the bytes of a read behind it. `structured` forbids those.
    pub fn take_simple(&mut self, error: Errno, structured: bool, inbox: &mut Inbox) -> Result<()> {
        if error != Errno(0) {
            self.refuse(error, "");
            return Ok(());
        }
        match &mut self.purpose {
            Purpose::Plain => Ok(()),
            Purpose::Read(buffer, pieces) if !structured => {
                pieces.add(0, buffer.len() as u64)?;
                inbox.fill(buffer).map_err(broken_stream)
            }
            _ => Err(violation(
                "a request for bytes or status has a simple reply",
            )),
        }
    }

    /// Takes one chunk of a reply. `contexts` are the ids that the connection agreed on.
    pub fn take_chunk(
        &mut self,
        chunk: &Chunk,
        extended: bool,
        contexts: &[u32],
        inbox: &mut Inbox,
    ) -> Result<()> {
        if extended && chunk.offset != self.offset {
            return Err(violation("a reply names another offset than its request"));
        }
        let status_kind = if extended {
            ChunkKind::BLOCK_STATUS_EXT
        } else {
            ChunkKind::BLOCK_STATUS
        };
        match (chunk.kind, &mut self.purpose) {
            (ChunkKind::NONE, _) => Ok(()),
            (ChunkKind::OFFSET_DATA, Purpose::Read(buffer, pieces)) => {
                let start = u64::from_be_bytes(inbox.array().map_err(broken_stream)?);
                let place = pieces.place(self.offset, start, chunk.length - 8, buffer.len())?;
                inbox.fill(&mut buffer[place]).map_err(broken_stream)
            }
            (ChunkKind::OFFSET_HOLE, Purpose::Read(buffer, pieces)) => {
                let payload = inbox.array::<12>().map_err(broken_stream)?;
                let (start, length) = decode_hole(&payload)?;
                let place = pieces.place(self.offset, start, u64::from(length), buffer.len())?;
                buffer[place].fill(0);
                Ok(())
            }
            (kind, Purpose::Status(lists)) if kind == status_kind => {
                let payload = inbox.vec(payload_length(chunk)?).map_err(broken_stream)?;
                let (context, descriptors) = reply::decode_status(kind, &payload)?;
                let known = contexts.contains(&context);
                if !known || lists.iter().any(|(other, _)| *other == context) {
                    return Err(violation("a status names a context that was not asked for"));
                }
                lists.push((context, descriptors));
                Ok(())
            }
            (kind, _) if kind.is_error() => {
                let payload = inbox.vec(payload_length(chunk)?).map_err(broken_stream)?;
                let (error, text) = decode_error(&payload)?;
                self.refuse(error, &text);
                Ok(())
            }
            (kind, _) => Err(violation(format!(
                "a reply has a chunk of the unexpected kind {}",
                kind.0
            ))),
        }
    }

    /// Whether the last part may be the last. A reply that claims success but lacks a part is an
    /// error of the whole connection.
    pub fn check_complete(&self, contexts: &[u32]) -> Result<()> {
        match &self.purpose {
            _ if self.refusal.is_some() => Ok(()),
            Purpose::Read(buffer, pieces) => pieces.check_complete(buffer.len()),
            Purpose::Status(lists) if lists.len() != contexts.len() => {
                Err(violation("a status lacks a context that was asked for"))
            }
            Purpose::Status(_) | Purpose::Plain => Ok(()),
        }
    }

    /// Gives the waiting thread the outcome of a complete reply.
    pub fn finish(self) {
        if let Some(refusal) = self.refusal {
            self.slot.put(Err(refusal));
            return;
        }
        self.slot.put(Ok(match self.purpose {
            Purpose::Read(buffer, _) => Outcome::Bytes(buffer),
            Purpose::Status(lists) => Outcome::Status(lists),
            Purpose::Plain => Outcome::Done,
        }));
    }

    /// Remembers the first error; a reply may tell of several.
    fn refuse(&mut self, error: Errno, text: &str) {
        if self.refusal.is_none() {
            self.refusal = Some(Fault::refusal(error, text));
        }
    }
}

fn payload_length(chunk: &Chunk) -> Result<usize> {
    usize::try_from(chunk.length).map_err(|_| violation("a chunk is too long"))
}

/// Which bytes of a read have come: separate ranges in order.
#[derive(Default, Debug)]
pub struct Pieces(Vec<(u64, u64)>);

impl Pieces {
    /// Where `length` bytes at `start` of the export lie in the buffer of a read at `offset`;
    /// refuses what is outside of it or was there before.
    fn place(
        &mut self,
        offset: u64,
        start: u64,
        length: u64,
        buffer: usize,
    ) -> Result<std::ops::Range<usize>> {
        let outside = || violation("a reply holds bytes that were not asked for");
        let from = start.checked_sub(offset).ok_or_else(outside)?;
        let to = from
            .checked_add(length)
            .filter(|to| *to <= buffer as u64)
            .ok_or_else(outside)?;
        self.add(from, to)?;
        // Both are at most the buffer's length, which is a usize.
        let index = |at: u64| usize::try_from(at).map_err(|_| outside());
        Ok(index(from)?..index(to)?)
    }

    fn add(&mut self, from: u64, to: u64) -> Result<()> {
        let next = self.0.partition_point(|piece| piece.1 <= from);
        let overlaps = self.0.get(next).is_some_and(|piece| piece.0 < to);
        if overlaps {
            return Err(violation("a reply holds the same bytes twice"));
        }
        let joins_before = next > 0 && self.0[next - 1].1 == from;
        let joins_after = self.0.get(next).is_some_and(|piece| piece.0 == to);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[next - 1].1 = self.0[next].1;
                self.0.remove(next);
            }
            (true, false) => self.0[next - 1].1 = to,
            (false, true) => self.0[next].0 = from,
            (false, false) if self.0.len() < PIECES_MAX => self.0.insert(next, (from, to)),
            (false, false) => return Err(violation("a reply comes in too many pieces")),
        }
        Ok(())
    }

    fn check_complete(&self, length: usize) -> Result<(), Error> {
        if self.0.as_slice() == [(0, length as u64)] {
            Ok(())
        } else {
            Err(violation("a reply claims success but lacks bytes"))
        }
    }
}

#[cfg(test)]
mod tests;
