//! Writing a pack.
//!
//! Knows: header, frames, trailer, footer, in this order, and the pack's id, which is the BLAKE3 of
//! all of them. Refuses to know: when a pack is full and where it is published.

use super::{FOOTER, Footer, FrameEntry, HEADER, Header, trailer_bytes};
use crate::frame::Row;
use crate::id::PackId;
use crate::layout::Content;
use crate::limit::PACK_SIZE_MAX;
use base::files::{FileWrite, Files, Path};
use base::id::WriterId;
use base::{Error, Kind, Result};

/// A pack being written.
pub(crate) struct PackWriter {
    header: Header,
    path: Path,
    file: Box<dyn FileWrite>,
    hasher: blake3::Hasher,
    length: u64,
    frames: Vec<FrameEntry>,
}

/// A pack that is complete and on stable storage, under its working name.
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) content: Content,
    pub(crate) writer: WriterId,
    /// Where it lies until it is published.
    pub(crate) path: Path,
    /// Its bytes.
    pub(crate) length: u64,
    pub(crate) frames: Vec<FrameEntry>,
}

impl PackWriter {
    /// Begins a pack in a new file.
    pub(crate) fn create(files: &dyn Files, path: Path, header: Header) -> Result<Self> {
        let file = files.create(&path)?;
        let mut writer = Self {
            header,
            path,
            file,
            hasher: blake3::Hasher::new(),
            length: 0,
            frames: vec![],
        };
        writer.append(&header.bytes())?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Appends a frame.
    pub(crate) fn push(&mut self, rows: Vec<Row>, frame: &[u8]) -> Result<()> {
        if self.length + frame.len() as u64 > PACK_SIZE_MAX {
            return Err(Error::new(
                Kind::Bug,
                "store.pack.too-large",
                "a pack has grown too large",
            ));
        }
        let entry = FrameEntry {
            offset: self.length as u32,
            length: frame.len() as u32,
            rows,
        };
        self.append(frame)?;
        self.frames.push(entry);
        Ok(())
    }

    /// Appends trailer and footer and makes the file durable.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let trailer = trailer_bytes(&self.frames);
        let footer = Footer {
            trailer_offset: self.length,
            trailer_length: trailer.len() as u32,
            frames: self.frames.len() as u32,
            trailer_crc: crc32c::crc32c(&trailer),
        };
        self.append(&trailer)?;
        self.append(&footer.bytes())?;
        self.file.sync()?;
        debug_assert!(self.length >= (HEADER + FOOTER) as u64);
        Ok(FinishedPack {
            id: PackId::from_bytes(*self.hasher.finalize().as_bytes()),
            content: self.header.content,
            writer: self.header.writer,
            path: self.path,
            length: self.length,
            frames: self.frames,
        })
    }
}
