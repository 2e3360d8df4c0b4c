//! The payloads of a stream's frames beside its records.
//!
//! Knows: their layouts; `docs/protocols/link.md` has them as tables. Refuses to know: when they
//! are sent. Readers ignore what follows the fields they know: room for later.

use crate::frame::{Frame, FrameKind};
use crate::link::unexpected;
use crate::token::StreamToken;
use base::Result;
use base::id::StreamId;

/// `StreamOpen`: who dials says which stream it comes for.
pub(crate) struct Open {
    pub(crate) token: StreamToken,
    /// Which of `connections` this is. One connection a stream for now.
    pub(crate) connection: u16,
    pub(crate) connections: u16,
    pub(crate) terms: Terms,
}

/// What each side says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    /// Bytes it holds for its threads; see [`super::BulkOptions::window`].
    pub(crate) window: u64,
    /// The first record it wants. 1 for a new stream; one more than it has kept when it resumes.
    pub(crate) resume_from: u64,
}

/// `Ack`: how far the receiver is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ack {
    /// The last record a thread has taken.
    pub(crate) taken: u64,
    /// The sum of what the records up to it cost of the window.
    pub(crate) taken_cost: u64,
    /// The last record that is safe: where the stream could resume.
    pub(crate) kept: u64,
}

impl Open {
    pub(crate) fn frame(&self) -> Frame {
        let mut payload = self.token.id.bytes().to_vec();
        payload.extend_from_slice(self.token.secret());
        payload.extend_from_slice(&self.connection.to_le_bytes());
        payload.extend_from_slice(&self.connections.to_le_bytes());
        payload.extend_from_slice(&[0; 4]);
        self.terms.write(&mut payload);
        Frame::new(FrameKind::StreamOpen, 0, payload)
    }

    pub(crate) fn read(frame: &Frame) -> Result<Self> {
        let malformed = || unexpected(frame, "a stream's opening that does not parse");
        let mut fields = Fields(&frame.payload);
        let mut read = || {
            let id = StreamId::from_bytes(fields.take()?);
            let token = StreamToken::from_parts(id, fields.take()?);
            let connection = u16::from_le_bytes(fields.take()?);
            let connections = u16::from_le_bytes(fields.take()?);
            let _reserved: [u8; 4] = fields.take()?;
            Some(Self {
                token,
                connection,
                connections,
                terms: Terms::read(&mut fields)?,
            })
        };
        read().ok_or_else(malformed)
    }
}

impl Terms {
    fn write(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&self.window.to_le_bytes());
        payload.extend_from_slice(&self.resume_from.to_le_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            window: fields.number()?,
            resume_from: fields.number()?,
        })
    }

    /// As `StreamReady`, the answer to `StreamOpen`.
    pub(crate) fn frame(&self) -> Frame {
        let mut payload = Vec::new();
        self.write(&mut payload);
        Frame::new(FrameKind::StreamReady, 0, payload)
    }

    pub(crate) fn from_frame(frame: &Frame) -> Result<Self> {
        Self::read(&mut Fields(&frame.payload))
            .ok_or_else(|| unexpected(frame, "a stream's answer that does not parse"))
    }
}

impl Ack {
    pub(crate) fn frame(&self) -> Frame {
        let numbers = [self.taken, self.taken_cost, self.kept];
        let payload = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        Frame::new(FrameKind::Ack, 0, payload)
    }

    pub(crate) fn read(frame: &Frame) -> Result<Self> {
        let mut fields = Fields(&frame.payload);
        let mut read = || {
            let (taken, taken_cost) = (fields.number()?, fields.number()?);
            Some(Self {
                taken,
                taken_cost,
                kept: fields.number()?,
            })
        };
        read().ok_or_else(|| unexpected(frame, "an acknowledgement that does not parse"))
    }
}

/// `Finish` and `Finished` carry the number of the last record as their id and no payload.
pub(crate) const fn finish(last: u64) -> Frame {
    Frame::new(FrameKind::Finish, last, Vec::new())
}

/// See [`finish`].
pub(crate) const fn finished(last: u64) -> Frame {
    Frame::new(FrameKind::Finished, last, Vec::new())
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    #[test]
    fn payloads_read_back_and_every_prefix_is_refused() {
        let token = StreamToken::generate(StreamId::new(1, [2; 10]), &SeededRandom::new(3));
        let terms = Terms {
            window: 1 << 25,
            resume_from: 1,
        };
        let open = Open {
            token: token.clone(),
            connection: 0,
            connections: 1,
            terms,
        };
        let mut frame = open.frame();
        let read = Open::read(&frame).unwrap();
        assert!(read.token.matches(&token));
        assert_eq!(
            (read.connection, read.connections, read.terms),
            (0, 1, terms)
        );
        while frame.payload.pop().is_some() {
            assert!(Open::read(&frame).is_err());
        }
        assert_eq!(Terms::from_frame(&terms.frame()).unwrap(), terms);
        let ack = Ack {
            taken: 1,
            taken_cost: 2,
            kept: 3,
        };
        let mut frame = ack.frame();
        assert_eq!(Ack::read(&frame).unwrap(), ack);
        frame.payload.push(9);
        assert_eq!(Ack::read(&frame).unwrap(), ack);
        frame.payload.truncate(23);
        assert!(Ack::read(&frame).is_err());
    }
}
