//! A reader with a small buffer, so that a header costs one system call and a large payload is
//! read straight into its place.
//!
//! Knows: bytes that were read ahead. Refuses to know: what they mean.

use std::io::{self, Read};

/// Enough for many headers; small, because what lands here is copied once more.
const BUFFER_SIZE: usize = 4096;

/// A reader with a small buffer.
pub struct Inbox {
    reader: Box<dyn Read + Send>,
    buffer: Box<[u8; BUFFER_SIZE]>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Reads from `reader`.
    pub fn new(reader: Box<dyn Read + Send>) -> Self {
        Self {
            reader,
            buffer: Box::new([0; BUFFER_SIZE]),
            start: 0,
            end: 0,
        }
    }

    /// How many bytes were read ahead.
    pub fn ahead(&self) -> usize {
        self.end - self.start
    }

    /// Waits for at least one byte. False where the peer has ended the stream.
    pub fn wait(&mut self) -> io::Result<bool> {
        if self.ahead() == 0 {
            (self.start, self.end) = (0, 0);
            self.end = read_some(&mut self.reader, &mut self.buffer[..])?;
        }
        Ok(self.ahead() > 0)
    }

    /// Fills `target`; an early end is an error.
    pub fn fill(&mut self, target: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < target.len() {
            let rest = &mut target[filled..];
            if self.ahead() == 0 && rest.len() >= BUFFER_SIZE {
                match read_some(&mut self.reader, rest)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => filled += count,
                }
                continue;
            }
            if !self.wait()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = rest.len().min(self.ahead());
            rest[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            filled += count;
        }
        Ok(())
    }

    /// A small message of `N` bytes.
    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    /// `count` bytes; the caller has bounded it.
    pub fn vec(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads and forgets `count` bytes.
    pub fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            if !self.wait()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(self.ahead());
            self.start += step;
            count -= step as u64;
        }
        Ok(())
    }

    /// The reader, where nothing was read ahead. Bytes read ahead of a switch to TLS were sent in
    /// the clear by somebody who is not the peer, or by a peer that breaks the protocol.
    pub fn into_reader(self) -> io::Result<Box<dyn Read + Send>> {
        if self.ahead() == 0 {
            Ok(self.reader)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// A reader of what was read ahead and of all that follows.
    pub fn into_rest(self) -> Box<dyn Read + Send> {
        if self.ahead() == 0 {
            return self.reader;
        }
        let ahead = self.buffer[self.start..self.end].to_vec();
        Box::new(io::Cursor::new(ahead).chain(self.reader))
    }
}

fn read_some(reader: &mut (dyn Read + Send), target: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(target) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
