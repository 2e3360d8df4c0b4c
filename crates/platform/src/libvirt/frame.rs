//! One message of libvirt's remote protocol: its header and its length.
//!
//! Knows: `u32 length (with itself), u32 program, u32 version, i32 procedure, i32 type, u32 serial,
//! i32 status`, then a payload. Refuses to know: what programs and procedures mean.

use super::xdr::Decoder;
use base::{Error, Kind, Result};

/// The program of hypervisor calls.
pub const PROGRAM_REMOTE: u32 = 0x2000_8086;
/// The program of calls that only QEMU understands.
pub const PROGRAM_QEMU: u32 = 0x2000_8087;
/// The program of pings.
pub const PROGRAM_KEEPALIVE: u32 = 0x6b65_6570;
/// All programs have this version.
pub const VERSION: u32 = 1;
/// Length field and header together.
pub const OVERHEAD: usize = 28;
/// The longest message (libvirt's `VIR_NET_MESSAGE_MAX`).
pub const LENGTH_MAX: usize = 32 * 1024 * 1024;

/// What a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    /// A question.
    Call,
    /// Its answer.
    Reply,
    /// Something that nobody asked for: an event or a ping.
    Event,
    /// Parts of streams, with or without descriptors: never asked for by Backstay.
    Other(i32),
}

impl MessageType {
    const fn number(self) -> i32 {
        match self {
            Self::Call => 0,
            Self::Reply => 1,
            Self::Event => 2,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Call,
            1 => Self::Reply,
            2 => Self::Event,
            other => Self::Other(other),
        }
    }
}

/// The header of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which program.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// Which of its procedures.
    pub procedure: i32,
    /// What the message is for.
    pub kind: MessageType,
    /// Which question an answer belongs to.
    pub serial: u32,
    /// 0 good, 1 an error follows, 2 more follows.
    pub status: i32,
}

impl Header {
    /// The header of a question.
    pub const fn call(program: u32, procedure: i32, serial: u32) -> Self {
        let kind = MessageType::Call;
        Self {
            program,
            version: VERSION,
            procedure,
            kind,
            serial,
            status: 0,
        }
    }

    /// The whole message with this payload.
    pub fn message(&self, payload: &[u8]) -> Vec<u8> {
        let length = OVERHEAD + payload.len();
        let mut bytes = Vec::with_capacity(length);
        let words = [
            u32::try_from(length).unwrap_or(u32::MAX),
            self.program,
            self.version,
            self.procedure.cast_unsigned(),
            self.kind.number().cast_unsigned(),
            self.serial,
            self.status.cast_unsigned(),
        ];
        for word in words {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }
}

/// How many bytes follow a length field.
///
/// # Errors
/// Kind `Corrupt` where no message has that length.
pub fn body_length(length: [u8; 4]) -> Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if !(OVERHEAD..=LENGTH_MAX).contains(&length) {
        return Err(Error::new(
            Kind::Corrupt,
            "platform.libvirt.malformed",
            format!(
                "the other side announces a message of {length} bytes, which libvirt never sends"
            ),
        )
        .hint("see that nothing but libvirt listens at that address"));
    }
    Ok(length - 4)
}

/// Splits what follows the length field into header and payload.
pub fn split(body: &[u8]) -> Result<(Header, &[u8])> {
    let mut decoder = Decoder::new(body);
    let header = Header {
        program: decoder.u32()?,
        version: decoder.u32()?,
        procedure: decoder.i32()?,
        kind: MessageType::from_number(decoder.i32()?),
        serial: decoder.u32()?,
        status: decoder.i32()?,
    };
    Ok((header, &body[body.len() - decoder.remaining()..]))
}
