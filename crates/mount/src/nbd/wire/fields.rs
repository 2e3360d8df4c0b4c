//! Taking numbers and strings off a byte slice.
//!
//! Knows: how much is left. Refuses to know: what the fields mean.

use super::{STRING_MAX, violation};
use base::Result;

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`; `message` names them in errors.
    pub fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            message,
        }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(violation(format!("{} is too short", self.message)));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string with its 32-bit length before it.
    pub fn counted_string(&mut self) -> Result<String> {
        let length = self.u32()?;
        self.string(length as usize)
    }

    /// A string of `length` bytes.
    pub fn string(&mut self, length: usize) -> Result<String> {
        if length > STRING_MAX {
            return Err(violation(format!(
                "{} holds a string of {length} bytes",
                self.message
            )));
        }
        let bytes = self.bytes(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(violation(format!(
                "{} holds a string that is not UTF-8",
                self.message
            ))),
        }
    }

    /// All that is left, as text for people; what is not UTF-8 or too long is replaced or cut.
    pub fn text(&mut self) -> String {
        let bytes = &self.rest[..self.rest.len().min(STRING_MAX)];
        self.rest = &[];
        String::from_utf8_lossy(bytes).replace(|c: char| c.is_control(), " ")
    }

    /// An error unless everything was taken.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(violation(format!(
                "{} is {} bytes too long",
                self.message,
                self.rest.len()
            )))
        }
    }
}
