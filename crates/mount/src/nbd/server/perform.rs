//! What each request does to a disk.
//!
//! Knows: which requests make sense, and the answer to each, also to those that do not.
//! Refuses to know: threads and sockets.

use super::super::client::StatusRun;
use super::super::wire::reply::{ChunkKind, Descriptor, encode_status};
use super::super::wire::request::{
    CMD_FLAG_DF, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE, Command,
    Request,
};
use super::super::wire::{Errno, PAYLOAD_MAX};
use super::session::{Session, Work};
use base::block::{BlockWrite, ExtentKind, is_zero};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// The most bytes of one chunk of a read; a longer read comes in several, so that a thread holds
/// no more than this.
const CHUNK_MAX: u64 = 2 << 20;
/// The most descriptors of one context in a reply; a client asks again for the rest.
const DESCRIPTORS_SENT: usize = 1 << 16;
/// `base:allocation` of a range that takes no space and reads as zeros.
const HOLE_AND_ZERO: u64 = 3;

/// What a request is refused with.
pub type Refusal = (Errno, &'static str);

impl Session<'_> {
    /// Why a request cannot be done, before anything of the disk is touched.
    pub fn refusal(&self, request: &Request) -> Option<Refusal> {
        let Request {
            command,
            offset,
            length,
            ..
        } = *request;
        let allowed = match command {
            Command::READ if self.structured => CMD_FLAG_DF,
            Command::WRITE if self.extended => CMD_FLAG_PAYLOAD_LEN,
            Command::WRITE_ZEROES => CMD_FLAG_NO_HOLE,
            Command::BLOCK_STATUS => CMD_FLAG_REQ_ONE,
            Command::READ | Command::WRITE | Command::FLUSH | Command::TRIM => 0,
            _ => return Some((Errno::INVAL, "the command is unknown")),
        };
        // Clients are known to set FUA on commands that write nothing.
        if request.flags & !(allowed | CMD_FLAG_FUA) != 0 {
            return Some((Errno::INVAL, "a flag does not go with the command"));
        }
        let writes = matches!(
            command,
            Command::WRITE | Command::TRIM | Command::WRITE_ZEROES
        );
        if writes && self.export.write.is_none() {
            return Some((Errno::PERM, "the export is read-only"));
        }
        let size = self.export.read.size().0;
        if command != Command::FLUSH && offset.checked_add(length).is_none_or(|end| end > size) {
            let grows = matches!(command, Command::WRITE | Command::WRITE_ZEROES);
            let errno = if grows { Errno::NOSPC } else { Errno::INVAL };
            return Some((errno, "the range reaches past the end"));
        }
        if command == Command::READ && length > u64::from(PAYLOAD_MAX) {
            return Some((Errno::INVAL, "the read is longer than the largest block"));
        }
        if command == Command::BLOCK_STATUS && (self.contexts.is_empty() || length == 0) {
            return Some((
                Errno::INVAL,
                "no context was selected, or the range is empty",
            ));
        }
        None
    }

    /// Does what is asked and replies. An error means that the reply could not be sent.
    pub fn perform(&self, mut work: Work<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        let request = work.request;
        if let Some((errno, text)) = self.refusal(&request) {
            return self.send_error(&request, errno, text);
        }
        match request.command {
            Command::READ => {
                work.release();
                self.read(&request, buffer)
            }
            Command::BLOCK_STATUS => self.block_status(&request),
            _ => match self.change(&request, buffer) {
                Ok(()) => self.send_done(&request),
                Err(error) => self.send_failure(&request, &error),
            },
        }
    }

    fn read(&self, request: &Request, buffer: &mut Vec<u8>) -> Result<()> {
        let Request { offset, length, .. } = *request;
        let whole = !self.structured || request.flags & CMD_FLAG_DF != 0;
        let step = if whole { length } else { length.min(CHUNK_MAX) };
        let _share = self.take_budget(step);
        let mut done = 0;
        while done < length {
            let part = step.min(length - done);
            buffer.resize(ByteCount(part).as_usize()?, 0);
            if let Err(error) = self.export.read.read_at(ByteOffset(offset + done), buffer) {
                return self.send_failure(request, &error);
            }
            let at = offset + done;
            done += part;
            if !self.structured {
                return self.send_simple(request, Errno(0), buffer);
            }
            let mut fields = at.to_be_bytes().to_vec();
            if is_zero(buffer) {
                // A part is at most PAYLOAD_MAX, which fits.
                fields.extend_from_slice(&u32::try_from(part).unwrap_or(0).to_be_bytes());
                self.send_chunk(
                    request,
                    ChunkKind::OFFSET_HOLE,
                    done == length,
                    &fields,
                    &[],
                )?;
            } else {
                self.send_chunk(
                    request,
                    ChunkKind::OFFSET_DATA,
                    done == length,
                    &fields,
                    buffer,
                )?;
            }
        }
        if length == 0 {
            self.send_done(request)
        } else {
            Ok(())
        }
    }

    /// Writes, zeros, trims or flushes.
    fn change(&self, request: &Request, bytes: &[u8]) -> Result<()> {
        // A read-only disk has nothing to flush, and nothing else of these gets here.
        let Some(disk) = &self.export.write else {
            return Ok(());
        };
        let range = ByteRange::new(request.offset, request.length);
        match request.command {
            Command::WRITE => disk.write_at(range.offset, bytes)?,
            Command::WRITE_ZEROES if request.flags & CMD_FLAG_NO_HOLE != 0 => {
                write_real_zeros(disk, range)?;
            }
            // To make a hole is what a trim allows; our disks know no weaker wish.
            Command::WRITE_ZEROES | Command::TRIM => disk.write_zeroes(range)?,
            _ => return disk.flush(),
        }
        if request.flags & CMD_FLAG_FUA != 0 {
            disk.flush()
        } else {
            Ok(())
        }
    }

    fn block_status(&self, request: &Request) -> Result<()> {
        let range = ByteRange::new(request.offset, request.length);
        let one = request.flags & CMD_FLAG_REQ_ONE != 0;
        let kind = if self.extended {
            ChunkKind::BLOCK_STATUS_EXT
        } else {
            ChunkKind::BLOCK_STATUS
        };
        let mut lists = Vec::with_capacity(self.contexts.len());
        for context in &self.contexts {
            match self.status(*context, range) {
                Ok(runs) => lists.push(descriptors(&runs, range, one)),
                Err(error) => return self.send_failure(request, &error),
            }
        }
        if lists.iter().any(Vec::is_empty) {
            return self.send_error(request, Errno::IO, "the disk does not tell its map");
        }
        let count = lists.len();
        for (place, (context, list)) in self.contexts.iter().zip(lists).enumerate() {
            let mut payload = Vec::new();
            let id = u32::try_from(*context).unwrap_or(0);
            encode_status(id, &list, self.extended, &mut payload);
            self.send_chunk(request, kind, place + 1 == count, &[], &payload)?;
        }
        Ok(())
    }

    /// Runs of one context: the first is the allocation, the others the export's own.
    fn status(&self, context: usize, range: ByteRange) -> Result<Vec<StatusRun>> {
        if let Some(place) = context.checked_sub(1) {
            let (_, source) = self.export.contexts.get(place).ok_or_else(|| {
                Error::new(Kind::Bug, "mount.nbd-server.context", "a context has gone")
            })?;
            return source.status(range);
        }
        let extents = self.export.read.extents(range)?;
        let flags = |kind| {
            if kind == ExtentKind::Zero {
                HOLE_AND_ZERO
            } else {
                0
            }
        };
        let run = |extent: base::block::Extent| StatusRun {
            range: extent.range,
            flags: flags(extent.kind),
        };
        Ok(extents.into_iter().map(run).collect())
    }
}

/// Runs from the start of `range` as descriptors, neighbours of one status merged. A gap or an
/// overlap ends the list: the client asks again for the rest.
fn descriptors(runs: &[StatusRun], range: ByteRange, one: bool) -> Vec<Descriptor> {
    let mut list: Vec<Descriptor> = Vec::new();
    let mut at = range.offset;
    for run in runs {
        let Some(part) = run.range.intersection(&range) else {
            break;
        };
        if part.offset != at {
            break;
        }
        let full = list.len() == if one { 1 } else { DESCRIPTORS_SENT };
        match list.last_mut() {
            Some(last) if last.1 == run.flags => last.0 += part.length.0,
            Some(_) if full => break,
            _ => list.push((part.length.0, run.flags)),
        }
        at = part.end();
    }
    list
}

/// Zeros that take their space, as the client wished.
fn write_real_zeros(disk: &Arc<dyn BlockWrite>, range: ByteRange) -> Result<()> {
    let zeros = vec![0; ByteCount(CHUNK_MAX.min(range.length.0)).as_usize()?];
    let mut at = range.offset;
    while at < range.end() {
        let rest = (range.end() - at).as_usize()?.min(zeros.len());
        disk.write_at(at, &zeros[..rest])?;
        at = at + ByteCount(rest as u64);
    }
    Ok(())
}
