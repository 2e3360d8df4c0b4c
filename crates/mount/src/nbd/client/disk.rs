//! The export as a disk: reads and writes of any place and length.
//!
//! Knows: cutting into requests that the server takes, keeping several under way, and the blocks
//! at the edges. Refuses to know: how a request travels.

use super::super::wire::Errno;
use super::pipeline::Ticket;
use super::{Command, FLAG_SEND_FLUSH, FLAG_SEND_WRITE_ZEROES, NbdClient, PendingRead, Purpose};
use base::block::{BlockRead, BlockWrite, Extent, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange, GIB, MIB};
use base::{Kind, Result};
use std::collections::VecDeque;
use std::sync::PoisonError;

/// The length of one request of a longer read or write: large enough that a request costs little,
/// small enough that the next is on its way while one is copied.
const PIECE: u64 = MIB;
/// Pieces of one read or write under way at one time.
const PIECES_AHEAD: usize = 8;
/// The longest range of one request that carries no bytes, with 32-bit headers.
const EFFECT_MAX: u64 = GIB;

impl NbdClient {
    fn piece(&self) -> u64 {
        PIECE
            .min(u64::from(self.facts.sizes.maximum))
            .max(u64::from(self.facts.sizes.minimum))
    }

    fn block(&self) -> u64 {
        u64::from(self.facts.sizes.minimum)
    }

    /// Reads whole blocks, several pieces ahead, and hands each piece to `take`.
    fn read_blocks(&self, start: u64, end: u64, mut take: impl FnMut(u64, &[u8])) -> Result<()> {
        let mut under_way: VecDeque<(u64, PendingRead)> = VecDeque::new();
        let mut at = start;
        while at < end || !under_way.is_empty() {
            while at < end && under_way.len() < PIECES_AHEAD {
                // Cuts at multiples of the piece keep the server's own blocks whole.
                let next = end.min((at / self.piece() + 1) * self.piece());
                let buffer = self.buffer(ByteCount(next - at).as_usize()?);
                under_way.push_back((at, self.start_read(ByteOffset(at), buffer)?));
                at = next;
            }
            if let Some((offset, pending)) = under_way.pop_front() {
                let bytes = pending.wait()?;
                take(offset, &bytes);
                self.give_back(bytes);
            }
        }
        Ok(())
    }

    /// Writes whole blocks, several pieces ahead.
    fn write_blocks(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let mut under_way: VecDeque<Ticket> = VecDeque::new();
        let mut done = 0usize;
        while done < bytes.len() || !under_way.is_empty() {
            while done < bytes.len() && under_way.len() < PIECES_AHEAD {
                let at = start + done as u64;
                let length = self.piece() - at % self.piece();
                let rest = &bytes[done..];
                let payload = &rest[..rest.len().min(ByteCount(length).as_usize()?)];
                let mut request = self.request(Command::WRITE, at, payload.len() as u64);
                if self.extended {
                    request.flags |= super::super::wire::request::CMD_FLAG_PAYLOAD_LEN;
                }
                let weight = request.length;
                let ticket = self
                    .pipeline
                    .submit(request, payload, Purpose::Plain, weight)?;
                under_way.push_back(ticket);
                done += payload.len();
            }
            if let Some(ticket) = under_way.pop_front() {
                self.done(&ticket)?;
            }
        }
        Ok(())
    }

    /// Writes bytes that fill only a part of one block.
    fn write_edge(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let _one_at_a_time = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let start = offset / self.block() * self.block();
        let buffer = self.buffer(ByteCount(self.block()).as_usize()?);
        let mut block = self.start_read(ByteOffset(start), buffer)?.wait()?;
        let from = ByteCount(offset - start).as_usize()?;
        block[from..from + bytes.len()].copy_from_slice(bytes);
        self.write_blocks(start, &block)?;
        self.give_back(block);
        Ok(())
    }

    /// Sends a request without payload for whole blocks, in pieces that the server takes.
    pub(super) fn effects(&self, command: Command, start: u64, end: u64) -> Result<()> {
        let mut longest = if self.extended { u64::MAX } else { EFFECT_MAX };
        let mut at = start;
        while at < end {
            let length = longest.min(end - at);
            let request = self.request(command, at, length);
            let ticket = self.pipeline.submit(request, &[], Purpose::Plain, 0)?;
            match self.done(&ticket) {
                Ok(()) => at += length,
                // The server may find so long a range too costly; its longest write it must take.
                Err(error) if too_long(&error) && length > self.maximum() => {
                    longest = self.maximum();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn maximum(&self) -> u64 {
        u64::from(self.facts.sizes.maximum)
    }

    /// `range` cut into a head smaller than a block, whole blocks, and a tail.
    fn cut(&self, range: ByteRange) -> (u64, u64) {
        let first = range
            .offset
            .0
            .next_multiple_of(self.block())
            .min(range.end().0);
        let last = (range.end().0 / self.block() * self.block()).max(first);
        (first, last)
    }
}

fn too_long(error: &base::Error) -> bool {
    error.code() == Errno::OVERFLOW.kind_and_code().1 || error.kind() == Kind::Invalid
}

impl BlockRead for NbdClient {
    fn size(&self) -> ByteCount {
        ByteCount(self.facts.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, buffer.len() as u64);
        check_range(range, self.size())?;
        if range.is_empty() {
            return Ok(());
        }
        let start = offset.0 / self.block() * self.block();
        let end = range.end().0.next_multiple_of(self.block());
        self.read_blocks(start, end, |at, bytes| {
            let piece = ByteRange::new(at, bytes.len() as u64);
            if let Some(part) = piece.intersection(&range) {
                // Both differences are within a buffer, so that they fit.
                #[allow(clippy::cast_possible_truncation)]
                let (from, to, length) = (
                    (part.offset.0 - at) as usize,
                    (part.offset.0 - offset.0) as usize,
                    part.length.0 as usize,
                );
                buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
            }
        })
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        self.allocation_extents(range)
    }
}

impl BlockWrite for NbdClient {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, bytes.len() as u64);
        check_range(range, self.size())?;
        self.check_writable()?;
        let (first, last) = self.cut(range);
        let head = ByteCount(first - offset.0).as_usize()?;
        let body = ByteCount(last - offset.0).as_usize()?;
        if head > 0 {
            // A range within one block is all head, and its end may lie before the block's.
            self.write_edge(offset.0, &bytes[..head])?;
        }
        self.write_blocks(first, &bytes[head..body])?;
        if body < bytes.len() {
            self.write_edge(last, &bytes[body..])?;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        check_range(range, self.size())?;
        self.check_writable()?;
        let zeros = vec![0; ByteCount(self.piece().min(range.length.0)).as_usize()?];
        let (first, last) = self.cut(range);
        let write_zeros = |start: u64, end: u64| -> Result<()> {
            let mut at = start;
            while at < end {
                let length = ByteCount(end - at).as_usize()?.min(zeros.len());
                self.write_at(ByteOffset(at), &zeros[..length])?;
                at += length as u64;
            }
            Ok(())
        };
        if !self.has(FLAG_SEND_WRITE_ZEROES) {
            return write_zeros(range.offset.0, range.end().0);
        }
        write_zeros(range.offset.0, first)?;
        self.effects(Command::WRITE_ZEROES, first, last)?;
        write_zeros(last, range.end().0)
    }

    /// Returns when all that was written before is on stable storage. A server that does not know
    /// `FLUSH` says by that that it writes through.
    fn flush(&self) -> Result<()> {
        if !self.has(FLAG_SEND_FLUSH) {
            return self.check();
        }
        let request = self.request(Command::FLUSH, 0, 0);
        let ticket = self.pipeline.submit(request, &[], Purpose::Plain, 0)?;
        self.done(&ticket)
    }
}
