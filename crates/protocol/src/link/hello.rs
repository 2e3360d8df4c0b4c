//! The first frame each way.
//!
//! Knows: its layout, which never changes in any version. Refuses to know: what a version means.
//!
//! ```text
//! offset  size  field
//!      0     2  oldest version spoken
//!      2     2  newest version spoken
//!      4     1  purpose: 1 calls, 2 bulk
//!      5     1  n, length of the program's name
//!      6     n  program and version, UTF-8
//!    6+n     -  ignored: room for later
//! ```

use super::read::FrameReader;
use super::{cut, goodbye_reason, unexpected};
use crate::error_word::clean;
use crate::frame::{Frame, FrameKind};
use crate::version::{NEWEST, OLDEST, PROGRAM};
use base::Result;

/// The longest hello, in bytes.
const HELLO_SIZE_MAX: usize = 1024;

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Requests and answers.
    Calls = 1,
    /// One bulk stream.
    Bulk = 2,
}

/// The hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    pub(crate) purpose: Purpose,
    pub(crate) program: String,
}

impl Hello {
    pub(crate) fn ours(purpose: Purpose) -> Self {
        Self {
            oldest: OLDEST,
            newest: NEWEST,
            purpose,
            program: PROGRAM.to_owned(),
        }
    }

    pub(crate) fn frame(&self) -> Frame {
        let mut payload = Vec::new();
        payload.extend_from_slice(&self.oldest.to_le_bytes());
        payload.extend_from_slice(&self.newest.to_le_bytes());
        payload.push(self.purpose as u8);
        let program = self.program.as_bytes();
        let length = u8::try_from(program.len()).unwrap_or(u8::MAX);
        payload.push(length);
        payload.extend_from_slice(&program[..usize::from(length)]);
        Frame::new(FrameKind::Hello, 0, payload)
    }

    fn from_frame(frame: &Frame) -> Result<Self> {
        let malformed = || unexpected(frame, "a hello that does not parse");
        let [o0, o1, n0, n1, purpose, length, rest @ ..] = &frame.payload[..] else {
            return Err(malformed());
        };
        let program = rest.get(..usize::from(*length)).ok_or_else(malformed)?;
        Ok(Self {
            oldest: u16::from_le_bytes([*o0, *o1]),
            newest: u16::from_le_bytes([*n0, *n1]),
            purpose: match purpose {
                1 => Purpose::Calls,
                2 => Purpose::Bulk,
                _ => return Err(malformed()),
            },
            program: clean(&String::from_utf8_lossy(program)),
        })
    }

    /// Waits for the peer's hello. Nothing larger is read before it.
    pub(super) async fn read(reader: &mut FrameReader) -> Result<Self> {
        let frame = reader.read_within(HELLO_SIZE_MAX).await?.ok_or_else(cut)?;
        match frame.kind {
            FrameKind::Hello => Self::from_frame(&frame),
            FrameKind::Goodbye => Err(goodbye_reason(&frame).unwrap_or_else(cut)),
            _ => Err(unexpected(&frame, "something else than a hello")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_and_may_grow() {
        let mut frame = Hello::ours(Purpose::Bulk).frame();
        assert_eq!(
            Hello::from_frame(&frame).unwrap(),
            Hello::ours(Purpose::Bulk)
        );
        frame.payload.extend_from_slice(b"more");
        assert_eq!(
            Hello::from_frame(&frame).unwrap(),
            Hello::ours(Purpose::Bulk)
        );
        for length in 0..frame.payload.len() - 4 {
            let cut = Frame::new(FrameKind::Hello, 0, frame.payload[..length].to_vec());
            assert!(Hello::from_frame(&cut).is_err(), "{length}");
        }
        frame.payload[4] = 9;
        assert!(Hello::from_frame(&frame).is_err());
    }
}
