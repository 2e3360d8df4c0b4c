//! Requests of the transmission phase.
//!
//! Knows: the compact header of 28 bytes and the extended one of 32.
//! Refuses to know: whether a request makes sense for an export.

use super::{Fields, violation};
use base::Result;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;

/// Length of the compact header.
pub const COMPACT_SIZE: usize = 28;
/// Length of the extended header.
pub const EXTENDED_SIZE: usize = 32;

/// Command flag: on stable storage before the reply.
pub const CMD_FLAG_FUA: u16 = 1;
/// Command flag of `WRITE_ZEROES`: make no hole.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag of `READ`: one chunk only.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag of `BLOCK_STATUS`: one extent only.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag of extended requests: the length is that of a payload which follows.
pub const CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Command(pub u16);

impl Command {
    /// Bytes to the client.
    pub const READ: Self = Self(0);
    /// Bytes to the server.
    pub const WRITE: Self = Self(1);
    /// Good-bye.
    pub const DISC: Self = Self(2);
    /// All writes to stable storage.
    pub const FLUSH: Self = Self(3);
    /// The range is no longer needed.
    pub const TRIM: Self = Self(4);
    /// The range becomes zeros.
    pub const WRITE_ZEROES: Self = Self(6);
    /// What the range holds.
    pub const BLOCK_STATUS: Self = Self(7);
}

/// A request's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// What is asked for.
    pub command: Command,
    /// Returned with the reply.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Length of the range, or of the payload.
    pub length: u64,
}

impl Request {
    /// Appends the header. The caller keeps lengths of compact requests within 32 bits.
    pub fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        let magic = if extended {
            EXTENDED_REQUEST_MAGIC
        } else {
            REQUEST_MAGIC
        };
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.0.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        if extended {
            out.extend_from_slice(&self.length.to_be_bytes());
        } else {
            let length = u32::try_from(self.length).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }

    /// Reads a header of the length that goes with `extended`.
    pub fn decode(extended: bool, bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("a request", bytes);
        let expected = if extended {
            EXTENDED_REQUEST_MAGIC
        } else {
            REQUEST_MAGIC
        };
        let magic = fields.u32()?;
        if magic != expected {
            return Err(violation(format!("a request starts with {magic:#x}")));
        }
        let request = Self {
            flags: fields.u16()?,
            command: Command(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: if extended {
                fields.u64()?
            } else {
                u64::from(fields.u32()?)
            },
        };
        fields.finish()?;
        Ok(request)
    }

    /// How many bytes of payload follow the header. With extended headers a flag tells; but QEMU
    /// (tried: 10.0) sends the bytes of a write without it, so that a write always has some.
    pub fn payload_length(&self, extended: bool) -> u64 {
        let flagged = extended && self.flags & CMD_FLAG_PAYLOAD_LEN != 0;
        let carries = flagged || self.command == Command::WRITE;
        if carries { self.length } else { 0 }
    }
}
