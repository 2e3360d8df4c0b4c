//! Replies of the transmission phase.
//!
//! Knows: simple replies, structured and extended chunks, and the payloads of chunks.
//! Refuses to know: which request a reply belongs to.

use super::{DESCRIPTORS_MAX, Errno, Fields, PAYLOAD_MAX, STRING_MAX, violation};
use base::Result;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

/// Length of a simple reply's header, and of the part by which all compact ones are told apart.
pub const SIMPLE_SIZE: usize = 16;
/// Length of a structured chunk's header.
pub const STRUCTURED_SIZE: usize = 20;
/// Length of an extended chunk's header.
pub const EXTENDED_SIZE: usize = 32;

/// Chunk flag: the last one of its reply.
pub const CHUNK_DONE: u16 = 1;

/// A chunk may carry a little more than the largest payload: its own fields.
const CHUNK_PAYLOAD_MAX: u64 = PAYLOAD_MAX as u64 + 64;
/// A map of the most descriptors of 16 bytes.
const STATUS_PAYLOAD_MAX: u64 = 8 + 16 * DESCRIPTORS_MAX as u64;

/// What a chunk carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkKind(pub u16);

impl ChunkKind {
    /// Nothing: the end of a reply.
    pub const NONE: Self = Self(0);
    /// Bytes at an offset.
    pub const OFFSET_DATA: Self = Self(1);
    /// Zeros at an offset.
    pub const OFFSET_HOLE: Self = Self(2);
    /// Status with 32-bit lengths.
    pub const BLOCK_STATUS: Self = Self(5);
    /// Status with 64-bit lengths.
    pub const BLOCK_STATUS_EXT: Self = Self(6);
    /// An error.
    pub const ERROR: Self = Self(0x8001);
    /// An error at an offset.
    pub const ERROR_OFFSET: Self = Self(0x8002);

    /// Whether it tells of an error, known or not.
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

/// A chunk's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Chunk flags.
    pub flags: u16,
    /// What it carries.
    pub kind: ChunkKind,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset; extended headers only.
    pub offset: u64,
    /// Length of the payload.
    pub length: u64,
}

/// A reply's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// All of a reply but a read's bytes.
    Simple {
        /// Zero or an error.
        error: Errno,
        /// The request's cookie.
        cookie: u64,
    },
    /// A part of a reply.
    Chunk(Chunk),
}

/// How many bytes the header has that starts with these four.
pub fn header_size(start: [u8; 4], extended: bool) -> Result<usize> {
    match u32::from_be_bytes(start) {
        SIMPLE_MAGIC if !extended => Ok(SIMPLE_SIZE),
        STRUCTURED_MAGIC if !extended => Ok(STRUCTURED_SIZE),
        EXTENDED_MAGIC if extended => Ok(EXTENDED_SIZE),
        magic => Err(violation(format!("a reply starts with {magic:#x}"))),
    }
}

impl Reply {
    /// Reads a header of the length that `header_size` told.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("a reply", bytes);
        let magic = fields.u32()?;
        let reply = if magic == SIMPLE_MAGIC {
            Self::Simple {
                error: Errno(fields.u32()?),
                cookie: fields.u64()?,
            }
        } else if magic == STRUCTURED_MAGIC || magic == EXTENDED_MAGIC {
            let (flags, kind, cookie) = (fields.u16()?, ChunkKind(fields.u16()?), fields.u64()?);
            let extended = magic == EXTENDED_MAGIC;
            let offset = if extended { fields.u64()? } else { 0 };
            let length = if extended {
                fields.u64()?
            } else {
                u64::from(fields.u32()?)
            };
            let chunk = Chunk {
                flags,
                kind,
                cookie,
                offset,
                length,
            };
            chunk.check_length()?;
            Self::Chunk(chunk)
        } else {
            return Err(violation(format!("a reply starts with {magic:#x}")));
        };
        fields.finish()?;
        Ok(reply)
    }

    /// Appends the header; chunks in the extended form where `extended` says so.
    pub fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        match *self {
            Self::Simple { error, cookie } => {
                out.extend_from_slice(&SIMPLE_MAGIC.to_be_bytes());
                out.extend_from_slice(&error.0.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
            }
            Self::Chunk(chunk) => {
                let magic = if extended {
                    EXTENDED_MAGIC
                } else {
                    STRUCTURED_MAGIC
                };
                out.extend_from_slice(&magic.to_be_bytes());
                out.extend_from_slice(&chunk.flags.to_be_bytes());
                out.extend_from_slice(&chunk.kind.0.to_be_bytes());
                out.extend_from_slice(&chunk.cookie.to_be_bytes());
                if extended {
                    out.extend_from_slice(&chunk.offset.to_be_bytes());
                    out.extend_from_slice(&chunk.length.to_be_bytes());
                } else {
                    let length = u32::try_from(chunk.length).unwrap_or(u32::MAX);
                    out.extend_from_slice(&length.to_be_bytes());
                }
            }
        }
    }
}

impl Chunk {
    /// Whether it is the last of its reply.
    pub const fn is_last(&self) -> bool {
        self.flags & CHUNK_DONE != 0
    }

    /// A length that the kind allows; the bound that keeps a peer from making us allocate.
    fn check_length(&self) -> Result<()> {
        let length = self.length;
        let fits = match self.kind {
            ChunkKind::NONE => length == 0 && self.is_last(),
            ChunkKind::OFFSET_DATA => (9..=CHUNK_PAYLOAD_MAX).contains(&length),
            ChunkKind::OFFSET_HOLE => length == 12,
            ChunkKind::BLOCK_STATUS => {
                (12..=STATUS_PAYLOAD_MAX).contains(&length) && length % 8 == 4
            }
            ChunkKind::BLOCK_STATUS_EXT => {
                (24..=STATUS_PAYLOAD_MAX).contains(&length) && length % 16 == 8
            }
            kind if kind.is_error() => (6..=STRING_MAX as u64 + 64).contains(&length),
            kind => {
                return Err(violation(format!(
                    "a reply has a chunk of the unknown kind {}",
                    kind.0
                )));
            }
        };
        if fits {
            Ok(())
        } else {
            Err(violation(format!(
                "a chunk of kind {} has a length of {length}",
                self.kind.0
            )))
        }
    }
}

/// The payload of `OFFSET_HOLE`: offset and length, which is not zero.
pub fn decode_hole(payload: &[u8]) -> Result<(u64, u32)> {
    let mut fields = Fields::new("a hole", payload);
    let hole = (fields.u64()?, fields.u32()?);
    fields.finish()?;
    if hole.1 == 0 {
        Err(violation("a hole is empty"))
    } else {
        Ok(hole)
    }
}

/// The payload of any error chunk: number and text for people.
pub fn decode_error(payload: &[u8]) -> Result<(Errno, String)> {
    let mut fields = Fields::new("an error chunk", payload);
    let number = fields.u32()?;
    let length = fields.u16()?;
    if number == 0 {
        return Err(violation("an error chunk tells of no error"));
    }
    let text = Fields::new("an error chunk", fields.bytes(usize::from(length))?).text();
    Ok((Errno(number), text))
}

/// Appends the payload of `ERROR`. The text is cut to the protocol's longest string.
pub fn encode_error(error: Errno, text: &str, out: &mut Vec<u8>) {
    let text = &text.as_bytes()[..text.floor_char_boundary(STRING_MAX)];
    out.extend_from_slice(&error.0.to_be_bytes());
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text);
}

/// One descriptor of a status chunk: length, which is not zero, and flags.
pub type Descriptor = (u64, u64);

/// The payload of both status chunks: the context's id and at least one descriptor.
pub fn decode_status(kind: ChunkKind, payload: &[u8]) -> Result<(u32, Vec<Descriptor>)> {
    let mut fields = Fields::new("a block status", payload);
    let context = fields.u32()?;
    let wide = kind == ChunkKind::BLOCK_STATUS_EXT;
    let count = if wide {
        fields.u32()? as usize
    } else {
        fields.remaining() / 8
    };
    let size = if wide { 16 } else { 8 };
    if count == 0 || count > DESCRIPTORS_MAX || fields.remaining() != count * size {
        return Err(violation(format!("a block status has {count} descriptors")));
    }
    let mut descriptors = Vec::with_capacity(count);
    for _ in 0..count {
        let descriptor = if wide {
            (fields.u64()?, fields.u64()?)
        } else {
            (u64::from(fields.u32()?), u64::from(fields.u32()?))
        };
        if descriptor.0 == 0 {
            return Err(violation("a block status has an empty extent"));
        }
        descriptors.push(descriptor);
    }
    Ok((context, descriptors))
}

/// Appends the payload of the status chunk that goes with `extended`.
pub fn encode_status(context: u32, descriptors: &[Descriptor], extended: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&context.to_be_bytes());
    if extended {
        let count = u32::try_from(descriptors.len()).unwrap_or(0);
        out.extend_from_slice(&count.to_be_bytes());
    }
    for (length, flags) in descriptors {
        if extended {
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
        } else {
            out.extend_from_slice(&u32::try_from(*length).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&u32::try_from(*flags).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}
