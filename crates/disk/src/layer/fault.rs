//! A disk that fails on purpose, for tests of everything that reads or writes disks.
//!
//! Knows: which ranges fail, how, and how often. Refuses to know: who is tested.

use base::block::{BlockRead, BlockWrite, Extent, ExtentKind, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Reads fail with an error of kind `Io`.
    ReadError,
    /// Writes fail with an error of kind `Io`.
    WriteError,
    /// Writes fail with an error of kind `Full`.
    Full,
    /// Reads and writes take so much longer.
    Delay(Duration),
    /// Reads give bytes with one bit flipped in each.
    Flip,
    /// Writes are forgotten and reported as done.
    Forget,
    /// The range is called zeros whatever it holds.
    ClaimZero,
}

/// A disk over another one that does what it is told wrongly.
pub struct FaultDisk<D> {
    disk: D,
    faults: Mutex<Vec<Armed>>,
}

struct Armed {
    range: ByteRange,
    fault: Fault,
    /// How often it still happens.
    left: u64,
}

impl<D: BlockRead> FaultDisk<D> {
    /// A disk that does nothing wrong yet.
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            faults: Mutex::new(Vec::new()),
        }
    }

    /// From now on `fault` happens to what touches `range`, `times` times.
    pub fn arm(&self, range: ByteRange, fault: Fault, times: u64) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(Armed {
            range,
            fault,
            left: times,
        });
    }

    /// Nothing goes wrong any more.
    pub fn disarm(&self) {
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The disk below.
    pub fn inner(&self) -> &D {
        &self.disk
    }

    /// The faults that happen to `range` now, of those that `wanted` picks.
    fn hits(&self, range: ByteRange, wanted: impl Fn(Fault) -> bool) -> Vec<(ByteRange, Fault)> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hits = Vec::new();
        for armed in faults
            .iter_mut()
            .filter(|armed| armed.left > 0 && wanted(armed.fault))
        {
            if let Some(part) = armed.range.intersection(&range) {
                armed.left -= 1;
                hits.push((part, armed.fault));
            }
        }
        hits
    }

    /// Whether the change is to be forgotten.
    fn before_write(&self, range: ByteRange) -> Result<bool> {
        let mut forget = false;
        let wanted = |fault| {
            matches!(
                fault,
                Fault::WriteError | Fault::Full | Fault::Delay(_) | Fault::Forget
            )
        };
        for (part, fault) in self.hits(range, wanted) {
            match fault {
                Fault::WriteError => return Err(failed("writing", part, Kind::Io)),
                Fault::Full => return Err(failed("writing", part, Kind::Full)),
                Fault::Delay(time) => std::thread::sleep(time),
                _ => forget = true,
            }
        }
        Ok(forget)
    }
}

fn failed(doing: &str, range: ByteRange, kind: Kind) -> Error {
    Error::new(
        kind,
        "disk.fault.injected",
        format!("{doing} {range} failed on purpose"),
    )
}

impl<D: BlockRead> BlockRead for FaultDisk<D> {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, buffer.len() as u64);
        check_range(range, self.size())?;
        let wanted = |fault| matches!(fault, Fault::ReadError | Fault::Delay(_) | Fault::Flip);
        let hits = self.hits(range, wanted);
        if let Some((part, _)) = hits.iter().find(|(_, fault)| *fault == Fault::ReadError) {
            return Err(failed("reading", *part, Kind::Io));
        }
        self.disk.read_at(offset, buffer)?;
        for (part, fault) in hits {
            match fault {
                Fault::Delay(time) => std::thread::sleep(time),
                _ => {
                    let start = (part.offset.0 - offset.0) as usize;
                    buffer[start..start + part.length.0 as usize]
                        .iter_mut()
                        .for_each(|b| *b ^= 1);
                }
            }
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        let hits = self.hits(range, |fault| fault == Fault::ClaimZero);
        let Some((lie, _)) = hits.first() else {
            return self.disk.extents(range);
        };
        if lie.offset == range.offset {
            return Ok(vec![Extent {
                range: *lie,
                kind: ExtentKind::Zero,
            }]);
        }
        let before = ByteRange {
            offset: range.offset,
            length: lie.offset - range.offset,
        };
        self.disk.extents(before)
    }
}

impl<D: BlockWrite> BlockWrite for FaultDisk<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, bytes.len() as u64);
        if self.before_write(range)? {
            Ok(())
        } else {
            self.disk.write_at(offset, bytes)
        }
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        if self.before_write(range)? {
            Ok(())
        } else {
            self.disk.write_zeroes(range)
        }
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
