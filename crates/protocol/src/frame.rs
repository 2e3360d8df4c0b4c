//! Frames: what every connection of Backstay carries.
//!
//! Knows: the header, its checksum, and the bound on a payload. Refuses to know: sockets, and what
//! a payload means. `docs/protocols/frames.md` is the format's own page.
//!
//! ```text
//! offset  size  field
//!      0     4  length    of the payload in bytes, little-endian like every number here
//!      4     1  kind      see [`FrameKind`]
//!      5     1  flags     0; a set bit that the reader does not know is an error
//!      6     2  tag       of bulk data: what sort of record it is; 0 in other frames
//!      8     8  id        of calls: which call; of bulk data: its sequence number
//!     16     4  checksum  CRC-32C of bytes 0 to 15 and of the payload
//!     20     -  payload
//! ```
//!
//! The checksum is there although TLS has its own: it catches bytes that turned bad in memory on
//! their way between the program and TLS.

use base::{Error, Kind, Result};

/// The length of a header in bytes.
pub const HEADER_LENGTH: usize = 20;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame each way: versions and purpose.
    Hello = 1,
    /// Nothing to say, but still here.
    Ping = 2,
    /// Last frame each way of an orderly end.
    Goodbye = 3,
    /// A call: its request.
    Request = 16,
    /// A call: one of several answers; more follow.
    Event = 17,
    /// A call: the last answer.
    Response = 18,
    /// A call: it failed; the last answer.
    Failure = 19,
    /// A call: the caller no longer wants it.
    Cancel = 20,
    /// A call: the caller has room for so many more events.
    Credit = 21,
    /// A bulk stream: its id, its token, where to resume.
    StreamOpen = 32,
    /// A bulk stream: the answer to `StreamOpen`.
    StreamReady = 33,
    /// A bulk stream: one record.
    Data = 34,
    /// A bulk stream: how far the other side has taken and kept records.
    Ack = 35,
    /// A bulk stream: this direction has sent all its records.
    Finish = 36,
    /// A bulk stream: every record of the other direction is safe; the answer to `Finish`.
    Finished = 37,
    /// A bulk stream: it failed; why.
    Abort = 38,
}

impl FrameKind {
    const ALL: [Self; 16] = [
        Self::Hello,
        Self::Ping,
        Self::Goodbye,
        Self::Request,
        Self::Event,
        Self::Response,
        Self::Failure,
        Self::Cancel,
        Self::Credit,
        Self::StreamOpen,
        Self::StreamReady,
        Self::Data,
        Self::Ack,
        Self::Finish,
        Self::Finished,
        Self::Abort,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is for.
    pub kind: FrameKind,
    /// Of bulk data: what sort of record it is. 0 elsewhere.
    pub tag: u16,
    /// Which call, or the sequence number of a record.
    pub id: u64,
    /// The bytes it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame without a tag.
    pub const fn new(kind: FrameKind, id: u64, payload: Vec<u8>) -> Self {
        Self {
            kind,
            tag: 0,
            id,
            payload,
        }
    }

    /// Its header as sent.
    ///
    /// # Errors
    /// `Limit` where the payload is larger than any reader may accept.
    pub fn header(&self) -> Result<[u8; HEADER_LENGTH]> {
        let length = self.payload.len();
        if length > base::limit::FRAME_SIZE_MAX {
            return Err(too_large(length, base::limit::FRAME_SIZE_MAX));
        }
        let mut bytes = [0; HEADER_LENGTH];
        // The bound above is far below 4 GiB.
        bytes[0..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.tag.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        let checksum = checksum(&bytes, &self.payload);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Header and payload as sent, in one piece.
    ///
    /// # Errors
    /// As [`Frame::header`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.header()?.to_vec();
        bytes.extend_from_slice(&self.payload);
        Ok(bytes)
    }

    /// The first frame of `bytes` and its whole length, or `None` where more bytes are needed.
    ///
    /// # Errors
    /// As [`Header::read`] and [`Header::seal`].
    pub fn from_bytes(bytes: &[u8], limit: usize) -> Result<Option<(Self, usize)>> {
        let Some(header) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let header = Header::read(header, limit)?;
        let end = HEADER_LENGTH + header.length();
        match bytes.get(HEADER_LENGTH..end) {
            Some(payload) => Ok(Some((header.seal(payload.to_vec())?, end))),
            None => Ok(None),
        }
    }
}

/// A header that was read and found sane; its payload is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    bytes: [u8; HEADER_LENGTH],
    kind: FrameKind,
    length: usize,
}

impl Header {
    /// Reads a header. `limit` bounds the payload; nothing is allocated here.
    ///
    /// # Errors
    /// `Limit` (`protocol.frame.too-large`), `Unsupported` (`protocol.frame.unknown`: a kind or a
    /// flag that this version does not have).
    pub fn read(bytes: &[u8; HEADER_LENGTH], limit: usize) -> Result<Self> {
        let [l0, l1, l2, l3, number, flags, ..] = *bytes;
        // usize has at least 32 bits on every system Backstay runs on.
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(kind) = FrameKind::from_number(number).filter(|_| flags == 0) else {
            return Err(Error::new(
                Kind::Unsupported,
                "protocol.frame.unknown",
                format!("a frame of kind {number} with flags {flags:#04x} is not known"),
            ));
        };
        if length > limit {
            return Err(too_large(length, limit));
        }
        Ok(Self {
            bytes: *bytes,
            kind,
            length,
        })
    }

    /// How many bytes of payload follow.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// What the frame is for. Not yet covered by the checksum.
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The payload's bound for its kind: records may be larger than messages.
    ///
    /// # Errors
    /// `Limit` (`protocol.frame.too-large`).
    pub fn check_bound(&self) -> Result<()> {
        if self.kind != FrameKind::Data && self.length > base::limit::MESSAGE_SIZE_MAX {
            return Err(too_large(self.length, base::limit::MESSAGE_SIZE_MAX));
        }
        Ok(())
    }

    /// Joins header and payload after checking both.
    ///
    /// # Errors
    /// `Corrupt` (`protocol.frame.checksum`) where the checksum or the length does not fit.
    pub fn seal(self, payload: Vec<u8>) -> Result<Frame> {
        let [.., c0, c1, c2, c3] = self.bytes;
        let told = u32::from_le_bytes([c0, c1, c2, c3]);
        if payload.len() != self.length || checksum(&self.bytes, &payload) != told {
            return Err(Error::corrupt(
                "protocol.frame.checksum",
                format!(
                    "a frame of {} bytes does not match its checksum",
                    self.length
                ),
            )
            .hint("run a memory test on both hosts if this happens again"));
        }
        let [_, _, _, _, _, _, t0, t1, i0, i1, i2, i3, i4, i5, i6, i7, ..] = self.bytes;
        Ok(Frame {
            kind: self.kind,
            tag: u16::from_le_bytes([t0, t1]),
            id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            payload,
        })
    }
}

/// CRC-32C of the header without its last field, and of the payload.
fn checksum(header: &[u8; HEADER_LENGTH], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..16]), payload)
}

fn too_large(length: usize, limit: usize) -> Error {
    Error::new(
        Kind::Limit,
        "protocol.frame.too-large",
        format!("a frame of {length} bytes is larger than the {limit} allowed here"),
    )
}

#[cfg(test)]
mod tests;
