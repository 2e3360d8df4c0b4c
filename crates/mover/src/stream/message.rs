//! The messages of a disk stream.
//!
//! Knows: their fields, how they stand in records, and every bound on what a peer may say. Refuses
//! to know: what is done about them.
//!
//! A message is a head (postcard) and a body (raw bytes):
//!
//! ```text
//! offset  size  field
//!      0     4  length of the head, little-endian
//!      4     n  head
//!    4+n     -  body
//! ```
//!
//! It stands in one record of its kind, or in several where it is longer than [`PART_LENGTH`]: all
//! but the last have [`MORE`] set in their kind.

use base::digest::Digest;
use base::limit::PAGE_SIZE;
use base::size::{ByteCount, ByteRange, MIB};
use base::{Error, Kind, Result};
use protocol::words::counters::BusyTimes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{BlockId, Cutter, Segment};

/// The version of these messages.
pub const VERSION: u16 = 1;
/// The longest record.
pub const PART_LENGTH: usize = (4 * MIB) as usize;
/// The longest message: the largest window that a repository can have, incompressible, and its
/// head.
pub const MESSAGE_LENGTH_MAX: usize = (80 * MIB) as usize;
/// Set in the kind of a record whose message goes on in the next one.
pub const MORE: u16 = 0x8000;

/// What sort of message it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum MessageKind {
    /// [`Terms`], from the repository's side, first of all.
    Terms = 1,
    /// [`Window`] without a body: these are the blocks of a window that was read.
    Offer = 2,
    /// [`Want`]: these of the offered blocks are lacking.
    Want = 3,
    /// [`Blocks`]; body: the wanted blocks one after the other.
    Blocks = 4,
    /// [`Changed`]; body: the changed ranges one after the other.
    Changed = 5,
    /// [`Window`]; body: its blocks one after the other. Of a restore.
    Stored = 6,
    /// [`Totals`]: how far the reading side is.
    Tally = 7,
    /// [`Totals`]: nothing more comes.
    End = 8,
}

impl MessageKind {
    const ALL: [Self; 8] = [
        Self::Terms,
        Self::Offer,
        Self::Want,
        Self::Blocks,
        Self::Changed,
        Self::Stored,
        Self::Tally,
        Self::End,
    ];

    /// The kind of a record, without [`MORE`].
    ///
    /// # Errors
    /// `Unsupported` (`mover.stream.unknown`).
    pub fn from_number(number: u16) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u16 == number)
            .ok_or_else(|| {
                Error::new(
                    Kind::Unsupported,
                    "mover.stream.unknown",
                    format!("the other agent sent a message of the unknown kind {number}"),
                )
                .hint("upgrade the older of the two programs")
            })
    }
}

/// What the side with the repository says first.
#[derive(Clone, Serialize, Deserialize)]
pub struct Terms {
    /// [`VERSION`].
    pub version: u16,
    /// How windows are cut and blocks named.
    pub cutter: Cutter,
    /// The size of the disk.
    pub size: ByteCount,
    /// The size of the disk in the base, where only changes are wanted.
    pub changed_since: Option<ByteCount>,
    /// The root of the disk, where it is restored.
    pub root: Option<Digest>,
}

/// A window of a disk as a list of segments: its length, and the id of a block or nothing for
/// zeros. An empty list is a window of zeros.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    /// Its number.
    pub index: u64,
    /// Its segments.
    pub segments: Vec<(u32, Option<BlockId>)>,
    /// How the body is packed.
    pub packing: Packing,
}

/// How a body is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Packing {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// Which blocks of an offer are lacking.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Want {
    /// The window.
    pub index: u64,
    /// Positions in the offer's segments, in order. Empty: none, the window is taken.
    pub segments: Vec<u32>,
}

/// Wanted blocks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocks {
    /// The window.
    pub index: u64,
    /// How the body is packed.
    pub packing: Packing,
}

/// What changed in a window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// The window.
    pub index: u64,
    /// Changed ranges within the window: offset and length, in order, whole pages.
    pub ranges: Vec<(u32, u32)>,
    /// How the body is packed.
    pub packing: Packing,
}

/// What the reading side has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes done with, whether sent or not.
    pub done: ByteCount,
    /// Bytes read.
    pub read: ByteCount,
    /// Bytes marked as changed.
    pub changed: ByteCount,
    /// How long its stages were busy.
    pub busy: BusyTimes,
}

impl Terms {
    /// An error unless this program can keep to these terms.
    ///
    /// # Errors
    /// `Unsupported` (`mover.stream.version`).
    pub fn check(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(Error::new(
                Kind::Unsupported,
                "mover.stream.version",
                format!(
                    "the other agent speaks version {} of disk streams, this one {VERSION}",
                    self.version
                ),
            )
            .hint("upgrade the older of the two programs"));
        }
        if self.size.0 > base::limit::DISK_SIZE_MAX {
            return Err(malformed("the disk is larger than any disk"));
        }
        Ok(())
    }
}

impl Window {
    /// A window of these segments.
    pub fn new(index: u64, segments: &[Segment], packing: Packing) -> Self {
        let segments = segments
            .iter()
            .map(|segment| (segment.length, segment.block))
            .collect();
        Self {
            index,
            segments,
            packing,
        }
    }

    /// Its segments, after checking that they cover a window of `length` bytes.
    ///
    /// # Errors
    /// `Invalid` (`mover.stream.malformed`).
    pub fn checked(&self, length: ByteCount) -> Result<Vec<Segment>> {
        let fits = |total: u64| total == length.0 || self.segments.is_empty();
        let count = length.0.div_ceil(PAGE_SIZE);
        let total = self
            .segments
            .iter()
            .map(|(length, _)| u64::from(*length))
            .sum();
        let empty = self.segments.iter().any(|(length, _)| *length == 0);
        if self.segments.len() as u64 > count || empty || !fits(total) {
            return Err(malformed("the segments of a window do not cover it"));
        }
        let segment = |(length, block): &(u32, Option<BlockId>)| Segment {
            length: *length,
            block: *block,
        };
        Ok(self.segments.iter().map(segment).collect())
    }
}

impl Changed {
    /// Its ranges, after checking that they are in order and within a window of `length` bytes.
    ///
    /// # Errors
    /// `Invalid` (`mover.stream.malformed`).
    pub fn checked(&self, length: ByteCount) -> Result<Vec<ByteRange>> {
        let mut at = 0;
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for (offset, long) in &self.ranges {
            let range = ByteRange::new(u64::from(*offset), u64::from(*long));
            let end = range.end().0;
            let whole_pages = range.offset.0.is_multiple_of(PAGE_SIZE)
                && (end.is_multiple_of(PAGE_SIZE) || end == length.0);
            if range.is_empty() || range.offset.0 < at || end > length.0 || !whole_pages {
                return Err(malformed("the changed ranges of a window are not in order"));
            }
            at = end;
            ranges.push(range);
        }
        Ok(ranges)
    }
}

/// The bytes of a message.
///
/// # Errors
/// `Bug` where it cannot be encoded or is longer than any message may be.
pub fn encode(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>> {
    let bug = || {
        Error::new(
            Kind::Bug,
            "mover.stream.unsendable",
            "a message cannot be sent",
        )
    };
    let head = postcard::to_stdvec(head).map_err(|error| bug().caused_by(error))?;
    let length = u32::try_from(head.len()).map_err(|_| bug())?;
    if head.len() + body.len() + 4 > MESSAGE_LENGTH_MAX {
        return Err(bug());
    }
    let mut bytes = Vec::with_capacity(4 + head.len() + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Head and body of a message.
///
/// # Errors
/// `Invalid` (`mover.stream.malformed`).
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8])> {
    let broken = || malformed("a message does not parse");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| broken())?;
    if length > rest.len() {
        return Err(broken());
    }
    let (head, body) = rest.split_at(length);
    match postcard::take_from_bytes(head) {
        Ok((head, [])) => Ok((head, body)),
        _ => Err(broken()),
    }
}

/// Packs a body: compressed where that makes it smaller by a twentieth at least.
///
/// # Errors
/// `Bug` where zstd fails.
pub fn pack(plain: &[u8]) -> Result<(Packing, std::borrow::Cow<'_, [u8]>)> {
    // Fast is enough: the repository compresses again in its own way.
    let packed = zstd::bulk::compress(plain, 1).map_err(|error| {
        Error::new(Kind::Bug, "mover.stream.compress", "compressing failed").caused_by(error)
    })?;
    if packed.len() < plain.len() - plain.len() / 20 {
        Ok((Packing::Zstd, packed.into()))
    } else {
        Ok((Packing::Plain, plain.into()))
    }
}

/// Unpacks a body that must give exactly `length` bytes.
///
/// # Errors
/// `Invalid` (`mover.stream.malformed`).
pub fn unpack(packing: Packing, body: &[u8], length: usize) -> Result<std::borrow::Cow<'_, [u8]>> {
    let plain: std::borrow::Cow<'_, [u8]> = match packing {
        Packing::Plain => body.into(),
        Packing::Zstd => zstd::bulk::decompress(body, length)
            .map_err(|error| malformed("a body does not unpack").caused_by(error))?
            .into(),
    };
    if plain.len() == length {
        Ok(plain)
    } else {
        Err(malformed("a body has another length than its head says"))
    }
}

/// What a peer said makes no sense.
pub fn malformed(what: &str) -> Error {
    Error::invalid(
        "mover.stream.malformed",
        format!("the other agent's data: {what}"),
    )
    .hint("upgrade the older of the two programs; if both are the same, report this")
}

#[cfg(test)]
mod tests;
