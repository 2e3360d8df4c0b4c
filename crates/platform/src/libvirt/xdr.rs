//! The external data representation (RFC 4506), as far as libvirt's messages need it.
//!
//! Knows: big-endian numbers, strings and opaque bytes padded to four, optional values, bounded arrays.
//! Refuses to know: what any message means.
//!
//! Everything read here came from another process: each length is compared with what is left before a
//! byte is taken, so a hostile message costs no more memory than it has bytes.

use base::{Error, Result};

/// The longest string in any message (libvirt's `REMOTE_STRING_MAX`).
pub const STRING_MAX: usize = 4 * 1024 * 1024;

/// Builds a message.
#[derive(Default, Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// An unsigned 32-bit number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A signed 32-bit number.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.u32(value.cast_unsigned())
    }

    /// An unsigned 64-bit number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes whose number both sides know; it must be a multiple of four, as a UUID's is.
    #[must_use]
    pub fn fixed<const N: usize>(mut self, value: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(4)) };
        self.bytes.extend_from_slice(value);
        self
    }

    /// A string. The length always fits: [`Self::finish`] refuses what is longer than any message.
    #[must_use]
    pub fn string(mut self, value: &str) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self = self.u32(length);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// A string or nothing.
    #[must_use]
    pub fn optional_string(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.u32(1).string(value),
            None => self.u32(0),
        }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// Kind `Limit` where it is longer than libvirt takes.
    pub fn finish(self) -> Result<Vec<u8>> {
        if self.bytes.len() > STRING_MAX {
            return Err(Error::new(
                base::Kind::Limit,
                "platform.libvirt.request-too-large",
                format!(
                    "a request of {} bytes is larger than libvirt takes",
                    self.bytes.len()
                ),
            ));
        }
        Ok(self.bytes)
    }
}

/// Takes a message apart.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Of these bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| malformed(format!("it ends {} bytes early", count - self.rest.len())))?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes whose number both sides know.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N)?);
        Ok(value)
    }

    /// An unsigned 32-bit number.
    pub fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self) -> Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// An unsigned 64-bit number.
    pub fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// A string of at most [`STRING_MAX`] bytes. Bytes that are not UTF-8 become replacement characters:
    /// names and messages come from systems that need not use it.
    pub fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        if length > STRING_MAX {
            return Err(malformed(format!("it holds a string of {length} bytes")));
        }
        let text = self.take(length)?;
        self.take(length.next_multiple_of(4) - length)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A value that may be absent.
    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.u32()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            flag => Err(malformed(format!(
                "it has {flag} where 0 or 1 says if a value follows"
            ))),
        }
    }

    /// An array of at most `limit` elements.
    pub fn array<T>(
        &mut self,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.u32()? as usize;
        // Each element of any array here takes at least four bytes.
        if count > limit || count > self.rest.len() / 4 {
            return Err(malformed(format!("it holds an array of {count} elements")));
        }
        (0..count).map(|_| read(self)).collect()
    }
}

fn malformed(what: String) -> Error {
    Error::corrupt(
        "platform.libvirt.malformed",
        format!("libvirt sent a message that cannot be right: {what}"),
    )
    .hint("see that nothing but libvirt listens at that address")
}
