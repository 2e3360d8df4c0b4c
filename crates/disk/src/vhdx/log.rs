//! The log of a VHDX: changes of tables that were decided but perhaps not made yet.
//!
//! Knows: entries, how the newest unbroken sequence of them is found, and what they change.
//! Refuses to know: what the changed bytes mean. Nothing is written to the file.

use super::header::Header;
use super::replayed::Replayed;
use super::{checksum, corrupt, read_piece};
use crate::field::Fields;
use base::block::BlockRead;
use base::size::MIB;
use base::{Error, Kind, Result};
use std::sync::Arc;

const SECTOR: u64 = 4096;
/// The largest log; Hyper-V and QEMU make 1 MiB. It is held in memory while it is replayed.
const LENGTH_MAX: u64 = 32 * MIB;
/// How many times the length of the log may be checked while looking for the sequence: entries that
/// overlap, which only a hostile file has, would cost the square of its length.
const WORK_MAX: u64 = 8;
const ENTRY_HEADER: usize = 64;
const DESCRIPTOR: usize = 32;

/// One valid entry.
struct Entry {
    /// Where it starts in the log.
    at: u64,
    length: u64,
    /// Where the oldest entry starts that is still needed.
    tail: u64,
    sequence: u64,
    flushed_file_size: u64,
    last_file_size: u64,
}

/// Reads the log that `header` points at and gives back the file as it will be after the replay.
pub(super) fn replay(file: Arc<dyn BlockRead>, header: &Header) -> Result<Replayed> {
    if header.log_length > LENGTH_MAX {
        return Err(Error::new(
            Kind::Limit,
            "disk.vhdx.log-too-large",
            format!("a log of {} bytes", header.log_length),
        ));
    }
    if header.log_length == 0
        || !header.log_length.is_multiple_of(MIB)
        || !header.log_offset.is_multiple_of(MIB)
    {
        return Err(corrupt("log-place", "the log is at an impossible place"));
    }
    let log = Log {
        bytes: read_piece(&*file, header.log_offset, header.log_length, "log")?,
        id: header.log_id,
    };
    let sequence = log.active_sequence()?;
    let Some(last) = sequence.last() else {
        return Err(corrupt(
            "log-empty",
            "the log should hold changes, but none of it is valid",
        ));
    };
    if file.size().0 < last.flushed_file_size {
        return Err(corrupt(
            "short",
            "the file was cut off since its log was written",
        ));
    }
    let size = file.size().0.max(last.last_file_size);
    crate::file::check_disk_size(size)?;
    let mut replayed = Replayed::new(file, size);
    for entry in &sequence {
        log.apply(entry, &mut replayed)?;
    }
    Ok(replayed)
}

struct Log {
    bytes: Vec<u8>,
    id: [u8; 16],
}

impl Log {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `length` bytes from `at` on, going round at the end.
    fn copy(&self, at: u64, length: u64) -> Vec<u8> {
        let (at, length) = ((at % self.length()) as usize, length as usize);
        let first = length.min(self.bytes.len() - at);
        let mut copy = self.bytes[at..at + first].to_vec();
        copy.extend_from_slice(&self.bytes[..length - first]);
        copy
    }

    /// The entry that starts at `at`, if a valid one does; `work` counts the bytes looked at.
    fn entry(&self, at: u64, work: &mut u64) -> Option<Entry> {
        let head = self.copy(at, ENTRY_HEADER as u64);
        let fields = Fields::new(&head, "disk.vhdx.log", "log entry");
        let length = u64::from(fields.le32(8).ok()?);
        let tail = u64::from(fields.le32(12).ok()?);
        let plausible = fields.bytes(0, 4).ok()? == b"loge"
            && fields.bytes(32, 16).ok()? == self.id
            && length >= SECTOR
            && length <= self.length()
            && length.is_multiple_of(SECTOR)
            && tail < self.length()
            && tail.is_multiple_of(SECTOR);
        if !plausible {
            return None;
        }
        *work += length;
        let entry = Entry {
            at,
            length,
            tail,
            sequence: fields.le64(16).ok()?,
            flushed_file_size: fields.le64(48).ok()?,
            last_file_size: fields.le64(56).ok()?,
        };
        let whole = self.copy(at, length);
        let valid = entry.sequence > 0 && checksum(&whole) == fields.le32(4).ok()?;
        (valid && descriptors(&whole, entry.sequence).is_ok()).then_some(entry)
    }

    /// The unbroken sequence of entries whose last one is the newest, from its tail on.
    fn active_sequence(&self) -> Result<Vec<Entry>> {
        let (mut best, mut work): (Vec<Entry>, u64) = (Vec::new(), 0);
        let mut start = 0;
        while start < self.length() {
            let mut sequence: Vec<Entry> = Vec::new();
            let mut covered = 0;
            while covered < self.length() {
                let at = (start + covered) % self.length();
                let Some(entry) = self.entry(at, &mut work) else {
                    break;
                };
                if sequence
                    .last()
                    .is_some_and(|last| last.sequence + 1 != entry.sequence)
                {
                    break;
                }
                covered += entry.length;
                sequence.push(entry);
            }
            if work > WORK_MAX * self.length() {
                return Err(corrupt(
                    "log-overlap",
                    "the entries of the log overlap each other",
                ));
            }
            start += covered.max(SECTOR);
            let newest = |sequence: &[Entry]| sequence.last().map_or(0, |last| last.sequence);
            if newest(&sequence) > newest(&best)
                && let Some(tail) = sequence.last().map(|last| last.tail)
                && let Some(first) = sequence.iter().position(|entry| entry.at == tail)
            {
                best = sequence.split_off(first);
            }
        }
        Ok(best)
    }

    fn apply(&self, entry: &Entry, replayed: &mut Replayed) -> Result<()> {
        let bytes = self.copy(entry.at, entry.length);
        for change in descriptors(&bytes, entry.sequence)? {
            match change {
                Change::Zero { offset, length } => replayed.zero(offset, length)?,
                Change::Sector { offset, bytes } => replayed.put(offset, bytes)?,
            }
        }
        Ok(())
    }
}

/// What one descriptor asks for.
enum Change {
    Zero { offset: u64, length: u64 },
    Sector { offset: u64, bytes: Vec<u8> },
}

/// The changes of one entry, whose checksum is right already.
fn descriptors(entry: &[u8], sequence: u64) -> Result<Vec<Change>> {
    let broken = || corrupt("log-entry", "an entry of the log is damaged");
    let fields = Fields::new(entry, "disk.vhdx.log-entry", "log entry");
    let count = fields.le32(24)? as usize;
    if count > entry.len() / DESCRIPTOR {
        return Err(broken());
    }
    let mut data_at = (ENTRY_HEADER + count * DESCRIPTOR).next_multiple_of(SECTOR as usize);
    let mut changes = Vec::with_capacity(count);
    for index in 0..count {
        let at = ENTRY_HEADER + index * DESCRIPTOR;
        let offset = fields.le64(at + 16)?;
        if fields.le64(at + 24)? != sequence || !offset.is_multiple_of(SECTOR) {
            return Err(broken());
        }
        match fields.bytes(at, 4)? {
            b"zero" => {
                let length = fields.le64(at + 8)?;
                if !length.is_multiple_of(SECTOR) {
                    return Err(broken());
                }
                changes.push(Change::Zero { offset, length });
            }
            b"desc" => {
                let right = fields.bytes(data_at, 4)? == b"data"
                    && fields.le32(data_at + 4)? == (sequence >> 32) as u32
                    && fields.le32(data_at + 4092)? == sequence as u32;
                if !right {
                    return Err(broken());
                }
                // The first 8 and last 4 bytes of the sector are in the descriptor.
                let mut bytes = fields.bytes(at + 8, 8)?.to_vec();
                bytes.extend_from_slice(fields.bytes(data_at + 8, 4084)?);
                bytes.extend_from_slice(fields.bytes(at + 4, 4)?);
                changes.push(Change::Sector { offset, bytes });
                data_at += SECTOR as usize;
            }
            _ => return Err(broken()),
        }
    }
    Ok(changes)
}
