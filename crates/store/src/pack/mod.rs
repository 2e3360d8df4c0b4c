//! Packs: frames one after the other, and a trailer that lists them (format page, section "Packs").
//!
//! Knows: the bytes of a pack's header, trailer and footer. A published pack never changes.
//! Refuses to know: which blocks are in use, and what is inside a frame.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::{Listed, list_frames, scan};
pub(crate) use write::{FinishedPack, PackWriter};

use crate::fields::{Fields, check_version, malformed};
use crate::frame::Row;
use crate::id::BlockId;
use crate::layout::{Content, FORMAT_MAJOR, FORMAT_MINOR};
use crate::limit::{FRAME_BLOCKS_MAX, FRAME_STORED_MAX};
use base::Result;
use base::id::{RepositoryId, WriterId};

const MAGIC: &[u8; 8] = b"BKSTPACK";
const TRAILER_MAGIC: &[u8; 4] = b"BKTR";
const END_MAGIC: &[u8; 8] = b"BKPKEND1";
/// Bytes of a pack's header.
pub(crate) const HEADER: usize = 96;
/// Bytes of a pack's footer.
pub(crate) const FOOTER: usize = 32;

/// What a pack says of itself at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) content: Content,
    pub(crate) cipher: u8,
    pub(crate) repository: RepositoryId,
    /// Who wrote it: while that writer lives nobody touches the pack.
    pub(crate) writer: WriterId,
    /// Which of the writer's packs it is.
    pub(crate) sequence: u64,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_MAJOR.to_le_bytes());
        bytes.extend_from_slice(&FORMAT_MINOR.to_le_bytes());
        bytes.extend_from_slice(&[self.content.code(), self.cipher, 0, 0]);
        bytes.extend_from_slice(&self.repository.bytes());
        bytes.extend_from_slice(&self.writer.bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.resize(HEADER - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut array = [0; HEADER];
        array.copy_from_slice(&bytes);
        array
    }

    /// Reads a header from foreign bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "a pack's header";
        let bytes = bytes
            .get(..HEADER)
            .ok_or_else(|| malformed(what, "it is too short"))?;
        let mut fields = Fields::new(bytes, what);
        fields.expect(MAGIC, "magic")?;
        let major = fields.u16()?;
        if crc32c::crc32c(&bytes[..HEADER - 4]).to_le_bytes() != bytes[HEADER - 4..] {
            return Err(malformed(what, "its checksum is wrong"));
        }
        check_version(major, what)?;
        fields.u16()?;
        let content = Content::from_code(fields.u8()?).ok_or_else(|| fields.wrong("its kind"))?;
        let cipher = fields.u8()?;
        fields.u16()?;
        Ok(Self {
            content,
            cipher,
            repository: RepositoryId::from_bytes(fields.array()?),
            writer: WriterId::from_bytes(fields.array()?),
            sequence: fields.u64()?,
        })
    }
}

/// One frame as a trailer lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameEntry {
    /// Where it begins in the pack.
    pub(crate) offset: u32,
    /// Its bytes, header and all.
    pub(crate) length: u32,
    /// Its blocks.
    pub(crate) rows: Vec<Row>,
}

fn trailer_bytes(frames: &[FrameEntry]) -> Vec<u8> {
    let mut bytes = TRAILER_MAGIC.to_vec();
    for frame in frames {
        bytes.extend_from_slice(&frame.offset.to_le_bytes());
        bytes.extend_from_slice(&frame.length.to_le_bytes());
        bytes.extend_from_slice(&(frame.rows.len() as u32).to_le_bytes());
        for row in &frame.rows {
            bytes.extend_from_slice(row.id.bytes());
            bytes.extend_from_slice(&row.length.to_le_bytes());
        }
    }
    bytes
}

/// Reads a trailer of `count` frames, whose checksum was checked, of a pack whose frames end at
/// `end`.
fn parse_trailer(bytes: &[u8], count: u32, end: u64) -> Result<Vec<FrameEntry>> {
    let mut fields = Fields::new(bytes, "a pack's trailer");
    fields.expect(TRAILER_MAGIC, "magic")?;
    let mut frames = Vec::new();
    let mut at = HEADER as u64;
    for _ in 0..count {
        let (offset, length, rows_count) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if length as usize > FRAME_STORED_MAX {
            return Err(fields.wrong("a frame is too long"));
        }
        if u64::from(offset) != at || rows_count == 0 || rows_count as usize > FRAME_BLOCKS_MAX {
            return Err(fields.wrong("its frames do not follow each other"));
        }
        at += u64::from(length);
        let mut rows = Vec::with_capacity(rows_count as usize);
        for _ in 0..rows_count {
            rows.push(Row {
                id: BlockId::from_bytes(fields.array()?),
                length: fields.u32()?,
            });
        }
        frames.push(FrameEntry {
            offset,
            length,
            rows,
        });
    }
    fields.end()?;
    if at == end {
        Ok(frames)
    } else {
        Err(fields.wrong("its frames do not reach its start"))
    }
}

/// The last bytes of a pack.
struct Footer {
    trailer_offset: u64,
    trailer_length: u32,
    frames: u32,
    trailer_crc: u32,
}

impl Footer {
    fn bytes(&self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..8].copy_from_slice(&self.trailer_offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.trailer_length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.trailer_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes[24..].copy_from_slice(END_MAGIC);
        bytes
    }

    fn parse(bytes: &[u8; FOOTER], pack_length: u64) -> Result<Self> {
        let mut fields = Fields::new(bytes, "a pack's footer");
        let footer = Self {
            trailer_offset: fields.u64()?,
            trailer_length: fields.u32()?,
            frames: fields.u32()?,
            trailer_crc: fields.u32()?,
        };
        let crc = fields.u32()?;
        fields.expect(END_MAGIC, "magic")?;
        if crc32c::crc32c(&bytes[..20]) != crc {
            return Err(fields.wrong("its checksum is wrong"));
        }
        let end = footer
            .trailer_offset
            .checked_add(u64::from(footer.trailer_length));
        if end.and_then(|end| end.checked_add(FOOTER as u64)) != Some(pack_length)
            || footer.trailer_offset < HEADER as u64
            || u64::from(footer.trailer_length) > crate::limit::TRAILER_SIZE_MAX
        {
            return Err(fields.wrong("its lengths do not fit the pack"));
        }
        Ok(footer)
    }
}
