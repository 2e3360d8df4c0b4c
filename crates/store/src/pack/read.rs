//! Reading what is in a pack: from its trailer, or where that is gone, frame by frame.
//!
//! Knows: that any byte may be wrong. Refuses to know: keys; frames stay sealed here.

use super::{FOOTER, Footer, FrameEntry, HEADER, Header, parse_trailer};
use crate::fields::malformed;
use crate::frame;
use crate::limit::{FRAME_STORED_MAX, PACK_SIZE_MAX};
use base::files::FileRead;
use base::size::ByteOffset;
use base::{Error, Kind, Result};

/// What a pack holds, and how we know.
pub(crate) struct Listed {
    pub(crate) header: Header,
    pub(crate) frames: Vec<FrameEntry>,
    /// The pack's length.
    pub(crate) length: u64,
    /// Why the trailer could not be used, where frames had to be searched for.
    pub(crate) trailer_damage: Option<Error>,
}

/// Reads a pack's header.
pub(crate) fn read_header(file: &dyn FileRead) -> Result<Header> {
    let mut bytes = [0; HEADER];
    file.read_at(ByteOffset::ZERO, &mut bytes)?;
    Header::parse(&bytes)
}

/// Lists a pack's frames from its trailer.
pub(crate) fn read_trailer(file: &dyn FileRead) -> Result<Vec<FrameEntry>> {
    let length = checked_length(file)?;
    let mut bytes = [0; FOOTER];
    file.read_at(ByteOffset(length - FOOTER as u64), &mut bytes)?;
    let footer = Footer::parse(&bytes, length)?;
    let mut trailer = vec![0; footer.trailer_length as usize];
    file.read_at(ByteOffset(footer.trailer_offset), &mut trailer)?;
    if crc32c::crc32c(&trailer) != footer.trailer_crc {
        return Err(malformed("a pack's trailer", "its checksum is wrong"));
    }
    parse_trailer(&trailer, footer.frames, footer.trailer_offset)
}

/// Lists a pack's frames from its trailer, or by searching where the trailer is damaged.
pub(crate) fn list_frames(file: &dyn FileRead) -> Result<Listed> {
    let header = read_header(file)?;
    let length = file.length()?.0;
    match read_trailer(file) {
        Ok(frames) => Ok(Listed {
            header,
            frames,
            length,
            trailer_damage: None,
        }),
        Err(error) if error.kind() == Kind::Corrupt => {
            let frames = scan(file)?;
            Ok(Listed {
                header,
                frames,
                length,
                trailer_damage: Some(error),
            })
        }
        Err(error) => Err(error),
    }
}

fn checked_length(file: &dyn FileRead) -> Result<u64> {
    let length = file.length()?.0;
    if length < (HEADER + FOOTER) as u64 {
        return Err(malformed("a pack", "it is too short"));
    }
    if length > PACK_SIZE_MAX + crate::limit::TRAILER_SIZE_MAX + FOOTER as u64 {
        return Err(malformed("a pack", "it is too long"));
    }
    Ok(length)
}

/// Searches a pack for frames whose header and sealed bytes are whole. After a damaged place it
/// goes on with the next frame it finds.
pub(crate) fn scan(file: &dyn FileRead) -> Result<Vec<FrameEntry>> {
    const CHUNK: usize = 1 << 20;
    let length = file.length()?.0;
    let mut frames = Vec::new();
    let mut at = (HEADER as u64).min(length);
    let mut chunk = vec![0; CHUNK];
    while at < length {
        if let Some(entry) = frame_at(file, at, length)? {
            at += u64::from(entry.length);
            frames.push(entry);
            continue;
        }
        // Look for the next magic after this byte.
        let from = at + 1;
        let take = (length.saturating_sub(from)).min(CHUNK as u64) as usize;
        let window = &mut chunk[..take];
        file.read_at(ByteOffset(from), window)?;
        match window.windows(4).position(|four| four == b"BKFR") {
            Some(found) => at = from + found as u64,
            None if take < CHUNK => break,
            None => at = from + (CHUNK - 4) as u64,
        }
    }
    Ok(frames)
}

/// The frame at a place, if a whole one lies there.
fn frame_at(file: &dyn FileRead, at: u64, length: u64) -> Result<Option<FrameEntry>> {
    let left = length - at;
    if left < frame::PREFIX as u64 {
        return Ok(None);
    }
    let mut prefix = [0; frame::PREFIX];
    file.read_at(ByteOffset(at), &mut prefix)?;
    let Some(header_length) = frame::header_length_of(&prefix) else {
        return Ok(None);
    };
    if left < header_length as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; header_length];
    file.read_at(ByteOffset(at), &mut bytes)?;
    let Ok(header) = frame::Header::parse(&bytes) else {
        return Ok(None);
    };
    let total = header.total();
    if total as u64 > left || total > FRAME_STORED_MAX {
        return Ok(None);
    }
    let mut sealed = vec![0; header.sealed as usize];
    file.read_at(ByteOffset(at + header_length as u64), &mut sealed)?;
    if header.check_sealed(&sealed).is_err() {
        return Ok(None);
    }
    Ok(Some(FrameEntry {
        offset: at as u32,
        length: total as u32,
        rows: header.rows,
    }))
}
